"""Migrations run while everybody publishes, and the version before goes on on their schema. Read from their SQL.

What is refused, and what to do instead, is in CONTRIBUTING.md, "Migrations". An exception needs a reason here.
"""

from collections.abc import Iterator

import pytest
from django.db import connection
from django.db.migrations import Migration, RunPython
from django.db.migrations.executor import MigrationExecutor

from tests.support.migration_rules import offences, statements_of

OURS = ("tenants", "deliveries")

INDEX = "index without CONCURRENTLY"
CONSTRAINT = "constraint that is validated at once"

FIRST_RELEASE = "nobody had the tables before it"
FEW = "a row for each tenant: milliseconds"
SHORT = "rows leave within a month, and few come a day: milliseconds"

ALLOWED = {
    ("deliveries.0004_lists_by_every_filter", INDEX, "deliveries_delivery"): FIRST_RELEASE,
    ("deliveries.0004_lists_by_every_filter", INDEX, "deliveries_event"): FIRST_RELEASE,
    ("deliveries.0009_signature_template", "column of another type", "deliveries_endpoint"): (
        "varchar that becomes longer: no row is written anew"
    ),
    ("deliveries.0017_work_on_lists", INDEX, "deliveries_job"): SHORT,
    ("deliveries.0017_work_on_lists", CONSTRAINT, "deliveries_job"): SHORT,
    ("deliveries.0018_notices", INDEX, "deliveries_announcement"): SHORT,
    ("deliveries.0023_summaries", INDEX, "deliveries_notice"): SHORT,
    ("tenants.0006_tenant_weight", INDEX, "tenants_tenant"): FEW,
    ("tenants.0006_tenant_weight", CONSTRAINT, "tenants_tenant"): FEW,
    ("tenants.0009_retention_by_kind", CONSTRAINT, "tenants_tenant"): FEW,
}
"""(migration, rule, table): why it may."""

IN_BATCHES: set[str] = set()
"""Migrations that change rows."""


@pytest.mark.usefixtures("database")
def test_no_migration_stops_publishing_or_the_version_before() -> None:
    found: set[tuple[str, str, str]] = set()
    existing: set[str] = set()
    for migration, statements in migrations():
        name = f"{migration.app_label}.{migration.name}"
        found |= {(name, rule, about) for rule, about in offences(statements, existing=existing)}

    assert sorted(found) == sorted(ALLOWED)


@pytest.mark.usefixtures("database")
def test_rows_are_changed_by_tasks_and_not_by_migrations() -> None:
    """One that has to change them does so in batches, each a transaction of its own, and can be run again."""
    executor = MigrationExecutor(connection)
    changing = {
        f"{migration.app_label}.{migration.name}"
        for migration in executor.loader.graph.nodes.values()
        if migration.app_label in OURS
        and any(isinstance(operation, RunPython) for operation in migration.operations)
    }

    assert changing == IN_BATCHES


def migrations() -> Iterator[tuple[Migration, list[str]]]:
    """Ours, each with its SQL, in the order in which they are applied."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes(), clean_start=True)
    state = executor.loader.project_state(nodes=[])
    for migration, _ in plan:
        with connection.schema_editor(collect_sql=True, atomic=migration.atomic) as editor:
            state = migration.apply(state, editor, collect_sql=True)
        if migration.app_label in OURS:
            yield migration, statements_of(editor.collected_sql or [])


GREW = {"deliveries_endpoint", "deliveries_event", "deliveries_job"}


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ('CREATE INDEX "i" ON "deliveries_endpoint" ("url")', INDEX),
        ('CREATE UNIQUE INDEX "i" ON deliveries_job (status) WHERE status IS NULL', INDEX),
        ('CREATE INDEX "i" ON ONLY "deliveries_event" ("type")', None),
        (
            'CREATE INDEX CONCURRENTLY "i" ON "deliveries_endpoint" ("url")',
            "index that an interrupted run leaves invalid",
        ),
        (
            'DROP INDEX CONCURRENTLY IF EXISTS i; CREATE INDEX CONCURRENTLY "i" ON "deliveries_endpoint" ("url")',
            None,
        ),
        (
            'CREATE INDEX CONCURRENTLY "i" ON "deliveries_event" ("type")',
            "CONCURRENTLY on all partitions at once",
        ),
        ("REINDEX TABLE deliveries_event", "REINDEX without CONCURRENTLY"),
        ('ALTER TABLE "deliveries_event" ADD COLUMN "a" varchar(55) NULL', None),
        ("ALTER TABLE deliveries_event ADD COLUMN a integer DEFAULT 0 NOT NULL", None),
        (
            "ALTER TABLE deliveries_event ADD COLUMN a timestamptz DEFAULT (statement_timestamp()) NOT NULL",
            None,
        ),
        (
            (
                "ALTER TABLE deliveries_event ADD COLUMN a integer DEFAULT 0 NOT NULL;"
                " ALTER TABLE deliveries_event ALTER COLUMN a DROP DEFAULT"
            ),
            "NOT NULL without a default of the database",
        ),
        (
            "ALTER TABLE deliveries_event ADD COLUMN a integer NOT NULL",
            "NOT NULL without a default of the database",
        ),
        ("ALTER TABLE deliveries_event ADD COLUMN a uuid DEFAULT gen_random_uuid()", "volatile default"),
        (
            "ALTER TABLE deliveries_event ADD COLUMN a int GENERATED ALWAYS AS (1) STORED",
            "computed or numbered column",
        ),
        ("ALTER TABLE deliveries_event ADD COLUMN a integer NULL UNIQUE", "unique column"),
        (
            "ALTER TABLE deliveries_job ADD COLUMN e_id uuid NULL CONSTRAINT c REFERENCES deliveries_endpoint (id)",
            "foreign key that is validated at once",
        ),
        ('ALTER TABLE "deliveries_event" ALTER COLUMN "hops" TYPE bigint', "column of another type"),
        ("ALTER TABLE deliveries_event ALTER COLUMN hops SET NOT NULL", "SET NOT NULL"),
        ("ALTER TABLE deliveries_job ADD CONSTRAINT c CHECK (a > 0)", CONSTRAINT),
        ("ALTER TABLE deliveries_job ADD CONSTRAINT c CHECK (a > 0) NOT VALID", None),
        ("ALTER TABLE deliveries_job ADD CONSTRAINT c UNIQUE USING INDEX i", None),
        ("ALTER TABLE deliveries_job VALIDATE CONSTRAINT c", None),
        (
            (
                "ALTER TABLE deliveries_job ADD CONSTRAINT c CHECK (a > 0) NOT VALID;"
                " ALTER TABLE deliveries_job VALIDATE CONSTRAINT c"
            ),
            "validated in the transaction that adds it",
        ),
        ("ALTER TABLE deliveries_event DROP COLUMN hops CASCADE", "column leaves"),
        ("ALTER TABLE deliveries_event RENAME COLUMN hops TO leaps", "another name"),
        ("DROP TABLE deliveries_job CASCADE", "table leaves"),
        ("UPDATE deliveries_event SET hops = 0", "all rows in one statement"),
        ("DELETE FROM deliveries_event", "all rows in one statement"),
        ("LOCK TABLE deliveries_event IN EXCLUSIVE MODE", "lock of a table"),
        # What is made here is empty, and nobody uses it yet.
        ("CREATE TABLE deliveries_new (id int); CREATE INDEX i ON deliveries_new (id)", None),
        ("ALTER TABLE deliveries_unknown ADD CONSTRAINT c CHECK (a > 0)", None),
        (
            "CREATE FUNCTION f() RETURNS trigger AS $$ BEGIN UPDATE deliveries_event SET hops = 0; END $$ LANGUAGE plpgsql",
            None,
        ),
    ],
)
def test_what_is_refused(statement: str, rule: str | None) -> None:
    found = list(offences(statements_of([statement]), existing=set(GREW)))

    assert [name for name, _ in found] == ([] if rule is None else [rule])
