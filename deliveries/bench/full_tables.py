"""Fills the tables as years of use would: finished history, a million pending on a lane that is held, idle endpoints.

Rows are copies of one that the platform itself has written, apart from the columns named here.
"""

import contextlib
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from deliveries.pipeline.database import Row
from deliveries.pipeline.partitions import Week
from tenants.ids import new_id

AGE = timedelta(minutes=10)
"""How long ago the copies say they were made: before anything that is published from now on."""

# UUIDv7: a hundred a millisecond, told apart by the last digits. The letter says of what kind it is.
_ID = "(lpad(to_hex({at} + g / 100), 12, '0') || '7' || lpad(to_hex(g % 4096), 3, '0') || '8{kind}' || lpad(to_hex(g), 14, '0'))::uuid"

EVENTS = """
INSERT INTO deliveries_event SELECT (copy).* FROM (
    SELECT jsonb_populate_record(e, jsonb_build_object('id', {event}, 'data', '\\x7b7d')) AS copy
    FROM deliveries_event e CROSS JOIN generate_series({first}, {last}) g WHERE e.id = %(event)s OFFSET 0
) made
"""

DELIVERIES = """
INSERT INTO deliveries_delivery SELECT (copy).* FROM (
    SELECT jsonb_populate_record(d, jsonb_build_object('id', {delivery}, 'event_id', {event}, 'size', 2) || {more}) AS copy
    FROM deliveries_delivery d CROSS JOIN generate_series({first}, {last}) g WHERE d.id = %(delivery)s OFFSET 0
) made
"""

ATTEMPTS = """
INSERT INTO deliveries_attempt SELECT (copy).* FROM (
    SELECT jsonb_populate_record(a, jsonb_build_object('id', {attempt}, 'delivery_id', {delivery})) AS copy
    FROM deliveries_attempt a CROSS JOIN generate_series({first}, {last}) g WHERE a.id = %(attempt)s OFFSET 0
) made
"""

ON_ENDPOINTS = (
    "jsonb_build_object('endpoint_id', (%(endpoints)s::uuid[])[1 + g %% cardinality(%(endpoints)s::uuid[])])"
)

ON_HELD_LANE = (
    "jsonb_build_object('endpoint_id', %(held)s::uuid, 'status', 'pending', 'next_attempt_at', d.created_at,"
    " 'completed_at', NULL, 'attempt_count', 0, 'schedule_step', 0, 'last_outcome', NULL, 'last_status_code', NULL)"
)

SLICE = 100_000

REST_SECONDS = 5
"""Nothing written by a checkpoint for so long: it is over."""

MOST_WRITING_SECONDS = 330
"""As long as PostgreSQL takes for one if it is not in a hurry."""


def fill(
    connection: psycopg.Connection[Row], tenant_id: UUID, *, finished: int, pending: int, idle: int
) -> None:
    """The tenant has endpoints and at least one delivery that succeeded."""
    now = datetime.now(UTC)
    at = round(max(Week.of(now).begins_at, now - AGE).timestamp() * 1000)
    row = connection.execute(
        "SELECT d.event_id, d.id, a.id FROM deliveries_delivery d JOIN deliveries_attempt a ON a.delivery_id = d.id"
        " WHERE d.tenant_id = %s AND d.status = 'succeeded' LIMIT 1",
        [tenant_id],
    ).fetchone()
    assert row is not None
    endpoints = [
        each[0]
        for each in connection.execute("SELECT id FROM deliveries_endpoint WHERE tenant_id = %s", [tenant_id])
    ]
    held = _held_endpoint(connection, endpoints[0])
    parameters = {
        "event": row[0],
        "delivery": row[1],
        "attempt": row[2],
        "endpoints": endpoints,
        "held": held,
    }
    for first in range(1, finished + 1, SLICE):
        last = min(first + SLICE - 1, finished)
        for statement in (EVENTS, DELIVERIES, ATTEMPTS):
            connection.execute(_filled(statement, at, first, last, ON_ENDPOINTS), parameters)
    for first in range(finished + 1, finished + pending + 1, SLICE):
        last = min(first + SLICE - 1, finished + pending)
        for statement in (EVENTS, DELIVERIES):
            connection.execute(_filled(statement, at, first, last, ON_HELD_LANE), parameters)
    _idle_lanes(connection, tenant_id, endpoints[0], count=idle)
    # Years of use would have rolled it up as it came, not all of it in the middle of a measurement.
    connection.execute(
        "UPDATE deliveries_rollupstate SET minutes_to = date_trunc('minute', now()), hours_to = date_trunc('hour', now()),"
        " attempts_to = now()"
    )
    for table in ("event", "delivery", "attempt", "endpoint", "lane"):
        connection.execute(f"VACUUM (ANALYZE) deliveries_{table}")
    _let_it_be_written(connection)


def _let_it_be_written(connection: psycopg.Connection[Row]) -> None:
    """What was filled in minutes goes to the disk for minutes. Years of use would not have left that to the measurement."""
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        connection.execute("CHECKPOINT")
        return
    with contextlib.suppress(psycopg.errors.UndefinedTable):  # PostgreSQL 16 and older
        deadline = time.monotonic() + MOST_WRITING_SECONDS
        written, since = -1, time.monotonic()
        while time.monotonic() < min(deadline, since + REST_SECONDS):
            row = connection.execute("SELECT buffers_written FROM pg_stat_checkpointer").fetchone()
            assert row is not None
            if row[0] != written:
                written, since = row[0], time.monotonic()
            time.sleep(0.5)


def _filled(statement: str, at: int, first: int, last: int, more: str) -> str:
    ids = {
        kind: _ID.format(at=at, kind=digit).replace("%", "%%")
        for kind, digit in (("event", "e"), ("delivery", "d"), ("attempt", "a"))
    }
    return statement.format(first=first, last=last, more=more, **ids)


def _held_endpoint(connection: psycopg.Connection[Row], like: UUID) -> UUID:
    held = new_id()
    connection.execute(
        "INSERT INTO deliveries_endpoint SELECT (jsonb_populate_record(e, jsonb_build_object('id', %s::uuid,"
        " 'is_paused', true))).* FROM deliveries_endpoint e WHERE id = %s",
        [held, like],
    )
    connection.execute(
        "INSERT INTO deliveries_lane SELECT (jsonb_populate_record(l, jsonb_build_object('endpoint_id', %s::uuid,"
        " 'is_paused', true, 'ready_at', now(), 'is_ready', true, 'dispatcher_id', NULL))).*"
        " FROM deliveries_lane l WHERE endpoint_id = %s",
        [held, like],
    )
    return held


def _idle_lanes(connection: psycopg.Connection[Row], tenant_id: UUID, like: UUID, *, count: int) -> None:
    """Fifty each of tenants that do nothing."""
    connection.execute(
        "INSERT INTO tenants_tenant SELECT (copy).* FROM (SELECT jsonb_populate_record(t,"
        " jsonb_build_object('id', gen_random_uuid(), 'slug', 'idle-' || g)) AS copy"
        " FROM tenants_tenant t CROSS JOIN generate_series(1, %s) g WHERE t.id = %s OFFSET 0) made",
        [max(1, count // 50), tenant_id],
    )
    connection.execute(
        "INSERT INTO deliveries_endpoint SELECT (copy).* FROM (SELECT jsonb_populate_record(e,"
        " jsonb_build_object('id', gen_random_uuid(), 'tenant_id', t.id)) AS copy FROM deliveries_endpoint e"
        " CROSS JOIN tenants_tenant t CROSS JOIN generate_series(1, 50)"
        " WHERE e.id = %s AND t.slug LIKE 'idle-%%' LIMIT %s) made",
        [like, count],
    )
    connection.execute(
        "INSERT INTO deliveries_lane SELECT (copy).* FROM (SELECT jsonb_populate_record(l,"
        " jsonb_build_object('endpoint_id', e.id, 'tenant_id', e.tenant_id, 'ready_at', NULL, 'is_ready', false,"
        " 'is_paused', false, 'dispatcher_id', NULL)) AS copy FROM deliveries_lane l CROSS JOIN deliveries_endpoint e"
        " JOIN tenants_tenant t ON t.id = e.tenant_id WHERE l.endpoint_id = %s AND t.slug LIKE 'idle-%%' OFFSET 0) made",
        [like],
    )
