"""Django's `migrate`, for a database that publishers and dispatchers go on using meanwhile.

Whoever wants a table for itself waits for those who use it, and everybody who comes later waits behind it: one long
query, and a migration of a millisecond stops publishing. So a migration waits for a lock a moment only, lets the others
go first, and is tried again. What it does once it has its locks may take as long as it takes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.commands import migrate
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from psycopg.errors import LockNotAvailable

LOCK_TIMEOUT_MS = 200
"""The longest that a publish waits behind a migration that waits."""

TRIES = 60
PAUSE_SECONDS = 1.0


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        handle = super().handle
        self.connection = connections[options["database"]]
        give_way(
            self.connection,
            lambda: handle(*args, **options),
            tell=lambda: self.stderr.write("A table is in use. Trying again in a second."),
        )

    def migration_progress_callback(
        self, action: str, migration: Migration | None = None, fake: bool = False
    ) -> None:
        if action in ("apply_start", "unapply_start"):
            # The one before may have had a patience of its own.
            _wait_for_locks(self.connection, LOCK_TIMEOUT_MS)
        super().migration_progress_callback(action, migration, fake)


def give_way(connection: BaseDatabaseWrapper, run: Callable[[], Any], *, tell: Callable[[], object]) -> None:
    """`run` with little patience for locks, again and again. What it has committed it must not do twice."""
    for remaining in range(TRIES, 0, -1):
        try:
            with _impatient(connection):
                run()
            return
        except OperationalError as error:
            if not isinstance(error.__cause__, LockNotAvailable) or remaining == 1:
                raise
        tell()
        time.sleep(PAUSE_SECONDS)


@contextmanager
def _impatient(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """The settings of pages end a statement after half a minute: too soon for an index of a large table."""
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
    _wait_for_locks(connection, LOCK_TIMEOUT_MS)
    try:
        with connection.execute_wrapper(_patient_where_nobody_waits):
            yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET statement_timeout; RESET lock_timeout")


def _patient_where_nobody_waits(
    execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    """CONCURRENTLY waits for the end of older transactions, and nobody behind it."""
    if "CONCURRENTLY" not in sql:
        return execute(sql, params, many, context)
    _wait_for_locks(context["connection"], 0)
    try:
        return execute(sql, params, many, context)
    finally:
        _wait_for_locks(context["connection"], LOCK_TIMEOUT_MS)


def _wait_for_locks(connection: BaseDatabaseWrapper, milliseconds: int) -> None:
    """0: as long as it takes."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{milliseconds}ms"])
