"""Who is let in: 401, 403 and 404, and how soon a change is felt."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from tenants import access, counting, ids, last_used
from tenants.models import ApiKey, Tenant
from tenants.services import keys, tenants
from tenants.services.audit import COMMAND
from tests.support.api import Api, make_key, make_tenant, new_slug, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")


def problem(response: Any) -> dict[str, Any]:
    assert response["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = json.loads(response.content)
    return document


UNAUTHENTICATED = {
    "type": "/errors/unauthenticated",
    "title": "No valid API key",
    "status": 401,
    "detail": "Send a key that is known, not revoked and not expired: Authorization: Bearer whk_…",
    "code": "unauthenticated",
    "request_id": "the-request",
}
NOT_FOUND = {
    "type": "/errors/not_found",
    "title": "Not found",
    "status": 404,
    "detail": "There is no such thing here.",
    "code": "not_found",
    "request_id": "the-request",
}


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic d2hrXw==", "whk_abc", "Bearer whk_unknown", "Bearer \xff\xfe"],
)
def test_without_a_valid_key_nothing_else_is_looked_at(authorization: str | None) -> None:
    headers = {"X-Request-Id": "the-request", "X-Forwarded-For": "203.0.113.1"}
    if authorization is not None:
        headers["Authorization"] = authorization
    # Wrong method, body, parameters and tenant: all of it would be refused, later.
    response = Client(headers=headers, REMOTE_ADDR="192.0.2.1").generic(
        "POST", "/api/v1/whoami?nonsense=1", b"{", "text/plain"
    )

    assert response.status_code == 401
    assert problem(response) == UNAUTHENTICATED
    assert response["WWW-Authenticate"] == "Bearer"
    assert response["X-Request-Id"] == "the-request"


def test_the_scheme_is_read_in_any_case() -> None:
    key = make_key(make_tenant())

    response = Client(headers={"Authorization": f"bEaReR  {key} "}).get("/api/v1/whoami")

    assert response.status_code == 200


def test_revoked_expired_and_deleted_tenants_keys_look_like_unknown_ones() -> None:
    tenant, ended = make_tenant(), make_tenant()
    revoked, expired, orphaned = make_key(tenant), make_key(tenant), make_key(ended)
    ApiKey.objects.filter(hash=access.hash_of(revoked)).update(revoked_at=datetime.now(UTC))
    ApiKey.objects.filter(hash=access.hash_of(expired)).update(
        expires_at=datetime.now(UTC) - timedelta(seconds=1)
    )
    tenants.delete_tenant(actor=COMMAND, tenant=ended)

    answers = [Api(key).get("/whoami") for key in (revoked, expired, orphaned)]

    assert [problem(answer) for answer in answers] == [UNAUTHENTICATED] * 3


def test_a_key_revoked_elsewhere_is_refused_within_five_seconds() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    assert api.get("/whoami").status_code == 200

    # Not by the service, which would tell this process: as another process does it.
    ApiKey.objects.filter(tenant=tenant).update(revoked_at=datetime.now(UTC))
    revoked_at = time.monotonic()
    while api.get("/whoami").status_code == 200 and time.monotonic() - revoked_at < 10:
        time.sleep(0.1)

    assert time.monotonic() - revoked_at < 5


def test_a_key_costs_no_query_while_it_is_remembered(django_assert_num_queries: Any) -> None:
    key = make_key(make_tenant())
    access.authenticate(f"Bearer {key}", remote_ip="192.0.2.1")

    with django_assert_num_queries(0):
        caller = access.authenticate(f"Bearer {key}", remote_ip="192.0.2.1")

    assert caller.scopes == access.ALL_SCOPES


def test_the_facts_of_a_tenant_are_remembered_for_three_seconds(django_assert_num_queries: Any) -> None:
    tenant = make_tenant(limits={"payload_bytes": 1000})
    caller = access.authenticate(f"Bearer {make_key(tenant)}", remote_ip="192.0.2.1")
    first = access.resolve_tenant(caller, tenant.slug)

    with django_assert_num_queries(0):
        again = access.resolve_tenant(caller, tenant.slug)
    Tenant.objects.filter(id=tenant.id).update(status="suspended")
    time.sleep(access.TENANT_SECONDS)

    assert again is first
    assert (first.payload_bytes, first.is_suspended) == (1000, False)
    assert access.resolve_tenant(caller, tenant.slug).is_suspended


def test_the_time_of_a_refusal_does_not_tell_that_somebody_publishes_there(
    django_assert_num_queries: Any,
) -> None:
    tenant = make_tenant()
    owner = access.authenticate(f"Bearer {make_key(tenant)}", remote_ip="192.0.2.1")
    stranger = access.authenticate(f"Bearer {make_key(make_tenant())}", remote_ip="192.0.2.1")
    access.resolve_tenant(owner, tenant.slug)

    for slug in (tenant.slug, new_slug()):
        with django_assert_num_queries(1), pytest.raises(access.NotFound):
            access.resolve_tenant(stranger, slug)


def test_an_expiry_is_felt_to_the_second_although_the_key_is_remembered() -> None:
    tenant = make_tenant()
    _, key = keys.create_key(
        actor=COMMAND,
        tenant=tenant,
        name="short",
        scopes=[],
        granted=[],
        expires_at=datetime.now(UTC) + timedelta(seconds=2),
    )
    before = Api(key).get("/whoami").status_code

    time.sleep(2.1)

    assert (before, Api(key).get("/whoami").status_code) == (200, 401)


def test_one_address_may_try_sixty_unknown_keys_a_minute() -> None:
    address = f"192.0.2.{ids.new_id().int % 200}-{new_slug()}"[:250]
    good = make_key(make_tenant())
    for number in range(60):
        with pytest.raises(access.Unauthenticated):
            access.authenticate(f"Bearer whk_guess{number}", remote_ip=address)

    with pytest.raises(counting.TooManyUnknownKeys) as refused:
        access.authenticate("Bearer whk_guess60", remote_ip=address)

    assert 1 <= refused.value.retry_after_seconds <= 60
    # Who has a key is not locked out by a neighbour who has none.
    assert access.authenticate(f"Bearer {good}", remote_ip=address).name == "test"


def test_too_many_unknown_keys_are_answered_with_429() -> None:
    client = Client(headers={"Authorization": "Bearer whk_wrong"}, REMOTE_ADDR="198.51.100.77")

    answers = [client.get("/api/v1/whoami") for _ in range(61)]

    assert [answer.status_code for answer in answers] == [401] * 60 + [429]
    assert 1 <= int(answers[-1]["Retry-After"]) <= 60
    assert problem(answers[-1])["code"] == "too_many_requests"


def test_a_missing_scope_is_named() -> None:
    tenant = make_tenant()

    response = tenant_api(tenant, "events:read").get(f"/tenants/{tenant.slug}/event-types")

    assert problem(response) == {
        "type": "/errors/missing_scope",
        "title": "Missing scope",
        "status": 403,
        "detail": "This key lacks the scope catalogue:read.",
        "code": "missing_scope",
        "request_id": "the-request",
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/tenants"),
        ("POST", "/tenants"),
        ("PATCH", "/tenants/{own}"),
        ("PUT", "/tenants/{own}"),
        ("DELETE", "/tenants/{own}"),
        ("GET", "/event-types"),
        ("POST", "/event-types"),
        ("GET", "/event-types/openapi.json"),
        ("POST", "/event-types/import"),
        ("GET", "/event-types/x"),
        ("PATCH", "/event-types/x"),
        ("DELETE", "/event-types/x"),
        ("POST", "/event-types/x/archive"),
        ("POST", "/event-types/x/unarchive"),
        ("POST", "/event-types/x/compare"),
    ],
)
def test_what_is_for_operators_is_refused_to_tenant_keys(method: str, path: str) -> None:
    tenant = make_tenant()

    response = tenant_api(tenant).send(method, path.format(own=tenant.slug), {})

    assert (response.status_code, problem(response)["code"]) == (403, "operator_only")


def test_another_tenant_looks_exactly_like_none() -> None:
    mine, other = make_tenant(), make_tenant()
    api = tenant_api(mine)
    key = ApiKey.objects.get(hash=access.hash_of(make_key(other)))
    paths = [
        ("GET", "", None),
        ("GET", "/api-keys", None),
        ("POST", "/api-keys", {"name": "x", "scopes": ["events:read"]}),
        ("DELETE", f"/api-keys/{ids.to_text(ids.API_KEY, key.id)}", None),
        ("GET", "/event-types", None),
        ("POST", "/event-types", {"name": "x"}),
        ("POST", "/portal-links", {"role": "viewer"}),
    ]

    for method, path, body in paths:
        for reference in (
            other.slug,
            ids.to_text(ids.TENANT, other.id),
            "no-such-tenant",
            "tnt_nonsense",
            "%00",
            "é",
        ):
            response = api.send(method, f"/tenants/{reference}{path}", body)
            assert problem(response) == NOT_FOUND, (method, reference, path)

    key.refresh_from_db()
    assert key.revoked_at is None
    assert ApiKey.objects.filter(tenant=other).count() == 1


def test_the_key_of_another_tenant_looks_like_none() -> None:
    mine, other = make_tenant(), make_tenant()
    theirs = ApiKey.objects.get(hash=access.hash_of(make_key(other)))

    response = tenant_api(mine).delete(f"/tenants/{mine.slug}/api-keys/{ids.to_text(ids.API_KEY, theirs.id)}")

    assert problem(response) == NOT_FOUND
    theirs.refresh_from_db()
    assert theirs.revoked_at is None


def test_last_use_is_written_at_most_once_a_minute() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    row = ApiKey.objects.get(tenant=tenant)

    def last_used_at() -> datetime | None:
        return ApiKey.objects.get(tenant=tenant).last_used_at

    api.get("/whoami")
    deadline = time.monotonic() + 20
    while (first := last_used_at()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert row.last_used_at is None
    assert first is not None
    last_used.write_last_used([(row.id, first + timedelta(seconds=30))])
    within_a_minute = last_used_at()
    last_used.write_last_used([(row.id, first + timedelta(seconds=61))])

    assert within_a_minute == first
    assert last_used_at() == first + timedelta(seconds=61)


def test_whoami_of_a_tenant_key() -> None:
    tenant = make_tenant(name="Acme", limits={"endpoints": 7})
    key = make_key(tenant, "events:read", "events:write")
    row = ApiKey.objects.get(tenant=tenant)
    limits = {
        "endpoints": 7,
        "subscriptions_per_endpoint": 100,
        "payload_bytes": 262144,
        "events_per_second": None,
        "disable_after_days": 5,
        "disable_after_failures": None,
    }

    response = Api(key).get("/whoami")

    assert json.loads(response.content) == {
        "key": {
            "id": ids.to_text(ids.API_KEY, row.id),
            "name": "test",
            "scopes": ["events:write", "events:read"],
            "is_operator": False,
            "rate_limit": None,
            "expires_at": None,
        },
        "tenant": {
            "id": ids.to_text(ids.TENANT, tenant.id),
            "slug": tenant.slug,
            "name": "Acme",
            "status": "active",
            "limits": limits,
        },
        "scopes": ["events:write", "events:read"],
        "limits": limits,
    }


def test_whoami_of_an_operator_key_has_no_tenant() -> None:
    document = json.loads(operator_api().get("/whoami").content)

    assert document["tenant"] is None
    assert document["key"]["is_operator"] is True
    assert set(document["scopes"]) == access.ALL_SCOPES
