"""Weekly partitions of events, deliveries and attempts, made ahead of time.

Called by `migrate` (post_migrate), at start-up and by beat. A partition holds one range of UUIDv7 keys, Monday to
Monday in UTC.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db import OperationalError, connection, transaction

from tenants.ids import floor_of

TABLES = ("deliveries_event", "deliveries_delivery", "deliveries_attempt")

WEEKS_AHEAD = 5
"""Partitions kept ready beyond the current week; four is what is promised."""

LOCK_TIMEOUT_MS = 40
"""Attaching waits for no lock longer than this, so that publishing never queues behind it."""

STORAGE = (
    "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, "
    "autovacuum_analyze_scale_factor = 0.5"
)
"""Vacuumed early: finished deliveries leave dead index entries on the load's path. But at PostgreSQL's own pace, and looked
over only when half as much again is there: at full speed, both each time it looks, were a second of every ten in which a
core was missing to whoever published. The parent table refuses these settings."""


@dataclass(frozen=True, slots=True)
class Week:
    """A Monday-to-Monday range."""

    monday: date

    @classmethod
    def of(cls, at: datetime) -> "Week":
        day = at.astimezone(UTC).date()
        return cls(day - timedelta(days=day.weekday()))

    def next(self) -> "Week":
        return Week(self.monday + timedelta(days=7))

    @property
    def begins_at(self) -> datetime:
        return datetime(self.monday.year, self.monday.month, self.monday.day, tzinfo=UTC)

    def table(self, parent: str) -> str:
        return f"{parent}_{self.monday:%Y%m%d}"


def ensure_partitions(*, now: datetime, weeks_ahead: int = WEEKS_AHEAD, weeks_back: int = 0) -> list[str]:
    """Make what is missing; returns the names of the tables made. Safe to run twice and in parallel."""
    week = Week.of(now - timedelta(weeks=weeks_back))
    last = Week.of(now + timedelta(weeks=weeks_ahead))
    made = []
    while week.monday <= last.monday:
        made += [week.table(parent) for parent in TABLES if _ensure_one(parent, week)]
        week = week.next()
    return made


def weeks_of(parent: str) -> list[Week]:
    """Those that have a partition, the oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT right(inhrelid::regclass::text, 8) AS day FROM pg_inherits WHERE inhparent = %s::regclass"
            " ORDER BY day",
            [parent],
        )
        return [Week(date.fromisoformat(day)) for (day,) in cursor.fetchall() if day.isdigit()]


def weeks_ready(*, now: datetime) -> int:
    """Whole weeks ahead of the current one for which every table has its partition."""
    week = Week.of(now).next()
    ready = 0
    while all(_exists(week.table(parent)) for parent in TABLES):
        ready += 1
        week = week.next()
    return ready


def _exists(table: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [table])
        row = cursor.fetchone()
    return bool(row and row[0])


def _ensure_one(parent: str, week: Week, *, attempts: int = 50) -> bool:
    table = week.table(parent)
    if _exists(table):
        return False
    low, high = floor_of(week.begins_at), floor_of(week.next().begins_at)
    for remaining in range(attempts, 0, -1):
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MS}ms'")
                # Two makers at once: the second waits here, then finds the table.
                cursor.execute("SELECT pg_advisory_xact_lock(hashtext('webhooks partitions'))")
                # Not to_regclass: a name that was not there a moment ago is answered from this connection's cache.
                cursor.execute(
                    "SELECT EXISTS (SELECT FROM pg_class WHERE relname = %s AND pg_table_is_visible(oid))",
                    [table],
                )
                if (cursor.fetchone() or [False])[0]:
                    return False
                # ATTACH takes a lock that reading and writing pass; CREATE … PARTITION OF would stop both.
                cursor.execute(f'CREATE TABLE "{table}" (LIKE "{parent}" INCLUDING ALL) WITH ({STORAGE})')
                cursor.execute(
                    f"ALTER TABLE \"{parent}\" ATTACH PARTITION \"{table}\" FOR VALUES FROM ('{low}') TO ('{high}')"
                )
            return True
        except OperationalError:
            # Someone held the parent longer than the lock time-out; publishers went first.
            if remaining == 1:
                raise
    return False
