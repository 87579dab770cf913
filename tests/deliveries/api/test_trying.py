"""Trying things out over the API: test events, whether an event would match, what a transformation makes."""

import json
from typing import Any

import pytest

from deliveries.models import Delivery, Event, Lane, Subscription
from tenants import ids
from tenants.models import AuditEntry, EventType, Tenant
from tests.support.api import Api, error_codes, make_tenant, tenant_api

pytestmark = pytest.mark.usefixtures("database")


def body(response: Any, status: int) -> Any:
    assert response.status_code == status, response.content
    return json.loads(response.content)


def make(api: Api, tenant: Tenant, **fields: Any) -> str:
    given = {"url": "https://shop.example.com", "event_types": []} | fields
    made = body(api.post(f"/tenants/{tenant.slug}/endpoints", given), 201)
    return f"/tenants/{tenant.slug}/endpoints/{made['id']}"


def event_of(delivery: dict[str, Any]) -> Event:
    found: Event = Event.unscoped.get(id=ids.from_text("evt", delivery["event"]))
    return found


# --- test events ------------------------------------------------------------------------------------------------------


def test_a_test_goes_to_this_endpoint_alone_whatever_its_subscriptions() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    make(api, tenant, event_types=["*"])
    path = make(api, tenant, event_types=[], channels=["eu"])

    delivery = body(api.post(f"{path}/test"), 202)

    assert delivery == {
        "id": delivery["id"],
        "event": delivery["event"],
        "event_type": "webhook.test",
        "endpoint": path.rpartition("/")[2],
        "status": "pending",
        "cancel_reason": None,
        "trigger": "test",
        "attempt_count": 0,
        "next_attempt_at": delivery["created_at"],
        "last_outcome": None,
        "last_status_code": None,
        "created_at": delivery["created_at"],
        "completed_at": None,
    }
    assert bytes(event_of(delivery).data or b"") == b"{}"
    row = Delivery.objects.for_tenant(tenant).get()
    assert row.trigger == "test"
    assert Lane.objects.for_tenant(tenant).get(endpoint_id=row.endpoint_id).is_ready
    assert AuditEntry.objects.filter(tenant=tenant, action="endpoint.tested").count() == 1


def test_a_test_sends_the_types_example_or_the_data_byte_for_byte() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="order.created", example={"id": "A-17"})
    api = tenant_api(tenant)
    path = make(api, tenant)

    example = body(api.post(f"{path}/test", {"event_type": "order.created"}), 202)
    raw = b'{ "b": 1.10, "a": 12345678901234567890123 }'
    sent = b'{"event_type": "order.created", "data": %b}' % raw
    own = body(api.post(f"{path}/test", sent), 202)

    assert bytes(event_of(example).data or b"") == b'{"id":"A-17"}'
    assert bytes(event_of(own).data or b"") == raw
    assert own["event_type"] == "order.created"


def test_a_repeated_test_is_sent_once() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)

    first = body(api.post(f"{path}/test", {}, idempotency_key="t"), 202)
    again = body(api.post(f"{path}/test", {}, idempotency_key="t"), 202)

    assert again == first
    assert Delivery.objects.for_tenant(tenant).count() == 1


@pytest.mark.parametrize(
    ("given", "status", "errors"),
    [
        ({"event_type": "no.such"}, 422, [("event_type", "unknown_event_type")]),
        ({"event_type": "order.*"}, 422, [("event_type", "invalid")]),
        ({"data": []}, 422, [("data", "invalid_type")]),
        ({"data": {"a": "x" * 100}}, 413, [("data", "too_large")]),
        ({"type": "order.created"}, 422, [("type", "unknown_field")]),
    ],
)
def test_a_wrong_test_sends_nothing(given: Any, status: int, errors: list[tuple[str, str]]) -> None:
    tenant = make_tenant(limits={"payload_bytes": 64})
    api = tenant_api(tenant)
    path = make(api, tenant)

    response = api.post(f"{path}/test", given)

    assert response.status_code == status
    assert error_codes(response) == errors
    assert Event.objects.for_tenant(tenant).count() == 0


def test_a_disabled_endpoint_is_not_tested() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)
    api.post(f"{path}/disable")

    assert body(api.post(f"{path}/test"), 409)["code"] == "endpoint_disabled"
    assert Event.objects.for_tenant(tenant).count() == 0


# --- would it match? --------------------------------------------------------------------------------------------------

GOLD = {"type": "order.created", "data": {"amount": 120, "customer": {"tier": "gold"}}}


@pytest.mark.parametrize(
    ("description", "given", "matched", "reason"),
    [
        (
            "the filter is true",
            GOLD | {"event_type": "order.*", "filter": "data.amount > 100"},
            True,
            "The filter data.amount > 100 is true for this event.",
        ),
        (
            "the filter is false",
            GOLD | {"filter": "data.amount > 500"},
            False,
            "The filter data.amount > 500 is false for this event.",
        ),
        (
            "a key is missing",
            GOLD | {"filter": "data.vip"},
            False,
            "The filter data.vip is false: the data has no key 'vip'.",
        ),
        (
            "another pattern",
            GOLD | {"event_type": "invoice.*"},
            False,
            "The pattern invoice.* does not match the event type order.created.",
        ),
        (
            "no filter",
            GOLD | {"event_type": "order.created"},
            True,
            "The pattern order.created matches, and there is no filter.",
        ),
        (
            "everything is not the platform's own",
            {"type": "endpoint.disabled", "event_type": "*"},
            False,
            "The pattern * does not match the event type endpoint.disabled.",
        ),
        (
            "by channel, in the filter",
            {"type": "a", "channels": ["eu"], "filter": '"eu" in channels'},
            True,
            'The filter "eu" in channels is true for this event.',
        ),
        (
            "by time, in the filter",
            {
                "type": "a",
                "occurred_at": "2026-03-01T12:00:00Z",
                "filter": "occurred_at.getFullYear() == 2026",
            },
            True,
            "The filter occurred_at.getFullYear() == 2026 is true for this event.",
        ),
    ],
)
def test_a_draft_is_judged(description: str, given: Any, matched: bool, reason: str) -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)

    verdict = body(api.post(f"{path}/subscriptions/test", given), 200)

    assert (verdict["matched"], verdict["reason"]) == (matched, reason), description
    assert verdict["subscription"] is None
    assert Subscription.objects.for_tenant(tenant).count() == 0


def test_the_endpoints_own_subscriptions_are_judged_and_the_oldest_match_decides() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)
    made = [
        body(api.post(f"{path}/subscriptions", given), 201)["id"]
        for given in (
            {"event_type": "order.*", "filter": "data.amount > 500"},
            {"event_type": "order.*", "transformation": '{"total": data.amount}'},
            {"event_type": "*"},
        )
    ]

    verdict = body(api.post(f"{path}/subscriptions/test", GOLD), 200)

    assert verdict == {
        "matched": True,
        "reason": "The pattern order.* matches, and there is no filter.",
        "subscription": made[1],
        "data": {"total": 120},
        "error": None,
        "subscriptions": [
            {
                "subscription": made[0],
                "event_type": "order.*",
                "matched": False,
                "reason": "The filter data.amount > 500 is false for this event.",
            },
            {
                "subscription": made[1],
                "event_type": "order.*",
                "matched": True,
                "reason": "The pattern order.* matches, and there is no filter.",
            },
            {
                "subscription": made[2],
                "event_type": "*",
                "matched": True,
                "reason": "The pattern * matches, and there is no filter.",
            },
        ],
    }


def test_channel_and_status_of_the_endpoint_count() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant, channels=["eu"], event_types=["*"])

    without = body(api.post(f"{path}/subscriptions/test", GOLD), 200)
    api.post(f"{path}/disable")
    disabled = body(api.post(f"{path}/subscriptions/test", GOLD | {"channels": ["eu"]}), 200)

    assert (without["matched"], without["reason"]) == (
        False,
        "The endpoint takes only events of the channels eu, and this one carries none of them.",
    )
    assert (disabled["matched"], disabled["reason"]) == (False, "It matches, but the endpoint is disabled.")


def test_an_endpoint_without_subscriptions_gets_nothing() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)

    verdict = body(api.post(f"{path}/subscriptions/test", GOLD), 200)

    assert (verdict["matched"], verdict["reason"]) == (
        False,
        "The endpoint has no subscription that matches.",
    )


@pytest.mark.parametrize(
    ("given", "errors"),
    [
        ({}, [("type", "required")]),
        ({"type": "a", "filter": "data.x >"}, [("filter", "invalid_expression")]),
        ({"type": "a", "data": 1}, [("data", "invalid_type")]),
        ({"type": "a", "channels": "eu"}, [("channels", "invalid_type")]),
        ({"type": "a", "occurred_at": "yesterday"}, [("occurred_at", "invalid_time")]),
    ],
)
def test_a_wrong_question_is_refused(given: Any, errors: list[tuple[str, str]]) -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)

    response = api.post(f"{path}/subscriptions/test", given)

    assert response.status_code == 422
    assert error_codes(response) == errors


# --- what does it make? -----------------------------------------------------------------------------------------------


def test_a_transformation_is_tried() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"{make(api, tenant)}/subscriptions/transform"

    made = body(api.post(path, GOLD | {"transformation": '{"total": data.amount, "kind": type}'}), 200)
    failed = body(api.post(path, GOLD | {"transformation": '{"vip": data.vip}'}), 200)
    wrong = api.post(path, GOLD | {"transformation": "{"})

    assert made == {"data": {"total": 120, "kind": "order.created"}, "error": None}
    assert failed == {"data": None, "error": "The transformation failed: the data has no key 'vip'."}
    assert error_codes(wrong) == [("transformation", "invalid_expression")]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_transformation_whose_time_has_no_form_in_utc_is_tried_and_fails(at: str) -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"{make(api, tenant)}/subscriptions"
    given = GOLD | {"data": {"at": at}, "transformation": '{"at": timestamp(data.at)}'}

    made = body(api.post(f"{path}/transform", given), 200)
    verdict = body(api.post(f"{path}/test", given), 200)

    error = "The transformation failed: its result contains a time outside the years 1 to 9999 of UTC."
    assert made == {"data": None, "error": error}
    assert verdict["error"] == error


def test_of_a_subscription_whose_transformation_fails_it_is_said() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = make(api, tenant)

    verdict = body(
        api.post(f"{path}/subscriptions/test", GOLD | {"transformation": "{'vip': data.vip}"}), 200
    )

    assert verdict["matched"]
    assert verdict["data"] is None
    assert verdict["error"] == "The transformation failed: the data has no key 'vip'."
