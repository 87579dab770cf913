"""Scheduled repair: forgotten lanes, the dead, old idempotency records, and what waited too long."""

import threading
import time
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from deliveries.models import Delivery, Dispatcher, Endpoint, Lane, SweepState
from deliveries.pipeline import lanes, sweeps
from deliveries.pipeline.lanes import NO_TENANT
from tenants.ids import new_id
from tenants.models import IdempotencyRecord
from tests.support.builders import (
    delivery_of,
    insert_old,
    lane_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    publish,
)
from tests.support.running import Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")

URL = "http://127.0.0.1:9/"


@pytest.fixture(autouse=True)
def fresh_state(quiet_lanes: None) -> None:
    SweepState.objects.update_or_create(
        id=1, defaults={"repaired_at": timezone.now(), "walked_to": NO_TENANT}
    )


def forget(endpoint: Endpoint) -> None:
    """As if the process had been killed between commit and wake."""
    Lane.unscoped.filter(endpoint=endpoint).update(ready_at=None, is_ready=False)


def test_a_lane_whose_wake_was_lost_is_found_and_its_delivery_goes_out() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        event = publish(tenant)
        forget(endpoint)
        run_until_dry()
        assert webhooks.requests == []

        woken = sweeps.repair(now=timezone.now())
        again = sweeps.repair(now=timezone.now())
        run_until_dry()

    assert (woken, again) == (1, 0)
    assert delivery_of(event).status == "succeeded"


def test_only_lanes_that_are_owed_something_and_do_not_say_so_are_woken() -> None:
    tenant = make_tenant()
    forgotten, planned, late, idle, ready, served, paused = make_endpoints(tenant, [URL] * 7)
    publish(tenant)
    hour = timezone.now() + timedelta(hours=1)
    of = Delivery.objects.for_tenant(tenant).filter
    forget(forgotten)
    of(endpoint=planned).update(next_attempt_at=hour)
    forget(planned)
    Lane.unscoped.filter(endpoint=late).update(ready_at=hour, is_ready=False)
    of(endpoint=idle).update(status="succeeded", next_attempt_at=None)
    forget(idle)
    before = lane_of(ready).ready_at
    forget(served)
    Lane.unscoped.filter(endpoint=served).update(dispatcher_id=new_id())
    forget(paused)
    Lane.unscoped.filter(endpoint=paused).update(is_paused=True)

    woken = sweeps.repair(now=timezone.now())

    assert woken == 4
    assert lane_of(forgotten).is_ready
    assert (lane_of(planned).ready_at, lane_of(planned).is_ready) == (hour, False)
    assert lane_of(late).is_ready
    assert lane_of(idle).ready_at is None
    assert lane_of(ready).ready_at == before
    assert lane_of(served).ready_at is None
    # It is woken, and waits for the end of its pause.
    assert lane_of(paused).ready_at is not None


def test_what_it_finds_is_looked_for_by_whoever_takes_the_lane() -> None:
    tenant = make_tenant()
    known, unknown = make_endpoints(tenant, [URL] * 2)
    publish(tenant)
    due = delivery_due_on(known)
    forget(known)
    forget(unknown)
    Lane.unscoped.filter(endpoint=known).update(owed_from=due + timedelta(minutes=1))

    assert sweeps.repair(now=timezone.now()) == 2
    assert (lane_of(known).owed_from, lane_of(unknown).owed_from) == (due, None)


@pytest.mark.parametrize("is_piling_up", [False, True])
def test_the_walk_begins_where_something_may_be_owed_if_versions_pile_up(
    is_piling_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "are_piling_up", lambda _: is_piling_up)
    tenant = make_tenant()
    before, after = make_endpoints(tenant, [URL] * 2)
    publish(tenant)
    for endpoint, seconds in ((before, -1), (after, 1)):
        forget(endpoint)
        Lane.unscoped.filter(endpoint=endpoint).update(
            owed_from=delivery_due_on(endpoint) - timedelta(seconds=seconds)
        )

    # By the walk alone: the deliveries are older than the range looks back.
    woken = sweeps.repair(now=timezone.now() + timedelta(minutes=30))

    assert woken == (1 if is_piling_up else 2)
    assert lane_of(after).is_ready


def delivery_due_on(endpoint: Endpoint) -> datetime:
    due: datetime | None = Delivery.unscoped.get(endpoint=endpoint).next_attempt_at
    assert due is not None
    return due


def test_a_manual_request_whose_wake_was_lost_is_found() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    Delivery.objects.for_tenant(tenant).update(
        status="failed", next_attempt_at=None, manual_requested_at=timezone.now()
    )
    forget(endpoint)

    assert sweeps.repair(now=timezone.now()) == 1
    assert lane_of(endpoint).is_ready


def test_the_walk_over_all_lanes_finds_what_the_recent_range_leaves_out() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    forget(endpoint)
    # As after a long stop: the last run was an hour ago, and the delivery is older than the range looks back.
    later = timezone.now() + timedelta(minutes=30)

    woken = sweeps.repair(now=later)

    assert woken == 1
    state = SweepState.objects.get()
    assert state.repaired_at == later


def test_the_walk_goes_on_where_it_stopped_and_begins_again_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeps, "MANY_LANES", "SELECT 2 + 0 * %s * %s")
    monkeypatch.setattr(sweeps, "MOST_LANES_A_PIECE", 1)
    tenant = make_tenant()
    endpoints = sorted(make_endpoints(tenant, [URL] * 4), key=lambda endpoint: endpoint.id)
    publish(tenant)
    for endpoint in endpoints:
        forget(endpoint)
    SweepState.objects.update(walked_to=endpoints[0].id)
    # By the walk alone: the deliveries are older than the range looks back.
    later = timezone.now() + timedelta(minutes=30)

    first = sweeps.repair(now=later)
    stopped_at = SweepState.objects.get().walked_to
    second = sweeps.repair(now=later)

    assert (first, stopped_at) == (2, endpoints[2].id)
    assert (second, SweepState.objects.get().walked_to) == (1, NO_TENANT)
    assert not lane_of(endpoints[0]).is_ready


def test_of_two_repairs_at_once_the_slower_one_leaves_the_state_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later, latest = timezone.now(), timezone.now() + timedelta(seconds=1)
    look = sweeps._repair_slice

    def and_meanwhile(cursor: CursorWrapper, pace: sweeps.Pace, walked_to: UUID) -> tuple[UUID, int]:
        monkeypatch.setattr(sweeps, "_repair_slice", look)
        sweeps.repair(now=latest)
        return look(cursor, pace, walked_to)

    monkeypatch.setattr(sweeps, "_repair_slice", and_meanwhile)
    sweeps.repair(now=later)

    assert SweepState.objects.get().repaired_at == latest


def test_what_was_published_lately_is_looked_through_in_pieces_as_short_as_they_have_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces: list[float] = []
    seconds_of_a_piece = 2 * sweeps.PIECE_SECONDS

    def rest(_: sweeps.Pace, began: float) -> float:
        pieces.append(began)
        return seconds_of_a_piece

    monkeypatch.setattr(sweeps.Pace, "rest", rest)
    tenant = make_tenant()
    endpoints = make_endpoints(tenant, [URL] * 3)
    publish(tenant)
    for endpoint in endpoints:
        forget(endpoint)

    woken = sweeps.repair(now=timezone.now())
    short_ones, pieces[:], seconds_of_a_piece = len(pieces), [], sweeps.PIECE_SECONDS / 3
    sweeps.repair(now=timezone.now())

    assert woken == 3
    # Of a minute: each half as long as the one before, down to a quarter of a second, or twice as long.
    assert 200 < short_ones < 300
    assert len(pieces) < 20


@pytest.mark.parametrize(("seconds", "size"), [(0.02, 5.0), (0.007, 10.0), (0.001, 20.0), (9.0, 5.0)])
def test_a_piece_is_half_as_large_after_one_that_took_too_long_and_twice_after_a_short_one(
    seconds: float, size: float
) -> None:
    assert sweeps.fitting(10.0, seconds=seconds, low=1.0, high=100.0) == size
    assert sweeps.fitting(10.0, seconds=seconds, low=8.0, high=15.0) == min(max(size, 8.0), 15.0)


def test_between_pieces_it_rests_twice_as_long_as_they_took_until_its_time_is_over() -> None:
    pace = sweeps.Pace()
    began = time.monotonic() - 0.05
    assert pace.rest(began) == pytest.approx(0.05, abs=0.01)
    assert time.monotonic() - began >= 0.14

    pace.rests_until = began = time.monotonic() - 0.05
    pace.rest(began)
    assert time.monotonic() - began < 0.1


def test_enough_dispatchers_are_those_that_renewed_lately_and_go_on() -> None:
    now = timezone.now()
    Dispatcher.objects.create(alive_until=now + timedelta(seconds=20))
    Dispatcher.objects.create(alive_until=now + timedelta(seconds=5))
    Dispatcher.objects.create(alive_until=now + timedelta(seconds=20), is_draining=True)

    assert sweeps.enough_dispatchers(1)
    assert not sweeps.enough_dispatchers(2)


def test_idempotency_records_go_after_a_day() -> None:
    space = new_id()
    now = timezone.now()
    for key, age in (("old", timedelta(hours=25)), ("new", timedelta(hours=23))):
        IdempotencyRecord.objects.create(
            space=space, key=key, fingerprint=b"f" * 32, status_code=202, body=b"{}", created_at=now - age
        )

    assert sweeps.expire_idempotency() >= 1
    assert [r.key for r in IdempotencyRecord.objects.filter(space=space)] == ["new"]


def test_a_key_that_is_used_again_while_the_sweep_looks_keeps_its_new_record() -> None:
    """The publisher has the old record locked when the sweep comes by, and commits a new answer."""
    space = new_id()
    old = timezone.now() - timedelta(hours=25)
    for key in ("again", "old"):
        IdempotencyRecord.objects.create(
            space=space, key=key, fingerprint=b"f" * 32, status_code=202, body=b"{}", created_at=old
        )

    def expire() -> None:
        sweeps.expire_idempotency()
        connection.close()

    sweep = threading.Thread(target=expire)
    with transaction.atomic():
        IdempotencyRecord.objects.filter(space=space, key="again").update(created_at=timezone.now())
        sweep.start()
        sweep.join(1)
    sweep.join(10)

    assert [r.key for r in IdempotencyRecord.objects.filter(space=space)] == ["again"]


def test_what_waited_longer_than_it_is_kept_ends_as_expired() -> None:
    short, long = make_tenant(retention_days=7), make_tenant(retention_days=60)
    of_short, of_long = make_endpoint(short, URL), make_endpoint(long, URL)
    cases = {
        "31 days, kept for 7": (insert_old(of_short, 31), "failed"),
        "29 days, kept for 7": (insert_old(of_short, 29), "pending"),
        "31 days, kept for 60": (insert_old(of_long, 31), "pending"),
        "61 days, kept for 60": (insert_old(of_long, 61), "failed"),
        "done": (insert_old(of_short, 32, status="succeeded", next_attempt_at=None), "succeeded"),
    }

    ended = sweeps.expire_pending(now=timezone.now())

    assert ended == 2
    for name, (delivery, status) in cases.items():
        delivery.refresh_from_db()
        assert (name, delivery.status) == (name, status)
        expired = status == "failed"
        assert (delivery.cancel_reason == "expired") is expired
        assert (delivery.completed_at is not None) is expired
        assert (delivery.next_attempt_at is None) is (status != "pending")


def test_who_is_next_in_line_goes_on_when_its_head_expires() -> None:
    tenant = make_tenant(retention_days=30)
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), ordering="fifo")
        first, second = (publish(tenant, ordering_key="k", is_fifo=True) for _ in range(2))
        # Paused for 31 days, and they were published yesterday.
        head = insert_old(endpoint, 31, ordering_key="k", sequence=0)
        Delivery.unscoped.filter(id=delivery_of(first).id).update(next_attempt_at=None)
        forget(endpoint)

        ended = sweeps.expire_pending(now=timezone.now())
        run_until_dry()

    head.refresh_from_db()
    assert (ended, head.status, head.cancel_reason) == (1, "failed", "expired")
    assert [delivery_of(event).status for event in (first, second)] == ["succeeded"] * 2
    assert len(webhooks.requests) == 2


def test_a_whole_line_that_waited_too_long_ends() -> None:
    endpoint = make_endpoint(make_tenant(retention_days=30), URL, ordering="fifo")
    head = insert_old(endpoint, 33, ordering_key="k", sequence=1)
    others = [
        insert_old(endpoint, days, ordering_key="k", sequence=34 - days, next_attempt_at=None)
        for days in (32, 31)
    ]

    assert sweeps.expire_pending(now=timezone.now()) == 3
    for delivery in (head, *others):
        delivery.refresh_from_db()
        assert (delivery.status, delivery.next_attempt_at) == ("failed", None)


def test_the_sweep_of_each_second_looks_at_indexes_alone() -> None:
    """The same cost with ten million finished deliveries as with a thousand."""
    from deliveries.pipeline.lanes import IS_ANY_READY

    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + IS_ANY_READY)
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "deliveries_delivery" not in plan
