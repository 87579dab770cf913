"""A service wipes a lane's health while its holder writes what it counted: the wipe holds, whoever comes first.

The holder's statement may have begun before the service committed and wait for the lane's lock. It then sees the lane as it
is now, and every other row as it was when it began: so what it compares has to be on the lane itself.
"""

import threading
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from django.db import connection, transaction

from deliveries.models import Endpoint
from deliveries.pipeline import lanes, lease
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.health import Health
from deliveries.pipeline.lanes import LaneHealth, Release
from deliveries.pipeline.rounds import until_id
from deliveries.pipeline.wake import wake_lanes
from deliveries.services import health, stopping
from tenants.ids import new_id
from tenants.services.audit import COMMAND
from tests.support.builders import lane_of, make_endpoint, make_tenant, publish
from tests.support.running import until

pytestmark = pytest.mark.usefixtures("quiet_lanes")

Connection = psycopg.Connection[Row]


@pytest.fixture
def own() -> Iterator[Connection]:
    with connect(application_name="test-holder", statement_timeout_seconds=10) as holder:
        yield holder


class Holder:
    def __init__(self, own: Connection, endpoint: Endpoint) -> None:
        self.connection = own
        self.me: UUID = new_id()
        lease.register(own, me=self.me, process="test")
        wake_lanes(own, [(endpoint.id.bytes, None)])
        (taken,) = lanes.take(own, me=self.me, lanes=10, after=lanes.NO_TENANT).lanes
        self.health = LaneHealth(
            endpoint.id.bytes,
            taken.resets,
            Health(1.0, 2.0, failures=30, is_own=True, opened_at=2.0, wait_seconds=900.0),
        )
        self.release = Release(endpoint.id.bytes, 1.0, 900.0, "circuit", resets=taken.resets)

    def keep(self) -> None:
        lanes.keep_health(self.connection, me=self.me, lanes=[self.health])

    def give_back(self) -> None:
        lanes.look_again(self.connection, me=self.me, lanes=[self.release], until=until_id())


def is_blocked(own: Connection) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", [own.info.backend_pid])
        ((count,),) = cursor.fetchall()
    return bool(count)


@pytest.mark.parametrize("step", ["keep", "give_back"])
def test_a_holder_that_waits_for_the_wipe_writes_nothing_over_it(own: Connection, step: str) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    publish(tenant)
    holder = Holder(own, endpoint)
    thread = threading.Thread(target=getattr(holder, step))

    with transaction.atomic():
        health.wipe(endpoint)
        thread.start()
        until(lambda: is_blocked(own))
    thread.join(10)

    lane = lane_of(endpoint)
    assert (lane.failures, lane.failing_since, lane.circuit_opened_at, lane.resets) == (0, None, None, 1)
    assert (lane.hold_until, lane.hold_reason) == (None, None)
    assert lane.is_ready is True


@pytest.mark.parametrize("is_wiped_first", [True, False])
def test_the_wipe_holds_in_either_order(own: Connection, is_wiped_first: bool) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    publish(tenant)
    holder = Holder(own, endpoint)

    if is_wiped_first:
        health.wipe(endpoint)
    holder.keep()
    holder.give_back()
    if not is_wiped_first:
        assert (lane_of(endpoint).failures, lane_of(endpoint).hold_reason) == (30, "circuit")
        health.wipe(endpoint)

    lane = lane_of(endpoint)
    assert (lane.failures, lane.circuit_opened_at, lane.hold_until, lane.hold_reason) == (0, None, None, None)


def test_who_holds_a_lane_that_is_stopped_gives_it_back_without_its_wait(own: Connection) -> None:
    """What is pending is to end now, and the next holder does it."""
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    publish(tenant)
    holder = Holder(own, endpoint)

    stopping.disable_endpoint(actor=COMMAND, endpoint=endpoint)
    holder.keep()
    holder.give_back()

    lane = lane_of(endpoint)
    assert (lane.hold_until, lane.hold_reason, lane.is_ready) == (None, None, True)


def test_what_is_not_wiped_is_kept_and_comes_back_with_the_lane(own: Connection) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    publish(tenant)
    holder = Holder(own, endpoint)
    holder.release = Release(endpoint.id.bytes, 1.0, 0.0, "circuit")

    holder.keep()
    holder.give_back()
    (taken,) = lanes.take(own, me=holder.me, lanes=10, after=lanes.NO_TENANT).lanes

    found = taken.health()
    assert found is not None
    assert (found.failing_since, found.failed_at, found.failures) == (1.0, 2.0, 30)
    assert (found.is_own, found.pause_seconds, found.opened_at, found.wait_seconds) == (
        True,
        None,
        2.0,
        900.0,
    )
    assert taken.is_probed
