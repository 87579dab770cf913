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
from psycopg.errors import LockNotAvailable

LOCK_TIMEOUT_MS = 200
"""The longest that a publish waits behind a migration that waits."""

TRIES = 60
PAUSE_SECONDS = 1.0


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        handle = super().handle
        give_way(
            connections[options["database"]],
            lambda: handle(*args, **options),
            tell=lambda: self.stderr.write("A table is in use. Trying again in a second."),
        )


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
        cursor.execute(f"SET statement_timeout = 0; SET lock_timeout = {LOCK_TIMEOUT_MS}")
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
    with context["connection"].cursor() as cursor:
        cursor.execute("SET lock_timeout = 0")
    try:
        return execute(sql, params, many, context)
    finally:
        with context["connection"].cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
