"""The portal in a frame: for listed origins alone, by cookies of its own, and nothing destroyed without asking again."""

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.test import Client

from deliveries.models import Endpoint, Job
from deliveries.services.endpoints import create_endpoint
from tenants import ids
from tenants.models import PortalLink, Tenant
from tenants.portal.embedding import PREFIX
from tenants.services import portal_links, portal_looks, tenants
from tenants.services.audit import COMMAND
from tests.architecture.test_strangers import PORTAL_PAGES, make_world
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of

pytestmark = pytest.mark.usefixtures("database")

ORIGIN = "https://app.example.com"


def make_embedding_tenant(*origins: str) -> Tenant:
    tenant = make_tenant(name="Acme")
    portal_looks.change_look(actor=COMMAND, tenant=tenant, origins=list(origins or [ORIGIN]))
    return tenant


def path_of_link(tenant: Tenant, role: str = "admin", **more: Any) -> str:
    _, token = portal_links.create_link(
        actor=COMMAND, tenant=tenant, role=role, expires_in=timedelta(hours=1), **more
    )
    return f"/portal/enter/{token}"


def in_a_frame(tenant: Tenant, role: str = "admin", client: Client | None = None) -> Client:
    client = client or Client()
    answer = client.post(f"{PREFIX}{path_of_link(tenant, role)}")
    assert (answer.status_code, answer["Location"]) == (302, f"{PREFIX}/portal/{tenant.slug}/")
    return client


def ancestors(response: Any) -> str:
    (found,) = re.findall(r"frame-ancestors ([^;]*)", response["Content-Security-Policy"])
    return str(found)


def test_listed_origins_may_have_it_in_a_frame_and_nobody_else() -> None:
    tenant = make_embedding_tenant(ORIGIN, "https://other.example.com")
    path = path_of_link(tenant)
    client = Client()

    entrance = client.get(f"{PREFIX}{path}")
    page = in_a_frame(tenant, client=client).get(f"{PREFIX}/portal/{tenant.slug}/endpoints")

    for response in (entrance, page):
        assert ancestors(response) == f"{ORIGIN} https://other.example.com"
        assert "X-Frame-Options" not in response
    for response in (
        client.get(path),
        browser(tenant, "admin").get(f"/portal/{tenant.slug}/endpoints"),
        client.get("/portal/sign-in"),
        client.get(f"{PREFIX}/portal/{make_tenant().slug}/endpoints"),
    ):
        assert ancestors(response) == "'none'"
        assert response["X-Frame-Options"] == "DENY"


def test_its_pages_lead_to_pages_in_the_frame() -> None:
    tenant = make_embedding_tenant()
    create_endpoint(actor=COMMAND, tenant=tenant, url="https://a.example.com")

    page = in_a_frame(tenant).get(f"{PREFIX}/portal/{tenant.slug}/endpoints").content.decode()

    leads = {html.unescape(lead) for lead in re.findall(r'(?:href|action|src)="([^"#]+)"', page)}
    assert {lead for lead in leads if not lead.startswith((f"{PREFIX}/", "/static/"))} == set()
    assert f"{PREFIX}/portal/account" not in leads


def test_the_cookies_are_of_the_frame_and_of_that_tenant_alone() -> None:
    tenant = make_embedding_tenant()

    client = in_a_frame(tenant)
    client.get(f"{PREFIX}/portal/{tenant.slug}/endpoints")

    session, form = client.cookies["embedded-sessionid"], client.cookies["embedded-csrftoken"]
    assert (session["path"], form["path"]) == (f"{PREFIX}/portal/{tenant.slug}/", f"{PREFIX}/")
    for cookie in (session, form):
        assert (cookie["samesite"], cookie["secure"], cookie["httponly"]) == ("None", True, True)
        assert cookie.OutputString().endswith("Partitioned") or "Partitioned" in cookie.OutputString()
    assert set(client.cookies) == {"embedded-sessionid", "embedded-csrftoken"}


def test_the_frame_opens_no_account_no_admin_and_no_other_tenant() -> None:
    tenant, other = make_embedding_tenant(), make_embedding_tenant()
    client = in_a_frame(tenant)

    for path in ("/portal/account", "/portal/", "/portal/sign-in", "/portal/reset", "/admin/", "/api/docs"):
        assert client.get(f"{PREFIX}{path}").status_code == 404, path
    assert client.get(f"{PREFIX}/api/v1/tenants/{tenant.slug}").status_code == 404
    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 302
    assert client.get(f"{PREFIX}/portal/{other.slug}/endpoints").status_code == 403


def test_who_is_signed_in_to_an_account_is_nobody_in_a_frame() -> None:
    tenant = make_embedding_tenant()
    client = browser(tenant, "admin")
    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 200

    over = client.get(f"{PREFIX}/portal/{tenant.slug}/endpoints")

    assert (over.status_code, "This session is over" in text_of(over)) == (403, True)
    in_a_frame(tenant, "viewer", client)
    assert client.get(f"{PREFIX}/portal/{tenant.slug}/endpoints/new").status_code == 403
    assert client.get(f"/portal/{tenant.slug}/endpoints/new").status_code == 200
    assert SESSION_KEY in client.session


@pytest.mark.parametrize("end", ["the link", "the origins", "the tenant"])
def test_it_ends(end: str) -> None:
    tenant = make_embedding_tenant()
    client = in_a_frame(tenant)
    path = f"{PREFIX}/portal/{tenant.slug}/endpoints"
    assert client.get(path).status_code == 200

    match end:
        case "the link":
            link = PortalLink.objects.for_tenant(tenant).get()
            portal_links.end_link(actor=COMMAND, tenant=tenant, link_id=link.id)
        case "the origins":
            portal_looks.change_look(actor=COMMAND, tenant=tenant, origins=[])
        case _:
            tenants.update_tenant(actor=COMMAND, tenant=tenant, status="suspended")

    over = client.get(path)
    assert (over.status_code, "This session is over" in text_of(over)) == (403, True)
    assert ancestors(over) == ("'none'" if end == "the origins" else ORIGIN)


def test_without_an_origin_a_link_is_not_used_up_in_a_frame() -> None:
    tenant = make_tenant()
    path = path_of_link(tenant)

    assert Client().post(f"{PREFIX}{path}").status_code == 404
    assert Client().post(path).status_code == 302


def test_what_destroys_is_asked_again_and_done_then() -> None:
    tenant = make_embedding_tenant()
    endpoint = create_endpoint(actor=COMMAND, tenant=tenant, url="https://a.example.com")
    client = in_a_frame(tenant)
    path = f"{PREFIX}/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/delete"

    asked = client.post(path)

    assert (asked.status_code, "Are you sure?" in text_of(asked)) == (200, True)
    assert Endpoint.objects.for_tenant(tenant).filter(deleted_at=None).exists()
    (said,) = re.findall(r'name="asked_again" value="([^"]*)"', asked.content.decode())
    assert client.post(path, {"asked_again": said}).status_code == 302
    assert not Endpoint.objects.for_tenant(tenant).filter(deleted_at=None).exists()


def test_a_secret_is_asked_again_and_an_answer_is_good_for_one_act() -> None:
    tenant = make_embedding_tenant()
    one, other = (
        create_endpoint(actor=COMMAND, tenant=tenant, url=f"https://{name}.example.com") for name in "ab"
    )
    client = in_a_frame(tenant)
    paths = [
        f"{PREFIX}/portal/{tenant.slug}/endpoints/{ids.to_text('ep', row.id)}/secret" for row in (one, other)
    ]

    asked = client.post(paths[0], headers={"HX-Request": "true"})
    (said,) = re.findall(r'name="asked_again" value="([^"]*)"', asked.content.decode())

    assert asked["HX-Retarget"] == "#main"
    assert "whsec_" not in asked.content.decode()
    assert "whsec_" not in client.post(paths[1], {"asked_again": said}).content.decode()
    assert "whsec_" not in in_a_frame(tenant).post(paths[0], {"asked_again": said}).content.decode()
    assert "secret.read" not in actions_of(tenant)
    assert "whsec_" in client.post(paths[0], {"asked_again": said}).content.decode()


def test_a_form_keeps_what_was_typed_when_it_is_asked_about() -> None:
    tenant = make_embedding_tenant()
    client = in_a_frame(tenant)
    form = {"name": "<shop>", "scopes": ["events:read", "events:write"], "expires_at": "", "rate_limit": ""}

    asked = client.post(f"{PREFIX}/portal/{tenant.slug}/settings/keys/new", form).content.decode()

    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', asked)
    assert ("name", "&lt;shop&gt;") in fields
    assert [value for name, value in fields if name == "scopes"] == ["events:read", "events:write"]
    assert "whk_" not in asked


def test_cancelling_many_is_asked_again_and_the_answer_is_good_for_that_filter_alone() -> None:
    tenant = make_embedding_tenant()
    client = in_a_frame(tenant)
    path = f"{PREFIX}/portal/{tenant.slug}/deliveries/everything"

    asked = client.post(f"{path}?status=failed", {"action": "cancel"}).content.decode()
    (said,) = re.findall(r'name="asked_again" value="([^"]*)"', asked)
    form = {"action": "cancel", "asked_again": said}
    other = client.post(f"{path}?status=pending", form)

    assert "Are you sure?" in text_of(other)
    assert not Job.objects.for_tenant(tenant).exists()
    assert client.post(f"{path}?status=failed", form).status_code == 302


ASKED = {
    "deliveries/<str:delivery>/cancel",
    "deliveries/everything",
    "deliveries/picked",
    "endpoints/<str:endpoint>/delete",
    "endpoints/<str:endpoint>/disable",
    "endpoints/<str:endpoint>/secret",
    "endpoints/<str:endpoint>/secret/rotate",
    "endpoints/<str:endpoint>/subscriptions/<str:subscription>/delete",
    "jobs/<str:job>/cancel",
    "settings/channel/remove",
    "settings/invitations/<str:invitation>/end",
    "settings/keys/<str:key>/revoke",
    "settings/keys/new",
    "settings/look/remove-logo",
    "settings/members/<str:member>/remove",
    "settings/members/<str:member>/role",
    "sources/<str:source>/delete",
    "sources/<str:source>/rotate",
    "sources/<str:source>/switch",
    "sources/inspect",
    "sources/new",
}
"""They destroy something, give somebody more rights, or show a secret."""

HARMLESS = {
    "catalogue/packs/<str:pack>/install",
    "deliveries/<str:delivery>/retry",
    "deliveries/export/job",
    "endpoints/<str:endpoint>/again",
    "endpoints/<str:endpoint>/edit",
    "endpoints/<str:endpoint>/enable",
    "endpoints/<str:endpoint>/missed",
    "endpoints/<str:endpoint>/restore",
    "endpoints/<str:endpoint>/subscriptions/<str:subscription>",
    "endpoints/<str:endpoint>/subscriptions/new",
    "endpoints/<str:endpoint>/subscriptions/try",
    "endpoints/<str:endpoint>/test",
    "endpoints/new",
    "events/<str:event>/replay",
    "events/export/job",
    "settings/channel",
    "settings/invitations/<str:invitation>/again",
    "settings/look",
    "settings/members",
    "settings/notifications",
    "sources/<str:source>/edit",
    "sources/<str:source>/requests/<str:incoming>/rerun",
    "sources/<str:source>/rerun",
}
"""They take effect with something typed alone, or send once more, or can be undone."""


def test_every_page_that_does_something_is_asked_about_or_known_to_be_harmless() -> None:
    world = make_world()
    asked: set[str] = set()
    not_asked: set[str] = set()
    for route in PORTAL_PAGES:
        # One of the pages takes the origins away.
        portal_looks.change_look(actor=COMMAND, tenant=world.owner, origins=[ORIGIN])
        client = in_a_frame(world.owner)
        answer = client.post(f"{PREFIX}{route.at(world.sample)}")
        if answer.status_code != 405:
            does = asked if "Are you sure?" in text_of(answer) else not_asked
            does.add(route.path.removeprefix("portal/<str:tenant>/"))

    assert (asked, not_asked) == (ASKED, HARMLESS)


def test_a_link_leads_back_to_the_tenants_own_applications_alone() -> None:
    tenant = make_embedding_tenant()
    for url, is_shown in ((f"{ORIGIN}/orders?x=1", True), ("https://evil.example.com/", False)):
        client = Client()
        client.post(path_of_link(tenant, return_url=url))
        page = client.get(f"/portal/{tenant.slug}/endpoints").content.decode()
        assert (f'href="{url}"' in page) is is_shown, url
