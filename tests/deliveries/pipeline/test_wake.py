"""Telling lanes that work waits: when they become ready, and when a dispatcher is asked for."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import current_app
from django.db import connection, transaction
from django.utils import timezone

from deliveries.models import Delivery, Dispatcher, Endpoint, Lane
from deliveries.pipeline import ingest
from deliveries.pipeline.database import connect
from deliveries.pipeline.wake import next_pause, nudge, request_manual_attempt, wake, wake_lanes
from tenants.ids import new_id
from tests.support.builders import (
    copy_endpoint,
    deliveries_of,
    lane_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    publish,
)
from tests.support.plans import rows_of
from tests.support.running import until

pytestmark = pytest.mark.usefixtures("quiet_lanes")

URL = "http://127.0.0.1:9/"
HOUR = timedelta(hours=1)


class Nudges:
    """Messages in the queue of the dispatchers, on the tests' broker."""

    def __init__(self) -> None:
        self.connection = current_app.connection_for_write()
        self.channel: Any = self.connection.default_channel

    def count(self) -> int:
        size: int = self.channel._size("dispatch")
        return size

    def clear(self) -> None:
        self.channel._purge("dispatch")


@pytest.fixture
def nudges(quiet_lanes: None, quiet_nudger: None) -> Iterator[Nudges]:
    nudges = Nudges()
    nudges.clear()
    yield nudges
    nudges.connection.release()


def state(endpoint: Endpoint) -> tuple[datetime | None, bool]:
    lane = lane_of(endpoint)
    return lane.ready_at, lane.is_ready


def test_an_idle_lane_becomes_ready_and_the_earlier_time_wins() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    later = timezone.now() + HOUR

    wake([(endpoint.id, later)])
    scheduled = state(endpoint)
    wake([(endpoint.id, later + HOUR)])
    unchanged = state(endpoint)
    wake([(endpoint.id, later - timedelta(minutes=1))])
    earlier = state(endpoint)
    wake([(endpoint.id, None)])
    ready = state(endpoint)
    wake([(endpoint.id, None)])
    again = state(endpoint)

    assert scheduled == unchanged == (later, False)
    assert earlier == (later - timedelta(minutes=1), False)
    assert ready[1]
    assert ready[0] is not None
    assert ready[0] < timezone.now()
    # A lane keeps its place in the queue, however much is published to it.
    assert again == ready


def test_a_lane_that_is_woken_twice_at_once_takes_the_earlier_time() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)

    wake([(endpoint.id, timezone.now() + HOUR), (endpoint.id, None)])

    assert state(endpoint)[1]


def test_a_held_lane_is_woken_for_later_and_a_served_one_keeps_its_holder() -> None:
    tenant = make_tenant()
    held, served = make_endpoints(tenant, [URL] * 2)
    holder = new_id()
    Lane.unscoped.filter(endpoint=held).update(hold_until=timezone.now() + HOUR)
    Lane.unscoped.filter(endpoint=served).update(dispatcher_id=holder)

    wake([(held.id, None), (served.id, None)])

    assert state(held)[0] is not None
    assert not state(held)[1]
    assert state(served)[0] is not None
    assert lane_of(served).dispatcher_id == holder


def test_unknown_lanes_are_passed_over() -> None:
    wake([(new_id(), None)])
    wake([])


def test_a_nudge_is_sent_when_a_lane_became_ready_and_nobody_polls(nudges: Nudges) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)

    wake([(endpoint.id, None)])

    until(lambda: nudges.count() == 1)


@pytest.mark.parametrize("case", ["polled", "ready before", "scheduled", "paused", "served", "held"])
def test_no_nudge_is_sent_when_nobody_would_use_it(nudges: Nudges, case: str) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    at = None
    lane = Lane.unscoped.filter(endpoint=endpoint)
    match case:
        case "polled":
            Dispatcher.objects.create(alive_until=timezone.now() + timedelta(seconds=20))
        case "ready before":
            lane.update(ready_at=timezone.now(), is_ready=True)
        case "scheduled":
            at = timezone.now() + HOUR
        case "paused":
            lane.update(is_paused=True)
        case "served":
            lane.update(dispatcher_id=new_id())
        case "held":
            lane.update(hold_until=timezone.now() + HOUR)

    wake([(endpoint.id, at)])
    # One that is wanted comes within a pause of the nudger.
    other = make_endpoint(make_tenant(), URL)
    Dispatcher.objects.all().delete()
    wake([(other.id, None)])
    until(lambda: nudges.count() > 0)

    assert nudges.count() == 1


@pytest.mark.parametrize(
    ("seconds", "has_room", "is_draining"), [(5, True, False), (20, False, False), (20, True, True)]
)
def test_a_dispatcher_that_is_late_full_or_about_to_end_does_not_stand_for_a_nudge(
    nudges: Nudges, seconds: int, has_room: bool, is_draining: bool
) -> None:
    Dispatcher.objects.create(
        alive_until=timezone.now() + timedelta(seconds=seconds), has_room=has_room, is_draining=is_draining
    )

    wake([(make_endpoint(make_tenant(), URL).id, None)])

    until(lambda: nudges.count() == 1)


def test_many_publishes_make_few_messages(nudges: Nudges) -> None:
    tenant = make_tenant()
    endpoints = make_endpoints(tenant, [URL] * 20)
    began = timezone.now()
    for _ in range(15):
        Lane.objects.for_tenant(tenant).update(ready_at=None, is_ready=False)
        wake([(endpoint.id, None) for endpoint in endpoints])
    seconds = (timezone.now() - began).total_seconds()

    until(lambda: nudges.count() > 0)

    assert nudges.count() <= seconds / 0.05 + 2


def test_nudges_that_follow_one_another_come_ever_more_seldom(nudges: Nudges) -> None:
    ends = time.monotonic() + 1
    while time.monotonic() < ends:
        nudge()
        time.sleep(0.005)

    # At once, and after 50, 150, 350 and 750 ms; after a rest of this process it begins anew. Unslowed they were 20.
    assert 3 <= nudges.count() <= 10


@pytest.mark.parametrize(
    ("pause", "seconds", "next_one"),
    [
        (0.0, float("inf"), 0.05),  # the first of a process
        (0.05, 0.05, 0.1),
        (0.4, 0.4, 0.8),
        (0.8, 0.8, 1.0),
        (1.0, 1.0, 1.0),
        (1.0, 2.0, 1.0),
        (1.0, 2.1, 0.05),  # after a rest
    ],
)
def test_the_pause_after_a_nudge_doubles_up_to_a_second(
    pause: float, seconds: float, next_one: float
) -> None:
    assert next_pause(pause, seconds=seconds) == next_one


def test_a_manual_request_is_made_once_and_wakes_the_lane_after_the_commit() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    Delivery.objects.for_tenant(tenant).update(status="failed", next_attempt_at=None)
    Lane.unscoped.filter(endpoint=endpoint).update(ready_at=None, is_ready=False)
    now = timezone.now()

    with transaction.atomic():
        first = request_manual_attempt(deliveries_of(tenant), now=now)
        second = request_manual_attempt(deliveries_of(tenant), now=now + HOUR)
        within = state(endpoint)

    assert (first, second) == (1, 0)
    assert within == (None, False)
    assert state(endpoint)[1]
    (delivery,) = deliveries_of(tenant)
    assert (delivery.schedule_step, delivery.status) == (0, "failed")
    assert delivery.manual_requested_at is not None
    assert timedelta(0) <= delivery.manual_requested_at - now < timedelta(seconds=5)


def test_a_manual_request_is_never_due_before_now_by_the_databases_clock() -> None:
    """What is owed is looked for from half a minute ago on: a web server's clock may be further behind."""
    tenant = make_tenant()
    make_endpoint(tenant, URL)
    publish(tenant)
    now = timezone.now()

    request_manual_attempt(deliveries_of(tenant), now=now - HOUR)

    (delivery,) = deliveries_of(tenant)
    assert delivery.manual_requested_at is not None
    assert timedelta(0) <= delivery.manual_requested_at - now < timedelta(seconds=5)


def test_a_plan_of_when_there_were_few_lanes_looks_at_no_others() -> None:
    """The statement is planned once a connection, and lanes come to be afterwards."""
    endpoint = make_endpoint(make_tenant(), URL)

    with connect(application_name="test", statement_timeout_seconds=10, options=ingest.OPTIONS) as publisher:
        publisher.execute("ANALYZE deliveries_lane")
        looked_at = rows_of(
            publisher,
            wake_lanes,
            wanted=[(endpoint.id.bytes, None)],
            once_planned=lambda: copy_endpoint(endpoint, 3000),
        )

    assert 2 <= looked_at < 20


def test_lanes_of_several_times_are_woken_each_for_its_own() -> None:
    now = timezone.now()
    first, second, third = sorted(make_endpoints(make_tenant(), [URL] * 3), key=lambda each: each.id)

    wake([(third.id, now + 2 * HOUR), (first.id, None), (second.id, now + HOUR), (third.id, now + 3 * HOUR)])

    assert state(second) == (now + HOUR, False)
    assert state(third) == (now + 2 * HOUR, False)
    ready_at, is_ready = state(first)
    assert ready_at is not None
    assert now <= ready_at < now + HOUR
    assert is_ready


def test_the_cost_of_a_wake_is_that_of_its_lanes() -> None:
    """By key: never a scan of all lanes."""
    endpoint = make_endpoint(make_tenant(), URL)
    from deliveries.pipeline.wake import WAKE

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN " + WAKE, {"ids": [endpoint.id], "seconds": None})
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "deliveries_lane_pkey" in plan
