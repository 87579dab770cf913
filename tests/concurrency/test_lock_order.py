"""Everything that touches several lanes or deliveries, at once, in a random order of its own: nobody locks anybody up.

Seen in a prototype without locking in key order: 8 deadlocks in 26 statements.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import DatabaseError, connections, transaction
from django.db import connection as django_connection
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from deliveries.bench import rig
from deliveries.models import Delivery, Endpoint
from deliveries.pipeline import (
    arrays,
    claims,
    dispatch,
    fifo,
    ingest,
    lanes,
    lease,
    polling,
    retention,
    sweeps,
)
from deliveries.pipeline.cancel import cancel
from deliveries.pipeline.clerk import Clerk
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.hub import Hub
from deliveries.pipeline.record import BY_INDEX, record
from deliveries.pipeline.rounds import until_id
from deliveries.pipeline.wake import request_manual_attempt, wake_lanes
from deliveries.services import erasing
from tenants.ids import new_id
from tests.deliveries.pipeline.test_record import result_of
from tests.support.builders import (
    deliveries_of,
    events_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    new_event,
)
from tests.support.running import Webhooks, running, until

pytestmark = pytest.mark.usefixtures("quiet_lanes")

Connection = psycopg.Connection[Row]
Work = Callable[[Connection, random.Random], object]

SECONDS = 2.5
"""PostgreSQL looks for a deadlock when a lock was waited for a second."""


def run_together(works: list[Work]) -> tuple[int, list[str]]:
    """All of them again and again, each in a thread and on a connection of its own. (statements, failures)"""
    counts = [0] * len(works)
    failures: list[str] = []
    until = time.monotonic() + SECONDS

    def repeat(who: int) -> None:
        dice = random.Random(who)
        with connect(application_name="test", statement_timeout_seconds=10, options=BY_INDEX) as own:
            while time.monotonic() < until and not failures:
                try:
                    works[who](own, dice)
                    counts[who] += 1
                except (psycopg.Error, DatabaseError) as error:
                    failures.append(f"{works[who].__name__}: {type(error).__name__}: {error}")
        connections.close_all()

    threads = [threading.Thread(target=repeat, args=[who]) for who in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert min(counts) > 0
    return sum(counts), failures


def as_it_lies_there(own: Connection | CursorWrapper) -> None:
    """How a small table is read, until the transaction ends."""
    own.execute(
        "SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off"
    )


def test_wakes_takes_releases_and_takeovers_do_not_lock_each_other_up() -> None:
    tenants = [make_tenant() for _ in range(3)]
    keys = [
        endpoint.id.bytes
        for tenant in tenants
        for endpoint in make_endpoints(tenant, ["http://127.0.0.1:9/"] * 40)
    ]

    def wake(own: Connection, dice: random.Random) -> None:
        wake_lanes(own, [(key, None) for key in dice.sample(keys, 60)])

    def serve(own: Connection, dice: random.Random) -> None:
        me = new_id()
        lease.register(own, me=me, process="test")
        for _ in range(3):
            lanes.promote(own)
            taken = lanes.take(own, me=me, lanes=50, after=lanes.NO_TENANT).lanes
            back = [lanes.Release(lane.endpoint_id, 2.0) for lane in taken]
            dice.shuffle(back)
            if back:
                lanes.release(own, me=me, lanes=back, until=until_id())
        lease.sign_off(own, me=me)

    def take_over(own: Connection, _: random.Random) -> None:
        with own.transaction():
            lease.take_over(own)
        time.sleep(0.01)

    def hold(own: Connection, dice: random.Random) -> None:
        """As the bench does, which measures beside dispatchers at work."""
        some = [UUID(bytes=key) for key in dice.sample(keys, 60)]
        with own.transaction():
            as_it_lies_there(own)
            own.execute(rig.PAUSE, [some, dice.random() < 0.2])

    statements, failures = run_together([wake, wake, wake, serve, serve, take_over, hold])

    assert failures == []
    assert statements > 50


@pytest.mark.parametrize("ordering", ["none", "fifo"])
def test_records_ends_cancels_retries_and_erasures_do_not_lock_each_other_up(
    ordering: str, caplog: pytest.LogCaptureFixture
) -> None:
    tenant = make_tenant()
    is_fifo = ordering == "fifo"
    endpoints = make_endpoints(tenant, ["http://127.0.0.1:9/"] * 3, ordering=ordering)
    ingest.publish(
        [new_event(tenant, ordering_key=f"k{n % 7}" if is_fifo else None, is_fifo=is_fifo) for n in range(60)]
    )
    events, deliveries = events_of(tenant), deliveries_of(tenant)
    keys = [delivery.id for delivery in deliveries]
    line_of = {
        each.id: (each.endpoint_id.bytes, each.ordering_key)
        for each in deliveries
        if each.ordering_key is not None
    }
    later = timezone.now() + timedelta(days=31)
    Endpoint.unscoped.filter(tenant=tenant).update(status="disabled", disabled_reason="manual")

    def keep(own: Connection, dice: random.Random) -> None:
        # What two holders of a lane, one of them a zombie, would write.
        chosen = dice.sample(deliveries, 60)
        record(own, [result_of(each, wait_seconds=None, line=line_of.get(each.id)) for each in chosen])

    def end(own: Connection, dice: random.Random) -> None:
        endpoint = dice.choice(endpoints)
        held = [key.bytes for key in dice.sample(keys, 140)]
        lanes.end_pending(own, endpoint_id=endpoint.id.bytes, reason="endpoint_disabled", held=held)
        time.sleep(0.02)

    def call_off(_: Connection, dice: random.Random) -> None:
        with transaction.atomic():
            cancel(
                tenant_id=tenant.id,
                delivery_ids=dice.sample(keys, 50),
                reason=Delivery.CancelReason.REQUESTED,
            )

    def ask(_: Connection, dice: random.Random) -> None:
        with transaction.atomic():
            request_manual_attempt(dice.sample(deliveries, 50), now=timezone.now())

    def expire(_: Connection, __: random.Random) -> None:
        sweeps.expire_pending(now=later)
        time.sleep(0.1)

    def erase(_: Connection, dice: random.Random) -> None:
        with transaction.atomic():
            erasing._erase_copies(tenant.id, dice.choice(events))

    def fetch(_: Connection, dice: random.Random) -> None:
        """As the receiver of an endpoint of kind poll, which has no order but that of its line."""
        endpoint = dice.choice(endpoints)
        items = polling.read(tenant_id=tenant.id, endpoint_id=endpoint.id, position=0, most=30)
        after = items[-1][0] if items else None
        polling.advance(tenant_id=tenant.id, endpoint_id=endpoint.id, consumer="test", after=after)

    def let_go(_: Connection, dice: random.Random) -> None:
        """All that is old, as retention does it; then it is there again."""
        kind = dice.choice(["payloads", "deliveries"])
        with transaction.atomic(), django_connection.cursor() as cursor:
            as_it_lies_there(cursor)
            retention._batch(retention.Due(tenant.id, kind, tenant.created_at, later))
            transaction.set_rollback(True)
        time.sleep(0.02)

    def begin_again(own: Connection, _: random.Random) -> None:
        """So that there is something to do, as long as it lasts."""
        with own.transaction(), own.cursor() as cursor:
            fifo.lock_lines(cursor, line_of.values())
            cursor.execute(
                "WITH l AS MATERIALIZED (SELECT id FROM deliveries_delivery WHERE tenant_id = %s ORDER BY id"
                " FOR NO KEY UPDATE) UPDATE deliveries_delivery d SET status = 'pending', attempt_count = 0,"
                " next_attempt_at = CASE WHEN ordering_key IS NULL THEN now() END, manual_requested_at = NULL,"
                " completed_at = NULL, cancel_reason = NULL, body = '{}' FROM l WHERE d.id = l.id",
                [tenant.id],
            )
            fifo.pass_on(cursor, line_of.values())
        time.sleep(0.01)

    works: list[Work] = [keep, keep, end, call_off, ask, expire, erase, let_go, begin_again]
    statements, failures = run_together(works if is_fifo else [*works, fetch])

    assert failures == []
    # Nor did any of them have to begin again.
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []
    assert statements > 50


def test_publishers_and_the_end_of_their_idempotency_keys_do_not_lock_each_other_up() -> None:
    """A key is used again after its day, while the sweep drops what is as old: the oldest first, whichever its key."""
    space = new_id()
    keys = [f"k{number:03}" for number in range(200)]

    def keep(own: Connection, dice: random.Random) -> None:
        chosen = sorted(dice.sample(keys, 60))
        ids = arrays.uuids([space.bytes] * len(chosen))
        byteas = arrays.byteas([b"{}"] * len(chosen))
        with own.transaction():
            own.execute(claims.KEEP, [ids, arrays.texts(chosen), byteas, byteas, ids], binary=True)
            own.execute(
                "UPDATE tenants_idempotencyrecord SET created_at = now() - interval '25 hours' * (1 + random())"
                " WHERE space = %s AND key = ANY(%s)",
                [space, chosen],
            )

    def expire(_: Connection, __: random.Random) -> None:
        sweeps.expire_idempotency()

    statements, failures = run_together([keep, keep, expire])

    assert failures == []
    assert statements > 50


def test_a_record_that_was_ended_for_a_deadlock_is_done_again_and_the_database_was_never_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing of the product locks rows in another order than that of their keys; here somebody else does."""
    tenant = make_tenant()
    make_endpoint(tenant, "http://127.0.0.1:9/")
    lock = "SELECT FROM deliveries_delivery WHERE id = %s FOR NO KEY UPDATE"
    done: list[bool] = []
    hub = Hub()
    clerk = Clerk("records", hub=hub, statement_timeout_seconds=10)

    def is_record_waiting(other: Connection) -> bool:
        hub.go_on(0.01)
        return is_anybody_waiting(other)

    def is_recorded() -> bool:
        hub.go_on(0.01)
        clerk.collect()
        return not clerk.is_busy

    def meet(other: Connection) -> bool:
        """Whether it was the record that PostgreSQL ended. Who has waited for a second first is, so a slow machine may turn it round."""
        ingest.publish([new_event(tenant) for _ in range(2)])
        first, second = deliveries_of(tenant)[-2:]
        try:
            with other.transaction():
                other.execute(lock, [second.id])
                clerk.give(
                    lambda own, is_repeat: record(
                        own, [result_of(first), result_of(second)], is_retry=is_repeat
                    ),
                    lambda _: done.append(True),
                )
                until(lambda: is_record_waiting(other))
                time.sleep(0.5)
                other.execute(lock, [first.id])
        except psycopg.errors.DeadlockDetected:
            return False
        finally:
            until(is_recorded)
        return True

    with (
        connect(application_name="test", statement_timeout_seconds=10) as other,
        caplog.at_level(logging.WARNING),
    ):
        tries = next(tries for tries in range(1, 6) if meet(other))
    clerk.stop()
    hub.close()

    assert (done, clerk.losses) == ([True] * tries, 0)
    assert [each.attempt_count for each in deliveries_of(tenant)] == [1, 1] * tries
    assert [each.getMessage() for each in caplog.records] == ["again after a deadlock"]


def test_a_dispatcher_records_over_a_connection_that_plans_with_indexes_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[object] = []

    def look(own: Connection, results: Any, **named: Any) -> None:
        found.append(
            own.execute(
                "SELECT current_setting('enable_seqscan'), current_setting('enable_bitmapscan')"
            ).fetchone()
        )
        record(own, results, **named)

    monkeypatch.setattr(dispatch, "record", look)
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        ingest.publish([new_event(tenant)])
        with running():
            until(lambda: bool(found))

    assert found == [("off", "off")]


def is_anybody_waiting(own: Connection) -> bool:
    """For this transaction: somebody of another database may wait for one there."""
    return own.execute(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid"
    ).fetchone() != (0,)
