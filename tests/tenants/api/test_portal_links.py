"""`/tenants/{tenant}/portal-links`: made and ended; opening them belongs to the portal."""

import hashlib
import json
from datetime import timedelta

import pytest
from django.utils import timezone

from tenants import ids
from tenants.models import PortalLink
from tests.support.api import error_codes, make_tenant, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")

READING = ("events:read", "endpoints:read", "catalogue:read", "deliveries:read")


def test_a_link_is_kept_as_a_hash_alone() -> None:
    tenant = make_tenant()
    before = timezone.now()

    response = operator_api().post(
        f"/tenants/{tenant.slug}/portal-links",
        {"role": "developer", "email": "ada@example.com", "return_url": "https://app.example.com/back"},
    )

    document = json.loads(response.content)
    link = PortalLink.objects.for_tenant(tenant).get()
    address, token = document["url"].rsplit("/", 1)
    assert response.status_code == 201
    assert document["id"] == ids.to_text(ids.PORTAL_LINK, link.id)
    assert address == "http://testserver/portal/enter"
    assert bytes(link.hash) == hashlib.sha256(token.encode()).digest()
    assert (link.role, link.email, link.return_url) == (
        "developer",
        "ada@example.com",
        "https://app.example.com/back",
    )
    assert before + timedelta(hours=1) <= link.expires_at <= timezone.now() + timedelta(hours=1)


def test_the_host_is_the_platforms_public_one(settings: object) -> None:
    settings.WEBHOOKS_PUBLIC_URL = "https://hooks.example.com"  # type: ignore[attr-defined] # pytest-django's wrapper
    tenant = make_tenant()

    response = operator_api().post(f"/tenants/{tenant.slug}/portal-links", {"role": "viewer"})

    assert json.loads(response.content)["url"].startswith("https://hooks.example.com/portal/enter/")


def test_a_link_gives_no_more_than_the_key_has() -> None:
    tenant = make_tenant()
    path = f"/tenants/{tenant.slug}/portal-links"
    reader = tenant_api(tenant, "portal:write", *READING)

    answers = [reader.post(path, {"role": role}).status_code for role in ("viewer", "developer", "admin")]

    assert answers == [201, 403, 403]
    assert tenant_api(tenant).post(path, {"role": "admin"}).status_code == 201
    assert tenant_api(tenant, *READING).post(path, {"role": "viewer"}).status_code == 403


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:80",
        "https://app.example.com:8443/back?x=1",
        "https://app.example.com:10000/back",
        "http://localhost:65535",
        "https://app.example.com?x=1",
        "https://app.example.com:49152?x=1#there",
    ],
)
def test_it_may_lead_back_to_any_port_and_with_a_query(url: str) -> None:
    tenant = make_tenant()

    response = operator_api().post(
        f"/tenants/{tenant.slug}/portal-links", {"role": "viewer", "return_url": url}
    )

    assert response.status_code == 201
    assert PortalLink.objects.for_tenant(tenant).get().return_url == url


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, [("role", "required")]),
        ({"role": "owner"}, [("role", "invalid_choice")]),
        ({"role": "viewer", "expires_in": 59}, [("expires_in", "too_small")]),
        ({"role": "viewer", "expires_in": 604801}, [("expires_in", "too_large")]),
        ({"role": "viewer", "email": "nobody"}, [("email", "invalid")]),
        ({"role": "viewer", "return_url": "javascript:alert(1)"}, [("return_url", "invalid_url")]),
        ({"role": "viewer", "return_url": "//evil.example.com"}, [("return_url", "invalid_url")]),
        ({"role": "viewer", "return_url": "https://a@evil.example.com"}, [("return_url", "invalid_url")]),
        ({"role": "viewer", "return_url": "https:\\\\evil.example.com"}, [("return_url", "invalid_url")]),
        ({"role": "viewer", "return_url": "http://[bad"}, [("return_url", "invalid_url")]),
        ({"role": "viewer", "return_url": "http://localhost:0"}, [("return_url", "invalid_url")]),
        ({"role": "viewer", "return_url": "http://localhost:65536/"}, [("return_url", "invalid_url")]),
        ({"role": "viewer", "return_url": "http://localhost:123456"}, [("return_url", "invalid_url")]),
        ({"role": "viewer", "return_url": "https://a.example.com&x=1"}, [("return_url", "invalid_url")]),
    ],
)
def test_wrong_fields(body: dict[str, object], errors: list[tuple[str, str]]) -> None:
    tenant = make_tenant()

    response = operator_api().post(f"/tenants/{tenant.slug}/portal-links", body)

    assert error_codes(response) == errors
    assert PortalLink.objects.for_tenant(tenant).count() == 0


def test_ending_a_link() -> None:
    tenant, other = make_tenant(), make_tenant()
    api = tenant_api(tenant)
    made = json.loads(api.post(f"/tenants/{tenant.slug}/portal-links", {"role": "viewer"}).content)

    by_stranger = tenant_api(other).delete(f"/tenants/{other.slug}/portal-links/{made['id']}")
    assert PortalLink.objects.for_tenant(tenant).get().ended_at is None
    path = f"/tenants/{tenant.slug}/portal-links/{made['id']}"

    assert by_stranger.status_code == 404
    assert [api.delete(path).status_code for _ in range(2)] == [204, 404]
    assert PortalLink.objects.for_tenant(tenant).get().ended_at is not None
