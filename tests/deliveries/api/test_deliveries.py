"""Deliveries and attempts over the API: found, shown, tried again, cancelled."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from deliveries.models import Delivery, Lane
from deliveries.services.endpoint_deletion import delete_endpoint
from deliveries.services.stopping import disable_endpoint
from tenants import ids
from tenants.ids import new_id
from tenants.models import AuditEntry, Tenant
from tenants.services.audit import COMMAND
from tests.support.api import Api, error_codes, make_tenant, tenant_api
from tests.support.published import add_attempt, delivery_of, end, make_endpoint, make_type, publish

pytestmark = pytest.mark.usefixtures("database")


def body(response: Any, status: int = 200) -> Any:
    assert response.status_code == status, response.content
    return json.loads(response.content)


def code(response: Any) -> tuple[int, str]:
    return response.status_code, json.loads(response.content)["code"]


def text(delivery: Delivery) -> str:
    return ids.to_text("dlv", delivery.id)


def path(tenant: Tenant, delivery: Delivery, rest: str = "") -> str:
    return f"/tenants/{tenant.slug}/deliveries/{text(delivery)}{rest}"


def listed(api: Api, tenant: Tenant, **query: Any) -> list[str]:
    return [one["id"] for one in body(api.get(f"/tenants/{tenant.slug}/deliveries", **query))["data"]]


@pytest.fixture
def tenant(database: None) -> Tenant:
    made = make_tenant()
    make_type(made)
    make_type(made, "invoice.paid")
    return made


# --- finding ----------------------------------------------------------------------------------------------------------


def test_a_delivery_as_it_is_shown(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    event = publish(tenant)
    delivery = delivery_of(event)

    shown = body(tenant_api(tenant).get(path(tenant, delivery)))

    created_at = delivery.created_at.isoformat().replace("+00:00", "Z")
    assert shown == {
        "id": text(delivery),
        "event": ids.to_text("evt", event.id),
        "event_type": "order.created",
        "endpoint": ids.to_text("ep", endpoint.id),
        "trigger": "automatic",
        "status": "pending",
        "cancel_reason": None,
        "attempt_count": 0,
        "next_attempt_at": created_at,
        "last_outcome": None,
        "last_status_code": None,
        "created_at": created_at,
        "completed_at": None,
    }


def test_filters(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    shop = make_endpoint(tenant, uid="shop", event_types=["order.*"])
    make_endpoint(tenant, event_types=["invoice.*"])
    first = end(delivery_of(publish(tenant)), "succeeded", last_outcome="succeeded", last_status_code=200)
    second = end(delivery_of(publish(tenant)), "failed", last_outcome="timeout")
    invoice = publish(tenant, "invoice.paid")
    third = delivery_of(invoice)
    between = second.created_at.isoformat()

    assert listed(api, tenant) == [text(third), text(second), text(first)]
    assert listed(api, tenant, endpoint="shop") == [text(second), text(first)]
    assert listed(api, tenant, endpoint=ids.to_text("ep", shop.id)) == [text(second), text(first)]
    assert listed(api, tenant, endpoint="nobody") == []
    assert listed(api, tenant, endpoint=ids.to_text("ep", new_id())) == []
    assert listed(api, tenant, event=ids.to_text("evt", invoice.id)) == [text(third)]
    assert listed(api, tenant, event_type="invoice.paid") == [text(third)]
    assert listed(api, tenant, status="pending") == [text(third)]
    assert listed(api, tenant, status="failed") == [text(second)]
    assert listed(api, tenant, outcome="timeout") == [text(second)]
    assert listed(api, tenant, outcome="succeeded") == [text(first)]
    assert listed(api, tenant, since=between) == [text(third), text(second)]
    assert listed(api, tenant, until=between) == [text(first)]
    assert listed(api, tenant, endpoint="shop", status="failed", since=between) == [text(second)]


def test_deliveries_of_a_deleted_endpoint_are_found_by_its_id(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant, uid="shop")
    delivery = delivery_of(publish(tenant))
    delete_endpoint(actor=COMMAND, endpoint=endpoint)
    api = tenant_api(tenant)

    assert listed(api, tenant, endpoint=ids.to_text("ep", endpoint.id)) == [text(delivery)]
    assert listed(api, tenant, endpoint="shop") == []


@pytest.mark.parametrize(
    "query",
    [
        {"endpoint": "ep_1", "event": "evt_1", "status": "gone", "outcome": "odd"},
        {"endpoint": "a b"},
        {"event_type": "order.*"},
        {"since": "yesterday"},
    ],
)
def test_wrong_parameters_are_all_named(tenant: Tenant, query: dict[str, str]) -> None:
    response = tenant_api(tenant).get(f"/tenants/{tenant.slug}/deliveries", **query)

    assert response.status_code == 422
    assert [field for field, _ in error_codes(response)] == list(query)


# --- attempts ---------------------------------------------------------------------------------------------------------


def test_attempts_are_told_whole(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    add_attempt(delivery, started_at=at)
    attempt = add_attempt(
        delivery,
        number=2,
        trigger="manual",
        started_at=at,
        duration_ms=99.5,
        dns_ms=1.0,
        connect_ms=2.0,
        tls_ms=None,
        first_byte_ms=90.25,
        outcome="http_error",
        status_code=503,
        remote_ip="203.0.113.7",
        request_headers=b"content-type: application/json\nx-team: a\nauthorization: ***",
        response_headers=b"HTTP/1.1 503 No\r\nVia: a\r\nvia: b\r\nSet-Cookie: id=1\r\n"
        b"Location: /in?token=s3cret&x=1\r\n\r\n",
        response_body=b"a\x00b\xff\xc3\xa9",
        is_truncated=True,
    )

    found = body(tenant_api(tenant).get(path(tenant, delivery, "/attempts")))

    assert [one["number"] for one in found["data"]] == [2, 1]
    assert found["data"][0] == {
        "id": ids.to_text("att", attempt.id),
        "number": 2,
        "trigger": "manual",
        "started_at": "2026-03-01T12:00:00.000000Z",
        "duration_ms": 99.5,
        "outcome": "http_error",
        "explanation": "The endpoint answered with status 503; it failed on its side: its logs should say why.",
        "status_code": 503,
        "timings": {"dns_ms": 1.0, "connect_ms": 2.0, "tls_ms": None, "first_byte_ms": 90.25},
        "remote_ip": "203.0.113.7",
        "request_headers": {
            "content-type": "application/json",
            "x-team": "a",
            "authorization": "***",
        },
        "response_headers": {"Via": "a, b", "Set-Cookie": "***", "Location": "/in?token=***&x=1"},
        "response_body": "a\ufffdb\ufffdé",
        "response_truncated": True,
    }


# --- retry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "succeeded", "failed", "cancelled"])
def test_retry_asks_for_one_attempt_whatever_the_state(tenant: Tenant, status: str) -> None:
    endpoint = make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    if status != "pending":
        end(delivery, status)
    Lane.objects.for_tenant(tenant).filter(endpoint=endpoint).update(ready_at=None, is_ready=False)

    shown = body(tenant_api(tenant).post(path(tenant, delivery, "/retry")), 202)

    assert (shown["id"], shown["status"]) == (text(delivery), status)
    after = Delivery.objects.for_tenant(tenant).get(id=delivery.id)
    assert after.manual_requested_at is not None
    assert (after.status, after.next_attempt_at, after.schedule_step) == (status, delivery.next_attempt_at, 0)
    lane = Lane.objects.for_tenant(tenant).get(endpoint=endpoint)
    assert lane.is_ready
    entry = AuditEntry.objects.filter(tenant=tenant).latest("id")
    assert (entry.action, entry.target) == ("delivery.retried", text(delivery))


def test_retry_is_refused_where_nothing_is_sent(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    disabled, deleted = make_endpoint(tenant), make_endpoint(tenant)
    event = publish(tenant)
    first, second = Delivery.objects.for_tenant(tenant).filter(event_id=event.id).order_by("id")
    disable_endpoint(actor=COMMAND, endpoint=disabled)
    delete_endpoint(actor=COMMAND, endpoint=deleted)

    answers = [code(api.post(path(tenant, each, "/retry"))) for each in (first, second)]

    assert answers == [(409, "endpoint_disabled"), (409, "endpoint_deleted")]
    requested = Delivery.objects.for_tenant(tenant).exclude(manual_requested_at=None)
    assert requested.count() == 0


def test_retry_takes_no_fields(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))

    response = tenant_api(tenant).post(path(tenant, delivery, "/retry"), {"soon": True})

    assert error_codes(response) == [("soon", "unknown_field")]


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_cancel_ends_what_is_pending_and_nothing_else(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    api = tenant_api(tenant)

    shown = body(api.post(path(tenant, delivery, "/cancel")), 202)
    again = api.post(path(tenant, delivery, "/cancel"))

    assert (shown["status"], shown["cancel_reason"], shown["next_attempt_at"]) == (
        "cancelled",
        "requested",
        None,
    )
    assert shown["completed_at"] is not None
    assert code(again) == (409, "not_pending")


def test_cancelling_the_head_of_a_line_makes_the_next_one_due(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant, ordering="fifo")
    first = delivery_of(publish(tenant, ordering_key="k"))
    second = publish(tenant, ordering_key="k")
    assert delivery_of(second).next_attempt_at is None
    Lane.objects.for_tenant(tenant).filter(endpoint=endpoint).update(ready_at=None, is_ready=False)

    body(tenant_api(tenant).post(path(tenant, first, "/cancel")), 202)

    assert delivery_of(second).next_attempt_at is not None
    assert Lane.objects.for_tenant(tenant).get(endpoint=endpoint).is_ready


def test_another_tenants_delivery_is_not_there(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    other = make_tenant()
    api = tenant_api(other)

    for answer in (
        api.get(path(other, delivery)),
        api.get(path(other, delivery, "/attempts")),
        api.post(path(other, delivery, "/retry")),
        api.post(path(other, delivery, "/cancel")),
    ):
        assert code(answer) == (404, "not_found")
    delivery.refresh_from_db()
    assert (delivery.status, delivery.manual_requested_at) == ("pending", None)
