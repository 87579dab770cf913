"""A holder gives a lane back while a publisher commits: whichever way their statements interleave, one sees the other.

The holder clears `ready_at` in one statement and looks for what is owed in a later one; the publisher commits first and
wakes the lane in a statement of its own. Lost is a lane that nobody holds, that is not ready, and that is owed something.
"""

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from deliveries.models import Endpoint
from deliveries.pipeline import ingest, lanes, lease
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.rounds import until_id
from deliveries.pipeline.wake import wake_lanes
from tenants.ids import new_id
from tenants.models import Tenant
from tests.support.builders import lane_of, make_endpoint, make_tenant, new_event
from tests.support.running import until

pytestmark = pytest.mark.usefixtures("quiet_lanes")

Connection = psycopg.Connection[Row]


@pytest.fixture
def two() -> Iterator[tuple[Connection, Connection]]:
    """The holder's connection and the publisher's."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(connect(application_name=name, statement_timeout_seconds=10))
            for name in ("test-holder", "test-publisher")
        )
        yield first, second


class Holder:
    """Of the lane of one endpoint, its release taken apart."""

    def __init__(self, connection: Connection, endpoint: Endpoint) -> None:
        self.connection = connection
        self.me = new_id()
        self.release = [lanes.Release(endpoint.id.bytes, 2.0)]
        lease.register(connection, me=self.me, process="test")
        wake_lanes(connection, [(endpoint.id.bytes, None)])
        taken = lanes.take(connection, me=self.me, lanes=10, after=lanes.NO_TENANT).lanes
        assert [lane.endpoint_id for lane in taken] == [endpoint.id.bytes]

    def clear(self) -> None:
        lanes.clear(self.connection, me=self.me, lanes=self.release)

    def look(self) -> None:
        assert lanes.look_again(self.connection, me=self.me, lanes=self.release, until=until_id()) == 1


class Publisher:
    """Of one event, its commit and its wake taken apart."""

    def __init__(self, connection: Connection, tenant: Tenant, endpoint: Endpoint) -> None:
        self.connection = connection
        self.endpoint = endpoint
        event = new_event(tenant)
        results: list[Any] = [None]
        self.read = ingest._read(connection, [event])
        self.prepared = ingest._prepare(connection, [event], self.read, results)
        assert len(self.prepared[0].targets) == 1

    def insert(self) -> None:
        ingest._insert(self.connection, self.prepared, self.read.now)

    def wake(self) -> None:
        wake_lanes(self.connection, [(self.endpoint.id.bytes, None)])


ORDERS = sorted(set(itertools.permutations(["holder", "holder", "publisher", "publisher"])))


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_no_order_of_the_statements_loses_the_wake(
    two: tuple[Connection, Connection], order: tuple[str, ...]
) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    holder, publisher = Holder(two[0], endpoint), Publisher(two[1], tenant, endpoint)
    steps = {
        "holder": iter([holder.clear, holder.look]),
        "publisher": iter([publisher.insert, publisher.wake]),
    }

    for who in order:
        next(steps[who])()

    lane = lane_of(endpoint)
    assert (lane.is_ready, lane.dispatcher_id) == (True, None)
    assert lane.ready_at is not None


@pytest.mark.parametrize("woken_before", [True, False])
def test_a_publisher_whose_transaction_is_open_meanwhile_wakes_it_after_its_commit(
    two: tuple[Connection, Connection], woken_before: bool
) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    holder, publisher = Holder(two[0], endpoint), Publisher(two[1], tenant, endpoint)

    with publisher.connection.transaction():
        publisher.insert()
        holder.clear()
        if woken_before:
            wake_lanes(holder.connection, [(endpoint.id.bytes, None)])
        holder.look()
    idle = lane_of(endpoint)
    publisher.wake()

    assert idle.is_ready is woken_before
    lane = lane_of(endpoint)
    assert (lane.is_ready, lane.dispatcher_id) == (True, None)


def test_a_look_that_waits_for_a_wake_keeps_what_the_wake_wrote(two: tuple[Connection, Connection]) -> None:
    """The look's snapshot is older than the wake's commit, and the row's lock makes it wait: it must read the new row."""
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    holder = Holder(two[0], endpoint)
    holder.clear()
    look = threading.Thread(target=holder.look)

    with two[1].transaction():
        wake_lanes(two[1], [(endpoint.id.bytes, None)])
        look.start()
        until(lambda: is_waiting("test-holder"))
    look.join(10)

    lane = lane_of(endpoint)
    assert (lane.is_ready, lane.dispatcher_id) == (True, None)


def test_a_wake_that_waits_for_a_look_makes_ready_what_the_look_left_idle(
    two: tuple[Connection, Connection],
) -> None:
    """The look's snapshot is older than the event, and it has the row's lock: the wake must wait for it, not pass by."""
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    holder, publisher = Holder(two[0], endpoint), Publisher(two[1], tenant, endpoint)
    holder.clear()
    wake = threading.Thread(target=publisher.wake)

    with two[0].transaction():
        holder.look()
        publisher.insert()
        wake.start()
        until(lambda: is_waiting("test-publisher"))
    wake.join(10)

    lane = lane_of(endpoint)
    assert (lane.is_ready, lane.dispatcher_id) == (True, None)
    assert lane.ready_at is not None


def test_a_wake_that_passes_by_a_lane_that_is_being_cleared_leaves_it_to_the_look(
    two: tuple[Connection, Connection],
) -> None:
    """To the wake's snapshot the lane is still ready, so it changes nothing: the look after it must find the event."""
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    holder, publisher = Holder(two[0], endpoint), Publisher(two[1], tenant, endpoint)

    with two[0].transaction():
        holder.clear()
        publisher.insert()
        publisher.wake()
    cleared = lane_of(endpoint)
    holder.look()

    assert (cleared.is_ready, cleared.ready_at) == (False, None)
    lane = lane_of(endpoint)
    assert (lane.is_ready, lane.dispatcher_id) == (True, None)
    assert lane.ready_at is not None


def is_waiting(application_name: str) -> bool:
    with connect(application_name="test-watch", statement_timeout_seconds=5) as watch:
        row = watch.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
            " AND datname = current_database()",
            [application_name],
        ).fetchone()
    return row is not None and row[0] == 1
