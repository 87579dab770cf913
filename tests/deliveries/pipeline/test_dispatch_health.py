"""What an endpoint's answers mean for its lane: pauses, the circuit and its probes, with real requests.

The rules' minutes are tenths of a second here.
"""

import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from deliveries.models import Announcement, Endpoint, EndpointSecret, Lane
from deliveries.pipeline import ingest
from deliveries.pipeline.health import Rules
from deliveries.pipeline.wake import request_manual_attempt, wake
from deliveries.services import endpoint_changes, endpoint_deletion, endpoints, health, stopping
from tenants.models import Tenant
from tenants.services.audit import PLATFORM
from tests.support.builders import (
    accepted,
    attempts_of,
    deliveries_of,
    delivery_of,
    lane_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    new_event,
    publish,
)
from tests.support.running import Reply, Webhooks, run_until_dry, running, until

pytestmark = [pytest.mark.usefixtures("quiet_lanes"), pytest.mark.alone]

QUICK = Rules(
    open_after_seconds=0.3,
    open_after_failures=5,
    first_wait_seconds=0.4,
    longest_wait_seconds=0.8,
    first_pause_seconds=0.2,
    longest_pause_seconds=0.4,
)
NEVER = Rules(open_after_failures=10**9, first_pause_seconds=0.2, longest_pause_seconds=0.4)


def told(tenant: Tenant) -> list[str]:
    return list(Announcement.objects.for_tenant(tenant).order_by("id").values_list("kind", flat=True))


def set_lane(endpoint: Endpoint, **fields: Any) -> None:
    Lane.unscoped.filter(endpoint=endpoint).update(**fields)


def open_circuit(endpoint: Endpoint, *, seconds: float = 3600) -> None:
    """As a holder leaves it, for so long."""
    now = timezone.now()
    set_lane(
        endpoint,
        failures=30,
        failing_since=now - timedelta(minutes=10),
        failed_at=now,
        is_own_failing=True,
        circuit_opened_at=now,
        circuit_seconds=seconds,
        hold_until=now + timedelta(seconds=seconds),
        hold_reason="circuit",
    )


# --- the pause --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport_name", ["curl", "requests"])
def test_an_overload_pauses_the_lane_and_ends_no_delivery(transport_name: str) -> None:
    tenant = make_tenant()
    answers = iter([Reply(503), Reply(429), *[Reply()] * 10])
    with Webhooks(a=lambda _: next(answers)) as webhooks, running(name=transport_name, health_rules=NEVER):
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[0, 0], max_in_flight=1)
        ingest.publish([new_event(tenant) for _ in range(10)])
        first, second, third, *_ = webhooks.wait_for(12)
        until(lambda: lane_of(endpoint).dispatcher_id is None)

    assert 0.19 < second.at - first.at < 0.39
    assert 0.39 < third.at - second.at < 0.75
    assert [delivery.status for delivery in deliveries_of(tenant)] == ["succeeded"] * 10
    lane = lane_of(endpoint)
    assert (lane.failures, lane.failing_since, lane.pause_seconds, lane.hold_reason) == (0, None, None, None)
    assert told(tenant) == []


def test_a_pause_is_seen_on_the_lane_and_costs_others_nothing() -> None:
    tenant = make_tenant()
    rules = Rules(first_pause_seconds=50)
    with Webhooks(a=Reply(502)) as webhooks:
        paused, other = [make_endpoint(tenant, webhooks.url(path), max_in_flight=1) for path in ("/a", "/b")]
        ingest.publish([new_event(tenant) for _ in range(20)])

        run_until_dry(health_rules=rules)

    lane = lane_of(paused)
    found = health.of(endpoint_changes.endpoints_of(tenant).get(id=paused.id), now=timezone.now())
    assert len(webhooks.to("/a")) == 1
    assert len(webhooks.to("/b")) == 20
    assert (lane.hold_reason, lane.is_ready, lane.failures, lane.pause_seconds) == ("answer", False, 1, 50)
    assert lane.hold_until is not None
    assert 45 < (lane.hold_until - timezone.now()).total_seconds() <= 50
    assert (found.circuit, found.hold_reason, found.held_until) == ("closed", "answer", lane.hold_until)
    assert lane_of(other).failing_since is None


def test_answers_to_what_was_in_the_air_together_make_one_pause() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(503, waits=True)) as webhooks, running(health_rules=Rules()):
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        set_lane(endpoint, slots=8)
        ingest.publish([new_event(tenant) for _ in range(8)])
        webhooks.wait_for(8)
        webhooks.release()
        until(lambda: lane_of(endpoint).hold_reason == "answer")

    lane = lane_of(endpoint)
    assert (lane.failures, lane.pause_seconds, lane.slots) == (8, 1.0, 1.0)


# --- the circuit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport_name", ["curl", "requests"])
def test_a_circuit_opens_probes_one_by_one_and_closes_with_a_good_answer(transport_name: str) -> None:
    tenant = make_tenant()
    with (
        Webhooks(a=Reply(500, seconds=0.01)) as webhooks,
        running(name=transport_name, health_rules=QUICK),
    ):
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[0] * 20)
        events = ingest.publish([new_event(tenant) for _ in range(50)])
        until(lambda: lane_of(endpoint).hold_reason == "circuit")
        opened = lane_of(endpoint)
        sent = len(webhooks.requests)
        probes = webhooks.wait_for(sent + 3)[sent:]
        webhooks.replies["/a"] = Reply()
        until(lambda: {delivery.status for delivery in deliveries_of(tenant)} == {"succeeded"})
        until(lambda: lane_of(endpoint).dispatcher_id is None)

    assert opened.circuit_opened_at is not None
    assert opened.failing_since is not None
    assert opened.circuit_opened_at - opened.failing_since >= timedelta(seconds=0.3)
    assert (opened.failures >= 5, opened.is_ready, opened.is_own_failing) == (True, False, True)
    # Waits of 0.4 s, then 0.8 s and 0.8 s, each a tenth longer at most.
    first, second, third = (probe.at for probe in probes)
    assert 0.8 <= second - first < 1.1
    assert 0.8 <= third - second < 1.1
    lane = lane_of(endpoint)
    assert (lane.failures, lane.failing_since, lane.circuit_opened_at, lane.hold_until) == (
        0,
        None,
        None,
        None,
    )
    assert len(events) == 50
    assert told(tenant) == ["endpoint.failing", "endpoint.recovered"]
    assert webhooks.together == []


def test_nothing_is_sent_and_nothing_ends_while_the_circuit_is_open() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[])
        open_circuit(endpoint)
        ingest.publish([new_event(tenant) for _ in range(10)])

        run_until_dry()

    assert webhooks.requests == []
    assert [(d.status, d.attempt_count) for d in deliveries_of(tenant)] == [("pending", 0)] * 10
    assert lane_of(endpoint).hold_reason == "circuit"


def test_a_half_open_circuit_sends_one_request_and_no_more_until_its_answer() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks, running():
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        open_circuit(endpoint, seconds=0)
        ingest.publish([new_event(tenant) for _ in range(10)])
        webhooks.wait_for(1)
        time.sleep(0.3)
        alone = len(webhooks.requests)
        webhooks.release()
        webhooks.wait_for(10)
        until(lambda: lane_of(endpoint).failing_since is None)

    assert alone == 1
    assert told(tenant) == ["endpoint.recovered"]


def test_a_probe_that_fails_opens_the_circuit_for_twice_as_long() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        open_circuit(endpoint, seconds=100)
        set_lane(endpoint, hold_until=timezone.now())
        ingest.publish([new_event(tenant) for _ in range(10)])

        run_until_dry()

    lane = lane_of(endpoint)
    assert len(webhooks.requests) == 1
    assert (lane.circuit_seconds, lane.failures, lane.hold_reason) == (200, 31, "circuit")
    assert lane.hold_until is not None
    assert 195 < (lane.hold_until - timezone.now()).total_seconds() <= 220
    assert told(tenant) == []


def test_a_good_answer_beside_the_failures_keeps_the_circuit_closed() -> None:
    tenant = make_tenant()
    count = iter(range(10**6))
    with Webhooks(a=lambda _: Reply(200 if next(count) % 10 == 9 else 500)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[0] * 20)
        ingest.publish([new_event(tenant) for _ in range(60)])

        run_until_dry(health_rules=Rules(open_after_seconds=0, open_after_failures=40))

    assert len(webhooks.requests) > 200
    assert "pending" not in {delivery.status for delivery in deliveries_of(tenant)}
    assert lane_of(endpoint).hold_reason is None
    assert told(tenant) == []


def test_a_fault_of_the_platforms_own_is_never_charged() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[0] * 20)
        EndpointSecret.unscoped.filter(endpoint=endpoint).update(encrypted=b"no token at all")
        event = publish(tenant)

        run_until_dry(health_rules=Rules(open_after_seconds=0, open_after_failures=3))

    assert len(attempts_of(delivery_of(event))) == 21
    assert (lane_of(endpoint).failures, lane_of(endpoint).circuit_opened_at) == (0, None)


def test_in_order_lanes_keep_their_order_behind_an_open_circuit() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500, seconds=0.01)) as webhooks, running(health_rules=QUICK):
        endpoint = make_endpoint(tenant, webhooks.url("/a"), ordering="fifo", retry_schedule=[0] * 20)
        ingest.publish([new_event(tenant, is_fifo=True, ordering_key=f"k{n % 2}") for n in range(20)])
        until(lambda: lane_of(endpoint).hold_reason == "circuit")
        webhooks.replies["/a"] = Reply()
        until(lambda: {delivery.status for delivery in deliveries_of(tenant)} == {"succeeded"})

    by_event = {delivery.event_id: delivery for delivery in deliveries_of(tenant)}
    for key in ("k0", "k1"):
        ended = sorted(
            (delivery for delivery in by_event.values() if delivery.ordering_key == key),
            key=lambda delivery: (delivery.completed_at, delivery.sequence),
        )
        assert [delivery.sequence for delivery in ended] == sorted(delivery.sequence for delivery in ended)


def test_a_lane_with_a_pace_probes_and_goes_on_at_its_pace() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks, running():
        endpoint = make_endpoint(tenant, webhooks.url("/a"), rate_limit=10)
        open_circuit(endpoint, seconds=0)
        ingest.publish([new_event(tenant) for _ in range(8)])
        requests = webhooks.wait_for(8)

    assert requests[-1].at - requests[0].at > 0.2
    assert lane_of(endpoint).circuit_opened_at is None


# --- what people do ---------------------------------------------------------------------------------------------------


def test_enabling_wipes_the_health_and_sends_at_once() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks, running():
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        open_circuit(endpoint)
        stopping.disable_endpoint(actor=PLATFORM, endpoint=endpoint)
        enabled = stopping.enable_endpoint(actor=PLATFORM, endpoint=endpoint)
        publish(tenant)
        webhooks.wait_for(1)
        until(lambda: lane_of(endpoint).dispatcher_id is None)

    lane = lane_of(endpoint)
    assert (lane.failures, lane.failing_since, lane.circuit_opened_at, lane.hold_until) == (
        0,
        None,
        None,
        None,
    )
    assert enabled.missed_since is not None
    assert told(tenant) == ["endpoint.disabled", "endpoint.enabled"]


def test_a_holder_does_not_write_what_it_counted_before_the_health_was_wiped() -> None:
    """It has requests in the air to the endpoint that is enabled meanwhile; they fail, and hold nothing."""
    tenant = make_tenant()
    with (
        Webhooks(a=Reply(503, waits=True)) as webhooks,
        running(health_rules=Rules(first_pause_seconds=3600)),
    ):
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        open_circuit(endpoint, seconds=0)
        publish(tenant)
        webhooks.wait_for(1)
        stopping.disable_endpoint(actor=PLATFORM, endpoint=endpoint)
        stopping.enable_endpoint(actor=PLATFORM, endpoint=endpoint)
        webhooks.release()
        until(lambda: lane_of(endpoint).dispatcher_id is None)

    lane = lane_of(endpoint)
    assert (lane.failures, lane.failing_since, lane.circuit_opened_at) == (0, None, None)
    assert (lane.hold_until, lane.hold_reason) == (None, None)


def test_a_change_of_the_endpoint_ends_the_wait_of_its_circuit() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks, running():
        endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
        open_circuit(endpoint)
        publish(tenant)
        endpoints.update_endpoint(actor=PLATFORM, endpoint=endpoint, url=webhooks.url("/a"))
        webhooks.wait_for(1)
        until(lambda: lane_of(endpoint).circuit_opened_at is None)

    assert told(tenant) == ["endpoint.recovered"]


def test_what_a_killed_holder_stored_is_where_the_next_one_goes_on() -> None:
    """The counts of a lane are on it after each release: a dispatcher that begins anew does not begin at nought."""
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[3600])
        for _ in range(3):
            publish(tenant)
            run_until_dry()
        lane = lane_of(endpoint)
        wake([(endpoint.id, None)])

    assert lane.failures == 3
    assert lane.failed_at is not None
    assert lane.failing_since is not None
    assert lane.failed_at > lane.failing_since


# --- a dead endpoint among a thousand ---------------------------------------------------------------------------------


def test_a_dead_endpoint_among_a_thousand_is_asked_as_often_as_the_breaker_lets_it() -> None:
    """An hour is 3.6 seconds here: all times of the rules are divided by a thousand."""
    rules = Rules(open_after_seconds=0.3, first_wait_seconds=0.06, longest_wait_seconds=0.9)
    tenant = make_tenant()
    with Webhooks(dead=Reply(500)) as webhooks, running(capacity=256, health_rules=rules) as one:
        dead, *_ = make_endpoints(
            tenant, [webhooks.url("/dead"), *[webhooks.url("/fine")] * 1000], retry_schedule=[0] * 20
        )
        # What it waits for is not what the others are asked: a backlog that lasts longer than the test.
        publish_to(dead, 500)
        until(lambda: lane_of(dead).hold_reason == "circuit")
        before, began = len(webhooks.to("/dead")), time.monotonic()
        for _ in range(2):
            publish(tenant)
            time.sleep(0.9)
        webhooks.wait_for(2000, "/fine")
        time.sleep(max(0.0, began + 3.6 - time.monotonic()))
        asked = len(webhooks.to("/dead")) - before
        seconds = time.monotonic() - began

        assert one.dispatcher.book.in_air == 0

    # After 1, 2, 4, 8 and 15 minutes, then each 15.
    assert 4 <= asked <= 5 + seconds / 0.9
    assert len(webhooks.to("/fine")) == 2000
    statuses = Counter(row.status for row in deliveries_of(tenant) if row.endpoint_id != dead.id)
    assert statuses == {"succeeded": 2000}


def publish_to(endpoint: Endpoint, count: int) -> None:
    """To this one alone."""
    events = [new_event(endpoint.tenant, only_endpoint=endpoint.id.bytes) for _ in range(count)]
    accepted(ingest.publish(events))


def test_an_attempt_by_hand_ends_the_wait_of_its_circuit() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        open_circuit(endpoint)
        event = publish(tenant)
        run_until_dry()
        before = len(webhooks.requests)
        with transaction.atomic():
            request_manual_attempt([delivery_of(event)], now=timezone.now())
        run_until_dry()

    assert before == 0
    assert len(webhooks.requests) == 1
    assert delivery_of(event).status == "succeeded"
    assert lane_of(endpoint).circuit_opened_at is None


@pytest.mark.parametrize("stop", [stopping.disable_endpoint, endpoint_deletion.delete_endpoint])
def test_what_waits_behind_an_open_circuit_ends_with_the_endpoint(stop: Any) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        open_circuit(endpoint)
        ingest.publish([new_event(tenant) for _ in range(3)])
        stop(actor=PLATFORM, endpoint=endpoint)
        run_until_dry()

    assert webhooks.requests == []
    assert {delivery.status for delivery in deliveries_of(tenant)} == {"cancelled"}
