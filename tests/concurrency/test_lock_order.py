"""Everything that touches several lanes or deliveries, at once, in a random order of its own: nobody locks anybody up.

Seen in a prototype without locking in key order: 8 deadlocks in 26 statements.
"""

import random
import threading
import time
from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest

from deliveries.pipeline import ingest, lanes
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.record import record
from deliveries.pipeline.rounds import until_id
from deliveries.pipeline.wake import wake_lanes
from tenants.ids import new_id
from tests.deliveries.pipeline.test_record import result_of
from tests.support.builders import deliveries_of, make_endpoints, make_tenant, new_event

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
        with connect(application_name="test", statement_timeout_seconds=10) as own:
            while time.monotonic() < until and not failures:
                try:
                    works[who](own, dice)
                    counts[who] += 1
                except psycopg.Error as error:
                    failures.append(f"{who}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=repeat, args=[who]) for who in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert min(counts) > 0
    return sum(counts), failures


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
        lanes.register(own, me=me, process="test")
        for _ in range(3):
            lanes.promote(own)
            taken, _ = lanes.take(own, me=me, lanes=50, after=lanes.NO_TENANT, full_tenants=[])
            back = [lanes.Release(lane.endpoint_id, 2.0) for lane in taken]
            dice.shuffle(back)
            if back:
                lanes.release(own, me=me, lanes=back, until=until_id())
        lanes.sign_off(own, me=me)

    def take_over(own: Connection, _: random.Random) -> None:
        with own.transaction():
            lanes.take_over(own)
        time.sleep(0.01)

    statements, failures = run_together([wake, wake, wake, serve, serve, take_over])

    assert failures == []
    assert statements > 50


def test_records_ends_and_cancels_do_not_lock_each_other_up() -> None:
    tenant = make_tenant()
    endpoint = make_endpoints(tenant, ["http://127.0.0.1:9/"])[0]
    ingest.publish([new_event(tenant) for _ in range(200)])
    deliveries = deliveries_of(tenant)

    def keep(own: Connection, dice: random.Random) -> None:
        # What two holders of a lane, one of them a zombie, would write; never a success, so that all stay pending.
        record(own, [result_of(delivery, wait_seconds=0.0) for delivery in dice.sample(deliveries, 100)])

    def end(own: Connection, dice: random.Random) -> None:
        held = [delivery.id.bytes for delivery in dice.sample(deliveries, 195)]
        lanes.end_pending(own, endpoint_id=endpoint.id.bytes, reason="endpoint_disabled", held=held)
        time.sleep(0.02)

    def touch(own: Connection, dice: random.Random) -> None:
        chosen = [UUID(int=delivery.id.int) for delivery in dice.sample(deliveries, 50)]
        own.execute(
            "WITH l AS MATERIALIZED (SELECT id FROM deliveries_delivery WHERE id = ANY(%s) ORDER BY id"
            " FOR NO KEY UPDATE) UPDATE deliveries_delivery d SET manual_requested_at = NULL FROM l WHERE d.id = l.id",
            [chosen],
        )

    statements, failures = run_together([keep, keep, end, touch])

    assert failures == []
    assert statements > 50
