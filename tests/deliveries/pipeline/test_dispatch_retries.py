"""When a delivery is tried again, and how it ends: schedules, Retry-After, 410, time-outs, attempts by hand."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.db import transaction

from deliveries.models import Delivery, Lane
from deliveries.pipeline import ingest
from deliveries.pipeline.retry import DEFAULT_SCHEDULE
from deliveries.pipeline.wake import request_manual_attempt
from tests.support.builders import (
    attempts_of,
    change_endpoint,
    delivery_of,
    lane_of,
    make_due,
    make_endpoint,
    make_tenant,
    new_event,
    publish,
)
from tests.support.running import Reply, Request, Webhooks, run_until_dry, running, until

pytestmark = pytest.mark.usefixtures("quiet_lanes")


def wait_after_last_attempt(delivery: Delivery) -> float:
    """Seconds from the end of the last attempt that it knows of to the next one."""
    last = attempts_of(delivery)[delivery.attempt_count - 1]
    assert delivery.next_attempt_at is not None
    return (delivery.next_attempt_at - last.started_at).total_seconds() - last.duration_ms / 1000


def retry_by_hand(delivery: Delivery) -> None:
    with transaction.atomic():
        assert request_manual_attempt([delivery], now=datetime.now(UTC)) == 1


@pytest.mark.parametrize("transport_name", ["curl", "requests"])
def test_each_failure_waits_as_the_schedule_says_until_it_is_exhausted(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[60, 200])
        event = publish(tenant)

        run_until_dry(name=transport_name)
        first = delivery_of(event)
        lane = lane_of(endpoint)
        make_due(tenant)
        run_until_dry(name=transport_name)
        second = delivery_of(event)
        make_due(tenant)
        run_until_dry(name=transport_name)
        third = delivery_of(event)
        make_due(tenant)
        run_until_dry(name=transport_name)

    assert (first.status, first.schedule_step, first.completed_at) == ("pending", 1, None)
    assert 60 <= wait_after_last_attempt(first) < 71
    assert (lane.ready_at, lane.is_ready) == (first.next_attempt_at, False)
    assert (second.status, second.schedule_step) == ("pending", 2)
    assert 200 <= wait_after_last_attempt(second) < 225
    assert (third.status, third.schedule_step, third.attempt_count) == ("failed", 3, 3)
    assert third.completed_at is not None
    assert (third.next_attempt_at, third.last_outcome, third.last_status_code) == (None, "http_error", 500)
    assert [attempt.number for attempt in attempts_of(third)] == [1, 2, 3]
    assert [request.headers["webhook-attempt"] for request in webhooks.requests] == ["1", "2", "3"]
    assert len({request.id for request in webhooks.requests}) == 1
    assert len({request.body for request in webhooks.requests}) == 1


def test_without_a_schedule_of_its_own_an_endpoint_has_the_default() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(404)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        event = publish(tenant)

        run_until_dry()
        waits = [wait_after_last_attempt(delivery_of(event))]
        make_due(tenant)
        run_until_dry()
        waits.append(wait_after_last_attempt(delivery_of(event)))

    assert all(due <= wait < due * 1.1 + 5 for due, wait in zip(DEFAULT_SCHEDULE[:2], waits, strict=True))


def test_an_empty_schedule_means_one_attempt() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[])
        event = publish(tenant)

        run_until_dry()

    assert (delivery_of(event).status, delivery_of(event).attempt_count) == ("failed", 1)


def test_a_retry_that_is_due_succeeds() -> None:
    tenant = make_tenant()
    answers = iter([Reply(500), Reply(302), Reply(204, body=b"")])
    with Webhooks(a=lambda _: next(answers)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[0, 0, 0])
        event = publish(tenant)

        run_until_dry()

    delivery = delivery_of(event)
    assert (delivery.status, delivery.attempt_count, delivery.last_status_code) == ("succeeded", 3, 204)
    assert [attempt.status_code for attempt in attempts_of(delivery)] == [500, 302, 204]
    assert webhooks.together == []


def test_success_is_what_the_endpoint_says_it_is() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(302), b=Reply(200)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), success_statuses=["302"])
        first = publish(tenant)
        run_until_dry()
    tenant = make_tenant()
    with Webhooks(b=Reply(200)) as webhooks:
        make_endpoint(tenant, webhooks.url("/b"), success_statuses=["302"])
        second = publish(tenant)
        run_until_dry()

    assert delivery_of(first).status == "succeeded"
    assert delivery_of(second).last_outcome == "http_error"


@pytest.mark.parametrize(
    ("status", "header", "schedule", "low", "high"),
    [
        (503, "retry-after: 300", [60], 300, 335),
        (429, "Retry-After: 300", [60], 300, 335),
        (503, "retry-after: 1", [60], 60, 71),
        (500, "retry-after: 300", [60], 60, 71),
        (503, "retry-after: 9999999", [60], 86_400, 95_045),
        (503, "retry-after: soon", [60], 60, 71),
    ],
    ids=["lengthens 503", "lengthens 429", "never shortens", "not on 500", "a day at most", "no sense"],
)
def test_retry_after(status: int, header: str, schedule: list[int], low: float, high: float) -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(status, (header,))) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=schedule)
        event = publish(tenant)

        run_until_dry()

    assert low <= wait_after_last_attempt(delivery_of(event)) < high


def test_retry_after_does_not_add_an_attempt() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(503, ("retry-after: 5",))) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[])
        event = publish(tenant)

        run_until_dry()

    assert delivery_of(event).status == "failed"


@pytest.mark.parametrize("transport_name", ["curl", "requests"])
def test_410_ends_the_delivery_and_tells_of_the_endpoint(transport_name: str) -> None:
    gone: list[UUID] = []
    tenant = make_tenant()
    with Webhooks(a=Reply(410)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        event = publish(tenant)

        run_until_dry(name=transport_name, on_gone=gone.append)

    delivery = delivery_of(event)
    assert (delivery.status, delivery.attempt_count, delivery.last_status_code) == ("failed", 1, 410)
    assert gone == [endpoint.id]


@pytest.mark.parametrize("transport_name", ["curl", "requests"])
@pytest.mark.parametrize(("status", "ends"), [(500, "failed"), (200, "succeeded")])
def test_a_receiver_that_asks_for_nothing_more_is_heard_whatever_it_answers(
    transport_name: str, status: int, ends: str
) -> None:
    refused: list[UUID] = []
    tenant = make_tenant()
    with Webhooks(a=Reply(status, ("Webhook-Delivery: disable",))) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        event = publish(tenant)

        run_until_dry(name=transport_name, on_refused=refused.append)

    delivery = delivery_of(event)
    (attempt,) = attempts_of(delivery)
    assert (delivery.status, delivery.attempt_count, delivery.next_attempt_at) == (ends, 1, None)
    assert attempt.detail == "The receiver asked to disable the endpoint."
    assert refused == [endpoint.id]


@pytest.mark.parametrize("asks", ["abort", "abort-message"])
def test_a_receiver_that_asks_not_to_try_again_ends_that_delivery_alone(asks: str) -> None:
    refused: list[UUID] = []
    tenant = make_tenant()
    replies = iter([Reply(500, (f"webhook-delivery: {asks}",)), Reply(200)])
    with Webhooks(a=lambda _: next(replies)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), max_in_flight=1)
        first, second = publish(tenant), publish(tenant)

        run_until_dry(on_refused=refused.append)

    delivery = delivery_of(first)
    (attempt,) = attempts_of(delivery)
    assert (delivery.status, delivery.last_outcome, attempt.detail) == (
        "failed",
        "http_error",
        "The receiver asked not to try again.",
    )
    assert delivery_of(second).status == "succeeded"
    assert refused == []


def test_410_cancels_what_else_is_pending_once_the_endpoint_is_disabled() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(410)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), max_in_flight=1)
        events = [publish(tenant) for _ in range(30)]

        def disable(endpoint_id: UUID) -> None:
            assert endpoint_id == endpoint.id
            change_endpoint(endpoint, status="disabled", disabled_reason="gone")

        run_until_dry(on_gone=disable)

    ends = [(d.status, d.cancel_reason) for d in map(delivery_of, events)]
    sent = len(webhooks.requests)
    assert ends[:sent] == [("failed", None)] * sent
    assert ends[sent:] == [("cancelled", "endpoint_disabled")] * (30 - sent)


@pytest.mark.parametrize("transport_name", ["curl", "requests"])
def test_an_endpoint_that_hangs_ends_in_a_time_out_and_is_asked_less(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), timeout_seconds=1)
        event = publish(tenant)

        run_until_dry(name=transport_name)

    delivery = delivery_of(event)
    assert (delivery.status, delivery.last_outcome, delivery.last_status_code) == ("pending", "timeout", None)
    (attempt,) = attempts_of(delivery)
    assert 1000 <= attempt.duration_ms < 4000
    assert lane_of(endpoint).slots == 1.0


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_a_manual_retry_of_a_pending_delivery_uses_no_step_and_leaves_the_schedule() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[3600])
        event = publish(tenant)
        run_until_dry()
        before = delivery_of(event)

        retry_by_hand(before)
        run_until_dry()

    after = delivery_of(event)
    assert (after.status, after.attempt_count, after.schedule_step) == ("pending", 2, 1)
    assert (after.next_attempt_at, after.manual_requested_at) == (before.next_attempt_at, None)
    assert [(a.number, a.trigger) for a in attempts_of(after)] == [(1, "automatic"), (2, "manual")]
    assert [request.headers["webhook-attempt"] for request in webhooks.requests] == ["1", "2"]


def test_a_manual_retry_that_succeeds_ends_a_pending_delivery() -> None:
    tenant = make_tenant()
    answers = iter([Reply(500), Reply(200)])
    with Webhooks(a=lambda _: next(answers)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[3600])
        event = publish(tenant)
        run_until_dry()

        retry_by_hand(delivery_of(event))
        run_until_dry()

    after = delivery_of(event)
    assert (after.status, after.next_attempt_at, after.schedule_step) == ("succeeded", None, 1)
    assert lane_of(endpoint).ready_at is None


def test_a_manual_retry_of_a_failed_delivery_can_still_succeed() -> None:
    tenant = make_tenant()
    answers = iter([Reply(500), Reply(500), Reply(200)])
    with Webhooks(a=lambda _: next(answers)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[])
        event = publish(tenant)
        run_until_dry()
        failed = delivery_of(event)

        retry_by_hand(failed)
        run_until_dry()
        still_failed = delivery_of(event)
        retry_by_hand(still_failed)
        run_until_dry()

    after = delivery_of(event)
    assert (failed.status, failed.schedule_step) == ("failed", 1)
    assert (still_failed.status, still_failed.attempt_count, still_failed.schedule_step) == ("failed", 2, 1)
    assert (still_failed.completed_at, still_failed.next_attempt_at) == (failed.completed_at, None)
    assert (after.status, after.attempt_count, after.schedule_step) == ("succeeded", 3, 1)
    assert after.completed_at is not None
    assert failed.completed_at is not None
    assert after.completed_at > failed.completed_at


def test_a_manual_retry_of_a_succeeded_delivery_sends_it_again_and_changes_no_status() -> None:
    tenant = make_tenant()
    answers = iter([Reply(200), Reply(500)])
    with Webhooks(a=lambda _: next(answers)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        event = publish(tenant)
        run_until_dry()
        before = delivery_of(event)

        retry_by_hand(before)
        run_until_dry()

    after = delivery_of(event)
    assert len(webhooks.requests) == 2
    assert (after.status, after.attempt_count, after.schedule_step) == ("succeeded", 2, 1)
    assert (after.completed_at, after.next_attempt_at, after.manual_requested_at) == (
        before.completed_at,
        None,
        None,
    )


def test_a_manual_retry_of_a_cancelled_delivery_can_succeed() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        event = publish(tenant)
        Delivery.objects.for_tenant(tenant).update(
            status="cancelled",
            cancel_reason="requested",
            next_attempt_at=None,
            completed_at=datetime.now(UTC),
        )

        retry_by_hand(delivery_of(event))
        run_until_dry()

    after = delivery_of(event)
    assert (after.status, after.cancel_reason, after.attempt_count, after.schedule_step) == (
        "succeeded",
        None,
        1,
        0,
    )


def test_a_request_by_hand_while_one_is_in_the_air_makes_one_more() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500, waits=True)) as webhooks, running():
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[3600])
        event = publish(tenant)
        webhooks.wait_for(1)

        retry_by_hand(delivery_of(event))
        webhooks.release()
        webhooks.wait_for(2)
        until(lambda: delivery_of(event).attempt_count == 2)

    after = delivery_of(event)
    assert [a.trigger for a in attempts_of(after)] == ["automatic", "manual"]
    assert (after.status, after.schedule_step, after.manual_requested_at) == ("pending", 1, None)
    assert webhooks.together == []


def test_a_retry_that_falls_due_does_not_wait_for_a_neighbour_that_hangs() -> None:
    def rule(request: Request) -> Reply:
        if b"hang" in request.body:
            return Reply(waits=True)
        return Reply(500 if request.headers["webhook-attempt"] == "1" else 200)

    tenant = make_tenant()
    with Webhooks(a=rule) as webhooks, running():
        endpoint = make_endpoint(tenant, webhooks.url("/a"), max_in_flight=4, retry_schedule=[2, 2])
        Lane.unscoped.filter(endpoint=endpoint).update(slots=4)
        ingest.publish([new_event(tenant, b'"hang"'), new_event(tenant, b'"fail"')])
        webhooks.wait_for(2)
        again = webhooks.wait_for(3)[2]
        still_open = sum(webhooks.open.values())
        webhooks.release()

    assert again.headers["webhook-attempt"] == "2"
    assert still_open >= 1


def test_a_retry_of_an_earlier_holder_does_not_wait_for_a_neighbour_that_hangs() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), max_in_flight=4, retry_schedule=[4, 4])
        publish(tenant, b'"fail"')
        run_until_dry()
        webhooks.replies["/a"] = lambda request: Reply(waits=b"hang" in request.body)
        with running():
            publish(tenant, b'"hang"')
            webhooks.wait_for(2)
            again = webhooks.wait_for(3, seconds=10)[2]
            still_open = sum(webhooks.open.values())
            webhooks.release()

    assert again.headers["webhook-attempt"] == "2"
    assert still_open == 1
