"""The statements about lanes, one by one: which are taken, what is loaded, and how they go back."""

import itertools
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.utils import timezone

from deliveries.models import Delivery, Dispatcher, Endpoint, Lane
from deliveries.pipeline import ingest, lanes, lease
from deliveries.pipeline.book import BEGINNING, LATEST_COMMIT, NO_ID
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.rounds import until_id
from deliveries.services import stopping
from tenants.ids import new_id
from tenants.services.audit import COMMAND
from tests.support.builders import (
    copy_endpoint,
    deliveries_of,
    lane_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    new_event,
    publish,
)
from tests.support.plans import rows_of
from tests.support.running import Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")

URL = "http://127.0.0.1:9/"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def own(quiet_lanes: None) -> Iterator[psycopg.Connection[Row]]:
    with connect(application_name="test", statement_timeout_seconds=10, options=lanes.OPTIONS) as own:
        yield own


@pytest.fixture
def me(own: psycopg.Connection[Row]) -> UUID:
    key = new_id()
    lease.register(own, me=key, process="test")
    return key


def take(
    own: psycopg.Connection[Row],
    me: UUID,
    *,
    count: int = 100,
    after: UUID = lanes.NO_TENANT,
    full: tuple[bytes, ...] = (),
) -> list[lanes.Taken]:
    return lanes.take(own, me=me, lanes=count, after=after, full_tenants=full).lanes


def index_of(own: psycopg.Connection[Row], statement: str) -> set[str]:
    """The parents of the indexes by which it reads deliveries, planned once for whatever comes."""
    numbers = itertools.count(1)
    generic = re.sub("%s", lambda _: f"${next(numbers)}", statement)
    rows = own.execute(f"EXPLAIN (GENERIC_PLAN) {generic}").fetchall()
    plan = "\n".join(line for (line,) in rows)
    assert "Seq Scan on deliveries_delivery" not in plan, plan
    used = re.findall(r"Scan using (\S+) on deliveries_delivery", plan)
    assert used, plan
    parents = own.execute(
        "SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = ANY(%s::regclass[])", [used]
    ).fetchall()
    return {parent for (parent,) in parents}


def set_lane(endpoint: Endpoint, **fields: object) -> None:
    Lane.unscoped.filter(endpoint=endpoint).update(**fields)


def release(own: psycopg.Connection[Row], me: UUID, endpoint: Endpoint, **fields: object) -> Lane:
    one = lanes.Release(endpoint.id.bytes, 3.0, **fields)  # type: ignore[arg-type] # those of Release
    assert lanes.release(own, me=me, lanes=[one], until=until_id()) == 1
    return lane_of(endpoint)


# --- the dispatcher's row ---------------------------------------------------------------------------------------------


def test_a_renewal_says_whether_one_is_alive_what_time_it_is_and_whether_sending_is_stopped(
    own: psycopg.Connection[Row], me: UUID
) -> None:
    is_alive, seconds, is_stopped = lease.renew(own, me=me, has_room=False, is_draining=True, done=7)

    row = Dispatcher.objects.get(id=me)
    assert (is_alive, is_stopped) == (True, False)
    assert abs(seconds - timezone.now().timestamp()) < 5
    assert (row.has_room, row.is_draining, row.deliveries_done) == (False, True, 7)
    assert 15 < (row.alive_until - timezone.now()).total_seconds() <= 20


def test_who_signs_off_gives_everything_back_and_is_gone(own: psycopg.Connection[Row], me: UUID) -> None:
    tenant = make_tenant()
    endpoints = make_endpoints(tenant, [URL] * 3)
    publish(tenant)
    assert len(take(own, me)) == 3

    assert lease.sign_off(own, me=me) == 3

    assert [(lane_of(e).dispatcher_id, lane_of(e).is_ready) for e in endpoints] == [(None, True)] * 3
    assert not Dispatcher.objects.exists()


# --- take -------------------------------------------------------------------------------------------------------------


def test_only_lanes_that_are_ready_and_free_are_taken_and_once(
    own: psycopg.Connection[Row], me: UUID
) -> None:
    tenant = make_tenant()
    ready, idle, paused, scheduled, held, served = make_endpoints(tenant, [URL] * 6)
    now = timezone.now()
    set_lane(ready, ready_at=now, is_ready=True)
    set_lane(paused, ready_at=now, is_ready=True, is_paused=True)
    set_lane(scheduled, ready_at=now + MINUTE)
    set_lane(held, ready_at=now, hold_until=now + MINUTE)
    set_lane(served, ready_at=now, is_ready=True, dispatcher_id=new_id())

    lanes.promote(own)
    first, second = take(own, me), take(own, me)

    assert [(taken.endpoint_id, taken.tenant_id, taken.slots) for taken in first] == [
        (ready.id.bytes, tenant.id.bytes, 2.0)
    ]
    assert second == []
    assert lane_of(ready).dispatcher_id == me
    assert lane_of(idle).dispatcher_id is None


def test_scheduled_and_held_lanes_are_promoted_when_both_times_have_come(
    own: psycopg.Connection[Row], me: UUID
) -> None:
    now = timezone.now()
    cases = {
        "due": (now - MINUTE, None, True),
        "held no longer": (now - 2 * MINUTE, now - MINUTE, True),
        "held": (now - MINUTE, now + MINUTE, False),
        "scheduled": (now + MINUTE, None, False),
        "idle, held no longer": (None, now - MINUTE, False),
    }
    tenant = make_tenant()
    endpoints = dict(zip(cases, make_endpoints(tenant, [URL] * len(cases)), strict=True))
    for name, (ready_at, hold_until, _) in cases.items():
        set_lane(endpoints[name], ready_at=ready_at, hold_until=hold_until)

    is_any_ready = lanes.is_any_ready(own)
    promoted = lanes.promote(own)

    assert is_any_ready
    assert promoted == 2
    assert {name: lane_of(endpoint).is_ready for name, endpoint in endpoints.items()} == {
        name: expected for name, (_, _, expected) in cases.items()
    }


def test_tenants_are_served_in_turn_and_each_ones_lanes_longest_ready_first(
    own: psycopg.Connection[Row], me: UUID
) -> None:
    busy, quiet = make_tenant(), make_tenant()
    many = make_endpoints(busy, [URL] * 300)
    now = timezone.now()
    for n, endpoint in enumerate(many[:20]):
        set_lane(endpoint, ready_at=now - (20 - n) * MINUTE, is_ready=True)
    Lane.unscoped.filter(endpoint__in=many[20:]).update(ready_at=now, is_ready=True)
    one = make_endpoint(quiet, URL)
    set_lane(one, ready_at=now, is_ready=True)

    taken = [lane.endpoint_id for lane in take(own, me, count=20)]

    assert one.id.bytes in taken
    assert sorted(set(taken) - {one.id.bytes}) == sorted(endpoint.id.bytes for endpoint in many[:10])


def test_five_thousand_ready_lanes_of_a_tenant_keep_nobody_waiting_for_more_than_a_turn(
    own: psycopg.Connection[Row], me: UUID
) -> None:
    busy, quiet = make_tenant(), make_tenant()
    hour_ago = timezone.now() - timedelta(hours=1)
    copy_endpoint(make_endpoint(busy, URL), 4999)
    Lane.objects.for_tenant(busy).update(ready_at=hour_ago, is_ready=True)
    one = make_endpoint(quiet, URL)
    set_lane(one, ready_at=timezone.now(), is_ready=True)

    first = take(own, me, count=512)
    others = take(own, me, count=512, full=(busy.id.bytes,))

    assert one.id.bytes in {lane.endpoint_id for lane in first}
    assert len(first) == 256 + 1
    assert others == []
    assert Lane.objects.for_tenant(busy).filter(dispatcher_id=me).count() == 256


def test_a_take_goes_on_behind_the_last_tenant_of_the_one_before(
    own: psycopg.Connection[Row], me: UUID
) -> None:
    tenants = sorted((make_tenant() for _ in range(lanes.TENANTS_A_TURN + 6)), key=lambda tenant: tenant.id)
    for tenant in tenants:
        set_lane(make_endpoint(tenant, URL), ready_at=timezone.now(), is_ready=True)
    expected = [tenant.id.bytes for tenant in tenants]

    first = lanes.take(own, me=me, lanes=500, after=lanes.NO_TENANT)
    second = lanes.take(own, me=me, lanes=500, after=first.after)

    assert sorted(lane.tenant_id for lane in first.lanes) == expected[: lanes.TENANTS_A_TURN]
    assert first.after == tenants[lanes.TENANTS_A_TURN - 1].id
    assert sorted(lane.tenant_id for lane in second.lanes) == expected[lanes.TENANTS_A_TURN :]
    assert second.after == lanes.NO_TENANT


# --- load -------------------------------------------------------------------------------------------------------------


def load(
    own: psycopg.Connection[Row],
    endpoint: Endpoint,
    *,
    count: int = 100,
    after: tuple[datetime, bytes] = (BEGINNING, NO_ID),
    held: tuple[bytes, ...] = (),
) -> list[lanes.Owed]:
    wanted = [lanes.Wanted(endpoint.id.bytes, count, *after)]
    return lanes.load(own, wanted=wanted, held=held, until=until_id())


def test_what_is_due_is_loaded_oldest_first_behind_the_last_and_without_what_is_held(
    own: psycopg.Connection[Row],
) -> None:
    tenant = make_tenant()
    endpoint, other = make_endpoints(tenant, [URL] * 2)
    ingest.publish([new_event(tenant) for _ in range(10)])
    mine = [d for d in deliveries_of(tenant) if d.endpoint_id == endpoint.id]
    late, planned, ended, by_hand, again = mine[:5]
    now = timezone.now()
    Delivery.unscoped.filter(id=late.id).update(next_attempt_at=now - timedelta(seconds=1))
    Delivery.unscoped.filter(id__in=[d.id for d in mine[5:]]).update(next_attempt_at=now - MINUTE)
    Delivery.unscoped.filter(id=planned.id).update(next_attempt_at=now + MINUTE)
    Delivery.unscoped.filter(id=ended.id).update(status="succeeded", next_attempt_at=None)
    Delivery.unscoped.filter(id=by_hand.id).update(
        next_attempt_at=now + MINUTE, manual_requested_at=now - 2 * MINUTE
    )
    Delivery.unscoped.filter(id=again.id).update(
        status="failed", next_attempt_at=None, manual_requested_at=now - 3 * MINUTE
    )

    rows = load(own, endpoint)
    some = load(own, endpoint, count=3, held=(again.id.bytes,))
    rest = load(own, endpoint, after=(some[-1].due, some[-1].id))

    expected = [again, by_hand, *mine[5:], late]
    assert [row.id for row in rows] == [d.id.bytes for d in expected]
    assert [row.id for row in some] == [d.id.bytes for d in expected[1:4]]
    assert [row.id for row in rest] == [d.id.bytes for d in expected[4:]]
    assert [bool(row.is_automatic_due) for row in rows] == [False, False, True, True, True, True, True, True]
    assert len(load(own, other)) == 10


def test_a_lane_says_in_how_many_seconds_the_next_of_it_falls_due(own: psycopg.Connection[Row]) -> None:
    tenant = make_tenant()
    planned, due, idle = make_endpoints(tenant, [URL] * 3)
    for _ in range(3):
        publish(tenant)
    now = timezone.now()
    of = Delivery.objects.for_tenant(tenant)
    of.filter(endpoint=idle).update(status="succeeded", next_attempt_at=None)
    first, second, third = of.filter(endpoint=planned).order_by("id")
    for delivery, minutes in ((first, -1), (second, 3), (third, 2)):
        Delivery.unscoped.filter(id=delivery.id).update(next_attempt_at=now + minutes * MINUTE)

    endpoint_ids = [endpoint.id.bytes for endpoint in (planned, due, idle)]
    found = lanes.planned(own, endpoint_ids=endpoint_ids, until=until_id())

    assert set(found) == {planned.id.bytes}
    assert 110 < found[planned.id.bytes] <= 121


def test_events_and_bodies_are_fetched_by_key(own: psycopg.Connection[Row]) -> None:
    tenant = make_tenant()
    make_endpoint(tenant, URL)
    events = [publish(tenant, b'{"n":%d}' % n, hops=n) for n in range(3)]
    Delivery.unscoped.filter(id=UUID(bytes=events[1].delivery_ids[0])).update(body=b"other")

    rows = lanes.load_events(own, [events[0].event_id, events[2].event_id])
    bodies = lanes.load_bodies(own, events[1].delivery_ids)

    assert sorted((*row[:3], bytes(row[5]), row[6]) for row in rows) == [
        (events[0].event_id, events[0].event_id, tenant.id.bytes, b'{"n":0}', 0),
        (events[2].event_id, events[2].event_id, tenant.id.bytes, b'{"n":2}', 2),
    ]
    assert [(*row[:3], bytes(row[5]), row[6]) for row in bodies] == [
        (events[1].delivery_ids[0], events[1].event_id, tenant.id.bytes, b"other", 1)
    ]


# --- release ----------------------------------------------------------------------------------------------------------


def test_a_lane_with_nothing_left_goes_idle(own: psycopg.Connection[Row], me: UUID) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    take(own, me)
    Delivery.objects.for_tenant(tenant).update(status="succeeded", next_attempt_at=None)

    lane = release(own, me, endpoint)

    assert (lane.ready_at, lane.is_ready, lane.dispatcher_id, lane.slots) == (None, False, None, 3.0)


def test_a_lane_with_work_left_goes_to_the_back(own: psycopg.Connection[Row], me: UUID) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    Delivery.objects.for_tenant(tenant).update(next_attempt_at=long_ago)
    set_lane(endpoint, ready_at=long_ago)
    take(own, me)
    before = timezone.now()

    lane = release(own, me, endpoint)

    assert lane.is_ready
    assert lane.ready_at is not None
    assert abs((lane.ready_at - before).total_seconds()) < 5


def test_a_lane_whose_next_work_is_planned_says_when(own: psycopg.Connection[Row], me: UUID) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    publish(tenant)
    take(own, me)
    later = timezone.now() + timedelta(hours=1)
    Delivery.objects.for_tenant(tenant).update(next_attempt_at=later)
    first = deliveries_of(tenant)[0]
    Delivery.unscoped.filter(id=first.id).update(manual_requested_at=later - MINUTE)

    lane = release(own, me, endpoint)

    assert (lane.ready_at, lane.is_ready) == (later - MINUTE, False)


def test_a_hold_keeps_a_lane_with_work_from_being_ready(own: psycopg.Connection[Row], me: UUID) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    take(own, me)

    lane = release(own, me, endpoint, hold_seconds=60.0, hold_reason="rate")

    assert (lane.is_ready, lane.hold_reason) == (False, "rate")
    assert lane.ready_at is not None
    assert lane.hold_until is not None
    assert 50 < (lane.hold_until - timezone.now()).total_seconds() <= 60


@pytest.mark.parametrize("age", [timedelta(0), timedelta(hours=2)])
def test_a_lane_says_from_when_something_may_be_owed(
    own: psycopg.Connection[Row], me: UUID, age: timedelta
) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    due = timezone.now() - age
    Delivery.objects.for_tenant(tenant).update(next_attempt_at=due)
    assert [lane.owed_from for lane in take(own, me)] == [None]

    known = release(own, me, endpoint).owed_from

    assert known is not None
    # Or what is being committed now, and was due before.
    assert abs(known - min(due, timezone.now() - LATEST_COMMIT)) < timedelta(seconds=5)
    assert [lane.owed_from for lane in take(own, me)] == [known]
    assert release(own, me, endpoint, is_unfinished=True).owed_from is None


def test_a_release_looks_from_there_on_only_if_it_is_told_to(own: psycopg.Connection[Row], me: UUID) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    due = timezone.now() - MINUTE
    Delivery.objects.for_tenant(tenant).update(next_attempt_at=due)

    take(own, me)
    assert release(own, me, endpoint, owed_from=due).is_ready
    take(own, me)
    assert release(own, me, endpoint, owed_from=due + timedelta(seconds=1)).ready_at is None
    set_lane(endpoint, ready_at=timezone.now(), is_ready=True)
    take(own, me)
    assert release(own, me, endpoint).owed_from == due


def test_it_is_kept_on_lanes_that_are_held_and_on_no_others(own: psycopg.Connection[Row], me: UUID) -> None:
    tenant = make_tenant()
    mine, other = make_endpoints(tenant, [URL] * 2)
    publish(tenant)
    take(own, me)
    set_lane(other, dispatcher_id=new_id())
    at = timezone.now()

    kept = lanes.keep_owed_from(own, me=me, owed_from={mine.id.bytes: at, other.id.bytes: at})

    assert kept == 1
    written = lane_of(mine).owed_from
    assert written is not None
    assert timedelta(0) <= at - written < timedelta(milliseconds=1)
    assert lane_of(other).owed_from is None


def test_where_an_old_snapshot_keeps_all_that_was_delivered_it_is_not_stepped_over(
    own: psycopg.Connection[Row], me: UUID
) -> None:
    """Or a load takes as long as the snapshot is old, in the end longer than a statement may, and nothing goes out."""
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)

    def pages(statement: str, parameters: list[object]) -> int:
        (plan,) = own.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters).fetchall()[
            0
        ]
        return int(plan[0]["Plan"]["Shared Hit Blocks"])

    with connect(application_name="test", statement_timeout_seconds=10) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with old.transaction():
            old.execute("SELECT count(*) FROM deliveries_lane")
            ingest.publish([new_event(tenant) for _ in range(3000)])
            Delivery.objects.for_tenant(tenant).update(status="succeeded", next_attempt_at=None)
            known = timezone.now()
            publish(tenant)
            take(own, me)
            found = {}
            for owed_from in (BEGINNING, known):
                wanted = [lanes.Wanted(endpoint.id.bytes, 10, owed_from, NO_ID)]
                assert len(lanes.load(own, wanted=wanted, held=[], until=until_id())) == 1
                found[owed_from] = (
                    pages(
                        lanes.LOAD,
                        [[endpoint.id], [10], [owed_from], [UUID(int=0)], UUID(bytes=until_id()), []],
                    ),
                    pages(
                        lanes.LOOK_AGAIN,
                        [
                            [endpoint.id], [1.0], [None], [None], [None], [False], [0],
                            [owed_from.timestamp()], me, UUID(bytes=until_id()),
                        ],
                    ),
                )  # fmt: skip
                take(own, me)

    for stepped_over, known_pages in zip(found[BEGINNING], found[known], strict=True):
        assert known_pages < stepped_over / 2


def test_what_people_changed_is_seen_by_the_holder(own: psycopg.Connection[Row], me: UUID) -> None:
    tenant = make_tenant()
    endpoint, woken, other = make_endpoints(tenant, [URL] * 3)
    publish(tenant)
    taken = take(own, me)
    lanes.clear(own, me=me, lanes=[lanes.Release(lane.endpoint_id, 2.0) for lane in taken])
    set_lane(endpoint, is_paused=True)
    set_lane(woken, ready_at=timezone.now() - MINUTE)
    set_lane(other, dispatcher_id=new_id(), ready_at=timezone.now() - MINUTE)
    Endpoint.unscoped.filter(id=woken.id).update(version=77)

    rows = {row[0]: (row[1], row[2]) for row in lanes.check(own, me=me)}
    found = lanes.woken(own, me=me, endpoint_ids=[lane.endpoint_id for lane in taken])

    assert rows == {endpoint.id.bytes: (endpoint.version, True), woken.id.bytes: (77, False)}
    assert found == [woken.id.bytes]


def test_ending_leaves_what_is_in_the_air_and_what_ended_before(own: psycopg.Connection[Row]) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    ingest.publish([new_event(tenant) for _ in range(4)])
    in_air, failed, pending, planned = deliveries_of(tenant)
    Delivery.unscoped.filter(id=failed.id).update(
        status="failed", next_attempt_at=None, manual_requested_at=timezone.now()
    )
    Delivery.unscoped.filter(id=planned.id).update(next_attempt_at=timezone.now() + MINUTE)
    Endpoint.unscoped.filter(id=endpoint.id).update(deleted_at=timezone.now())

    ended = lanes.end_pending(
        own, endpoint_id=endpoint.id.bytes, reason="endpoint_deleted", held=[in_air.id.bytes]
    )

    assert ended == 3
    assert [(d.status, d.cancel_reason, d.manual_requested_at) for d in deliveries_of(tenant)] == [
        ("pending", None, None),
        ("failed", None, None),
        ("cancelled", "endpoint_deleted", None),
        ("cancelled", "endpoint_deleted", None),
    ]
    assert pending.status == "pending"


def test_nothing_ends_of_an_endpoint_that_was_enabled_since_its_holder_read_that_it_was_stopped(
    own: psycopg.Connection[Row],
) -> None:
    """The holder takes the lane and reads that it is disabled; it is enabled, and somebody publishes; the holder ends."""
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    stopping.disable_endpoint(actor=COMMAND, endpoint=endpoint)
    stopping.enable_endpoint(actor=COMMAND, endpoint=endpoint)
    publish(tenant)

    ended = lanes.end_pending(own, endpoint_id=endpoint.id.bytes, reason="endpoint_disabled", held=[])

    assert ended == 0
    assert [delivery.status for delivery in deliveries_of(tenant)] == ["pending"]


def test_who_is_next_in_line_goes_on_when_the_endpoint_is_enabled_between_two_batches(
    own: psycopg.Connection[Row],
) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), ordering="fifo")
        in_line = [new_event(tenant, ordering_key="k", is_fifo=True) for _ in range(lanes.END_BATCH + 3)]
        ingest.publish(in_line)
        stopping.disable_endpoint(actor=COMMAND, endpoint=endpoint)

        ended = lanes.end_pending(own, endpoint_id=endpoint.id.bytes, reason="endpoint_disabled", held=[])
        stopping.enable_endpoint(actor=COMMAND, endpoint=endpoint)
        run_until_dry()

    assert ended == lanes.END_BATCH
    statuses = [delivery.status for delivery in deliveries_of(tenant)]
    assert statuses == ["cancelled"] * lanes.END_BATCH + ["succeeded"] * 3
    assert len(webhooks.requests) == 3


def test_only_weights_that_differ_are_read(own: psycopg.Connection[Row]) -> None:
    heavy, light = make_tenant(weight=3), make_tenant()

    weights = lanes.weights(own)

    assert weights[heavy.id.bytes] == 3
    assert light.id.bytes not in weights


def test_a_take_says_what_is_due_and_which_full_tenants_have_lanes_to_take(
    own: psycopg.Connection[Row], me: UUID
) -> None:
    def facts(full: Sequence[bytes]) -> tuple[int, bool, set[bytes]]:
        found = lanes.take(own, me=me, lanes=10, after=lanes.NO_TENANT, full_tenants=full)
        return len(found.lanes), found.is_due, found.passed_over

    assert facts([]) == (0, False, set())
    ready, paused, taken, idle = (make_tenant() for _ in range(4))
    for tenant in (ready, paused, taken, idle):
        make_endpoint(tenant, URL)
        if tenant is not idle:
            publish(tenant)
    Lane.unscoped.filter(tenant=paused).update(is_paused=True)
    Lane.unscoped.filter(tenant=taken).update(dispatcher_id=me)

    full = [tenant.id.bytes for tenant in (ready, paused, taken, idle)]
    assert facts(full) == (0, False, {ready.id.bytes})

    Lane.unscoped.filter(tenant=ready).update(is_ready=False)
    assert facts(full) == (0, True, set())


def test_the_busy_take_nothing_while_others_have_something_to_take(
    own: psycopg.Connection[Row], me: UUID
) -> None:
    busy, quiet = make_tenant(), make_tenant()
    for tenant in (busy, quiet):
        make_endpoints(tenant, [URL] * 2)
        publish(tenant)

    def tenants(full: Sequence[bytes] = ()) -> tuple[set[bytes], bool]:
        found = lanes.take(
            own, me=me, lanes=10, after=lanes.NO_TENANT, full_tenants=full, busy_tenants=[busy.id.bytes]
        )
        return {lane.tenant_id for lane in found.lanes}, found.is_of_others

    assert tenants() == ({quiet.id.bytes}, True)
    assert tenants(full=[busy.id.bytes]) == (set(), False)
    assert tenants() == ({busy.id.bytes}, False)
    assert tenants() == (set(), False)


def test_the_one_plan_made_of_a_statement_is_by_its_index_however_small_the_tables_were(
    own: psycopg.Connection[Row],
) -> None:
    tenant = make_tenant()
    make_endpoint(tenant, url=URL)
    publish(tenant)
    own.execute("ANALYZE deliveries_delivery")
    assert index_of(own, lanes.LOAD) == {"delivery_due"}
    assert index_of(own, lanes.PLANNED) == {"delivery_due"}
    assert index_of(own, lanes.LOOK_AGAIN) == {"delivery_due"}


def test_it_looks_at_no_more_lanes_than_it_is_for_however_many_there_are(
    own: psycopg.Connection[Row], me: UUID
) -> None:
    """As the planner knew the table when there were as many and none was held."""
    busy, small = make_endpoint(make_tenant(), URL), make_endpoint(make_tenant(), URL)
    for endpoint in (busy, small):
        set_lane(endpoint, ready_at=timezone.now(), is_ready=True)
    copy_endpoint(busy, 3000)
    own.execute("ANALYZE deliveries_lane, deliveries_endpoint")
    tenants = [busy.tenant_id.bytes]
    of_small: dict[str, Any] = {"me": me, "lanes": 16, "after": lanes.NO_TENANT}

    assert rows_of(own, lanes.take, **of_small, full_tenants=tenants, busy_tenants=tenants) < 50
    assert rows_of(own, lanes.take, **of_small, full_tenants=[new_id().bytes, *tenants]) < 50

    Lane.unscoped.filter(tenant_id=busy.tenant_id).update(dispatcher_id=me)
    mine = sorted(lane.endpoint_id.bytes for lane in Lane.unscoped.filter(dispatcher_id=me)[:20])
    released = [lanes.Release(endpoint_id, 1.0) for endpoint_id in mine]
    healths = [lanes.LaneHealth(endpoint_id, 0, None) for endpoint_id in mine]
    times = dict.fromkeys(mine, timezone.now())
    each: dict[str, float] = {
        "clear": rows_of(own, lanes.clear, me=me, lanes=released),
        "look again": rows_of(own, lanes.look_again, me=me, lanes=released, until=until_id()),
        "keep health": rows_of(own, lanes.keep_health, me=me, lanes=healths),
        "keep owed from": rows_of(own, lanes.keep_owed_from, me=me, owed_from=times),
        "woken": rows_of(own, lanes.woken, me=me, endpoint_ids=mine),
    }
    # Each of the twenty by its key, to lock it and to change it, and from one list to the next.
    assert {name: rows for name, rows in each.items() if not 20 <= rows <= 200} == {}


def test_versions_pile_up_while_an_old_snapshot_keeps_them_and_not_when_they_are_cleaned(
    own: psycopg.Connection[Row],
) -> None:
    endpoint = make_endpoint(make_tenant(), URL)
    own.execute("VACUUM ANALYZE deliveries_lane")  # what the server counted in other tests is over
    (rows,) = own.execute("SELECT count(*) FROM deliveries_lane").fetchall()[0]
    with connect(application_name="test", statement_timeout_seconds=10) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with old.transaction():
            old.execute("SELECT count(*) FROM deliveries_lane")
            for _ in range(5_100 + 21 * rows):
                own.execute(
                    "UPDATE deliveries_lane SET is_ready = NOT is_ready WHERE endpoint_id = %s", [endpoint.id]
                )
            own.execute("SELECT pg_stat_force_next_flush()")
            assert lanes.are_piling_up(own)
    own.execute("VACUUM deliveries_lane")
    assert not lanes.are_piling_up(own)
