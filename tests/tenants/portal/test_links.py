"""One-time links: looked at by GET, used by POST, a session of one tenant and one role, over when it should be."""

import json
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth import SESSION_KEY
from django.test import Client
from django.utils import timezone

from tenants import ids
from tenants.models import AuditEntry, PortalLink, Tenant
from tenants.services import portal_links, tenants
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant, operator_api
from tests.support.portal import browser, make_member, text_of

pytestmark = pytest.mark.usefixtures("database")


def make_link(tenant: Tenant, role: str = "developer") -> tuple[PortalLink, str]:
    """The row, and the path to it."""
    link, token = portal_links.create_link(
        actor=COMMAND, tenant=tenant, role=role, expires_in=timedelta(hours=1), email="ada@example.com"
    )
    return link, f"/portal/enter/{token}"


def came_by_link(tenant: Tenant, role: str = "developer") -> tuple[Client, PortalLink]:
    link, path = make_link(tenant, role)
    client = Client()
    assert client.post(path).status_code == 302
    return client, link


def test_the_link_of_the_api_shows_where_it_leads_and_opens_once() -> None:
    tenant = make_tenant(name="Acme")
    reply = operator_api().post(f"/tenants/{tenant.slug}/portal-links", {"role": "viewer"})
    path = json.loads(reply.content)["url"].removeprefix("http://testserver")
    client = Client()

    looks = [client.get(path) for _ in range(3)]
    used = client.post(path)
    again = Client().post(path)

    assert [look.status_code for look in looks] == [200, 200, 200]
    assert "Acme" in text_of(looks[0])
    assert "in the role viewer" in text_of(looks[0])
    assert (used.status_code, used["Location"]) == (302, f"/portal/{tenant.slug}/")
    assert (again.status_code, "This link does not work" in text_of(again)) == (404, True)
    for response in (*looks, used, again):
        assert response["Referrer-Policy"] == "no-referrer"
        assert "no-store" in response["Cache-Control"]
    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 200


def test_it_signs_in_to_no_account() -> None:
    client, _ = came_by_link(make_tenant())

    assert SESSION_KEY not in client.session
    assert client.get("/admin/").status_code == 302


def test_it_opens_that_tenant_in_that_role_alone() -> None:
    tenant, other = make_tenant(), make_tenant()
    client, _ = came_by_link(tenant, "viewer")

    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 200
    assert client.get(f"/portal/{tenant.slug}/endpoints/new").status_code == 403
    assert client.get(f"/portal/{other.slug}/endpoints").status_code == 302


def test_what_it_does_is_in_the_audit_log_under_its_name() -> None:
    tenant = make_tenant()
    client, link = came_by_link(tenant)

    client.post(
        f"/portal/{tenant.slug}/endpoints/new", {**FORM, "url": "https://a.example.com", "event_types": ["*"]}
    )

    entries = AuditEntry.objects.filter(tenant=tenant, actor_kind="link").order_by("created_at", "id")
    assert [(entry.action, entry.actor) for entry in entries] == [
        ("portal_link.used", f"{ids.to_text('lnk', link.id)} ada@example.com"),
        ("endpoint.created", f"{ids.to_text('lnk', link.id)} ada@example.com"),
    ]


FORM = {
    "method": "POST",
    "format": "standard",
    "signature_scheme": "hmac-sha256",
    "success_statuses": "2xx",
    "timeout_seconds": "15",
    "max_in_flight": "10",
    "ordering": "none",
}


def revoke(tenant: Tenant, link: PortalLink) -> None:
    path = f"/tenants/{tenant.slug}/portal-links/{ids.to_text('lnk', link.id)}"
    assert operator_api().delete(path).status_code == 204


def suspend(tenant: Tenant, link: PortalLink) -> None:
    """And resume: the session does not come back."""
    tenants.update_tenant(actor=COMMAND, tenant=tenant, status="suspended")
    tenants.update_tenant(actor=COMMAND, tenant=tenant, status="active")


def delete(tenant: Tenant, link: PortalLink) -> None:
    tenants.delete_tenant(actor=COMMAND, tenant=tenant)


def let_twelve_hours_pass(tenant: Tenant, link: PortalLink) -> None:
    PortalLink.objects.for_tenant(tenant).filter(id=link.id).update(
        used_at=timezone.now() - portal_links.SESSION - timedelta(seconds=1)
    )


@pytest.mark.parametrize("end", [revoke, suspend, delete, let_twelve_hours_pass])
def test_its_session_ends(end: Callable[[Tenant, PortalLink], None]) -> None:
    tenant = make_tenant()
    client, link = came_by_link(tenant)
    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 200

    end(tenant, link)

    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 302
    assert client.get("/portal/")["Location"].startswith("/portal/sign-in")


def test_a_link_that_cannot_be_used_says_so_without_saying_why() -> None:
    tenant, suspended = make_tenant(), make_tenant()
    expired, expired_path = make_link(tenant)
    PortalLink.objects.for_tenant(tenant).filter(id=expired.id).update(expires_at=timezone.now())
    ended, ended_path = make_link(tenant)
    portal_links.end_link(actor=COMMAND, tenant=tenant, link_id=ended.id)
    _, suspended_path = make_link(suspended)
    tenants.update_tenant(actor=COMMAND, tenant=suspended, status="suspended")

    answers = [
        getattr(Client(), method)(path)
        for path in (expired_path, ended_path, suspended_path, f"/portal/enter/{'x' * 43}")
        for method in ("get", "post")
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert len({text_of(answer) for answer in answers}) == 1


def test_a_form_of_another_site_does_not_use_it_up() -> None:
    tenant = make_tenant()
    link, path = make_link(tenant)

    refused = Client(enforce_csrf_checks=True).post(path)

    assert refused.status_code == 403
    assert PortalLink.objects.for_tenant(tenant).get(id=link.id).used_at is None


@pytest.mark.parametrize(
    ("told", "status"), [("same-origin", 302), ("same-site", 403), ("cross-site", 403), (None, 403)]
)
def test_the_form_of_its_own_page_uses_it_up(told: str | None, status: int) -> None:
    """Its page asks browsers to tell nobody its address, so they send `Origin: null`, and whose page it was elsewhere."""
    _, path = make_link(make_tenant())
    client = Client(enforce_csrf_checks=True)
    (token,) = re.findall(r'name="csrfmiddlewaretoken" value="([^"]*)"', client.get(path).content.decode())[
        :1
    ]
    headers = {"Origin": "null"} | ({} if told is None else {"Sec-Fetch-Site": told})

    answer = client.post(path, {"csrfmiddlewaretoken": token}, headers=headers)

    assert answer.status_code == status


def test_two_tenants_in_two_windows_of_one_browser() -> None:
    one, two = make_tenant(), make_tenant()
    client, _ = came_by_link(one, "viewer")
    _, path = make_link(two, "developer")

    client.post(path)

    assert client.get(f"/portal/{one.slug}/endpoints/new").status_code == 403
    assert client.get(f"/portal/{two.slug}/endpoints/new").status_code == 200


def test_a_person_who_opens_a_link_stays_signed_in_and_has_the_links_role_in_its_tenant() -> None:
    own, other = make_tenant(), make_tenant()
    client = browser(own, "admin")
    _, path = make_link(other, "viewer")

    client.post(path)

    assert client.get(f"/portal/{own.slug}/endpoints/new").status_code == 200
    assert client.get(f"/portal/{other.slug}/endpoints").status_code == 200
    assert client.get(f"/portal/{other.slug}/endpoints/new").status_code == 403


def test_the_session_key_changes_and_lasts_no_longer_than_the_link_gives() -> None:
    tenant = make_tenant()
    _, path = make_link(tenant)
    client = Client()
    session = client.session
    session["planted"] = "by somebody"
    session.save()
    before = client.cookies["sessionid"].value

    client.post(path)

    assert client.cookies["sessionid"].value != before
    assert 0 < client.session.get_expiry_age() <= 12 * 3600


def test_a_member_whose_role_is_taken_back_is_refused_at_once() -> None:
    tenant = make_tenant()
    user = make_member(tenant, "developer")
    client = Client()
    client.force_login(user)
    assert client.get(f"/portal/{tenant.slug}/endpoints/new").status_code == 200

    make_member(tenant, "viewer", user)

    assert client.get(f"/portal/{tenant.slug}/endpoints/new").status_code == 403
