"""The end of history: what a tenant keeps no longer goes in batches, and whole weeks go by dropping their tables.

Called by beat (`deliveries/tasks.py`). First go headers and bodies of attempts, then payloads, then rows. A week's tables
are dropped when they are older than the longest retention of any tenant; tenants that keep less are cleared inside them.
Nothing owed goes, nor the event that it carries: a delivery ends first (`sweeps.expire_pending`).

A row's age is that of its delivery or event. How far each kind of a tenant's history has gone stands in
`deliveries_retentionmark`, so that a run does not step over what earlier ones deleted.
"""

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper

from deliveries.pipeline import counters, rollups
from deliveries.pipeline.lanes import IS_OWED
from deliveries.pipeline.partitions import LOCK_TIMEOUT_MS, TABLES, Week, weeks_of
from tenants.ids import floor_of, time_of

logger = logging.getLogger(__name__)

BATCH = 1_000
"""Deliveries or events in one transaction: some 20 ms of locks on rows that nobody else wants."""

SECONDS_A_RUN = 2.0
"""The sweeps share this worker and must not wait; the next run goes on."""

STEP = timedelta(hours=6)
"""A tenant's history is looked at again when so much more of it is too old."""

SETTLED = timedelta(hours=1)
"""Payloads go so much later than promised: erasures of the last minutes are looked at once more, and are few."""

LONGEST_PENDING_DAYS = 30

TRIES = 50
"""To get the lock of a drop. Publishers and dispatchers go first each time."""


@dataclass(frozen=True, slots=True)
class Due:
    tenant_id: UUID
    kind: str
    after: datetime
    until: datetime


# By kind: how many days, NULL where the partitions' end is soon enough. The kinds in the order in which they go.
FIND_DUE = """
SELECT t.id, wanted.kind, COALESCE(mark.reached_at, t.created_at), %(now)s - make_interval(days => wanted.days)
FROM tenants_tenant t
CROSS JOIN LATERAL (VALUES
    (1, 'attempts', LEAST(t.attempt_retention_days, t.retention_days)),
    (2, 'payloads', LEAST(t.payload_retention_days, t.retention_days)),
    (3, 'deliveries', t.retention_days),
    (4, 'events', t.retention_days)
) AS wanted (place, kind, days)
LEFT JOIN deliveries_retentionmark mark ON mark.tenant_id = t.id AND mark.kind = wanted.kind
WHERE t.erased_at IS NULL
  AND CASE wanted.kind WHEN 'attempts' THEN t.attempt_retention_days < %(longest)s
                       WHEN 'payloads' THEN t.payload_retention_days < %(longest)s
                       ELSE wanted.days < %(longest)s END
  AND COALESCE(mark.reached_at, t.created_at) < %(now)s - make_interval(days => wanted.days) - make_interval(secs => %(step)s)
ORDER BY COALESCE(mark.reached_at, t.created_at), wanted.place
LIMIT 100
"""


def let_go(*, now: datetime, seconds: float = SECONDS_A_RUN) -> dict[str, int]:
    """A slice of the work; returns how many rows of each kind went. Half of the time is left to others."""
    stop_at = time.monotonic() + seconds
    gone: dict[str, int] = {}
    while due := _find_due(now):
        for each in due:
            while True:
                began = time.monotonic()
                count, is_over = _batch(each)
                gone[each.kind] = gone.get(each.kind, 0) + count
                counters.add(f"retention_rows:{each.kind}", count)
                if time.monotonic() > stop_at:
                    return gone
                if is_over:
                    break
                time.sleep(min(0.1, time.monotonic() - began))
    return gone


def longest_days() -> int:
    """Of all tenants; what is pending may wait for 30 days in any case."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(retention_days) FROM tenants_tenant WHERE erased_at IS NULL")
        row = cursor.fetchone()
    return max(LONGEST_PENDING_DAYS, row[0] if row and row[0] else 0)


def _find_due(now: datetime) -> list[Due]:
    with connection.cursor() as cursor:
        cursor.execute(FIND_DUE, {"now": now, "longest": longest_days(), "step": STEP.total_seconds()})
        return [Due(*row) for row in cursor.fetchall()]


# --- one batch --------------------------------------------------------------------------------------------------------

# The keys of a batch, and how many deliveries or events it went over.
DELIVERIES = f"""
SELECT d.id, {IS_OWED} FROM deliveries_delivery d
WHERE d.tenant_id = %s AND d.id >= %s AND d.id < %s ORDER BY d.id LIMIT {BATCH}
"""  # noqa: S608

EVENTS = f"""
SELECT e.id, EXISTS (SELECT FROM deliveries_delivery d WHERE d.event_id = e.id AND d.id >= %s AND {IS_OWED})
FROM deliveries_event e WHERE e.tenant_id = %s AND e.id >= %s AND e.id < %s ORDER BY e.id LIMIT {BATCH}
"""  # noqa: S608

# In key order, as every statement that touches several deliveries; and before their attempts, as who erases an event does.
LOCK_DELIVERIES = f"""
SELECT d.id FROM deliveries_delivery d
WHERE d.id = ANY(%(ids)s) AND d.id >= %(low)s AND d.id <= %(high)s AND NOT {IS_OWED} ORDER BY d.id FOR UPDATE
"""  # noqa: S608

CLEAR_ATTEMPTS = """
UPDATE deliveries_attempt SET request_headers = '', response_headers = '', response_body = ''
WHERE delivery_id = ANY(%(ids)s) AND id >= %(low)s
  AND (request_headers <> '' OR response_headers <> '' OR response_body <> '')
"""

# As erased then when its time was over: those erased by people in the last minutes are looked at again.
CLEAR_PAYLOADS = """
UPDATE deliveries_event SET data = NULL, schema_warning = NULL, data_erased_at = %(until)s
WHERE id = ANY(%(ids)s) AND id >= %(low)s AND id <= %(high)s AND data IS NOT NULL
"""

# By the index of events, then in key order.
CLEAR_BODIES = """
WITH l AS MATERIALIZED (
    SELECT d.id FROM deliveries_delivery d WHERE d.event_id = ANY(%(ids)s) AND d.id >= %(low)s AND d.body IS NOT NULL
    ORDER BY d.id FOR NO KEY UPDATE
)
UPDATE deliveries_delivery d SET body = NULL FROM l WHERE d.id = l.id AND d.id >= %(low)s
"""

DELETE_ATTEMPTS = "DELETE FROM deliveries_attempt WHERE delivery_id = ANY(%(ids)s) AND id >= %(low)s"

DELETE_DELIVERIES = """
DELETE FROM deliveries_delivery WHERE id = ANY(%(ids)s) AND id >= %(low)s AND id <= %(high)s
"""

DELETE_EVENTS = "DELETE FROM deliveries_event WHERE id = ANY(%(ids)s) AND id >= %(low)s AND id <= %(high)s"

MARK = """
INSERT INTO deliveries_retentionmark AS mark (tenant_id, kind, reached_at) VALUES (%s, %s, %s)
ON CONFLICT (tenant_id, kind) DO UPDATE SET reached_at = GREATEST(mark.reached_at, EXCLUDED.reached_at)
"""


def _batch(due: Due) -> tuple[int, bool]:
    """(rows that went, whether this was the last batch)"""
    until = due.until - SETTLED if due.kind == "payloads" else due.until
    with transaction.atomic(), connection.cursor() as cursor:
        # What a crash takes back is done again; publishers need the disk more than we do.
        cursor.execute("SET LOCAL synchronous_commit = off")
        # One run at a time for a tenant's history: a second one would only wait for the first one's locks.
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext(%s))", [f"retention {due.tenant_id}"])
        if not (cursor.fetchone() or [False])[0]:
            return 0, True
        cursor.execute(
            "SELECT reached_at FROM deliveries_retentionmark WHERE tenant_id = %s AND kind = %s",
            [due.tenant_id, due.kind],
        )
        row = cursor.fetchone()
        low, end = floor_of(row[0] if row else due.after), floor_of(until)
        if due.kind in ("deliveries", "attempts"):
            cursor.execute(DELIVERIES, [due.tenant_id, low, end])
        else:
            cursor.execute(EVENTS, [low, due.tenant_id, low, end])
        rows = cursor.fetchall()
        is_over = len(rows) < BATCH
        # The next batch begins in the millisecond of the last row: a few are looked at twice, none is left out.
        reached = due.until if is_over else time_of(rows[-1][0])
        if not is_over and floor_of(reached) <= low:
            reached += timedelta(milliseconds=1)
        free = [key for key, is_owed in rows if not is_owed]
        if free and due.kind == "deliveries":
            # Without those that somebody asked for again since we looked.
            cursor.execute(LOCK_DELIVERIES, {"ids": free, "low": free[0], "high": free[-1]})
            free = [key for (key,) in cursor.fetchall()]
        count = 0
        if free:
            keys = {"ids": free, "low": free[0], "high": free[-1], "until": until}
            if due.kind == "deliveries":
                rollups.take_out(cursor, tenant_id=due.tenant_id, delivery_ids=free)
            for statement in _STATEMENTS[due.kind]:
                cursor.execute(statement, keys)
                count += cursor.rowcount
        cursor.execute(MARK, [due.tenant_id, due.kind, reached])
    return count, is_over


_STATEMENTS = {
    "attempts": [CLEAR_ATTEMPTS],
    "payloads": [CLEAR_PAYLOADS, CLEAR_BODIES],
    "deliveries": [DELETE_ATTEMPTS, DELETE_DELIVERIES],
    "events": [DELETE_EVENTS],
}


# --- whole weeks ------------------------------------------------------------------------------------------------------


def drop_partitions(*, now: datetime) -> list[str]:
    """Drop what is older than the longest retention; returns the names of the tables. Safe to run twice.

    A drop takes 2 ms; its lock keeps publishers out, so it waits for it no longer than LOCK_TIMEOUT_MS at a time. What
    cannot be had now is left for the next run.
    """
    before = now - timedelta(days=longest_days())
    dropped = []
    for parent in reversed(TABLES):
        for week in weeks_of(parent):
            if week.next().begins_at > before or _is_owed_something(parent, week):
                continue
            rollups.close_before(until=week.next().begins_at, now=now)
            if _drop(parent, week):
                dropped.append(week.table(parent))
    if dropped:
        logger.info("dropped partitions", extra={"tables": dropped})
    return dropped


def _is_owed_something(parent: str, week: Week) -> bool:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '30s'")
        return _is_needed(cursor, parent, week)


def _is_needed(cursor: CursorWrapper, parent: str, week: Week) -> bool:
    """Whether something owed is in it, or carries an event of it, or was attempted in it."""
    low, high = floor_of(week.begins_at), floor_of(week.next().begins_at)
    bounds = {
        "deliveries_event": "d.event_id >= %s AND d.event_id < %s",
        "deliveries_delivery": "d.id >= %s AND d.id < %s",
        # Its first attempt may be in the week in which it was made, or in any later one.
        "deliveries_attempt": "%s IS NOT NULL AND d.id < %s AND d.attempt_count > 0",
    }[parent]
    # By the partial index of what is owed, or that of events; a sequential scan would read all history.
    cursor.execute("SET LOCAL enable_seqscan = off")
    cursor.execute(
        f"SELECT EXISTS (SELECT FROM deliveries_delivery d WHERE {IS_OWED} AND {bounds})",  # noqa: S608
        [low, high],
    )
    return bool((cursor.fetchone() or [True])[0])


def _drop(parent: str, week: Week) -> bool:
    """False if its lock cannot be had, or if something of it was asked for again since we looked."""
    for _ in range(TRIES):
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(
                    f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MS}ms';"
                    f"SET LOCAL statement_timeout = '{2 * LOCK_TIMEOUT_MS}ms'"
                )
                # In the order in which publishers and dispatchers lock them. Whoever retries or replays came before,
                # and is seen below, or comes after and finds that it is gone.
                cursor.execute(f"LOCK TABLE ONLY {parent} IN ACCESS EXCLUSIVE MODE")
                cursor.execute("LOCK TABLE ONLY deliveries_delivery IN SHARE MODE")
                if _is_needed(cursor, parent, week):
                    return False
                cursor.execute(f'DROP TABLE IF EXISTS "{week.table(parent)}"')
        except OperationalError:
            time.sleep(LOCK_TIMEOUT_MS / 1000)
        else:
            return True
    return False
