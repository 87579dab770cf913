"""Operators in a tenant's portal: what they see, what stays closed, for how long, and who reads of it."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from deliveries.models import Endpoint, Source
from deliveries.services.sources import create_source, secrets_of
from tenants import ids
from tenants.models import AuditEntry, SupportSession, Tenant, User
from tenants.services.audit import COMMAND
from tests.support.api import make_key, make_tenant
from tests.support.operators import looker, make_operator, operator, signed_in
from tests.support.portal import actions_of, browser, make_member, text_of
from tests.support.published import delivery_of, make_endpoint, make_type, publish

pytestmark = pytest.mark.usefixtures("database")


def begin(client: Client, tenant: Tenant, reason: str = "") -> Any:
    return client.post(reverse("admin:support", args=[tenant.pk]), {"reason": reason})


def inside(tenant: Tenant, reason: str = "") -> tuple[Client, User]:
    user = make_operator()
    client = signed_in(user)
    assert begin(client, tenant, reason).status_code == 302
    return client, user


def test_support_looks_and_changes_nothing() -> None:
    tenant = make_tenant()
    make_type(tenant)
    endpoint = make_endpoint(tenant)
    delivery = delivery_of(publish(tenant, data=b'{"order": 7}'))
    client, _ = inside(tenant)
    before = actions_of(tenant)
    root = f"/portal/{tenant.slug}"

    page = client.get(f"{root}/endpoints")
    event = client.get(f"{root}/events/{ids.to_text('evt', delivery.event_id)}")
    refused = client.post(f"{root}/endpoints/{ids.to_text('ep', endpoint.id)}/disable")

    assert page.status_code == 200
    assert "You are here as support, to look." in text_of(page)
    assert endpoint.url in page.content.decode()
    assert "order" in text_of(event)
    assert refused.status_code == 403
    endpoint.refresh_from_db()
    assert (endpoint.status, actions_of(tenant)) == ("enabled", before)


def test_the_tenant_reads_who_came_why_and_what_was_done() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant)
    client, user = inside(tenant, "ticket 4711: they cannot reach it themselves")

    client.post(f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/disable")

    entries = AuditEntry.objects.filter(tenant=tenant).order_by("id")
    came, did = list(entries)[-2:]
    name = f"{ids.to_text('usr', user.id)} {user.email}"
    assert (came.action, came.actor_kind, came.actor) == ("support.signed_in", "operator", name)
    assert came.after is not None
    assert came.after["reason"] == "ticket 4711: they cannot reach it themselves"
    assert came.after["role"] == "developer"
    assert (did.action, did.actor_kind, did.actor) == ("endpoint.disabled", "operator", name)
    theirs = browser(tenant, "admin").get(f"/portal/{tenant.slug}/settings/audit")
    assert "support.signed_in" in text_of(theirs)
    assert user.email in text_of(theirs)


CLOSED = {
    "portal-channel",
    "portal-channel-remove",
    "portal-endpoint-rotate",
    "portal-endpoint-secret",
    "portal-inspector-new",
    "portal-invitation-again",
    "portal-invitation-end",
    "portal-key-new",
    "portal-key-revoke",
    "portal-keys",
    "portal-member-remove",
    "portal-member-role",
    "portal-members",
    "portal-notifications",
    "portal-settings",
    "portal-source-new",
    "portal-source-rotate",
}
"""Pages of a tenant that show or change what lets somebody in, or are a member's own.

That no other page shows such a thing is what the walk in tests/architecture/test_strangers.py looks at.
"""


def closed_pages() -> dict[str, str]:
    """Their names and paths."""
    return {
        str(page.name): str(page.pattern)
        for area in get_resolver().url_patterns
        if isinstance(area, URLResolver) and str(area.pattern) == "portal/"
        for page in area.url_patterns
        if isinstance(page, URLPattern) and page.name in CLOSED
    }


@pytest.mark.parametrize("reason", ["", "a reason"])
def test_secrets_keys_and_members_stay_closed(reason: str) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant)
    make_key(tenant)
    make_member(tenant)
    client, _ = inside(tenant, reason)
    before = actions_of(tenant)
    pages = closed_pages()
    assert pages.keys() == CLOSED

    for name, path in pages.items():
        url = "/portal/" + re.sub(
            r"<\w+:(\w+)>",
            lambda found: {"tenant": tenant.slug, "endpoint": ids.to_text("ep", endpoint.id)}.get(
                found[1], "x"
            ),
            path,
        )
        for answer in (client.get(url), client.post(url, {"name": "mine", "role": "admin"})):
            assert answer.status_code in {403, 405}, (name, url)
            assert "whsec_" not in answer.content.decode()
    assert "Support may not see this" in text_of(client.get(f"/portal/{tenant.slug}/settings/keys"))
    assert actions_of(tenant) == before


def test_support_that_makes_an_endpoint_sees_the_endpoint() -> None:
    tenant = make_tenant()
    make_type(tenant)
    client, _ = inside(tenant, "they asked for it")
    form = client.get(f"/portal/{tenant.slug}/endpoints/new")

    made = client.post(
        f"/portal/{tenant.slug}/endpoints/new", FIELDS | {"url": "https://new.example.com"}, follow=True
    )

    endpoint = Endpoint.objects.for_tenant(tenant).get()
    assert made.redirect_chain == [(f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}", 302)]
    assert made.status_code == 200
    for page in (form, made):
        assert not {"Secret, and how to verify", "Settings", "How it signs in"} & set(
            re.split("  +", text_of(page))
        )
        assert "auth-password" not in page.content.decode()


FIELDS = {
    "description": "by support",
    "event_types": "order.created",
    "method": "POST",
    "format": "standard",
    "signature_scheme": "ed25519",
    "success_statuses": "2xx",
    "timeout_seconds": "15",
    "max_in_flight": "10",
    "ordering": "none",
}


@pytest.mark.parametrize(
    "what",
    [
        {"auth": {"type": "basic", "username": "shop", "password": "tell-nobody"}},
        {"headers": {"Authorization": "Bearer tell-nobody"}},
        {"url": "https://shop.example.com/hooks?token=tell-nobody"},
    ],
    ids=lambda what: next(iter(what)),
)
def test_support_cannot_have_credentials_sent_to_itself(what: dict[str, Any]) -> None:
    """A password that no page shows could be read off the requests to another URL."""
    tenant = make_tenant()
    make_type(tenant)
    endpoint = make_endpoint(tenant, **what)
    client, _ = inside(tenant, "ticket 4711")
    url = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/edit"

    shown = client.get(url)
    saved = client.post(
        url,
        FIELDS
        | {
            "url": "https://support.example.com",
            "headers": "Authorization: ***" if "headers" in what else "",
            "auth-type": "bearer",
            "auth-token": "known-to-support",
            "signature_template-preset": "github",
            "signature_template-secret": "known-to-support",
            "ca_certificates": "",
        },
    )

    assert "tell-nobody" not in shown.content.decode()
    before = (endpoint.url, endpoint.auth, endpoint.auth_encrypted, endpoint.signature_template)
    after = Endpoint.objects.for_tenant(tenant).get()
    assert (saved.status_code, after.description) == (302, "by support")
    assert (after.url, after.auth, after.auth_encrypted, after.signature_template) == before
    assert (after.signature_scheme, after.sensitive_headers_encrypted) == (
        "hmac-sha256",
        endpoint.sensitive_headers_encrypted,
    )
    assert "endpoint.secret.rotated" not in actions_of(tenant)


@pytest.mark.parametrize(
    ("had", "given"),
    [
        ({}, {"headers": "X-Team: blue\nAuthorization: Bearer known-to-support"}),
        ({}, {"url": "https://shop.example.com/hooks?token=known-to-support"}),
        ({"headers": {"Authorization": "tell-nobody"}}, {"headers": "authorization: known-to-support"}),
        ({"headers": {"Authorization": "tell-nobody"}}, {"headers": ""}),
    ],
    ids=["in a header", "in the URL", "instead of another", "none"],
)
def test_support_sets_no_credentials_in_what_it_may_change(
    had: dict[str, Any], given: dict[str, str]
) -> None:
    tenant = make_tenant()
    make_type(tenant)
    endpoint = make_endpoint(tenant, **had)
    client, _ = inside(tenant, "ticket 4711")
    root = f"/portal/{tenant.slug}/endpoints"
    fields = FIELDS | {"url": endpoint.url} | given

    saved = client.post(f"{root}/{ids.to_text('ep', endpoint.id)}/edit", fields)

    assert saved.status_code == 422
    assert "Support sets no credentials." in text_of(saved)
    (after,) = Endpoint.objects.for_tenant(tenant)
    for name in ("url", "description", "headers", "sensitive_headers", "sensitive_headers_encrypted"):
        assert getattr(after, name) == getattr(endpoint, name)


@pytest.mark.parametrize(
    "given",
    [
        {"headers": "Authorization: Bearer known-to-support"},
        {"url": "https://shop.example.com/hooks?token=known-to-support"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_support_makes_no_endpoint_with_credentials(given: dict[str, str]) -> None:
    tenant = make_tenant()
    make_type(tenant)
    client, _ = inside(tenant, "ticket 4711")
    fields = FIELDS | {"url": "https://shop.example.com/hooks"}

    refused = client.post(f"/portal/{tenant.slug}/endpoints/new", fields | given)

    assert refused.status_code == 422
    assert "Support sets no credentials." in text_of(refused)
    assert not Endpoint.objects.for_tenant(tenant).exists()


def test_support_sets_no_secret_of_a_source() -> None:
    tenant = make_tenant()
    source, _ = create_source(
        actor=COMMAND,
        tenant=tenant,
        name="in",
        event_type='"order.created"',
        verification={"scheme": "token", "header": "x-token"},
        secrets=["known-to-the-provider"],
    )
    client, _ = inside(tenant, "ticket 4711")
    url = f"/portal/{tenant.slug}/sources/{ids.to_text('src', source.id)}/edit"
    fields = {"name": "mended", "event_type": '"order.created"', "response_status": "200"}

    saved = client.post(url, fields | {"secrets": "known-to-support", "verify_token": "known-to-support"})

    after = Source.objects.for_tenant(tenant).get()
    assert (saved.status_code, after.name) == (302, "mended")
    assert secrets_of(after) == (["known-to-the-provider"], "")
    assert (after.secret_count, after.has_verify_token) == (1, False)
    assert "New URL" not in text_of(client.get(url.removesuffix("/edit")))


def test_it_is_over_after_half_an_hour() -> None:
    tenant = make_tenant()
    client, user = inside(tenant)
    session = SupportSession.objects.for_tenant(tenant).get()
    assert session.user_id == user.id
    assert timedelta(minutes=29) < session.expires_at - timezone.now() <= timedelta(minutes=30)

    SupportSession.objects.for_tenant(tenant).update(expires_at=timezone.now())

    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 404


def test_leaving_ends_it_and_is_written_down() -> None:
    tenant = make_tenant()
    client, _ = inside(tenant)
    session = SupportSession.objects.for_tenant(tenant).get()
    end = reverse("admin:support-end", args=[session.pk])
    assert f'action="{end}"' in client.get(f"/portal/{tenant.slug}/endpoints").content.decode()

    # Nobody ends another's.
    assert operator().post(end).status_code == 302
    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 200
    client.post(end)

    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 404
    assert actions_of(tenant)[-2:] == ["support.signed_in", "support.signed_out"]


def test_it_opens_one_tenant_to_one_operator() -> None:
    tenant, other = make_tenant(), make_tenant()
    client, user = inside(tenant)
    session_id = client.session["support"]

    assert client.get(f"/portal/{other.slug}/endpoints").status_code == 404
    # Another account in whose session the id stands, and the same one when it is no operator any more.
    thief = signed_in(make_operator())
    session = thief.session
    session["support"] = session_id
    session.save()
    assert thief.get(f"/portal/{tenant.slug}/endpoints").status_code == 404
    User.objects.filter(id=user.id).update(is_superuser=False)
    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 404


def test_who_may_only_look_at_the_admin_gets_no_portal() -> None:
    tenant = make_tenant()

    assert begin(looker(), tenant, "please").status_code == 403
    assert begin(browser(tenant, "admin"), tenant).status_code == 302
    assert "support.signed_in" not in actions_of(tenant)
    assert not SupportSession.objects.for_tenant(tenant).exists()
    assert operator().get(reverse("admin:support", args=[make_operator().pk])).status_code == 404
