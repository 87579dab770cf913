"""What an endpoint, or all of a tenant's, were owed over time, and what became of it. Called by statistics and charts.

Read from roll-ups (`pipeline/rollups.py`), and from history only where there are none: the last few minutes, and the
beginning and end of a window that cuts a minute, or long ago an hour. A roll-up in which something was pending is
counted as it is now, as long as that is not much; else it is a few minutes old.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection

from deliveries.pipeline.rollups import GROWTH, HOUR, MINUTE, SHORTEST_MS
from deliveries.services.history import EPOCH, first_key, last_key
from tenants.models import Tenant

MOST_COUNTED_AGAIN: Final = 20_000
"""Deliveries of open roll-ups that a page counts as they are now: some 20 ms."""

STATUSES: Final = ("succeeded", "failed", "cancelled", "pending")


@dataclass(frozen=True, slots=True)
class Series:
    """An endpoint, or a tenant's endpoints together."""

    id: UUID
    tenant: UUID

    @classmethod
    def of_tenant(cls, tenant: Tenant) -> "Series":
        return cls(tenant.id, tenant.id)

    @property
    def condition(self) -> str:
        """The deliveries of it; along an index in the order of their keys."""
        if self.id == self.tenant:
            return "d.tenant_id = %(tenant)s"
        return "d.endpoint_id = %(series)s AND d.tenant_id = %(tenant)s"

    @property
    def parameters(self) -> dict[str, Any]:
        return {"series": self.id, "tenant": self.tenant}


@dataclass(slots=True)
class Figures:
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    pending: int = 0
    attempts: int = 0

    def add(self, counts: Sequence[int]) -> None:
        self.succeeded += counts[0]
        self.failed += counts[1]
        self.cancelled += counts[2]
        self.pending += counts[3]
        self.attempts += counts[4]


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a window that roll-ups tell of. Nothing of it: it ends where it begins."""

    since: datetime
    until: datetime
    hours_to: datetime | None = None
    """The border between hours and minutes."""


def read(
    series: Series, *, since: datetime, until: datetime, by: timedelta
) -> tuple[Span, dict[datetime, Figures]]:
    """What roll-ups tell, and of which part of the window: what is before and behind it is for the caller to count.

    By beginning of `by`, which are counted from 1970; of each that has any. No roll-up is wider.
    """
    while True:
        found: dict[datetime, Figures] = {}
        with connection.cursor() as cursor:
            span = _span(cursor, since, until, by)
            if span.since == span.until:
                return span, found
            window = series.parameters | {"since": span.since, "until": span.until, "by": by}
            cursor.execute(COUNTS, window)
            rows = cursor.fetchall()
            if rows[0][0] != span.hours_to:
                continue  # minutes became hours in between, which happens once an hour
            rows = [row[1:] for row in rows if row[1] is not None]
            as_now = _count_open(cursor, series, window, [row[1:] for row in rows if row[1] is not None])
            for start, begins_at, _, *counts in rows:
                if begins_at not in as_now:
                    found.setdefault(start, Figures()).add(counts)
            for begins_at, counts in as_now.items():
                found.setdefault(_floor(begins_at, by), Figures()).add(counts)
        return span, found


def _span(cursor: Any, since: datetime, until: datetime, by: timedelta) -> Span:
    cursor.execute("SELECT minutes_to, hours_to FROM deliveries_rollupstate WHERE id = 1")
    minutes_to, hours_to = cursor.fetchone() or (None, None)
    if minutes_to is None or hours_to is None or until <= EPOCH:
        return Span(until, until)
    first = _ceiling(max(since, EPOCH), MINUTE)
    if first < hours_to:
        first = hours_to if by < HOUR else _ceiling(first, HOUR)
    last = min(_floor(until, MINUTE), minutes_to)
    if last < hours_to:
        last = _floor(last, HOUR)
    return Span(first, last, hours_to) if first < last else Span(until, until)


def _count_open(
    cursor: Any, series: Series, window: dict[str, Any], cells: list[Any]
) -> dict[datetime, Sequence[int]]:
    """What open roll-ups count now, by their beginning: the newest ones, as far as that is bounded."""
    begins, ends, total = [], [], 0
    for begins_at, minutes, succeeded, failed, cancelled, pending, _ in sorted(cells, reverse=True):
        total += succeeded + failed + cancelled + pending
        if total > MOST_COUNTED_AGAIN:
            break
        begins.append(begins_at)
        ends.append(begins_at + minutes * MINUTE)
    if not begins:
        return {}
    keys = {
        "begins": begins,
        "ends": ends,
        "lows": [first_key(at) for at in begins],
        "highs": [last_key(at) for at in ends],
        "low": first_key(min(begins)),
        "high": last_key(max(ends)),
    }
    cursor.execute(AGAIN.format(condition=series.condition), window | keys)
    return {begins_at: counts for begins_at, *counts in cursor.fetchall()}


# Open ones each by itself, the others together. At least one row, which has the border as of this statement.
COUNTS = """
SELECT state.hours_to, n.* FROM deliveries_rollupstate state LEFT JOIN LATERAL (
    SELECT date_bin(%(by)s, begins_at, TIMESTAMPTZ 'epoch') AS start, CASE WHEN is_open THEN begins_at END,
           CASE WHEN is_open THEN minutes END, sum(succeeded)::bigint, sum(failed)::bigint, sum(cancelled)::bigint,
           sum(pending)::bigint, sum(attempts)::bigint
    FROM deliveries_rollup
    WHERE series_id = %(series)s AND tenant_id = %(tenant)s AND begins_at >= %(since)s AND begins_at < %(until)s
    GROUP BY 1, 2, 3
) n ON true
"""

# What retention deleted is in no history any more.
AGAIN = """
SELECT cell.begins_at, n.succeeded + g.succeeded, n.failed + g.failed, n.cancelled + g.cancelled, n.pending,
       n.attempts + g.attempts
FROM unnest(%(begins)s::timestamptz[], %(ends)s::timestamptz[], %(lows)s::uuid[], %(highs)s::uuid[])
     AS cell(begins_at, ends_at, low, high)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE d.status = 'succeeded') AS succeeded, count(*) FILTER (WHERE d.status = 'failed') AS failed,
           count(*) FILTER (WHERE d.status = 'cancelled') AS cancelled, count(*) FILTER (WHERE d.status = 'pending') AS pending,
           COALESCE(sum(d.attempt_count), 0)::bigint AS attempts
    FROM deliveries_delivery d
    WHERE {condition} AND d.id >= cell.low AND d.id <= cell.high AND d.id >= %(low)s AND d.id <= %(high)s
      AND d.created_at >= cell.begins_at AND d.created_at < cell.ends_at
) n
CROSS JOIN LATERAL (
    SELECT COALESCE(sum(succeeded), 0)::bigint AS succeeded, COALESCE(sum(failed), 0)::bigint AS failed,
           COALESCE(sum(cancelled), 0)::bigint AS cancelled, COALESCE(sum(attempts), 0)::bigint AS attempts
    FROM deliveries_rollupgone
    WHERE tenant_id = %(tenant)s AND (series_id = %(series)s OR %(series)s = %(tenant)s)
      AND begins_at >= cell.begins_at AND begins_at < cell.ends_at
) g
"""


def durations(series: Series, span: Span, *, by: timedelta | None) -> dict[datetime | None, Counter[int]]:
    """Attempts by the bucket of their duration, in the same way; or all of them together, under None."""
    found: dict[datetime | None, Counter[int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(DURATIONS, series.parameters | {"since": span.since, "until": span.until, "by": by})
        for start, bucket, number in cursor.fetchall():
            found.setdefault(start, Counter())[bucket] += number
    return found


DURATIONS = """
SELECT date_bin(%(by)s::interval, r.begins_at, TIMESTAMPTZ 'epoch'), h.bucket, sum(h.number)::bigint
FROM deliveries_rollup r CROSS JOIN unnest(r.latency_buckets, r.latency_counts) AS h(bucket, number)
WHERE r.series_id = %(series)s AND r.tenant_id = %(tenant)s AND r.begins_at >= %(since)s AND r.begins_at < %(until)s
GROUP BY 1, 2
"""


# --- what is pending --------------------------------------------------------------------------------------------------

MOST_PENDING: Final = 50_000
"""That are counted one by one."""


def pending_of(series: Series) -> tuple[int, datetime | None]:
    """How many deliveries are pending, and since when the oldest is. Of very many, roll-ups say how many; that is a few
    minutes old.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            PENDING.format(condition=series.condition), series.parameters | {"most": MOST_PENDING + 1}
        )
        number, oldest = cursor.fetchone()
        if number <= MOST_PENDING:
            return number, oldest
        cursor.execute(PENDING_BEFORE, series.parameters)
        rolled, begins_at, minutes, minutes_to = cursor.fetchone() or (0, None, None, None)
        if begins_at is None or minutes is None or minutes_to is None:
            return number, oldest
        window = {"low": first_key(minutes_to), "high": last_key(), "most": MOST_PENDING}
        cursor.execute(PENDING_BETWEEN.format(condition=series.condition), series.parameters | window)
        recent, _ = cursor.fetchone()
        window = {
            "low": first_key(begins_at),
            "high": last_key(begins_at + minutes * MINUTE),
            "most": MOST_PENDING,
        }
        cursor.execute(PENDING_BETWEEN.format(condition=series.condition), series.parameters | window)
        _, first = cursor.fetchone()
    return rolled + recent, first or begins_at


PENDING = """
SELECT count(*), min(created_at) FROM (
    SELECT d.created_at FROM deliveries_delivery d WHERE {condition} AND d.status = 'pending' LIMIT %(most)s
) waiting
"""

PENDING_BEFORE = """
SELECT sum(r.pending) OVER ()::bigint, r.begins_at, r.minutes, (SELECT minutes_to FROM deliveries_rollupstate)
FROM deliveries_rollup r WHERE r.series_id = %(series)s AND r.tenant_id = %(tenant)s AND r.is_open AND r.pending > 0
ORDER BY r.begins_at LIMIT 1
"""

PENDING_BETWEEN = """
SELECT count(*), min(created_at) FROM (
    SELECT d.created_at FROM deliveries_delivery d
    WHERE {condition} AND d.id >= %(low)s AND d.id <= %(high)s AND d.status = 'pending' LIMIT %(most)s
) waiting
"""


# --- percentiles ------------------------------------------------------------------------------------------------------


def percentiles(durations: Mapping[int, int], wanted: Sequence[float]) -> tuple[float, ...] | None:
    """In milliseconds, as if the attempts of a bucket lay evenly in it. None: there were no attempts."""
    total = sum(durations.values())
    if not total:
        return None
    found = []
    for share in wanted:
        rank, below = share * (total - 1), 0
        for bucket, number in sorted(durations.items()):
            if below + number > rank:
                inside = (rank - below + 0.5) / number
                found.append(round(SHORTEST_MS * GROWTH ** (bucket + min(inside, 1.0)), 1))
                break
            below += number
    return tuple(found)


def _floor(at: datetime, width: timedelta) -> datetime:
    return EPOCH + (at - EPOCH) // width * width


def _ceiling(at: datetime, width: timedelta) -> datetime:
    return EPOCH - (EPOCH - at) // width * width
