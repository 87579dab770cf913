"""What people change while deliveries wait or are in the air: settings, pause, stop, cancel, disable, delete."""

import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from deliveries.models import Announcement, Delivery, Endpoint, EndpointSecret, Lane
from deliveries.pipeline import ingest
from deliveries.pipeline.cancel import cancel
from deliveries.pipeline.health import Rules
from deliveries.pipeline.signing import parse_secret
from deliveries.pipeline.transport import Answer
from deliveries.pipeline.wake import wake
from deliveries.sealed import seal_secret
from deliveries.services import stopping
from tenants.models import PlatformState, Tenant
from tenants.services.audit import COMMAND
from tests.support.builders import (
    attempts_of,
    change_endpoint,
    deliveries_of,
    delivery_of,
    lane_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    new_event,
    publish,
)
from tests.support.running import Reply, Request, Running, Webhooks, run_until_dry, running, until

pytestmark = pytest.mark.usefixtures("quiet_lanes")

OTHER_SECRET = "whsec_YW5vdGhlciBzZWNyZXQgb2YgYW5vdGhlciBlbmRwb2ludA=="


def loaded(one: Running) -> int:
    return one.dispatcher.book.loaded


def make_three(tenant: Tenant, url: str) -> list[Endpoint]:
    """One lane loads 512 at most."""
    return make_endpoints(tenant, [url] * 3, max_in_flight=1)


def test_a_new_url_and_secret_hold_within_five_seconds_with_a_thousand_deliveries_loaded() -> None:
    tenant = make_tenant()
    with (
        Webhooks(old=Reply(seconds=0.05)) as before,
        Webhooks() as after,
        running() as one,
    ):
        after.secret = OTHER_SECRET
        endpoints = make_three(tenant, before.url("/old"))
        ingest.publish([new_event(tenant) for _ in range(500)])
        until(lambda: loaded(one) > 1_000)
        before.wait_for(3)

        for endpoint in endpoints:
            EndpointSecret.unscoped.filter(endpoint=endpoint).update(
                encrypted=seal_secret(
                    tenant_id=tenant.id, endpoint_id=endpoint.id, secret=parse_secret(OTHER_SECRET)
                )
            )
            change_endpoint(endpoint, url=after.url("/new"), max_in_flight=50)
        changed = time.monotonic()
        assert loaded(one) > 1_000
        until(lambda: len(before.requests) + len(after.requests) == 1_500, seconds=20)

    assert max(request.at for request in before.requests) - changed < 5
    assert len(deliveries_of(tenant)) == 1_500
    assert {delivery.attempt_count for delivery in deliveries_of(tenant)} == {1}


def test_a_pause_holds_a_thousand_that_are_loaded_and_its_end_lets_them_go_on() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(seconds=0.05)) as webhooks, running() as one:
        endpoints = make_three(tenant, webhooks.url("/a"))
        ingest.publish([new_event(tenant) for _ in range(500)])
        until(lambda: loaded(one) > 1_000)
        webhooks.wait_for(3)

        Lane.objects.for_tenant(tenant).update(is_paused=True)
        assert loaded(one) > 1_000
        until(lambda: not one.dispatcher.book.lanes)
        held = len(webhooks.requests)
        time.sleep(0.3)
        assert len(webhooks.requests) == held
        assert [lane_of(endpoint).dispatcher_id for endpoint in endpoints] == [None] * 3

        webhooks.replies["/a"] = Reply()
        Lane.objects.for_tenant(tenant).update(is_paused=False)
        wake([(endpoint.id, None) for endpoint in endpoints])
        webhooks.wait_for(1_500, seconds=30)
        until(lambda: [lane_of(endpoint).ready_at for endpoint in endpoints] == [None] * 3)

    assert held < 500
    assert [delivery.status for delivery in deliveries_of(tenant)] == ["succeeded"] * 1_500
    assert len(webhooks.requests) == 1_500


def test_a_paused_lane_costs_nothing_and_is_not_taken() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        Lane.unscoped.filter(endpoint=endpoint).update(is_paused=True)
        event = publish(tenant)

        run_until_dry()

    assert webhooks.requests == []
    assert (delivery_of(event).status, delivery_of(event).attempt_count) == ("pending", 0)


def test_the_stop_of_all_sending_holds_within_a_renewal_and_its_end_lets_it_go_on() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(seconds=0.02)) as webhooks, running() as one:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), max_in_flight=1)
        ingest.publish([new_event(tenant) for _ in range(300)])
        webhooks.wait_for(3)

        PlatformState.objects.update(is_sending_stopped=True)
        one.dispatcher.heart.beat()  # as it does every five seconds
        time.sleep(0.5)  # what is in the air arrives
        held = len(webhooks.requests)
        time.sleep(0.3)
        assert len(webhooks.requests) == held

        webhooks.replies["/a"] = Reply()
        PlatformState.objects.update(is_sending_stopped=False)
        one.dispatcher.heart.beat()
        webhooks.wait_for(300)
        until(lambda: lane_of(endpoint).ready_at is None)

    assert held < 300
    assert len({request.id for request in webhooks.requests}) == len(webhooks.requests) == 300


def test_a_dispatcher_that_begins_while_all_sending_is_stopped_sends_nothing() -> None:
    tenant = make_tenant()
    PlatformState.objects.update(is_sending_stopped=True)
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant)
        with running():
            time.sleep(0.5)

    assert webhooks.requests == []


def test_a_delivery_cancelled_in_the_air_stays_cancelled_and_keeps_its_attempt() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks, running():
        make_endpoint(tenant, webhooks.url("/a"))
        event = publish(tenant)
        webhooks.wait_for(1)

        cancelled_at = datetime.now(UTC)
        assert (
            Delivery.objects.for_tenant(tenant)
            .filter(status="pending")
            .update(
                status="cancelled", cancel_reason="requested", next_attempt_at=None, completed_at=cancelled_at
            )
            == 1
        )
        webhooks.release()
        until(lambda: delivery_of(event).attempt_count == 1)

    delivery = delivery_of(event)
    assert (delivery.status, delivery.cancel_reason) == ("cancelled", "requested")
    assert (delivery.completed_at, delivery.next_attempt_at) == (cancelled_at, None)
    assert [attempt.outcome for attempt in attempts_of(delivery)] == ["succeeded"]


def test_deliveries_cancelled_while_they_wait_in_memory_are_not_sent() -> None:
    """Behind an endpoint that hangs they may wait for minutes after the cancel was answered."""
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks, running() as one:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), max_in_flight=1)
        ingest.publish([new_event(tenant) for _ in range(6)])
        webhooks.wait_for(1)
        until(lambda: loaded(one) == 5)
        first, *others, last = deliveries_of(tenant)

        with transaction.atomic():
            cancelled = cancel(
                tenant_id=tenant.id,
                delivery_ids=[delivery.id for delivery in others],
                reason=Delivery.CancelReason.REQUESTED,
            )
        until(lambda: loaded(one) == 1)
        webhooks.release()
        until(lambda: lane_of(endpoint).dispatcher_id is None)

    assert len(cancelled) == 4
    assert len(webhooks.requests) == 2
    assert [(d.status, d.attempt_count) for d in deliveries_of(tenant)] == [
        ("succeeded", 1),
        *[("cancelled", 0)] * 4,
        ("succeeded", 1),
    ]
    assert (first.status, last.status) == ("pending", "pending")


def test_disabling_cancels_what_is_pending_and_lets_end_what_is_in_the_air() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks, running() as one:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), max_in_flight=1)
        ingest.publish([new_event(tenant) for _ in range(50)])
        webhooks.wait_for(1)
        until(lambda: loaded(one) == 49)

        change_endpoint(endpoint, status="disabled", disabled_reason="manual")
        until(lambda: loaded(one) == 0)
        webhooks.release()
        until(lambda: lane_of(endpoint).dispatcher_id is None and lane_of(endpoint).ready_at is None)

    ends = [(d.status, d.cancel_reason, d.attempt_count) for d in deliveries_of(tenant)]
    assert ends == [("succeeded", None, 1)] + [("cancelled", "endpoint_disabled", 0)] * 49
    assert all(d.completed_at is not None for d in deliveries_of(tenant))
    assert len(webhooks.requests) == 1


def test_deleting_an_endpoint_ends_more_than_one_batch_of_pending_deliveries() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/never")
    ingest.publish([new_event(tenant) for _ in range(1500)])
    ingest.publish([new_event(tenant) for _ in range(700)])
    change_endpoint(endpoint, deleted_at=datetime.now(UTC))

    run_until_dry()

    ends = {(d.status, d.cancel_reason, d.attempt_count) for d in deliveries_of(tenant)}
    assert ends == {("cancelled", "endpoint_deleted", 0)}
    assert lane_of(endpoint).ready_at is None


def test_deleting_a_tenant_ends_its_deliveries() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/never")
    event = publish(tenant)
    Tenant.objects.filter(id=tenant.id).update(deleted_at=datetime.now(UTC))
    wake([(endpoint.id, None)])

    run_until_dry()

    assert (delivery_of(event).status, delivery_of(event).cancel_reason) == ("cancelled", "tenant_deleted")


def test_a_stopped_endpoint_gets_no_retry_that_was_planned_for_later() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[3600])
        event = publish(tenant)
        run_until_dry()

        change_endpoint(endpoint, status="disabled", disabled_reason="manual")
        run_until_dry()

    delivery = delivery_of(event)
    assert (delivery.status, delivery.cancel_reason, delivery.attempt_count) == (
        "cancelled",
        "endpoint_disabled",
        1,
    )


def test_enabling_again_sends_what_is_published_from_then_on() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        change_endpoint(endpoint, status="disabled", disabled_reason="manual")
        missed = publish(tenant)
        run_until_dry()
        change_endpoint(endpoint, status="enabled", disabled_reason=None)
        event = publish(tenant)

        run_until_dry()

    assert missed.delivery_ids == []
    assert len(webhooks.requests) == 1
    assert delivery_of(event).status == "succeeded"


def test_a_change_that_a_holder_missed_is_seen_at_the_next_take() -> None:
    """The config is cached by version; a lane taken anew brings the version along."""
    tenant = make_tenant()
    moved: list[UUID] = []
    with Webhooks() as webhooks, running():
        endpoint = make_endpoint(tenant, webhooks.url("/old"))
        publish(tenant)
        webhooks.wait_for(1)
        until(lambda: lane_of(endpoint).dispatcher_id is None)

        change_endpoint(endpoint, url=webhooks.url("/new"))
        publish(tenant)
        requests: list[Request] = webhooks.wait_for(2)
        moved.append(Endpoint.unscoped.get(id=endpoint.id).id)

    assert [request.path for request in requests] == ["/old", "/new"]


def hanging(tenant: Tenant, webhooks: Webhooks, path: str, *, count: int, most: int) -> Endpoint:
    """An endpoint with `count` deliveries, of which `most` are in the air."""
    endpoint = make_endpoint(tenant, webhooks.url(path), max_in_flight=most)
    Lane.unscoped.filter(endpoint=endpoint).update(slots=most)
    ingest.publish([new_event(tenant) for _ in range(count)])
    return endpoint


def test_a_new_url_holds_though_requests_to_the_old_one_hang() -> None:
    tenant = make_tenant()
    with Webhooks(old=Reply(waits=True)) as webhooks, running():
        endpoint = hanging(tenant, webhooks, "/old", count=10, most=4)
        webhooks.wait_for(4, "/old")

        change_endpoint(endpoint, url=webhooks.url("/new"))
        changed = time.monotonic()
        webhooks.wait_for(6, "/new", seconds=10)
        took = time.monotonic() - changed
        publish(tenant)
        webhooks.wait_for(7, "/new", seconds=5)
        still_open = sum(webhooks.open.values())
        held = lane_of(endpoint).dispatcher_id
        webhooks.release()
        until(lambda: {delivery.status for delivery in deliveries_of(tenant)} == {"succeeded"})
        until(lambda: (lane_of(endpoint).ready_at, lane_of(endpoint).dispatcher_id) == (None, None))

    assert took < 5
    assert (still_open, held is None) == (4, False)
    assert len(webhooks.requests) == len({request.id for request in webhooks.requests}) == 11


def test_with_new_settings_and_the_same_receiver_it_gets_no_more_requests_at_once() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks, running():
        endpoint = hanging(tenant, webhooks, "/a", count=10, most=4)
        webhooks.wait_for(4)

        change_endpoint(endpoint, timeout_seconds=20)
        time.sleep(3)
        webhooks.release()
        until(lambda: {delivery.status for delivery in deliveries_of(tenant)} == {"succeeded"})

    assert webhooks.most_open == 4
    assert len(webhooks.requests) == len({request.id for request in webhooks.requests}) == 10


def test_what_waits_for_a_disabled_endpoint_is_cancelled_though_a_request_hangs() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks, running():
        endpoint = hanging(tenant, webhooks, "/a", count=10, most=4)
        webhooks.wait_for(4)

        change_endpoint(endpoint, status="disabled", disabled_reason="manual")
        until(
            lambda: [delivery.status for delivery in deliveries_of(tenant)].count("cancelled") == 6, seconds=5
        )
        still_open = sum(webhooks.open.values())
        webhooks.release()
        until(lambda: lane_of(endpoint).dispatcher_id is None)

    assert still_open == 4
    assert [delivery.status for delivery in deliveries_of(tenant)].count("succeeded") == 4


def test_a_second_change_holds_too_while_requests_from_before_the_first_hang() -> None:
    tenant = make_tenant()
    with Webhooks(old=Reply(waits=True)) as webhooks, running() as one:
        endpoint = hanging(tenant, webhooks, "/old", count=10, most=4)
        webhooks.wait_for(4, "/old")
        change_endpoint(endpoint, url=webhooks.url("/new"))
        webhooks.wait_for(6, "/new", seconds=10)

        change_endpoint(endpoint, url=webhooks.url("/newest"))
        until(lambda: urls_of(one) == [webhooks.url("/newest")], seconds=5)
        publish(tenant)
        webhooks.wait_for(1, "/newest", seconds=5)
        still_open = sum(webhooks.open.values())
        webhooks.release()
        until(lambda: {delivery.status for delivery in deliveries_of(tenant)} == {"succeeded"})

    assert still_open == 4
    assert len(webhooks.requests) == len({request.id for request in webhooks.requests}) == 11


def urls_of(one: Running) -> list[str]:
    return [lane.config.destination.url for lane in list(one.dispatcher.book.lanes.values())]


def test_the_end_of_a_pause_lets_it_go_on_though_requests_hang() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks, running() as one:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), max_in_flight=4)
        ingest.publish([new_event(tenant) for _ in range(10)])
        webhooks.wait_for(2)
        Lane.unscoped.filter(endpoint=endpoint).update(is_paused=True)
        until(lambda: loaded(one) == 0)

        webhooks.replies["/a"] = Reply()
        Lane.unscoped.filter(endpoint=endpoint).update(is_paused=False)
        wake([(endpoint.id, None)])
        webhooks.wait_for(10, seconds=5)
        still_open = sum(webhooks.open.values())
        webhooks.release()
        until(lambda: {delivery.status for delivery in deliveries_of(tenant)} == {"succeeded"})

    assert still_open == 2
    assert len(webhooks.requests) == 10


def test_disabling_cancels_what_a_holder_planned_for_later() -> None:
    """Its lane goes back after the wake of the change, and says itself when there is something due: in an hour."""
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[3600])
        publish(tenant)
        run_until_dry()
        with running():
            webhooks.replies["/a"] = Reply(500, waits=True)
            publish(tenant)
            webhooks.wait_for(2)
            stopping.disable_endpoint(actor=COMMAND, endpoint=endpoint)
            webhooks.release()
            until(lambda: {d.status for d in deliveries_of(tenant)} == {"cancelled"}, seconds=5)
            until(lambda: lane_of(endpoint).ready_at is None)

    assert [(d.cancel_reason, d.attempt_count) for d in deliveries_of(tenant)] == [
        ("endpoint_disabled", 1)
    ] * 2


def test_while_all_sending_is_stopped_a_dispatcher_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = make_tenant()
    PlatformState.objects.update(is_sending_stopped=True)
    polls: list[float] = []
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant)
        with running() as one:
            poll = one.dispatcher.transport.poll

            def counted(seconds: float, **more: Any) -> list[Answer]:
                polls.append(seconds)
                return poll(seconds, **more)

            time.sleep(0.5)
            monkeypatch.setattr(one.dispatcher.transport, "poll", counted)
            time.sleep(1.0)

    assert 0 < len(polls) < 50


@pytest.mark.parametrize("status", [410, 500])
def test_an_answer_of_the_receiver_that_was_left_says_nothing_of_the_new_one(status: int) -> None:
    tenant = make_tenant()
    gone: list[UUID] = []
    with (
        Webhooks(old=Reply(status, waits=True)) as webhooks,
        running(
            on_gone=gone.append, health_rules=Rules(open_after_seconds=0.0, open_after_failures=1)
        ) as one,
    ):
        endpoint = hanging(tenant, webhooks, "/old", count=4, most=4)
        webhooks.wait_for(4, "/old")
        change_endpoint(endpoint, url=webhooks.url("/new"))
        until(lambda: urls_of(one) == [webhooks.url("/new")], seconds=5)
        webhooks.release()
        until(lambda: lane_of(endpoint).dispatcher_id is None)

    lane = lane_of(endpoint)
    assert gone == []
    assert (lane.failing_since, lane.circuit_opened_at, lane.hold_until) == (None, None, None)
    assert not Announcement.objects.for_tenant(tenant).exists()
