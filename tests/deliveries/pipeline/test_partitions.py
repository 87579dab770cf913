"""Weekly partitions, made ahead: their bounds, their settings, and makers that meet."""

import threading
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import chain
from uuid import UUID

import psycopg
import pytest
from django.db import connection, connections
from django.utils import timezone

from deliveries.pipeline.database import connect
from deliveries.pipeline.partitions import TABLES, WEEKS_AHEAD, Week, ensure_partitions, weeks_ready
from tenants.ids import floor_of
from tests.support.racing import at_once

pytestmark = pytest.mark.usefixtures("database")

BEGAN = timezone.now()
"""Before the tables were migrated; a run of the tests may go on from one week into the next."""

FAR = datetime(2031, 3, 5, 12, tzinfo=UTC)
"""A Wednesday for which nobody makes partitions but these tests."""


def drop(at: datetime) -> None:
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f'DROP TABLE IF EXISTS "{Week.of(at).table(table)}"')


@pytest.mark.parametrize(
    ("at", "monday"),
    [
        (datetime(2026, 11, 16, 0, 0, tzinfo=UTC), "2026-11-16"),
        (datetime(2026, 11, 22, 23, 59, 59, 999_999, tzinfo=UTC), "2026-11-16"),
        (datetime(2026, 11, 23, tzinfo=UTC), "2026-11-23"),
        (datetime(2027, 1, 1, tzinfo=UTC), "2026-12-28"),
    ],
)
def test_a_week_begins_on_monday_in_utc(at: datetime, monday: str) -> None:
    assert str(Week.of(at).monday) == monday


def test_the_tables_stand_ready_for_the_weeks_promised() -> None:
    assert ensure_partitions(now=BEGAN) == []
    assert weeks_ready(now=BEGAN) >= WEEKS_AHEAD


def test_what_is_missing_is_made_and_takes_the_keys_of_its_week() -> None:
    drop(FAR)

    made = ensure_partitions(now=FAR, weeks_ahead=0)
    again = ensure_partitions(now=FAR, weeks_ahead=0)

    assert made == [f"{table}_20310303" for table in TABLES]
    assert again == []
    low, high = floor_of(Week.of(FAR).begins_at), floor_of(Week.of(FAR).next().begins_at)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_expr(relpartbound, oid), reloptions::text FROM pg_class"
            " WHERE relname = 'deliveries_delivery_20310303'"
        )
        ((bounds, options),) = cursor.fetchall()
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'deliveries_delivery_20310303'")
        indexes = "\n".join(row[0] for row in cursor.fetchall())
    assert bounds == f"FOR VALUES FROM ('{low}') TO ('{high}')"
    assert UUID(str(low)) < UUID(str(high))
    assert "autovacuum_vacuum_scale_factor=0.02" in options
    # At full speed it takes a core from whoever publishes.
    assert "cost_delay" not in options
    assert "autovacuum_analyze_scale_factor=0.5" in options
    assert "manual_requested_at" in indexes
    drop(FAR)


def test_partitions_made_before_are_vacuumed_as_new_ones_are() -> None:
    migration = import_module("deliveries.migrations.0033_partitions_at_their_own_pace")
    drop(FAR)
    (*_, attempts) = ensure_partitions(now=FAR, weeks_ahead=0)

    def options() -> dict[str, str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT unnest(reloptions) FROM pg_class WHERE relname = %s", [attempts])
            return dict(row[0].split("=") for row in cursor.fetchall())

    with connection.cursor() as cursor:
        as_new = options()
        cursor.execute(migration.BACKWARDS)
        as_before = options()
        cursor.execute(migration.FORWARDS)

    assert as_before["autovacuum_vacuum_cost_delay"] == "0"
    assert options() == as_new != as_before
    drop(FAR)


def test_two_makers_at_once_make_each_table_once() -> None:
    drop(FAR)

    made = at_once(3, lambda _: ensure_partitions(now=FAR, weeks_ahead=0))

    assert sorted(chain.from_iterable(made)) == sorted(f"{table}_20310303" for table in TABLES)
    drop(FAR)


def test_a_table_in_use_is_waited_for_without_holding_up_its_writers() -> None:
    """ATTACH waits 40 ms at a time: behind a lock that it cannot get, no writer may queue for longer."""
    drop(FAR)
    with connect(application_name="test", statement_timeout_seconds=10) as other:
        other.execute("BEGIN")
        # What a DROP or a manual VACUUM FULL would hold against it.
        other.execute("LOCK TABLE deliveries_event IN SHARE UPDATE EXCLUSIVE MODE")
        maker = threading.Thread(target=make_and_close)
        maker.start()
        with connect(application_name="test", statement_timeout_seconds=2) as writer:
            for _ in range(20):
                writer.execute("SELECT count(*) FROM deliveries_event WHERE id = %s", [UUID(int=0)])
        other.execute("COMMIT")
        maker.join(20)

    assert ensure_partitions(now=FAR, weeks_ahead=0) == []
    drop(FAR)


def make_and_close() -> None:
    try:
        ensure_partitions(now=FAR, weeks_ahead=0)
    finally:
        connections.close_all()


def test_without_a_partition_nothing_is_written() -> None:
    drop(FAR + timedelta(weeks=2))
    with (
        connect(application_name="test", statement_timeout_seconds=5) as own,
        pytest.raises(psycopg.errors.CheckViolation, match="no partition"),
    ):
        own.execute(
            "INSERT INTO deliveries_event (id, tenant_id, type, occurred_at, sequence, settings_version,"
            " delivery_count, hops, created_at) VALUES (%s, %s, 'a', now(), 1, 1, 0, 0, now())",
            [floor_of(FAR + timedelta(weeks=2)), UUID(int=0)],
        )
