"""Signing secrets over the API: read, rotated, ended."""

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deliveries.models import EndpointSecret
from deliveries.pipeline.signing import ed25519_key, public_key_text
from deliveries.sealed import open_secret
from tenants.models import AuditEntry, IdempotencyRecord, Tenant
from tests.support.api import Api, error_codes, make_tenant, tenant_api

pytestmark = pytest.mark.usefixtures("database")

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def body(response: Any, status: int) -> Any:
    assert response.status_code == status, response.content
    return json.loads(response.content)


def make(api: Api, tenant: Tenant, **fields: Any) -> str:
    made = body(
        api.post(f"/tenants/{tenant.slug}/endpoints", {"url": "https://shop.example.com"} | fields), 201
    )
    return f"/tenants/{tenant.slug}/endpoints/{made['id']}"


def live(tenant: Tenant) -> list[tuple[bytes, bool]]:
    """(the plain secret, whether it is current), the oldest first."""
    return [
        (
            open_secret(tenant_id=tenant.id, endpoint_id=row.endpoint_id, sealed=bytes(row.encrypted)),
            row.expires_at is None,
        )
        for row in EndpointSecret.objects.for_tenant(tenant).order_by("id")
        if row.expires_at is None or row.expires_at > timezone.now()
    ]


def plain(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def test_the_secret_that_was_brought_is_shown_only_where_it_is_asked_for() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    created = api.post(
        f"/tenants/{tenant.slug}/endpoints", {"url": "https://shop.example.com", "secret": SECRET}
    )
    path = f"/tenants/{tenant.slug}/endpoints/{body(created, 201)['id']}"

    response = api.get(f"{path}/secret")

    assert body(response, 200) == {"secret": SECRET, "public_key": None}
    assert response["Cache-Control"] == "no-store"
    assert SECRET.encode() not in created.content + api.get(path).content
    assert AuditEntry.objects.filter(tenant=tenant, action="secret.read").count() == 1
    rows = list(EndpointSecret.objects.for_tenant(tenant))
    assert plain(SECRET) not in bytes(rows[0].encrypted)


def test_a_secret_is_made_when_none_is_brought() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)

    shown = body(api.get(f"{path}/secret"), 200)["secret"]

    assert shown.startswith("whsec_")
    assert len(plain(shown)) == 32


def test_of_ed25519_only_the_public_key_comes_out() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant, signature_scheme="ed25519")

    shown = body(api.get(f"{path}/secret"), 200)
    rotated = body(api.post(f"{path}/secret/rotate", {}), 200)

    keys = [public_key_text(ed25519_key(private)) for private, _ in live(tenant)]
    assert [shown["public_key"], rotated["public_key"]] == keys
    assert shown["secret"] is None
    assert rotated["secret"] is None
    assert len(base64.b64decode(keys[0].removeprefix("whpk_"))) == 32


def test_both_sign_until_the_overlap_ends() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant, secret=SECRET)

    rotated = api.post(f"{path}/secret/rotate", {"overlap_seconds": 600})

    new = body(rotated, 200)["secret"]
    assert rotated["Cache-Control"] == "no-store"
    assert live(tenant) == [(plain(SECRET), False), (plain(new), True)]
    old = EndpointSecret.objects.for_tenant(tenant).earliest("id")
    assert abs(old.expires_at - timezone.now() - timedelta(seconds=600)) < timedelta(seconds=5)
    assert body(api.get(f"{path}/secret"), 200)["secret"] == new


def test_without_overlap_every_earlier_one_ends_at_once() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)
    body(api.post(f"{path}/secret/rotate", {"overlap_seconds": 600}), 200)

    body(api.post(f"{path}/secret/rotate", {"overlap_seconds": 0, "secret": SECRET}), 200)

    assert live(tenant) == [(plain(SECRET), True)]


def test_at_most_five_are_live() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)
    for _ in range(4):
        body(api.post(f"{path}/secret/rotate"), 200)
    before = live(tenant)

    refused = api.post(f"{path}/secret/rotate")

    assert body(refused, 409)["code"] == "secret_limit_reached"
    assert live(tenant) == before
    assert len(before) == 5
    body(api.post(f"{path}/secret/rotate", {"overlap_seconds": 0}), 200)
    assert len(live(tenant)) == 1


def test_an_ended_overlap_makes_room() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)
    for _ in range(4):
        body(api.post(f"{path}/secret/rotate"), 200)
    first = EndpointSecret.objects.for_tenant(tenant).earliest("id")
    EndpointSecret.objects.for_tenant(tenant).filter(id=first.id).update(expires_at=timezone.now())

    body(api.post(f"{path}/secret/rotate"), 200)

    assert len(live(tenant)) == 5
    assert not EndpointSecret.objects.for_tenant(tenant).filter(id=first.id).exists()


def test_changing_the_scheme_makes_a_key_of_it_and_lets_the_old_one_sign_for_a_day() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant, secret=SECRET)

    body(api.patch(path, {"signature_scheme": "ed25519"}), 200)

    assert [is_current for _, is_current in live(tenant)] == [False, True]
    assert body(api.get(f"{path}/secret"), 200)["public_key"].startswith("whpk_")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"overlap_seconds": 604801}, ("overlap_seconds", "too_large")),
        ({"overlap_seconds": -1}, ("overlap_seconds", "too_small")),
        ({"overlap_seconds": "1"}, ("overlap_seconds", "invalid_type")),
        ({"secret": "whsec_AAAA"}, ("secret", "invalid_secret")),
        ({"secret": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, ("secret", "invalid_secret")),
        ({"secret": 5}, ("secret", "invalid_type")),
    ],
)
def test_a_wrong_rotation_changes_nothing(given: Any, error: tuple[str, str]) -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant, secret=SECRET)

    response = api.post(f"{path}/secret/rotate", given)

    assert response.status_code == 422
    assert error_codes(response) == [error]
    assert b"MfKQ9r8GKYq" not in response.content
    assert live(tenant) == [(plain(SECRET), True)]


def test_a_repeated_rotation_gives_the_first_answer_from_an_encrypted_copy() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)

    first = body(api.post(f"{path}/secret/rotate", {}, idempotency_key="r"), 200)
    again = api.post(f"{path}/secret/rotate", {}, idempotency_key="r")

    assert body(again, 200) == first
    assert again["Cache-Control"] == "no-store"
    assert first["secret"].encode() not in bytes(IdempotencyRecord.objects.get(space=tenant.id, key="r").body)
    assert len(live(tenant)) == 2


def test_reading_needs_the_scope_to_write() -> None:
    tenant = make_tenant()
    path = make(tenant_api(tenant), tenant)

    response = tenant_api(tenant, "endpoints:read").get(f"{path}/secret")

    assert body(response, 403)["code"] == "missing_scope"
    assert AuditEntry.objects.filter(tenant=tenant, action="secret.read").count() == 0
