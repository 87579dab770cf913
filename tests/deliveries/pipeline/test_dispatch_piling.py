"""Where versions of lanes pile up (somebody's old snapshot keeps them), lanes stay, and are not looked at from the beginning."""

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from deliveries.models import Delivery, Endpoint, Lane
from deliveries.pipeline import dispatch, ingest, lanes, needs
from deliveries.pipeline.book import LATEST_COMMIT
from deliveries.pipeline.wake import wake
from tests.support.builders import (
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
from tests.support.running import Reply, Webhooks, run_until_dry, running, until

pytestmark = pytest.mark.usefixtures("quiet_lanes")

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def piling_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "are_piling_up", lambda _: True)


def assert_known_until_lately(endpoint: Endpoint) -> None:
    known = lane_of(endpoint).owed_from
    assert known is not None
    assert LATEST_COMMIT <= timezone.now() - known < LATEST_COMMIT + timedelta(seconds=20)


def test_what_waited_for_an_hour_goes_out_and_then_nothing_is_owed_from_then() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        ingest.publish([new_event(tenant) for _ in range(1200)])
        due = timezone.now() - HOUR
        Delivery.objects.for_tenant(tenant).update(next_attempt_at=due)
        Lane.unscoped.filter(endpoint=endpoint).update(owed_from=due)

        run_until_dry()

    assert len(webhooks.requests) == 1200
    assert {d.status for d in deliveries_of(tenant)} == {"succeeded"}
    assert_known_until_lately(endpoint)


def test_what_fails_is_tried_again_by_the_one_that_holds_it_and_by_the_next() -> None:
    tenant = make_tenant()
    replies = iter([Reply(500), Reply(500), Reply(200)])
    with Webhooks(a=lambda _: next(replies)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[1, 2])
        event = publish(tenant)
        with running():
            until(lambda: delivery_of(event).attempt_count == 2)
        with running():
            until(lambda: delivery_of(event).status == "succeeded")

    assert len(attempts_of(delivery_of(event))) == 3
    assert_known_until_lately(endpoint)


def test_what_was_committed_late_is_found_while_its_lane_is_held_and_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(needs, "PILED_CURSOR_SECONDS", 1.0)
    tenant = make_tenant()

    def commit_late() -> ingest.Accepted:
        """As if its transaction had begun twenty seconds ago."""
        (event,) = accepted(ingest.publish([new_event(tenant)]))
        Delivery.unscoped.filter(id=delivery_of(event).id).update(
            next_attempt_at=timezone.now() - timedelta(seconds=20)
        )
        wake([(endpoint.id, None)])
        return event

    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant)
        with running():
            webhooks.wait_for(1)
            until(lambda: lane_of(endpoint).dispatcher_id is not None)
            began = time.monotonic()
            event = commit_late()
            until(lambda: delivery_of(event).status == "succeeded")
            assert time.monotonic() - began < 10
        assert_known_until_lately(endpoint)
        event = commit_late()
        run_until_dry()

    assert delivery_of(event).status == "succeeded"


def test_a_lane_that_is_held_for_long_says_from_when_it_may_owe_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For whoever takes it over, if its holder dies."""
    monkeypatch.setattr(needs, "PILED_CURSOR_SECONDS", 0.2)
    monkeypatch.setattr(dispatch, "CHECK_SECONDS", 0.3)
    tenant = make_tenant()
    # Or a lane that waits for its answer would be cleared, and given back after it.
    monkeypatch.setattr(dispatch, "SLOW_SECONDS", 60.0)
    with Webhooks(a=Reply(waits=True)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant)
        due = timezone.now() - HOUR
        Delivery.objects.for_tenant(tenant).update(next_attempt_at=due)
        with running() as one:
            until(lambda: lane_of(endpoint).owed_from is not None)
            oldest = lane_of(endpoint).owed_from
            webhooks.release()
            until(lambda: lane_of(endpoint).owed_from != oldest)
            lane = lane_of(endpoint)

    assert lane.dispatcher_id == one.dispatcher.me
    assert oldest is not None
    assert lane.owed_from is not None
    assert abs(oldest - due) < timedelta(seconds=1)
    assert lane.owed_from > due + HOUR - timedelta(minutes=5)
