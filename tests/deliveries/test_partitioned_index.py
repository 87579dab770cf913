"""An index added to a partitioned table while it is in use, and once more after it was interrupted."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from django.db import connection, connections
from django.db.migrations.loader import MigrationLoader
from django.db.models import Index
from django.utils import timezone

from deliveries.partitioned_index import AddPartitionedIndexConcurrently
from deliveries.pipeline.database import connect
from deliveries.pipeline.partitions import Week
from tests.support.api import make_tenant
from tests.support.published import make_endpoint
from tests.support.seeding import seed

NAME = "delivery_try"


def add_index() -> None:
    state = MigrationLoader(connection).project_state()
    operation = AddPartitionedIndexConcurrently("delivery", Index(fields=["sequence"], name=NAME))
    operation.state_forwards("deliveries", state)
    try:
        with connection.schema_editor(atomic=False) as editor:
            operation.database_forwards("deliveries", editor, state, state)
    finally:
        if threading.current_thread() is not threading.main_thread():
            connections.close_all()


def partition() -> str:
    return Week.of(timezone.now()).table("deliveries_delivery")


@pytest.fixture(autouse=True)
def _without_it(database: None) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX IF EXISTS {NAME}")
        cursor.execute(f"DROP INDEX IF EXISTS {partition()}_{NAME}")
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX IF EXISTS {NAME}")


def validity() -> dict[str, bool]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indexrelid::regclass::text LIKE %s",
            [f"%{NAME}"],
        )
        return dict(cursor.fetchall())


def partitions_of_deliveries() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'deliveries_delivery'::regclass"
        )
        return {name for (name,) in cursor.fetchall()}


@pytest.mark.alone
def test_rows_are_written_while_it_is_made() -> None:
    with (
        connect(application_name="test", statement_timeout_seconds=10) as other,
        connect(application_name="test", statement_timeout_seconds=2) as writer,
    ):
        other.execute("BEGIN")
        other.execute("LOCK TABLE deliveries_delivery IN ROW EXCLUSIVE MODE")
        making = threading.Thread(target=add_index)
        making.start()
        slowest = 0.0
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            began = time.monotonic()
            writer.execute("UPDATE deliveries_delivery SET size = size WHERE id = %s", [UUID(int=0)])
            slowest = max(slowest, time.monotonic() - began)
        assert making.is_alive()
        other.execute("COMMIT")
        making.join(20)

    assert validity() == {NAME: True} | {f"{name}_{NAME}": True for name in partitions_of_deliveries()}
    # Behind the one that waits for `other`: as long as that waits at a time.
    assert 0.02 < slowest < 0.2


def test_what_an_interrupted_run_left_is_made_anew() -> None:
    tenant = make_tenant()
    begun = timezone.now() - timedelta(seconds=10)
    seed(tenant, [make_endpoint(tenant, event_types=[])], count=5, since=begun, length=timedelta(seconds=9))
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE INDEX {NAME} ON ONLY deliveries_delivery (sequence)")
        with (
            pytest.raises(psycopg.errors.UniqueViolation),
            connect(application_name="test", statement_timeout_seconds=10) as other,
        ):
            other.execute(
                f"CREATE UNIQUE INDEX CONCURRENTLY {partition()}_{NAME} ON {partition()} (tenant_id)"
            )
    assert validity() == {NAME: False, f"{partition()}_{NAME}": False}

    add_index()

    assert set(validity().values()) == {True}
    assert validity().keys() == {NAME} | {f"{name}_{NAME}" for name in partitions_of_deliveries()}
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = %s", [f"{partition()}_{NAME}"])
        ((definition,),) = cursor.fetchall()
    assert "UNIQUE" not in definition
    assert "(sequence)" in definition
