"""What an endpoint received over time: counts and latencies by minute, hour or day. Called by the API.

A delivery, its attempts and its latency stand in the bucket in which the delivery was created. Counts come from roll-ups
(`figures.py`), and from history for the last few minutes and for what a window cuts, so they are current.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from django.db import connection

from deliveries.models import Delivery, Endpoint
from deliveries.pipeline.rollups import BUCKET
from deliveries.services import figures
from deliveries.services.deliveries import CLOCKS_APART
from deliveries.services.figures import Figures, Series
from deliveries.services.history import EPOCH, first_key, last_key

MOST_BUCKETS: Final = 1_500
"""A day of minutes, two months of hours."""

SAMPLE: Final = 20_000
"""Deliveries whose attempts are looked at for percentiles. Of more, a part is taken by the hash of their keys."""

PERCENTILES: Final = (0.5, 0.95, 0.99)


class Bucket(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


WIDTHS: Final = {
    Bucket.MINUTE: timedelta(minutes=1),
    Bucket.HOUR: timedelta(hours=1),
    Bucket.DAY: timedelta(days=1),
}


class TooManyBuckets(Exception):
    """The window has more than MOST_BUCKETS of them."""


NO_LATENCY: Final = (None, None, None)


@dataclass(slots=True)
class Counts:
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    attempts: int = 0
    latency_ms: tuple[float | None, ...] = NO_LATENCY
    """The percentiles 50, 95 and 99 of the attempts' durations. None: there were none."""

    def add(self, each: Figures) -> None:
        self.succeeded += each.succeeded
        self.failed += each.failed
        self.cancelled += each.cancelled
        self.attempts += each.attempts


@dataclass(frozen=True, slots=True)
class Stats:
    buckets: list[tuple[datetime, Counts]]
    """Every bucket of the window, the oldest first; times are their beginnings in UTC."""
    totals: Counts = field(default_factory=Counts)
    pending: int = 0
    oldest_pending_at: datetime | None = None


def endpoint_stats(*, endpoint: Endpoint, since: datetime, until: datetime, bucket: Bucket) -> Stats:
    """Raises TooManyBuckets. `pending` is of now, whatever the window."""
    starts = _starts(since, until, bucket)
    counts = {start: Counts() for start in starts}
    totals = Counts()
    series = Series(endpoint.id, endpoint.tenant_id)
    span, rolled = figures.read(series, since=since, until=until, by=WIDTHS[bucket])
    for start, each in rolled.items():
        for one in (counts[start], totals):
            one.add(each)
    windows = [(since, span.since), (span.until, until)]
    live = [_window(series, *window, bucket) for window in windows if window[0] < window[1]]
    with connection.cursor() as cursor:
        deliveries = 0
        for window in live:
            cursor.execute(COUNT, window)
            for start, status, number, attempts in cursor.fetchall():
                deliveries += number
                for one in (counts[start], totals):
                    if status != Delivery.Status.PENDING:
                        setattr(one, status, getattr(one, status) + number)
                    one.attempts += attempts
        if totals.attempts:
            durations = figures.durations(series, span, by=WIDTHS[bucket]) if rolled else {}
            if len(live) == 1 and not durations:
                _measure(cursor, live[0], deliveries, counts, totals)
            else:
                _add_buckets(cursor, live, deliveries, durations, counts, totals)
    pending, oldest_pending_at = figures.pending_of(series)
    return Stats(list(counts.items()), totals, pending, oldest_pending_at)


def _window(series: Series, since: datetime, until: datetime, bucket: Bucket) -> dict[str, Any]:
    return series.parameters | {
        "since": since,
        "until": until,
        "low": first_key(since),
        "high": last_key(until),
        "bucket": bucket.value,
        "first_attempt": first_key(max(since, EPOCH) - CLOCKS_APART),
    }


def _measure(
    cursor: Any,
    window: dict[str, Any],
    deliveries: int,
    counts: dict[datetime, Counts],
    totals: Counts,
) -> None:
    """Percentiles of the attempts themselves, where all are of one piece of history."""
    sampled = {"percentiles": list(PERCENTILES), "one_in": max(1, -(-deliveries // SAMPLE))}
    cursor.execute(LATENCY, window | sampled)
    for start, found in cursor.fetchall():
        if found is not None:
            (totals if start is None else counts[start]).latency_ms = tuple(found)


def _add_buckets(
    cursor: Any,
    live: list[dict[str, Any]],
    deliveries: int,
    durations: dict[datetime | None, Counter[int]],
    counts: dict[datetime, Counts],
    totals: Counts,
) -> None:
    """Roll-ups count attempts by buckets of their duration; so are those of history then."""
    one_in = max(1, -(-deliveries // SAMPLE))
    for window in live:
        cursor.execute(DURATIONS, window | {"one_in": one_in})
        for start, bucket, number in cursor.fetchall():
            durations.setdefault(start, Counter())[bucket] += number * one_in
    for start, found in durations.items():
        if start is not None:
            counts[start].latency_ms = figures.percentiles(found, PERCENTILES) or NO_LATENCY
    totals.latency_ms = figures.percentiles(sum(durations.values(), Counter()), PERCENTILES) or NO_LATENCY


def _starts(since: datetime, until: datetime, bucket: Bucket) -> list[datetime]:
    width = WIDTHS[bucket]
    start = EPOCH + (since - EPOCH) // width * width
    number = -((start - until) // width)
    if number > MOST_BUCKETS:
        raise TooManyBuckets
    return [start + place * width for place in range(number)]


# The range of keys goes along the index `delivery_by_endpoint`.
COUNT = """
SELECT date_trunc(%(bucket)s, d.created_at, 'UTC'), d.status, count(*), sum(d.attempt_count)
FROM deliveries_delivery d
WHERE d.endpoint_id = %(series)s AND d.tenant_id = %(tenant)s AND d.id >= %(low)s AND d.id <= %(high)s
  AND d.created_at >= %(since)s AND d.created_at < %(until)s
GROUP BY 1, 2
"""

# The row without a start is of the whole window.
LATENCY = """
SELECT date_trunc(%(bucket)s, d.created_at, 'UTC'), percentile_cont(%(percentiles)s) WITHIN GROUP (ORDER BY a.duration_ms)
FROM deliveries_delivery d JOIN deliveries_attempt a ON a.delivery_id = d.id AND a.id >= %(first_attempt)s
WHERE d.endpoint_id = %(series)s AND d.tenant_id = %(tenant)s AND d.id >= %(low)s AND d.id <= %(high)s
  AND d.created_at >= %(since)s AND d.created_at < %(until)s
  AND mod(uuid_hash(d.id)::bigint, %(one_in)s) = 0
GROUP BY GROUPING SETS (1, ())
"""

DURATIONS = f"""
SELECT date_trunc(%(bucket)s, d.created_at, 'UTC'), {BUCKET}, count(*)
FROM deliveries_delivery d JOIN deliveries_attempt a ON a.delivery_id = d.id AND a.id >= %(first_attempt)s
WHERE d.endpoint_id = %(series)s AND d.tenant_id = %(tenant)s AND d.id >= %(low)s AND d.id <= %(high)s
  AND d.created_at >= %(since)s AND d.created_at < %(until)s
  AND mod(uuid_hash(d.id)::bigint, %(one_in)s) = 0
GROUP BY 1, 2
"""  # noqa: S608 - an expression of ours
