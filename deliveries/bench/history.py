"""Fills a database with a past, for whoever wants to see how pages and sweeps do with ten million deliveries.

Called by `manage.py seed_deliveries`. Tenants and endpoints first; then week by week, each in one transaction, so that a
run which was stopped goes on with the next one; at last roll-ups, as beat would make them.

A week that has no tables yet is loaded into ones without indexes, which are made when they become partitions: several
times as fast, and on a server with `wal_level` minimal not written twice.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from multiprocessing import get_context
from typing import Final
from uuid import UUID

import psycopg
from django.db import connection as django_connection
from django.db import transaction

from deliveries.bench.past import (
    ATTEMPT_COLUMNS,
    DELIVERY_COLUMNS,
    EVENT_COLUMNS,
    EVENT_TYPES,
    HOUR_US,
    Customer,
    Hour,
    hours_between,
    hours_of_a_week,
    rows_of,
)
from deliveries.bench.world import World, write_endpoints
from deliveries.models import Endpoint, RollupState, Subscription
from deliveries.pipeline import rollups
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.partitions import STORAGE, TABLES, Week
from tenants.ids import floor_of
from tenants.models import EventType, Tenant

PREFIX: Final = "seeded-"
"""Of the slugs of the tenants that are made here."""

COLUMNS: Final = (EVENT_COLUMNS, DELIVERY_COLUMNS, ATTEMPT_COLUMNS)

MOST_AT_ONCE: Final = 20_000
"""Deliveries that one process makes up at a time."""

AHEAD: Final = 6
"""Pieces made up ahead of the one that is written."""

HOUR: Final = timedelta(hours=1)

Progress = Callable[[str, int, int], None]
"""What is done, how much of it, and of how much."""


@dataclass(frozen=True, slots=True)
class Plan:
    deliveries: int
    tenants: int
    endpoints: int
    """Of all tenants together; the first ones have more."""
    days: int
    now: datetime
    seed: int = 1

    @property
    def begins_at(self) -> datetime:
        return self.now - timedelta(days=self.days)


def strangers() -> int:
    """Tenants that were not made here: somebody may be using this database."""
    return Tenant.objects.exclude(slug__startswith=PREFIX).count()


def seed(plan: Plan, *, report: Progress) -> int:
    """Returns how many deliveries were made; fewer than asked for if an earlier run had made some."""
    customers = make_customers(plan)
    made = 0
    with _writer() as writer, _makers(plan) as makers:
        for week, hours in _weeks(plan):
            if _is_filled(writer, week, customers):
                report(f"week of {week.monday}: there already", 0, 0)
                continue
            for number in _fill(writer, makers, plan, week, hours, customers):
                made += number
                report(f"week of {week.monday}", made, plan.deliveries)
        if made:
            _tidy(writer, report)
    if made:
        _roll_up(plan, report)
    return made


# --- tenants and endpoints --------------------------------------------------------------------------------------------


def make_customers(plan: Plan) -> list[Customer]:
    """Those of an earlier run, or new ones."""
    if not Tenant.objects.filter(slug__startswith=PREFIX).exists():
        with transaction.atomic():
            EventType.objects.bulk_create(
                [EventType(name=name) for name in EVENT_TYPES], ignore_conflicts=True
            )
            for number, endpoints in enumerate(_shares(plan.endpoints, plan.tenants)):
                _make_tenant(number, endpoints, plan)
    found: dict[UUID, list[tuple[str, str]]] = {}
    slugs = dict(Tenant.objects.filter(slug__startswith=PREFIX).values_list("id", "slug"))
    rows = Subscription.unscoped.filter(tenant__in=slugs).order_by("id")
    for tenant_id, endpoint_id, subscription_id in rows.values_list("tenant_id", "endpoint_id", "id"):
        found.setdefault(tenant_id, []).append((endpoint_id.hex, subscription_id.hex))
    return [
        Customer(tenant_id.hex, found[tenant_id]) for tenant_id in sorted(found, key=lambda each: slugs[each])
    ]


def _shares(endpoints: int, tenants: int) -> list[int]:
    """The first tenant has a tenth of them or so, every one has one."""
    weights = [1 / (place + 1) for place in range(tenants)]
    return [max(1, round(endpoints * weight / sum(weights))) for weight in weights]


def _make_tenant(number: int, endpoints: int, plan: Plan) -> None:
    tenant = Tenant.objects.create(
        slug=f"{PREFIX}{number:04}",
        name=f"Seeded {number:04}",
        retention_days=max(90, min(365, plan.days + 30)),
        limits={"endpoints": max(50, endpoints)},
    )
    # Retention begins to look there.
    Tenant.objects.filter(id=tenant.id).update(created_at=plan.begins_at)
    rows = [
        Endpoint(
            tenant=tenant,
            uid=f"endpoint-{place}",
            # No such host: whatever runs on this database, nothing reaches anybody.
            url=f"https://n{place}.{tenant.slug}.invalid/hooks",
            description=("orders", "billing", "warehouse", "messages")[place % 4],
        )
        for place in range(endpoints)
    ]
    paths = [f"/{tenant.slug}/{place}" for place in range(endpoints)]
    write_endpoints(tenant, rows, ["*"] * endpoints, paths, World(tenant.slug), filter=None)


# --- weeks ------------------------------------------------------------------------------------------------------------


def _weeks(plan: Plan) -> Iterator[tuple[Week, list[Hour]]]:
    """Each with its hours and what they have of the deliveries, the oldest first."""
    begins, ends = (round(at.timestamp() * 1e6) for at in (plan.begins_at, plan.now))
    shares = hours_of_a_week()
    hours = []
    for at in hours_between(begins, ends):
        begin, end = max(at, begins), min(at + HOUR_US, ends)
        when = datetime.fromtimestamp(at / 1e6, UTC)
        hours.append((Week.of(when), begin, end, shares[when.weekday() * 24 + when.hour] * (end - begin)))
    total = sum(weight for *_, weight in hours)
    reached, serial = 0.0, 0
    for week, of_week in groupby(hours, key=lambda hour: hour[0]):
        pieces = []
        latest = min(round(week.next().begins_at.timestamp() * 1e6), ends)
        for _, begin, end, weight in of_week:
            reached += weight
            until = round(plan.deliveries * reached / total)
            parts = -(-(until - serial) // MOST_AT_ONCE)
            for part in range(parts):
                number = (until - serial) // (parts - part)
                edges = [begin + (end - begin) * place // parts for place in (part, part + 1)]
                pieces.append(Hour(edges[0], edges[1], latest, number, serial + 1, end > ends - 6 * HOUR_US))
                serial += number
        yield week, pieces


def _is_filled(writer: psycopg.Connection[Row], week: Week, customers: Sequence[Customer]) -> bool:
    if week.begins_at > datetime.now(UTC):
        return False
    row = writer.execute(
        "SELECT EXISTS (SELECT FROM deliveries_delivery WHERE tenant_id = ANY(%s) AND id >= %s AND id < %s)",
        [
            [UUID(each.tenant) for each in customers],
            floor_of(week.begins_at),
            floor_of(week.next().begins_at),
        ],
    ).fetchone()
    return bool(row and row[0])


def _fill(
    writer: psycopg.Connection[Row],
    makers: ProcessPoolExecutor | None,
    plan: Plan,
    week: Week,
    hours: Sequence[Hour],
    customers: Sequence[Customer],
) -> Iterator[int]:
    """One transaction; yields how many deliveries were written, piece by piece."""
    with writer.transaction():
        tables = [_table(writer, parent, week) for parent in TABLES]
        for hour, rows in _made_up(makers, plan, hours, customers):
            for (table, is_new), columns, lines in zip(tables, COLUMNS, rows, strict=True):
                # Of a table that is made in the same transaction, nothing is logged and nothing needs a vacuum.
                option = " (FREEZE)" if is_new else ""
                with writer.cursor().copy(f"COPY {table} ({columns}) FROM STDIN{option}") as copy:
                    copy.write(lines)
            yield hour.deliveries
        for parent, (table, is_new) in zip(TABLES, tables, strict=True):
            if is_new:
                low, high = floor_of(week.begins_at), floor_of(week.next().begins_at)
                # Makes the indexes, too.
                _run(
                    writer,
                    f"ALTER TABLE {parent} ATTACH PARTITION {table} FOR VALUES FROM ('{low}') TO ('{high}')",
                )
        _run(
            writer,
            "SELECT setval('deliveries_sequence', GREATEST(nextval('deliveries_sequence'),"
            f" {hours[-1].first_serial + hours[-1].deliveries}))",
        )


def _table(writer: psycopg.Connection[Row], parent: str, week: Week) -> tuple[str, bool]:
    """Where the week's rows go, and whether it is a table that is no partition yet."""
    table = week.table(parent)
    row = writer.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()
    if row and row[0]:
        return parent, False
    _run(
        writer,
        f"CREATE TABLE {table} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)"
        f" WITH ({STORAGE})",
    )
    return table, True


def _made_up(
    makers: ProcessPoolExecutor | None, plan: Plan, hours: Sequence[Hour], customers: Sequence[Customer]
) -> Iterator[tuple[Hour, tuple[bytes, bytes, bytes]]]:
    if makers is None:
        for hour in hours:
            yield hour, rows_of(hour, customers, plan.seed)
        return
    waiting: deque[tuple[Hour, Future[tuple[bytes, bytes, bytes]]]] = deque()
    for hour in hours:
        waiting.append((hour, makers.submit(rows_of, hour, customers, plan.seed)))
        if len(waiting) > AHEAD:
            first, rows = waiting.popleft()
            yield first, rows.result()
    for each, rows in waiting:
        yield each, rows.result()


# --- afterwards -------------------------------------------------------------------------------------------------------

# Lanes say when their first delivery is due, as a dispatcher leaves them.
SCHEDULE = """
WITH due AS MATERIALIZED (
    SELECT d.endpoint_id, min(LEAST(d.next_attempt_at, d.manual_requested_at)) AS first FROM deliveries_delivery d
    WHERE d.status = 'pending' OR d.manual_requested_at IS NOT NULL GROUP BY 1
), l AS MATERIALIZED (
    SELECT endpoint_id FROM deliveries_lane WHERE endpoint_id IN (SELECT endpoint_id FROM due) AND ready_at IS NULL
    ORDER BY endpoint_id FOR NO KEY UPDATE
)
UPDATE deliveries_lane lane SET ready_at = due.first, owed_from = NULL FROM l JOIN due ON due.endpoint_id = l.endpoint_id
WHERE lane.endpoint_id = l.endpoint_id
"""

COUNT_EVENTS = """
INSERT INTO deliveries_usage (tenant_id, day, events, attempts, succeeded, failed)
SELECT tenant_id, (created_at AT TIME ZONE 'UTC')::date, count(*), 0, 0, 0 FROM deliveries_event
WHERE tenant_id IN (SELECT id FROM tenants_tenant WHERE slug LIKE %(slugs)s) GROUP BY 1, 2
ON CONFLICT (tenant_id, day) DO UPDATE SET events = EXCLUDED.events
"""

COUNT_DELIVERIES = """
UPDATE deliveries_usage u SET attempts = r.attempts, succeeded = r.succeeded, failed = r.failed
FROM (SELECT tenant_id, (begins_at AT TIME ZONE 'UTC')::date AS day, sum(attempts) AS attempts, sum(succeeded) AS succeeded,
             sum(failed) AS failed FROM deliveries_rollup WHERE series_id = tenant_id GROUP BY 1, 2) r
WHERE u.tenant_id = r.tenant_id AND u.day = r.day AND u.tenant_id IN (SELECT id FROM tenants_tenant WHERE slug LIKE %(slugs)s)
"""


def _tidy(writer: psycopg.Connection[Row], report: Progress) -> None:
    writer.execute(SCHEDULE)
    writer.execute(COUNT_EVENTS, {"slugs": f"{PREFIX}%"})
    for table in (
        *TABLES,
        "deliveries_endpoint",
        "deliveries_lane",
        "deliveries_subscription",
        "tenants_tenant",
    ):
        report(f"vacuum of {table}", 0, 0)
        _run(writer, f"VACUUM (ANALYZE) {table}")


def _roll_up(plan: Plan, report: Progress) -> None:
    """From the beginning: history has grown at its far end."""
    with django_connection.cursor() as cursor:
        cursor.execute("TRUNCATE deliveries_rollup, deliveries_rollupgone")
        cursor.execute(
            "UPDATE deliveries_rollupstate SET minutes_to = NULL, hours_to = NULL, attempts_to = NULL"
        )
    # What is made from now on is no part of it.
    now = plan.now + rollups.LATE
    reached = plan.begins_at
    while reached < plan.now - rollups.MINUTE:
        rollups.roll_up(now=now, seconds=2)
        reached = RollupState.objects.values_list("minutes_to", flat=True).get() or plan.begins_at
        report("roll-ups", (reached - plan.begins_at) // HOUR, plan.days * 24)
    with django_connection.cursor() as cursor:
        cursor.execute(COUNT_DELIVERIES, {"slugs": f"{PREFIX}%"})
        cursor.execute("ANALYZE deliveries_rollup, deliveries_usage")


# --- who does it ------------------------------------------------------------------------------------------------------


@contextmanager
def _writer() -> Iterator[psycopg.Connection[Row]]:
    writer = connect(application_name="webhooks-seed", statement_timeout_seconds=3_600)
    try:
        # Indexes are made in one pass, by whatever cores the server has.
        writer.execute("SET maintenance_work_mem = '512MB'")
        writer.execute("SET idle_in_transaction_session_timeout = '10min'")
        yield writer
    finally:
        writer.close()


@contextmanager
def _makers(plan: Plan) -> Iterator[ProcessPoolExecutor | None]:
    """None: for so little it is not worth starting them."""
    if plan.deliveries <= MOST_AT_ONCE:
        yield None
        return
    # Not forked: they would inherit this process's connections.
    with ProcessPoolExecutor(max(1, (os.cpu_count() or 2) - 1), get_context("spawn")) as makers:
        yield makers


def _run(writer: psycopg.Connection[Row], statement: str) -> None:
    """Statements of names and numbers of ours."""
    writer.execute(statement.encode())
