"""Migrating while others use the tables: they wait a moment at most, and the migration comes to its end."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.management import get_commands
from django.db import OperationalError, connection

from deliveries.pipeline.database import connect
from webhooks_platform.management.commands import migrate
from webhooks_platform.management.commands.migrate import give_way

pytestmark = pytest.mark.usefixtures("database")

HELD_SECONDS = 1.2


@pytest.fixture(autouse=True)
def quick_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "PAUSE_SECONDS", 0.1)


@contextmanager
def table_in_use(seconds: float) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that has read of it, and is over after so long."""
    with connect(application_name="test", statement_timeout_seconds=30) as own:
        own.execute("BEGIN; SELECT count(*) FROM deliveries_event")
        timer = threading.Timer(seconds, lambda: own.execute("COMMIT"))
        timer.start()
        yield own
        timer.join()


def test_our_migrate_is_the_one_that_runs() -> None:
    assert get_commands()["migrate"] == "webhooks_platform"


@pytest.mark.alone
def test_a_migration_that_waits_for_a_long_query_keeps_nobody_waiting() -> None:
    tried: list[float] = []
    longest = 0.0
    is_over = threading.Event()

    def use_the_table() -> None:
        nonlocal longest
        with connect(application_name="test", statement_timeout_seconds=30) as own:
            while not is_over.is_set():
                began = time.monotonic()
                own.execute("SELECT FROM deliveries_event LIMIT 1")
                longest = max(longest, time.monotonic() - began)
                time.sleep(0.005)

    def alter() -> None:
        tried.append(time.monotonic())
        with connection.schema_editor() as editor:
            editor.execute("ALTER TABLE deliveries_event ADD COLUMN of_a_test integer NULL")

    publisher = threading.Thread(target=use_the_table)
    publisher.start()
    began = time.monotonic()
    with table_in_use(HELD_SECONDS):
        give_way(connection, alter, tell=lambda: None)
        lasted = time.monotonic() - began
    is_over.set()
    publisher.join()

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE deliveries_event DROP COLUMN of_a_test")
        cursor.execute("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
        settings = cursor.fetchone()
    assert HELD_SECONDS <= lasted < HELD_SECONDS + 2
    assert len(tried) > 1
    assert longest < 0.7
    assert settings == ("0", "30s")


def test_an_index_made_concurrently_waits_for_older_transactions_as_long_as_they_take() -> None:
    def make_index() -> None:
        with connection.cursor() as cursor:
            cursor.execute("CREATE INDEX CONCURRENTLY of_a_test ON deliveries_job (status)")

    with table_in_use(HELD_SECONDS) as own:
        own.execute("SELECT count(*) FROM deliveries_job")
        give_way(connection, make_index, tell=lambda: pytest.fail("it gave up"))

    with connection.cursor() as cursor:
        cursor.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'of_a_test'::regclass")
        assert cursor.fetchone() == (True,)
        cursor.execute("DROP INDEX of_a_test")


def test_what_fails_for_another_reason_is_not_tried_again() -> None:
    told: list[None] = []

    def fail() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)")

    with pytest.raises(OperationalError):
        give_way(connection, fail, tell=lambda: told.append(None))

    assert told == []
