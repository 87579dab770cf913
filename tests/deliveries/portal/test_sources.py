"""Sources in the portal: made with a preset, their URL shown once, what came with its verdict, run again, ended."""

import hashlib
import hmac
import json
import re
from typing import Any

import pytest
from django.test import Client

from deliveries.models import Source
from deliveries.pipeline.signing import HmacKey, parse_secret, sign
from deliveries.services import sources
from deliveries.services.arrivals import requests_of
from tenants import ids
from tenants.models import EventType, Tenant
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant
from tests.support.builders import events_of
from tests.support.portal import actions_of, browser, text_of

pytestmark = pytest.mark.usefixtures("database")

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def url_in(response: Any) -> str:
    """The whole URL that a page shows, as a path."""
    found = re.search(
        r'<code id="source-url">http://testserver(/in/[\w-]{43})</code>', response.content.decode()
    )
    assert found is not None, response.content
    return found[1]


def send(path: str, data: Any, **headers: str) -> int:
    body = json.dumps(data)
    return Client(headers=headers).post(path, body, content_type="application/json").status_code


def make(tenant: Tenant, **fields: Any) -> tuple[Source, str, str]:
    """The source, the path of its page, and the path of its URL."""
    source, token = sources.create_source(actor=COMMAND, tenant=tenant, name="in", **fields)
    return source, f"/portal/{tenant.slug}/sources/{ids.to_text('src', source.id)}", f"/in/{token}"


def test_a_source_is_made_with_a_preset_and_its_url_is_shown_once() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="github.push")
    client = browser(tenant)

    made = client.post(
        f"/portal/{tenant.slug}/sources/new",
        {"name": "Repositories", "preset": "github", "secrets": "one\ntwo", "response_status": "202"},
    )

    path = url_in(made)
    body = json.dumps({"ref": "main"}).encode()
    digest = hmac.new(b"two", body, hashlib.sha256).hexdigest()
    headers = {
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": "1",
        "X-Hub-Signature-256": f"sha256={digest}",
    }
    assert send(path, {"ref": "main"}, **headers) == 202
    assert [event.type for event in events_of(tenant)] == ["github.push"]
    listed = client.get(f"/portal/{tenant.slug}/sources").content.decode()
    source = Source.objects.for_tenant(tenant).get()
    page = client.get(f"/portal/{tenant.slug}/sources/{ids.to_text('src', source.id)}")
    for text in (listed, page.content.decode()):
        assert f"/in/{path[4:8]}***" in text
        assert path not in text
    assert "accepted" in text_of(page)
    assert actions_of(tenant)[-1] == "source.created"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "required"),
        ({"name": "a", "event_type": "data."}, "no valid CEL expression"),
        ({"name": "a"}, "Must be given, unless a preset has one."),
        ({"name": "a", "event_type": '"a"', "scheme": "hmac", "header": ""}, "Must name the header"),
        ({"name": "a", "preset": "github"}, "This scheme needs a secret."),
        ({"name": "a", "event_type": '"a"', "allowed_networks": "x"}, "Must be an address"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(fields: dict[str, str], words: str) -> None:
    tenant = make_tenant()

    refused = browser(tenant).post(f"/portal/{tenant.slug}/sources/new", fields)

    assert refused.status_code == 422
    assert words in text_of(refused)
    assert not Source.objects.for_tenant(tenant).exists()


def test_a_failed_mapping_is_mended_and_run_again_from_the_page() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="a.b")
    source, page, path = make(tenant, event_type="data.body.kind")
    client = browser(tenant)
    for _ in range(2):
        send(path, {"type": "a.b"})

    before = text_of(client.get(page))
    assert "the data has no key 'kind'" in before
    assert "Map again what was not mapped" in before
    saved = client.post(
        f"{page}/edit",
        {"name": "in", "event_type": "data.body.type", "dedup_seconds": "86400", "response_status": "200"},
    )
    assert saved.status_code == 302
    first = requests_of(source).order_by("id")[0]
    one = client.post(f"{page}/requests/{ids.to_text('req', first.id)}/rerun", follow=True)
    assert "Done." in text_of(one)
    rest = client.post(f"{page}/rerun", follow=True)

    assert "1 is an event now." in text_of(rest)
    assert len(events_of(tenant)) == 2


def test_editing_leaves_secrets_and_says_what_changed() -> None:
    tenant = make_tenant()
    source, page, _ = make(tenant, preset="github", secrets=["one"], response_body="ok")
    client = browser(tenant)
    shown = client.get(f"{page}/edit").content.decode()

    saved = client.post(
        f"{page}/edit",
        {
            "name": "new",
            "event_type": source.event_type,
            "dedup_header": "",
            "dedup_path": "id",
            "dedup_seconds": "60",
            "response_status": "200",
        },
    )

    assert ">one<" not in shown
    assert saved.status_code == 302
    row = Source.objects.for_tenant(tenant).get()
    assert sources.secrets_of(row) == (["one"], "")
    assert (row.name, row.dedup_header, row.dedup_path, row.response_body) == ("new", "", "id", "")
    assert row.verification == source.verification


def test_rotating_disabling_and_deleting() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="a.b")
    _, page, old = make(tenant, event_type='"a.b"')
    client = browser(tenant)

    new = url_in(client.post(f"{page}/rotate", {"at_once": "1"}))
    assert [send(old, {}), send(new, {})] == [404, 200]
    client.post(f"{page}/switch")
    assert send(new, {}) == 410
    client.post(f"{page}/switch")
    assert send(new, {}) == 200
    client.post(f"{page}/delete")
    assert send(new, {}) == 404
    assert client.get(page).status_code == 404


def test_an_inspector_shows_live_what_reaches_it_and_whether_it_is_genuine() -> None:
    tenant = make_tenant()
    client = browser(tenant)
    path = url_in(client.post(f"/portal/{tenant.slug}/sources/inspect", {"secret": SECRET}))
    source = Source.objects.for_tenant(tenant).get()
    page = f"/portal/{tenant.slug}/sources/{ids.to_text('src', source.id)}"
    empty = client.get(page).content.decode()
    assert 'hx-trigger="every 2000ms"' in empty
    assert "appears here by itself" in empty
    import time

    body = b'{"type":"a.b","data":{"n":1}}'
    now = int(time.time())
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": sign([HmacKey(parse_secret(SECRET))], "evt_1", now, body),
        "X-Secret-Thing": "s3cret",
    }

    Client(headers=headers).post(path, body, content_type="application/json")
    Client(headers=headers).post(path, body + b" ", content_type="application/json")
    part = client.get(f"{page}/recent")

    assert "<html" not in part.content.decode()
    assert text_of(part).index("not genuine") < text_of(part).index(
        "genuine", text_of(part).index("not genuine") + 12
    )
    assert "The signature is wrong." in text_of(part)
    first = requests_of(source).order_by("id")[0]
    detail = client.get(f"{page}/requests/{ids.to_text('req', first.id)}").content.decode()
    assert "x-secret-thing: ***" in detail
    assert "s3cret" not in detail
    assert "&quot;n&quot;: 1" in detail
    assert events_of(tenant) == []


def test_viewers_look_and_change_nothing() -> None:
    tenant = make_tenant()
    _, page, path = make(tenant, event_type="data.body.kind")
    send(path, {})
    client = browser(tenant, "viewer")

    assert client.get(page).status_code == 200
    assert "Map again" not in text_of(client.get(page))
    assert f'action="{page}' not in client.get(page).content.decode()
    for action in ("rotate", "switch", "delete", "rerun", "edit"):
        assert client.post(f"{page}/{action}").status_code == 403
    assert client.post(f"/portal/{tenant.slug}/sources/inspect").status_code == 403
