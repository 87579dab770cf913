"""A round of the lanes clerk: what it brings is told before it gives lanes back, and once."""

import time
from uuid import UUID

import psycopg
import pytest
from django.db import connection

from deliveries.models import Endpoint, Lane
from deliveries.pipeline import lanes, lease
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.endpoints import ConfigCache
from deliveries.pipeline.payloads import PayloadRoom
from deliveries.pipeline.rounds import Round, RoundWorker
from tenants.ids import new_id
from tests.support.builders import lane_of, make_endpoints, make_tenant, publish

pytestmark = pytest.mark.usefixtures("quiet_lanes")

URL = "http://127.0.0.1:9/"


def own() -> psycopg.Connection[Row]:
    return connect(application_name="test", statement_timeout_seconds=10, options=lanes.OPTIONS)


def plan_of(*, take: int, give_back: list[Endpoint]) -> Round:
    return Round(
        healths=[],
        release=[lanes.Release(endpoint.id.bytes, 2.0) for endpoint in give_back],
        clear=[],
        wanted=[],
        held=[],
        take=take,
        full_tenants=[],
        busy_tenants=[],
        after_tenant=lanes.NO_TENANT,
        look_for_woken=[],
        check=False,
        waiting_long=[],
        fetch={},
        room=PayloadRoom(free=1_000_000, pinned={}),
        tenants={},
        free_loads=100,
        began=time.monotonic(),
    )


@pytest.fixture
def two_lanes() -> tuple[UUID, Endpoint, Endpoint]:
    """Who holds the first one; that one, which has no work; and another, which has."""
    me = new_id()
    tenant = make_tenant()
    held, ready = make_endpoints(tenant, [URL] * 2)
    with own() as lanes_connection:
        lease.register(lanes_connection, me=me, process="test")
    publish(tenant)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE deliveries_delivery SET status = 'cancelled', next_attempt_at = NULL"
                       " WHERE endpoint_id = %s", [held.id])  # fmt: skip
    Lane.unscoped.filter(endpoint=held).update(dispatcher_id=me, ready_at=None, is_ready=False)
    return me, held, ready


def test_what_a_round_brings_is_told_before_it_gives_lanes_back(
    two_lanes: tuple[UUID, Endpoint, Endpoint],
) -> None:
    me, held, ready = two_lanes
    plan = plan_of(take=10, give_back=[held])
    told: list[tuple[list[bytes], int, UUID | None]] = []

    def tell() -> None:
        told.append(
            ([owed.endpoint_id for owed in plan.owed], len(plan.payload_rows), lane_of(held).dispatcher_id)
        )

    with own() as lanes_connection:
        RoundWorker(me=me, payloads={}).work(lanes_connection, plan, tell)

    assert told == [([ready.id.bytes], 1, me)]
    assert lane_of(held).dispatcher_id is None


def test_the_busy_bring_nothing_in_the_round_of_others_and_scheduled_lanes_are_made_ready(
    two_lanes: tuple[UUID, Endpoint, Endpoint],
) -> None:
    me, _, busy = two_lanes
    others = make_tenant()
    quiet, scheduled = make_endpoints(others, [URL] * 2)
    publish(others)
    Lane.unscoped.filter(endpoint=scheduled).update(is_ready=False)
    plans = [plan_of(take=10, give_back=[]) for _ in range(2)]

    with own() as lanes_connection:
        for plan in plans:
            plan.busy_tenants = [busy.tenant_id.bytes]
            RoundWorker(me=me, payloads={}).work(lanes_connection, plan, lambda: None)

    assert [[lane.endpoint_id for lane in plan.taken] for plan in plans] == [
        [quiet.id.bytes],
        [scheduled.id.bytes],
    ]
    assert [(plan.is_of_others, plan.promoted) for plan in plans] == [(True, 1), (True, 0)]
    assert lane_of(busy).dispatcher_id is None


def test_what_was_told_is_not_brought_again_when_the_connection_is_lost_on_the_way(
    two_lanes: tuple[UUID, Endpoint, Endpoint],
) -> None:
    me, held, ready = two_lanes
    plan = plan_of(take=10, give_back=[held])
    worker = RoundWorker(me=me, payloads={})
    told: list[int] = []
    lost = own()

    def tell() -> None:
        told.append(len(plan.owed))
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [lost.info.backend_pid])

    with pytest.raises(psycopg.OperationalError):
        worker.work(lost, plan, tell)
    lost.close()
    assert lane_of(held).dispatcher_id == me

    with own() as again:
        worker.work(again, plan, tell)

    assert told == [1]
    assert [taken.endpoint_id for taken in plan.taken] == [ready.id.bytes]
    assert lane_of(held).dispatcher_id is None


def test_a_lane_that_is_taken_comes_with_its_settings_however_few_are_kept() -> None:
    """To keep those of the others, the oldest are forgotten, and they may be among the ones that were just asked for."""
    tenant = make_tenant()
    endpoints = make_endpoints(tenant, [URL] * 4)
    with own() as connection:
        found = [(endpoint.id.bytes, endpoint.version) for endpoint in endpoints]
        cache = ConfigCache(size=2)
        cache.get(connection, found[:2])

        assert set(cache.get(connection, found)) == {endpoint.id.bytes for endpoint in endpoints}
