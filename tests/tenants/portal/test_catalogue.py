"""Event types for people: a table, an example, code that runs; public where the tenant wants it, and nowhere else."""

import html
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from standardwebhooks import Webhook

from tenants.models import EventType, Tenant
from tenants.services import portal_looks, tenants
from tenants.services.audit import COMMAND
from tenants.services.event_types import create_event_type
from tests.support.api import make_tenant
from tests.support.builders import SECRET
from tests.support.portal import browser, text_of

pytestmark = pytest.mark.usefixtures("database")

SCHEMA = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "string", "description": "Of your order."}, "amount": {"type": "number"}},
}


def make_type(tenant: Tenant, **fields: Any) -> None:
    wanted = {
        "name": "order.created",
        "group": "Orders",
        "schema": SCHEMA,
        "example": {"id": "A-17"},
    } | fields
    create_event_type(actor=COMMAND, tenant=tenant, **wanted)


def test_types_stand_under_their_groups() -> None:
    tenant = make_tenant()
    make_type(tenant, description="A customer ordered.")
    make_type(tenant, name="bill.paid", group="Bills")

    page = text_of(browser(tenant, "viewer").get(f"/portal/{tenant.slug}/catalogue"))

    assert "Bills bill.paid Orders order.created A customer ordered." in page


def test_a_type_is_explained() -> None:
    tenant = make_tenant()
    make_type(tenant)

    page = text_of(browser(tenant, "viewer").get(f"/portal/{tenant.slug}/catalogue/types/order.created"))

    assert "id text always there Of your order. amount number may be missing" in page
    assert '"data": { "id": "A-17" }' in page


def code_blocks(page: Any) -> list[str]:
    return [
        html.unescape(each)
        for each in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", page.content.decode(), re.DOTALL)
    ]


@pytest.mark.parametrize("field", ["id", "a\"b'c", "line\nend", "</code>"])
def test_the_code_in_python_runs(field: str) -> None:
    tenant = make_tenant()
    make_type(tenant, schema=None, example={field: "A-17"})
    body = json.dumps({"type": "order.created", "data": {field: "A-17"}})
    sent = datetime.now(UTC)
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(sent.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("evt_1", sent, body),
    }

    page = browser(tenant, "viewer").get(f"/portal/{tenant.slug}/catalogue/types/order.created")
    (code,) = [each for each in code_blocks(page) if "def receive" in each]

    call = f"\nreceive({body!r}, {headers!r}, {SECRET!r})\n"
    ran = subprocess.run([sys.executable, "-c", code + call], capture_output=True, text=True, check=True)
    assert ran.stdout == "A-17\n"


def test_an_empty_catalogue_says_what_to_do() -> None:
    tenant = make_tenant()

    page = text_of(browser(tenant, "viewer").get(f"/portal/{tenant.slug}/catalogue"))

    assert "No event types yet" in page


def test_a_public_catalogue_is_for_everybody_and_shows_nothing_else() -> None:
    tenant = make_tenant(name="Acme")
    make_type(tenant)
    portal_looks.change_look(actor=COMMAND, tenant=tenant, is_catalogue_public=True)

    listing = Client().get(f"/catalogue/{tenant.slug}")
    detail = Client().get(f"/catalogue/{tenant.slug}/order.created")

    assert "Events of Acme" in text_of(listing)
    assert "Of your order." in text_of(detail)
    for page in (listing, detail):
        leads = set(re.findall(r'(?:href|action)="(/(?:portal|catalogue)/[^"]*)"', page.content.decode()))
        assert leads <= {
            "/portal/",
            "/portal/language",
            f"/catalogue/{tenant.slug}",
            f"/catalogue/{tenant.slug}/order.created",
        }


@pytest.mark.parametrize("end", ["closed", "suspended", "deleted"])
def test_and_is_not_there_when_it_is_not_public(end: str) -> None:
    tenant = make_tenant()
    make_type(tenant)
    portal_looks.change_look(actor=COMMAND, tenant=tenant, is_catalogue_public=True)
    assert Client().get(f"/catalogue/{tenant.slug}").status_code == 200

    match end:
        case "closed":
            portal_looks.change_look(actor=COMMAND, tenant=tenant, is_catalogue_public=False)
        case "suspended":
            tenants.update_tenant(actor=COMMAND, tenant=tenant, status="suspended")
        case _:
            tenants.delete_tenant(actor=COMMAND, tenant=tenant)

    for path in ("", "/order.created"):
        assert Client().get(f"/catalogue/{tenant.slug}{path}").status_code == 404


def test_names_and_descriptions_are_text() -> None:
    tenant = make_tenant()
    hostile = "<script>alert(1)</script>"
    EventType.objects.create(
        tenant=tenant,
        name="a.b",
        description=hostile,
        group=hostile,
        schema={"properties": {hostile: {"description": hostile, "enum": [hostile]}}},
        example={hostile: hostile},
    )
    client = browser(tenant, "viewer")

    for path in ("catalogue", "catalogue/types/a.b"):
        page = client.get(f"/portal/{tenant.slug}/{path}")
        assert (page.status_code, b"<script>alert" in page.content) == (200, False)
