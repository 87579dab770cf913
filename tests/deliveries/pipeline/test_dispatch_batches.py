"""Several events in one request: how many, when, and that a batch that failed is tried again as a whole."""

import json
import time
from collections import defaultdict
from typing import Any

import pytest
from django.utils import timezone
from standardwebhooks import Webhook

from deliveries.pipeline import dispatch, ingest
from deliveries.services import deliveries
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.support.builders import (
    SECRET,
    accepted,
    attempts_of,
    deliveries_of,
    delivery_of,
    lane_of,
    make_endpoint,
    make_tenant,
    new_event,
    publish,
)
from tests.support.running import Reply, Request, Webhooks, run_until_dry, running, until

pytestmark = pytest.mark.usefixtures("quiet_lanes")


@pytest.fixture(params=["curl", "requests"])
def transport_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def publish_many(tenant: Tenant, count: int, **fields: Any) -> list[ingest.Accepted]:
    return accepted(ingest.publish([new_event(tenant, b'{"n":%d}' % n, **fields) for n in range(count)]))


def numbers(request: Request) -> list[int]:
    return [event["data"]["n"] for event in json.loads(request.body)]


def test_events_go_together_under_one_signature(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(202)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), batch={"max_events": 10, "max_wait_ms": 0})
        publish_many(tenant, 25)

        run_until_dry(name=transport_name)

    assert sorted(len(numbers(request)) for request in webhooks.requests) == [5, 10, 10]
    assert sorted(n for request in webhooks.requests for n in numbers(request)) == list(range(25))
    first = webhooks.requests[0]
    assert Webhook(SECRET).verify(first.body, first.headers) == json.loads(first.body)
    assert first.headers["content-type"] == "application/json"
    assert set(json.loads(first.body)[0]) == {"id", "type", "timestamp", "data"}


def test_each_event_keeps_a_status_and_an_attempt_of_its_own(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(202)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), batch={"max_events": 3, "max_wait_ms": 0})
        events = publish_many(tenant, 3)

        run_until_dry(name=transport_name)

    (request,) = webhooks.requests
    assert [event["id"] for event in json.loads(request.body)] == [
        json.loads(event.reply)["id"] for event in events
    ]
    assert request.id.startswith("bat_")
    for event in events:
        delivery = delivery_of(event)
        (attempt,) = attempts_of(delivery)
        assert (delivery.status, delivery.attempt_count, attempt.status_code) == ("succeeded", 1, 202)
        assert f"webhook-id: {request.id}".encode() in bytes(attempt.request_headers)


def test_a_batch_that_is_not_full_waits_for_the_first_ones_time() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), batch={"max_events": 100, "max_wait_ms": 3_000})
        with running():
            began = time.monotonic()
            publish_many(tenant, 2)
            time.sleep(0.3)
            publish_many(tenant, 3)
            (request,) = webhooks.wait_for(1)

    assert 2.9 < request.at - began < 8
    assert len(numbers(request)) == 5


def test_a_batch_goes_as_soon_as_it_is_full() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), batch={"max_events": 10, "max_wait_ms": 60_000})
        with running():
            publish_many(tenant, 4)
            time.sleep(0.3)
            publish_many(tenant, 6)
            (request,) = webhooks.wait_for(1)

    assert sorted(numbers(request)) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5]


@pytest.mark.parametrize("schedule", [[0], [1]])
def test_what_failed_together_is_tried_again_together(
    transport_name: str, schedule: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long the database takes to bring the rest of a batch.
    monkeypatch.setattr(dispatch, "BATCH_PATIENCE_SECONDS", 30.0)
    tenant = make_tenant()
    seen: dict[str, int] = defaultdict(int)

    def fail_first(request: Request) -> Reply:
        seen[request.id] += 1
        return Reply(500 if seen[request.id] == 1 else 200)

    with Webhooks(a=fail_first) as webhooks:
        make_endpoint(
            tenant,
            webhooks.url("/a"),
            batch={"max_events": 100, "max_wait_ms": 0},
            retry_schedule=schedule,
        )
        publish_many(tenant, 1000)
        with running(name=transport_name):
            until(lambda: {d.status for d in deliveries_of(tenant)} == {"succeeded"})

    by_id: dict[str, list[Request]] = defaultdict(list)
    for request in webhooks.requests:
        by_id[request.id].append(request)
    assert len(by_id) == 10
    for first, second in by_id.values():
        assert numbers(first) == numbers(second)
        assert (first.headers["webhook-attempt"], second.headers["webhook-attempt"]) == ("1", "2")
    assert {d.attempt_count for d in deliveries_of(tenant)} == {2}
    assert webhooks.together == []


def test_a_batch_that_never_succeeds_ends_with_every_event_failed() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(503)) as webhooks:
        make_endpoint(
            tenant, webhooks.url("/a"), batch={"max_events": 5, "max_wait_ms": 0}, retry_schedule=[]
        )
        publish_many(tenant, 5)

        run_until_dry()

    assert len(webhooks.requests) == 1
    assert [(d.status, d.last_outcome, d.last_status_code) for d in deliveries_of(tenant)] == [
        ("failed", "http_error", 503)
    ] * 5


@pytest.mark.parametrize(
    ("format", "content_type", "body"),
    [
        ("raw", "application/json", b'[{"n":1.10},{"n":1.10}]'),
        ("cloudevents", "application/cloudevents-batch+json", None),
    ],
)
def test_the_other_formats_that_hold_several(format: str, content_type: str, body: bytes | None) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(
            tenant, webhooks.url("/a"), format=format, batch={"max_events": 2, "max_wait_ms": 60_000}
        )
        accepted(ingest.publish([new_event(tenant, b'{"n":1.10}') for _ in range(2)]))

        run_until_dry()

    (request,) = webhooks.requests
    assert request.headers["content-type"] == content_type
    if body is not None:
        assert request.body == body
    else:
        assert [(each["specversion"], each["data"]) for each in json.loads(request.body)] == [
            ("1.0", {"n": 1.1})
        ] * 2


def test_a_retry_by_hand_goes_alone_and_at_once() -> None:
    tenant = make_tenant()
    replies = iter([Reply(500), Reply(200)])
    with Webhooks(a=lambda _: next(replies)) as webhooks:
        make_endpoint(
            tenant,
            webhooks.url("/a"),
            batch={"max_events": 3, "max_wait_ms": 60_000},
            retry_schedule=[3600],
        )
        events = publish_many(tenant, 3)
        run_until_dry()
        deliveries.retry_delivery(actor=COMMAND, delivery=delivery_of(events[1]), now=timezone.now())
        run_until_dry()

    assert [len(numbers(request)) for request in webhooks.requests] == [3, 1]
    assert [delivery_of(event).status for event in events] == ["pending", "succeeded", "pending"]


def test_large_events_go_in_smaller_batches_and_all_arrive() -> None:
    tenant = make_tenant()
    data = json.dumps({"n": 1, "x": "y" * 200_000}).encode()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), batch={"max_events": 100, "max_wait_ms": 0})
        accepted(ingest.publish([new_event(tenant, data) for _ in range(12)]))

        run_until_dry()

    assert sum(len(numbers(request)) for request in webhooks.requests) == 12
    assert max(len(request.body) for request in webhooks.requests) < 600_000
    assert {d.status for d in deliveries_of(tenant)} == {"succeeded"}


def test_an_idle_lane_of_batches_is_given_back() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), batch={"max_events": 10, "max_wait_ms": 100})
        publish(tenant, b'{"n":1}')

        run_until_dry()

    lane = lane_of(endpoint)
    assert (lane.ready_at, lane.dispatcher_id) == (None, None)
    assert len(webhooks.requests) == 1


def test_what_is_tried_again_does_not_wait_for_a_batch_that_is_not_full() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        make_endpoint(
            tenant,
            webhooks.url("/a"),
            batch={"max_events": 3, "max_wait_ms": 60_000},
            retry_schedule=[4],
        )
        events = publish_many(tenant, 3)
        run_until_dry()
        webhooks.replies["/a"] = Reply()
        with running() as one:
            publish(tenant, b'{"n":3}')
            until(
                lambda: [lane.cleared_at is not None for lane in one.dispatcher.book.lanes.values()] == [True]
            )
            deliveries.retry_delivery(actor=COMMAND, delivery=delivery_of(events[1]), now=timezone.now())
            webhooks.wait_for(3, seconds=12)

    assert sorted(numbers(request) for request in webhooks.requests) == [[0, 1, 2], [0, 2], [1]]
