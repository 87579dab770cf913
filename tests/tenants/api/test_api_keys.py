"""`/tenants/{tenant}/api-keys`: shown once, and no more than the key that asks."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenants import access, ids
from tenants.models import ApiKey, AuditEntry
from tests.support.api import Api, error_codes, make_key, make_tenant, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")


def test_the_reply_alone_holds_the_key() -> None:
    tenant = make_tenant()
    api = operator_api()

    response = api.post(
        f"/tenants/{tenant.slug}/api-keys", {"name": "backend", "scopes": ["events:read", "events:write"]}
    )

    document = json.loads(response.content)
    row = ApiKey.objects.get(tenant=tenant)
    key = document.pop("key")
    shown = {
        "id": ids.to_text(ids.API_KEY, row.id),
        "name": "backend",
        "prefix": key[:12],
        "scopes": ["events:write", "events:read"],
        "rate_limit": None,
        "expires_at": None,
        "last_used_at": None,
        "created_at": row.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    assert response.status_code == 201
    assert (
        response["Location"]
        == f"/api/v1/tenants/{ids.to_text(ids.TENANT, tenant.id)}/api-keys/{document['id']}"
    )
    assert document == shown
    assert key.startswith("whk_")
    assert len(key) >= 4 + 22
    assert bytes(row.hash) == access.hash_of(key)
    assert json.loads(api.get(f"/tenants/{tenant.slug}/api-keys").content)["data"] == [shown]
    audited = json.dumps(
        list(AuditEntry.objects.filter(tenant=tenant).values_list("after", "actor", "target"))
    )
    assert key not in audited
    assert Api(key).get("/whoami").status_code == 200


def test_a_key_gives_no_scope_that_it_lacks() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant, "keys:write", "events:read")
    path = f"/tenants/{tenant.slug}/api-keys"

    refused = api.post(path, {"name": "more", "scopes": ["events:read", "portal:write", "events:write"]})
    given = api.post(path, {"name": "same", "scopes": ["events:read", "keys:write"]})

    assert refused.status_code == 403
    assert json.loads(refused.content)["detail"] == "This key lacks the scope events:write, portal:write."
    assert given.status_code == 201
    assert ApiKey.objects.filter(tenant=tenant, name="more").count() == 0


def test_a_limited_key_gives_no_key_with_a_higher_limit() -> None:
    tenant = make_tenant()
    ApiKey.objects.filter(hash=access.hash_of(key := make_key(tenant))).update(rate_limit=100)
    path = f"/tenants/{tenant.slug}/api-keys"

    refused = Api(key).post(path, {"name": "a", "scopes": [], "rate_limit": 101})
    limits = [
        json.loads(Api(key).post(path, {"name": "a", "scopes": [], **more}).content)["rate_limit"]
        for more in ({}, {"rate_limit": None}, {"rate_limit": 99})
    ]

    assert error_codes(refused) == [("rate_limit", "too_large")]
    assert limits == [100, 100, 99]


def test_a_key_that_only_has_the_platforms_limit_gives_keys_that_follow_it(settings: Any) -> None:
    settings.WEBHOOKS_API_RATE_LIMIT = 100
    tenant = make_tenant()
    api, path = tenant_api(tenant), f"/tenants/{tenant.slug}/api-keys"

    refused = api.post(path, {"name": "a", "scopes": [], "rate_limit": 101})
    limits = [
        json.loads(api.post(path, {"name": "a", "scopes": [], **more}).content)["rate_limit"]
        for more in ({}, {"rate_limit": None}, {"rate_limit": 99})
    ]

    assert error_codes(refused) == [("rate_limit", "too_large")]
    assert limits == [None, None, 99]


@pytest.mark.parametrize("scope", [scope for scope in ApiKey.Scope.values if scope != "keys:write"])
def test_keys_are_managed_with_keys_write_alone(scope: str) -> None:
    tenant = make_tenant()
    api = tenant_api(tenant, scope)
    path = f"/tenants/{tenant.slug}/api-keys"

    answers = [api.get(path), api.post(path, {}), api.get(f"{path}/x"), api.delete(f"{path}/x")]

    assert [answer.status_code for answer in answers] == [403] * 4


def test_wrong_fields() -> None:
    tenant = make_tenant()

    response = operator_api().post(
        f"/tenants/{tenant.slug}/api-keys",
        {"scopes": ["events:read", "root"], "expires_at": "2020-01-01T00:00:00Z", "rate_limit": 0},
    )

    assert error_codes(response) == [
        ("name", "required"),
        ("scopes.1", "invalid_choice"),
        ("expires_at", "in_the_past"),
        ("rate_limit", "too_small"),
    ]


def test_expiry_is_taken_in_any_zone_and_shown_in_utc() -> None:
    tenant = make_tenant()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    elsewhere = (at + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00")

    response = operator_api().post(
        f"/tenants/{tenant.slug}/api-keys", {"name": "x", "scopes": [], "expires_at": elsewhere}
    )

    assert json.loads(response.content)["expires_at"] == at.strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def test_revoking_ends_it_here_at_once_and_is_done_once() -> None:
    tenant = make_tenant()
    api = operator_api()
    made = json.loads(api.post(f"/tenants/{tenant.slug}/api-keys", {"name": "x", "scopes": []}).content)
    assert Api(made["key"]).get("/whoami").status_code == 200
    path = f"/tenants/{tenant.slug}/api-keys/{made['id']}"

    answers = [
        api.delete(path).status_code,
        Api(made["key"]).get("/whoami").status_code,
        api.delete(path).status_code,
    ]

    assert answers == [204, 401, 404]
    assert api.get(path).status_code == 404
    assert json.loads(api.get(f"/tenants/{tenant.slug}/api-keys").content)["data"] == []


@pytest.mark.parametrize("rows", [1, 30])
def test_the_list_costs_the_same_whatever_its_length(rows: int, django_assert_num_queries: Any) -> None:
    tenant = make_tenant()
    for _ in range(rows):
        make_key(tenant)
    api = operator_api()
    api.get("/whoami")

    with django_assert_num_queries(2):  # the tenant, the keys
        response = api.get(f"/tenants/{tenant.slug}/api-keys")

    assert len(json.loads(response.content)["data"]) == rows
