"""For migrations: an index on a partitioned table, made while people publish."""

import time
from typing import Any

from django.contrib.postgres.operations import NotInTransactionMixin
from django.db import OperationalError, migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = %s::regclass ORDER BY c.relname
"""

# An interrupted run leaves the index of a partition invalid.
STATE = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"

IS_ATTACHED = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(%s))"


LOCK_TIMEOUT_MS = 40
"""Who writes queues behind who waits for a lock on the parent: so it waits no longer than this, and tries again."""

PAUSE_SECONDS = 0.2
MOST_TRIES = 1_500
"""Six minutes."""


class AddPartitionedIndexConcurrently(NotInTransactionMixin, migrations.AddIndex):
    """As AddIndexConcurrently, which PostgreSQL refuses for partitioned tables: first the parent's, which holds nothing,
    then one partition after another without a lock on writing, each attached when it is complete. The parent's is valid
    when the last one is. Can be run again after it was interrupted. The migration has `atomic = False`.
    """

    def describe(self) -> str:
        return f"Concurrently create index {self.index.name} on {self.model_name} and its partitions"

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: Any,  # noqa: ARG002 - as Django calls it
        to_state: Any,
    ) -> None:
        self._ensure_not_in_transaction(schema_editor)
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        table, name = model._meta.db_table, self.index.name  # noqa: SLF001 - documented by Django
        sql = str(self.index.create_sql(model, schema_editor))
        beginning = f'CREATE INDEX "{name}" ON "{table}"'
        assert sql.startswith(beginning), sql
        definition = sql.removeprefix(beginning)
        # A partition that is made from here on gets its own with this.
        _execute_between_writes(
            schema_editor, f'CREATE INDEX IF NOT EXISTS "{name}" ON ONLY "{table}"{definition}'
        )
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(PARTITIONS, [table])
            partitions = [partition for (partition,) in cursor.fetchall()]
        for partition in partitions:
            self._add_to(schema_editor, partition, definition)

    def _add_to(self, schema_editor: BaseDatabaseSchemaEditor, partition: str, definition: str) -> None:
        own = f"{partition}_{self.index.name}"
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(STATE, [own])
            if cursor.fetchone() == (False,):
                schema_editor.execute(f'DROP INDEX CONCURRENTLY "{own}"')
            schema_editor.execute(
                f'CREATE INDEX CONCURRENTLY IF NOT EXISTS "{own}" ON "{partition}"{definition}'
            )
            cursor.execute(IS_ATTACHED, [own])
            if cursor.fetchone() == (False,):
                _execute_between_writes(
                    schema_editor, f'ALTER INDEX "{self.index.name}" ATTACH PARTITION "{own}"'
                )


def _execute_between_writes(schema_editor: BaseDatabaseSchemaEditor, sql: str) -> None:
    """Raises OperationalError if somebody holds the table all the time."""
    schema_editor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_MS}ms'")
    try:
        for remaining in range(MOST_TRIES, 0, -1):
            try:
                schema_editor.execute(sql)
            except OperationalError:
                if remaining == 1:
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                return
    finally:
        schema_editor.execute("RESET lock_timeout")
