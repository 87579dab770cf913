"""Explain: every endpoint, and why it got an event or not, as things stood when it was published."""

import json
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deliveries.models import Delivery, Endpoint, Event, Subscription
from deliveries.services.endpoint_deletion import delete_endpoint
from deliveries.services.endpoints import update_endpoint
from deliveries.services.stopping import disable_endpoint
from deliveries.services.subscriptions import update_subscription
from tenants import ids
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant, tenant_api
from tests.support.published import (
    add_attempt,
    deliveries_of,
    delivery_of,
    end,
    make_endpoint,
    make_type,
    publish,
)

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def tenant(database: None) -> Tenant:
    made = make_tenant(limits={"endpoints": None})
    make_type(made)
    return made


def explained(tenant: Tenant, event: Event) -> dict[str, dict[str, Any]]:
    """By endpoint."""
    response = tenant_api(tenant).get(f"/tenants/{tenant.slug}/events/{ids.to_text('evt', event.id)}/explain")
    assert response.status_code == 200, response.content
    answer = json.loads(response.content)
    assert answer["event"] == ids.to_text("evt", event.id)
    return {one["endpoint"]: one for one in answer["data"]}


def sentence(tenant: Tenant, event: Event, endpoint: Endpoint) -> tuple[str, str]:
    one = explained(tenant, event)[ids.to_text("ep", endpoint.id)]
    return one["verdict"], one["reason"]


def filter_by(endpoint: Endpoint, text: str | None) -> Subscription:
    subscription = endpoint.subscriptions.all()[0]
    return update_subscription(actor=COMMAND, endpoint=endpoint, subscription=subscription, filter=text)


def test_what_was_true_at_publish_stays_true(tenant: Tenant) -> None:
    """Issue: change filter and channels, disable and delete after publishing, and every sentence stays."""
    make_type(tenant, "user.created")
    small = make_endpoint(tenant)
    filter_by(small, "data.amount > 100")
    channelled = make_endpoint(tenant, channels=["eu"])
    other_type = make_endpoint(tenant, event_types=["invoice.*", "user.created"])
    bare = make_endpoint(tenant, event_types=[])
    stopped = make_endpoint(tenant)
    disable_endpoint(actor=COMMAND, endpoint=stopped)
    deleted = make_endpoint(tenant)
    delete_endpoint(actor=COMMAND, endpoint=deleted)
    taker = make_endpoint(tenant)
    event = publish(tenant, data=b'{"amount":7}', channels=["us"])
    later = make_endpoint(tenant)
    expected = {
        small: ("filtered", "The filter data.amount > 100 is false for this event."),
        channelled: (
            "channel",
            "The endpoint took only events of the channel eu, and the event was of us.",
        ),
        other_type: (
            "not_subscribed",
            "The endpoint was subscribed to invoice.*, user.created, which does not include order.created.",
        ),
        bare: ("not_subscribed", "The endpoint had no subscription."),
        stopped: (
            "disabled",
            "The endpoint was disabled when the event was published: disabled by hand.",
        ),
        deleted: ("deleted", "The endpoint was deleted before the event was published."),
        taker: ("pending", "Waiting for its first attempt."),
        later: ("created_later", "The endpoint was created after the event was published."),
    }
    assert {each: sentence(tenant, event, each) for each in expected} == expected

    filter_by(small, "data.amount > 1")
    update_endpoint(actor=COMMAND, endpoint=channelled, channels=None)
    update_endpoint(actor=COMMAND, endpoint=other_type, event_types=["*"])
    update_endpoint(actor=COMMAND, endpoint=bare, event_types=["*"])
    update_endpoint(actor=COMMAND, endpoint=stopped, status="enabled")
    disable_endpoint(actor=COMMAND, endpoint=later)
    delete_endpoint(actor=COMMAND, endpoint=taker)
    delete_endpoint(actor=COMMAND, endpoint=small)

    assert {each: sentence(tenant, event, each) for each in expected} == expected
    assert list(explained(tenant, event)) == [ids.to_text("ep", each.id) for each in expected]


def test_a_missing_key_is_named(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    filter_by(endpoint, 'data.customer.tier == "gold"')
    event = publish(tenant)

    verdict, reason = sentence(tenant, event, endpoint)

    assert verdict == "filtered"
    assert reason == """The filter data.customer.tier == "gold" is false: the data has no key 'customer'."""


def test_every_filter_that_refused_is_named(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant, event_types=["*", "order.*"])
    for subscription, text in zip(endpoint.subscriptions.all(), ("data.a > 1", "data.a > 2"), strict=True):
        update_subscription(actor=COMMAND, endpoint=endpoint, subscription=subscription, filter=text)
    event = publish(tenant, data=b'{"a":0}')

    shown = explained(tenant, event)[ids.to_text("ep", endpoint.id)]

    assert shown["reason"] == (
        "The filter data.a > 1 is false for this event. The filter data.a > 2 is false for this event."
    )
    first = Subscription.objects.for_tenant(tenant).filter(endpoint=endpoint).earliest("id")
    assert shown["subscription"] == ids.to_text("sub", first.id)


def test_an_event_without_channels(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant, channels=["eu", "us"])
    event = publish(tenant)

    assert sentence(tenant, event, endpoint) == (
        "channel",
        "The endpoint took only events of the channels eu, us, and the event had none.",
    )


def test_deliveries_with_their_attempts(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    event = publish(tenant)
    delivery = delivery_of(event)
    attempt = add_attempt(delivery, status_code=503, duration_ms=3.5)
    Delivery.objects.for_tenant(tenant).filter(id=delivery.id).update(
        attempt_count=1, last_outcome="http_error", last_status_code=503
    )

    shown = explained(tenant, event)[ids.to_text("ep", endpoint.id)]

    failed = "The endpoint answered with status 503; it failed on its side: its logs should say why."
    assert shown == {
        "endpoint": ids.to_text("ep", endpoint.id),
        "verdict": "pending",
        "reason": f"Waiting for the next attempt, after 1 attempt. {failed}",
        "subscription": ids.to_text("sub", endpoint.subscriptions.all()[0].id),
        "delivery": ids.to_text("dlv", delivery.id),
        "attempts": [
            {
                "id": ids.to_text("att", attempt.id),
                "number": 1,
                "trigger": "automatic",
                "started_at": attempt.started_at.isoformat().replace("+00:00", "Z"),
                "duration_ms": 3.5,
                "outcome": "http_error",
                "explanation": failed,
                "status_code": 503,
            }
        ],
        "next_attempt_at": event.created_at.isoformat().replace("+00:00", "Z"),
    }


@pytest.mark.parametrize(
    ("status", "fields", "verdict", "reason"),
    [
        (
            "succeeded",
            {"last_outcome": "succeeded", "last_status_code": 200},
            "delivered",
            "Delivered after 2 attempts.",
        ),
        (
            "failed",
            {"last_outcome": "timeout"},
            "failed",
            "Failed after 2 attempts. The endpoint did not answer in time; answer first and do the work afterwards.",
        ),
        ("failed", {"cancel_reason": "expired"}, "failed", "Given up: it waited longer than it is kept."),
        (
            "cancelled",
            {"cancel_reason": "endpoint_disabled"},
            "cancelled",
            "Cancelled after 2 attempts: the endpoint was disabled.",
        ),
    ],
)
def test_how_it_ended(tenant: Tenant, status: str, fields: dict[str, Any], verdict: str, reason: str) -> None:
    endpoint = make_endpoint(tenant)
    event = publish(tenant)
    end(delivery_of(event), status, attempt_count=2, **fields)

    assert sentence(tenant, event, endpoint) == (verdict, reason)


def test_a_replay_tells_why_there_was_nothing_before(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    filter_by(endpoint, "data.amount > 100")
    event = publish(tenant, data=b'{"amount":7}')
    tenant_api(tenant).post(
        f"/tenants/{tenant.slug}/events/{ids.to_text('evt', event.id)}/replay",
        {"endpoint": ids.to_text("ep", endpoint.id)},
    )

    assert sentence(tenant, event, endpoint) == (
        "pending",
        (
            "Waiting for its first attempt. It was replayed to this endpoint later. "
            "At publish: The filter data.amount > 100 is false for this event."
        ),
    )


def test_of_several_deliveries_the_one_that_succeeded_is_shown(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    event = publish(tenant)
    end(delivery_of(event), "failed", attempt_count=1, last_outcome="timeout")
    for _ in range(2):
        tenant_api(tenant).post(f"/tenants/{tenant.slug}/events/{ids.to_text('evt', event.id)}/replay", {})
    end(deliveries_of(event)[1], "succeeded", attempt_count=1, last_outcome="succeeded")

    shown = explained(tenant, event)[ids.to_text("ep", endpoint.id)]

    assert (shown["verdict"], shown["reason"], shown["delivery"]) == (
        "delivered",
        "Delivered after 1 attempt. It was replayed 2 times.",
        ids.to_text("dlv", deliveries_of(event)[1].id),
    )


def test_a_test_went_to_one_endpoint_alone(tenant: Tenant) -> None:
    tested, other = make_endpoint(tenant), make_endpoint(tenant)
    event = publish(tenant, only_endpoint=tested.id.bytes)

    assert sentence(tenant, event, tested) == (
        "pending",
        "Waiting for its first attempt. It was a test, sent to this endpoint alone.",
    )
    assert sentence(tenant, event, other) == (
        "not_subscribed",
        "The event was a test, sent to another endpoint alone.",
    )


def test_the_expression_outlives_an_erased_payload(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    filter_by(endpoint, "data.amount > 100")
    event = publish(tenant, data=b'{"amount":7}')
    tenant_api(tenant).delete(f"/tenants/{tenant.slug}/events/{ids.to_text('evt', event.id)}/data")

    assert sentence(tenant, event, endpoint) == (
        "filtered",
        "The filter data.amount > 100 was false. The payload is erased, so it cannot be said why.",
    )


def test_as_many_queries_for_thirty_endpoints_as_for_one(tenant: Tenant) -> None:
    counts = []
    for wanted in (1, 30):
        while Endpoint.objects.for_tenant(tenant).count() < wanted:
            filter_by(make_endpoint(tenant), "data.a == 1")
            make_endpoint(tenant)
        event = publish(tenant)
        for delivery in deliveries_of(event):
            add_attempt(delivery)
        explained(tenant, event)
        with CaptureQueriesContext(connection) as queries:
            explained(tenant, event)
        counts.append(len(queries))

    # The key that each call makes is not part of it, and the same both times.
    assert counts[0] == counts[1]
