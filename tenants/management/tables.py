"""For commands that work on the platform's tables: they are there, or the command says what to do.

In the database that `manage.py` runs for its checkout they are made on the spot, so that the first command on a new
machine may be any. Whoever runs a database of his own says himself when it is migrated.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError, call_command
from django.db import ProgrammingError, connection
from django.db.migrations.executor import MigrationExecutor


class TablesCommand(BaseCommand):
    def execute(self, *args: Any, **options: Any) -> str | None:
        if own_folder() is not None:
            self.make_tables()
        try:
            return super().execute(*args, **options)
        except ProgrammingError as error:
            # Not looked at before: who stops all sending in the middle of an upgrade must not be kept from it.
            if is_migrated():
                raise
            raise CommandError(
                "The database is not migrated to this version of the platform. Run first: manage.py migrate"
            ) from error

    def make_tables(self) -> None:
        """What it has to say goes to stderr: stdout is the command's own."""
        with migrating():
            if not is_migrated():
                self.stderr.write("Preparing the database...")
                call_command("migrate", interactive=False, verbosity=0)


def is_migrated() -> bool:
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


def own_folder() -> Path | None:
    """Of the checkout whose database `manage.py` has started, if it has."""
    folder = os.environ.get("WEBHOOKS_EMBEDDED_DATABASE")
    return Path(folder) if folder else None


@contextmanager
def migrating() -> Iterator[None]:
    """One at a time in a checkout: its first two commands may be started together."""
    folder = own_folder()
    if folder is None:
        yield
        return
    with (folder / "migrating.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
