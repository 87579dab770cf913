"""Endpoints over the API: made, changed, found, stopped and ended."""

import json
from typing import Any

import pytest

from deliveries.models import Endpoint, EndpointSecret, EndpointVersion, Lane, Subscription
from deliveries.sealed import open_headers
from deliveries.services.stopping import disable_by_answer
from tenants import ids
from tenants.ids import new_id
from tenants.models import AuditEntry, EventType, Tenant
from tests.support.api import Api, error_codes, make_tenant, tenant_api

pytestmark = pytest.mark.usefixtures("database")

URL = "https://shop.example.com/hooks"


def body(response: Any, status: int) -> Any:
    assert response.status_code == status, response.content
    return json.loads(response.content)


def refused(response: Any, status: int) -> str:
    assert response["Content-Type"] == "application/problem+json"
    code: str = body(response, status)["code"]
    return code


def make(api: Api, tenant: Tenant, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = body(api.post(f"/tenants/{tenant.slug}/endpoints", {"url": URL} | fields), 201)
    return made


def row_of(made: dict[str, Any]) -> Endpoint:
    found: Endpoint = Endpoint.unscoped.get(id=ids.from_text("ep", made["id"]))
    return found


# --- making -----------------------------------------------------------------------------------------------------------


def test_created_with_defaults() -> None:
    tenant = make_tenant()

    response = tenant_api(tenant).post(f"/tenants/{tenant.slug}/endpoints", {"url": URL})

    made = body(response, 201)
    assert response["Location"] == f"/api/v1/tenants/{ids.to_text('tnt', tenant.id)}/endpoints/{made['id']}"
    assert made == {
        "id": made["id"],
        "uid": None,
        "kind": "http",
        "url": URL,
        "description": "",
        "status": "enabled",
        "disabled_reason": None,
        "event_types": ["*"],
        "channels": None,
        "method": "POST",
        "format": "standard",
        "headers": {},
        "sensitive_headers": [],
        "signature_scheme": "hmac-sha256",
        "signature_template": None,
        "auth": None,
        "client_certificate": None,
        "ca_certificates": None,
        "success_statuses": ["2xx"],
        "timeout_seconds": 15,
        "rate_limit": None,
        "max_in_flight": 10,
        "ordering": "none",
        "batch": None,
        "retry_schedule": None,
        "metadata": {},
        "health": {
            "circuit": "closed",
            "failures": 0,
            "failing_since": None,
            "failed_at": None,
            "held_until": None,
            "hold_reason": None,
            "disables_at": None,
            "missed_since": None,
        },
        "created_at": made["created_at"],
        "updated_at": made["updated_at"],
    }


def test_a_url_comes_back_as_it_was_set_so_that_it_can_be_written_back() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    url = f"{URL}?token=s3cret&n=1"
    made = make(api, tenant, url=url, uid="shop")
    path = f"/tenants/{tenant.slug}/endpoints/shop"

    read = body(tenant_api(tenant, "endpoints:read").get(path), 200)
    written = body(api.put(path, {"url": read["url"], "description": "new"}), 200)

    assert made["url"] == read["url"] == written["url"] == row_of(made).url == url
    entries = AuditEntry.objects.filter(tenant=tenant, action__startswith="endpoint.").order_by("id")
    assert [entry.action for entry in entries] == ["endpoint.created", "endpoint.changed"]
    assert not any("s3cret" in json.dumps([entry.before, entry.after]) for entry in entries)
    assert not any("s3cret" in json.dumps(row.snapshot) for row in EndpointVersion.objects.for_tenant(tenant))


def test_creation_makes_lane_secret_snapshot_and_audit_entry_under_one_version() -> None:
    tenant = make_tenant()

    made = make(tenant_api(tenant), tenant, uid="shop-17")

    tenant.refresh_from_db()
    row = row_of(made)
    assert row.version == tenant.settings_version
    assert Lane.objects.for_tenant(tenant).filter(endpoint=row).count() == 1
    assert EndpointSecret.objects.for_tenant(tenant).filter(endpoint=row).count() == 1
    snapshot = EndpointVersion.objects.for_tenant(tenant).get(endpoint=row)
    assert snapshot.settings_version == tenant.settings_version
    subscription = Subscription.objects.for_tenant(tenant).get(endpoint=row)
    assert snapshot.snapshot == {
        "uid": "shop-17",
        "url": URL,
        "status": "enabled",
        "disabled_reason": None,
        "is_deleted": False,
        "channels": None,
        "subscriptions": [
            {"id": str(subscription.id), "event_type": "*", "filter": None, "has_transformation": False}
        ],
    }
    entry = AuditEntry.objects.get(tenant=tenant, target=made["id"])
    assert (entry.action, entry.actor_kind, entry.request_id) == ("endpoint.created", "key", "the-request")


def test_created_with_everything() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="invoice.paid")
    given = {
        "uid": "a:1@b",
        "description": "two\nlines",
        "status": "disabled",
        "event_types": ["order.*", "invoice.paid", "order.*"],
        "channels": ["eu"],
        "method": "GET",
        "format": "raw",
        "signature_scheme": "ed25519",
        "success_statuses": ["2xx", "302"],
        "timeout_seconds": 30,
        "rate_limit": 0.5,
        "max_in_flight": 1000,
        "ordering": "fifo",
        "retry_schedule": [],
        "metadata": {"a": "b"},
    }

    made = make(tenant_api(tenant), tenant, **given)

    expected = given | {"event_types": ["order.*", "invoice.paid"], "disabled_reason": "manual"}
    assert {name: made[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "errors"),
    [
        ({}, [("url", "required")]),
        ({"url": None}, [("url", "null")]),
        ({"url": "ftp://example.com"}, [("url", "invalid_scheme")]),
        ({"url": "https://a:b@example.com"}, [("url", "userinfo_not_allowed")]),
        ({"url": "https://example.com:5432"}, [("url", "blocked_port")]),
        ({"url": "https://10.0.0.1/"}, [("url", "address_blocked")]),
        ({"url": "http://2886729729/"}, [("url", "address_blocked")]),
        ({"url": URL, "event_types": ["orders.deleted"]}, [("event_types.0", "unknown_event_type")]),
        ({"url": URL, "event_types": ["or*er"]}, [("event_types.0", "invalid_pattern")]),
        ({"url": URL, "headers": {"Host": "x"}}, [("headers.Host", "header_not_allowed")]),
        ({"url": URL, "headers": {"X": "a\r\nb"}}, [("headers.X", "invalid_characters")]),
        ({"url": URL, "uid": "ep_x"}, [("uid", "reserved")]),
        ({"url": URL, "secret": "whsec_short"}, [("secret", "invalid_secret")]),
        (
            {"url": URL, "signature_scheme": "ed25519", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
            [("secret", "not_allowed")],
        ),
        (
            {"url": 1, "timeout_seconds": 31, "max_in_flight": "10", "surprise": True},
            [
                ("surprise", "unknown_field"),
                ("url", "invalid_type"),
                ("timeout_seconds", "too_large"),
                ("max_in_flight", "invalid_type"),
            ],
        ),
    ],
)
def test_wrong_fields_are_all_named_and_nothing_is_made(given: Any, errors: list[tuple[str, str]]) -> None:
    tenant = make_tenant()

    response = tenant_api(tenant).post(f"/tenants/{tenant.slug}/endpoints", given)

    assert refused(response, 422) == "invalid"
    assert sorted(error_codes(response)) == sorted(errors)
    assert Endpoint.objects.for_tenant(tenant).count() == 0


def test_the_platforms_own_types_can_be_named() -> None:
    tenant = make_tenant()

    made = make(tenant_api(tenant), tenant, event_types=["endpoint.disabled", "delivery.*"])

    assert made["event_types"] == ["endpoint.disabled", "delivery.*"]


def test_a_limit_is_named_with_its_value() -> None:
    tenant = make_tenant(limits={"endpoints": 1, "subscriptions_per_endpoint": 2})
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/endpoints"

    patterns = api.post(path, {"url": URL, "event_types": ["a.*", "b.*", "c.*"]})
    make(api, tenant, event_types=["a.*", "b.*"])
    endpoint = api.post(path, {"url": URL})

    assert body(patterns, 409)["detail"] == (
        "The tenant's limit subscriptions_per_endpoint is 2, and it is reached."
    )
    assert body(endpoint, 409)["code"] == "limit_reached"
    assert body(endpoint, 409)["detail"] == "The tenant's limit endpoints is 1, and it is reached."
    assert Endpoint.objects.for_tenant(tenant).count() == 1


def test_a_taken_uid_is_a_conflict_and_free_again_after_deletion() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    first = make(api, tenant, uid="shop")
    path = f"/tenants/{tenant.slug}/endpoints"

    assert refused(api.post(path, {"url": URL, "uid": "shop"}), 409) == "uid_taken"
    assert api.delete(f"{path}/{first['id']}").status_code == 204
    assert make(api, tenant, uid="shop")["id"] != first["id"]


def test_an_idempotency_key_makes_one_endpoint() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/endpoints"

    first = api.post(path, {"url": URL}, idempotency_key="k")
    again = api.post(path, {"url": URL}, idempotency_key="k")

    assert body(again, 201) == body(first, 201)
    assert again["Idempotent-Replayed"] == "true"
    assert Endpoint.objects.for_tenant(tenant).count() == 1


# --- headers ----------------------------------------------------------------------------------------------------------


def test_sensitive_headers_are_kept_encrypted_and_shown_by_name() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)

    made = make(api, tenant, headers={"X-Team": "a", "Authorization": "Bearer s3cret", "X-Api-Key": "k3y"})

    assert made["headers"] == {"X-Team": "a"}
    assert made["sensitive_headers"] == ["Authorization", "X-Api-Key"]
    row = row_of(made)
    sealed = bytes(row.sensitive_headers_encrypted or b"")
    assert b"s3cret" not in sealed
    assert open_headers(tenant_id=tenant.id, endpoint_id=row.id, sealed=sealed) == {
        "Authorization": "Bearer s3cret",
        "X-Api-Key": "k3y",
    }
    assert "s3cret" not in str(list(AuditEntry.objects.filter(tenant=tenant).values_list("after", flat=True)))


def test_headers_merge_without_regard_to_case() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = make(api, tenant, headers={"X-Team": "a", "X-Other": "b", "Authorization": "one"})
    path = f"/tenants/{tenant.slug}/endpoints/{made['id']}"

    changed = body(api.patch(path, {"headers": {"x-team": "c", "X-Other": None, "X-Token": "t"}}), 200)

    assert changed["headers"] == {"x-team": "c"}
    assert changed["sensitive_headers"] == ["Authorization", "X-Token"]
    assert body(api.patch(path, {"headers": None}), 200)["sensitive_headers"] == []


# --- finding ----------------------------------------------------------------------------------------------------------


def test_found_by_id_and_by_uid() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = make(api, tenant, uid="shop:17")
    path = f"/tenants/{tenant.slug}/endpoints"

    assert body(api.get(f"{path}/{made['id']}"), 200) == made
    assert body(api.get(f"{path}/shop:17"), 200) == made
    assert refused(api.get(f"{path}/shop:18"), 404) == "not_found"
    assert refused(api.get(f"{path}/{ids.to_text('ep', new_id())}"), 404) == "not_found"
    assert refused(api.get(f"{path}/ep_x"), 404) == "not_found"
    assert refused(api.get(f"{path}/a%00b"), 404) == "not_found"


def test_listed_newest_first_in_pages_both_ways() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = [make(api, tenant)["id"] for _ in range(5)]
    path = f"/tenants/{tenant.slug}/endpoints"

    first = body(api.get(path, limit=2), 200)
    second = body(api.get(path, limit=2, cursor=first["next_cursor"]), 200)
    back = body(api.get(path, limit=2, cursor=second["prev_cursor"]), 200)

    assert [each["id"] for each in first["data"]] == [made[4], made[3]]
    assert [each["id"] for each in second["data"]] == [made[2], made[1]]
    assert back["data"] == first["data"]
    assert back["prev_cursor"] is None


# --- changing ---------------------------------------------------------------------------------------------------------


def test_patch_leaves_what_is_absent_and_null_resets() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = make(
        api,
        tenant,
        uid="u",
        description="d",
        timeout_seconds=3,
        rate_limit=5,
        channels=["eu"],
        retry_schedule=[1],
        success_statuses=["200"],
        event_types=["a.*"],
        metadata={"a": "1", "b": "2"},
    )
    path = f"/tenants/{tenant.slug}/endpoints/{made['id']}"

    some = body(api.patch(path, {"description": "e", "metadata": {"a": None, "c": "3"}}), 200)
    cleared = body(
        api.patch(
            path,
            dict.fromkeys(
                (
                    "uid",
                    "description",
                    "timeout_seconds",
                    "rate_limit",
                    "channels",
                    "retry_schedule",
                    "success_statuses",
                    "event_types",
                    "metadata",
                    "status",
                )
            ),
        ),
        200,
    )

    assert some == made | {
        "description": "e",
        "metadata": {"b": "2", "c": "3"},
        "updated_at": some["updated_at"],
    }
    assert cleared == made | {
        "uid": None,
        "description": "",
        "timeout_seconds": 15,
        "rate_limit": None,
        "channels": None,
        "retry_schedule": None,
        "success_statuses": ["2xx"],
        "event_types": ["*"],
        "metadata": {},
        "updated_at": cleared["updated_at"],
    }


def test_patch_of_event_types_leaves_the_others_as_they_are() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = make(api, tenant, event_types=["a.*", "b.*"])
    path = f"/tenants/{tenant.slug}/endpoints/{made['id']}"
    kept = body(api.get(f"{path}/subscriptions"), 200)["data"][1]
    kept = body(api.patch(f"{path}/subscriptions/{kept['id']}", {"filter": "data.x == 1"}), 200)

    changed = body(api.patch(path, {"event_types": ["c.*", "a.*"]}), 200)

    assert changed["event_types"] == ["a.*", "c.*"]
    subscriptions = body(api.get(f"{path}/subscriptions"), 200)["data"]
    assert subscriptions[1] == kept
    assert [each["event_type"] for each in subscriptions] == ["c.*", "a.*"]
    assert body(api.patch(path, {"event_types": []}), 200)["event_types"] == []


def test_every_change_raises_the_version_and_keeps_a_snapshot_of_what_routing_sees() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = make(api, tenant)
    path = f"/tenants/{tenant.slug}/endpoints/{made['id']}"

    for change in ({"channels": ["eu"]}, {"description": "not seen by routing"}, {"event_types": ["a.*"]}):
        before = Tenant.objects.get(id=tenant.id).settings_version
        body(api.patch(path, change), 200)
        assert Tenant.objects.get(id=tenant.id).settings_version == before + 1
        assert row_of(made).version == before + 1

    snapshots = EndpointVersion.objects.for_tenant(tenant).order_by("settings_version")
    seen = [
        (each.snapshot["channels"], [sub["event_type"] for sub in each.snapshot["subscriptions"]])
        for each in snapshots
    ]
    assert seen == [(None, ["*"]), (["eu"], ["*"]), (["eu"], ["a.*"])]


def test_put_on_a_uid_creates_then_updates() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/endpoints/shop-17"
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    first = api.put(path, {"url": URL, "headers": {"A": "1"}, "metadata": {"a": "1"}, "secret": secret})
    made = body(first, 201)
    second = body(api.put(path, {"url": f"{URL}/2", "headers": {"B": "2"}, "secret": secret}), 200)

    assert first["Location"].endswith(f"/endpoints/{made['id']}")
    assert made["uid"] == "shop-17"
    assert second["id"] == made["id"]
    assert (second["url"], second["headers"], second["metadata"]) == (f"{URL}/2", {"B": "2"}, {"a": "1"})
    other_secret = api.put(path, {"url": URL, "secret": "whsec_" + "A" * 40})
    assert error_codes(other_secret) == [("secret", "not_changeable")]
    assert error_codes(api.put(path, {"url": URL, "uid": "other"})) == [("uid", "mismatch")]
    missing = f"/tenants/{tenant.slug}/endpoints/{ids.to_text('ep', new_id())}"
    assert refused(api.put(missing, {"url": URL}), 404) == "not_found"
    assert Endpoint.objects.for_tenant(tenant).count() == 1


# --- stopping, starting, ending ---------------------------------------------------------------------------------------


def test_disabled_and_enabled() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = make(api, tenant)
    path = f"/tenants/{tenant.slug}/endpoints/{made['id']}"

    disabled = body(api.post(f"{path}/disable"), 200)
    again = body(api.post(f"{path}/disable", {}), 200)
    enabled = body(api.post(f"{path}/enable"), 200)

    assert (disabled["status"], disabled["disabled_reason"]) == ("disabled", "manual")
    assert again == disabled
    assert (enabled["status"], enabled["disabled_reason"]) == ("enabled", None)
    actions = list(
        AuditEntry.objects.filter(tenant=tenant, target=made["id"])
        .order_by("id")
        .values_list("action", flat=True)
    )
    assert actions == ["endpoint.created", "endpoint.disabled", "endpoint.enabled"]


def test_gone_disables_once_and_says_why() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = make(api, tenant)
    row = row_of(made)

    disable_by_answer(endpoint_id=row.id, reason=Endpoint.DisabledReason.GONE)
    disable_by_answer(endpoint_id=row.id, reason=Endpoint.DisabledReason.GONE)
    disable_by_answer(endpoint_id=new_id(), reason=Endpoint.DisabledReason.GONE)

    shown = body(api.get(f"/tenants/{tenant.slug}/endpoints/{made['id']}"), 200)
    assert (shown["status"], shown["disabled_reason"]) == ("disabled", "gone")
    entry = AuditEntry.objects.get(tenant=tenant, action="endpoint.disabled")
    assert entry.actor == "platform"


def test_stopping_wakes_the_lane_so_that_its_holder_ends_what_is_pending() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = make(api, tenant)
    lane = Lane.objects.for_tenant(tenant)
    assert lane.get().ready_at is None

    body(api.post(f"/tenants/{tenant.slug}/endpoints/{made['id']}/disable"), 200)

    assert lane.get().is_ready


def test_deleted_softly() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = make(api, tenant, uid="shop", headers={"Authorization": "x"})
    path = f"/tenants/{tenant.slug}/endpoints"

    assert api.delete(f"{path}/shop").status_code == 204

    assert refused(api.get(f"{path}/{made['id']}"), 404) == "not_found"
    assert refused(api.delete(f"{path}/{made['id']}"), 404) == "not_found"
    assert refused(api.post(f"{path}/{made['id']}/enable"), 404) == "not_found"
    assert body(api.get(path), 200)["data"] == []
    row = row_of(made)
    assert row.deleted_at is not None
    assert row.sensitive_headers_encrypted is None
    assert EndpointSecret.objects.for_tenant(tenant).count() == 0
    last = EndpointVersion.objects.for_tenant(tenant).latest("settings_version")
    assert last.snapshot["is_deleted"]
    assert Lane.objects.for_tenant(tenant).get().is_ready


# --- whose it is ------------------------------------------------------------------------------------------------------


def test_another_tenants_endpoint_is_like_a_missing_one() -> None:
    owner, stranger = make_tenant(), make_tenant()
    made = make(tenant_api(owner), owner, uid="shop")
    api = tenant_api(stranger)

    answers = {
        api.send(method, f"/tenants/{tenant}/endpoints/{reference}", given).content
        for tenant in (stranger.slug, owner.slug, ids.to_text("tnt", owner.id), "nobody")
        for reference in (made["id"], "shop", ids.to_text("ep", new_id()))
        for method, given in (("GET", None), ("PATCH", {"url": "https://evil.example.com"}), ("DELETE", None))
    }

    assert len(answers) == 1
    assert json.loads(answers.pop())["code"] == "not_found"
    assert row_of(made).url == URL


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "", "endpoints:read"),
        ("POST", "", "endpoints:write"),
        ("GET", "/shop", "endpoints:read"),
        ("PATCH", "/shop", "endpoints:write"),
        ("PUT", "/shop", "endpoints:write"),
        ("DELETE", "/shop", "endpoints:write"),
        ("POST", "/shop/enable", "endpoints:write"),
        ("POST", "/shop/disable", "endpoints:write"),
        ("GET", "/shop/secret", "endpoints:write"),
        ("POST", "/shop/secret/rotate", "endpoints:write"),
    ],
)
def test_each_verb_needs_its_scope(method: str, path: str, scope: str) -> None:
    tenant = make_tenant()
    make(tenant_api(tenant), tenant, uid="shop")
    others = {"endpoints:read", "endpoints:write", "events:write", "deliveries:write"} - {scope}

    response = tenant_api(tenant, *others).send(method, f"/tenants/{tenant.slug}/endpoints{path}", {})

    assert body(response, 403)["detail"] == f"This key lacks the scope {scope}."
    assert row_of(body(tenant_api(tenant).get(f"/tenants/{tenant.slug}/endpoints/shop"), 200)).url == URL
