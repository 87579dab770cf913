"""What an endpoint received over time: counts and latencies by minute, hour or day. Called by the API and the portal.

Counted when asked, so they are current. A delivery, its attempts and its latency stand in the bucket in which the
delivery was created: what is read is one range of keys of one endpoint.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from django.db import connection

from deliveries.models import Delivery, Endpoint
from deliveries.services.deliveries import CLOCKS_APART
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


@dataclass(slots=True)
class Counts:
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    attempts: int = 0
    latency_ms: tuple[float | None, float | None, float | None] = (None, None, None)
    """The percentiles 50, 95 and 99 of the attempts' durations. None: there were none."""


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
    window: dict[str, Any] = {
        "endpoint": endpoint.id,
        "tenant": endpoint.tenant_id,
        "since": since,
        "until": until,
        "low": first_key(since),
        "high": last_key(until),
        "bucket": bucket.value,
    }
    with connection.cursor() as cursor:
        cursor.execute(COUNT, window)
        deliveries = 0
        for start, status, number, attempts in cursor.fetchall():
            deliveries += number
            for each in (counts[start], totals):
                if status != Delivery.Status.PENDING:
                    setattr(each, status, getattr(each, status) + number)
                each.attempts += attempts
        sampled = window | {
            "percentiles": list(PERCENTILES),
            "one_in": max(1, -(-deliveries // SAMPLE)),
            "first_attempt": first_key(max(since, EPOCH) - CLOCKS_APART),
        }
        if totals.attempts:
            cursor.execute(LATENCY, sampled)
            for start, percentiles in cursor.fetchall():
                if percentiles is not None:
                    (totals if start is None else counts[start]).latency_ms = tuple(percentiles)
        cursor.execute(PENDING, window)
        pending, oldest_pending_at = cursor.fetchone() or (0, None)
    return Stats(list(counts.items()), totals, pending, oldest_pending_at)


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
WHERE d.endpoint_id = %(endpoint)s AND d.tenant_id = %(tenant)s AND d.id >= %(low)s AND d.id <= %(high)s
  AND d.created_at >= %(since)s AND d.created_at < %(until)s
GROUP BY 1, 2
"""

# The row without a start is of the whole window.
LATENCY = """
SELECT date_trunc(%(bucket)s, d.created_at, 'UTC'), percentile_cont(%(percentiles)s) WITHIN GROUP (ORDER BY a.duration_ms)
FROM deliveries_delivery d JOIN deliveries_attempt a ON a.delivery_id = d.id AND a.id >= %(first_attempt)s
WHERE d.endpoint_id = %(endpoint)s AND d.tenant_id = %(tenant)s AND d.id >= %(low)s AND d.id <= %(high)s
  AND d.created_at >= %(since)s AND d.created_at < %(until)s
  AND mod(uuid_hash(d.id)::bigint, %(one_in)s) = 0
GROUP BY GROUPING SETS (1, ())
"""

PENDING = """
SELECT count(*), min(d.created_at) FROM deliveries_delivery d
WHERE d.endpoint_id = %(endpoint)s AND d.tenant_id = %(tenant)s AND d.status = 'pending'
"""
