"""What a tenant's endpoints received together, over a window: counts by outcome and time, latencies, what is pending.

Called by the portal's overview. Roll-ups tell most of it (`figures.py`). Of the last minutes, which they do not tell of
yet, a bounded number of rows is read, however many there are: they are cut into slices, and of each the first rows are
read. A slice with fewer has been counted. Of the others the number is estimated, and what did not succeed, which people
look for, is counted along its own index as far as that is bounded, too. So is a whole window, where nothing was rolled up.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from django.db import connection

from deliveries.pipeline.rollups import BUCKET
from deliveries.services import figures
from deliveries.services.deliveries import CLOCKS_APART
from deliveries.services.figures import Series
from deliveries.services.history import EPOCH, first_key, last_key
from deliveries.services.stats import PERCENTILES
from tenants.ids import floor_of
from tenants.models import Tenant

PER_SLICE: Final = 100
"""Deliveries read of each slice at first. With some 280 slices: 28,000 rows, about 20 ms."""

EXACT: Final = 30_000
"""Deliveries beyond that which are counted one by one, where a few slices have more than was read."""

UNSUCCESSFUL_PER_SLICE: Final = 40
"""Of each status, in slices that are estimated."""

SAMPLE: Final = 1_500
"""Deliveries whose attempts are looked at for percentiles."""

MOST_PENDING: Final = 10_000
"""Pending deliveries are counted up to this."""


class Window(StrEnum):
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"


@dataclass(frozen=True, slots=True)
class Layout:
    """Of a window: how wide and how many its buckets are, and in how many slices each is read."""

    bucket: timedelta
    buckets: int
    slices: int


LAYOUTS: Final = {
    Window.DAY: Layout(timedelta(hours=1), 24, 12),
    Window.WEEK: Layout(timedelta(hours=6), 28, 10),
    Window.MONTH: Layout(timedelta(days=1), 30, 9),
}


@dataclass(slots=True)
class Counts:
    succeeded: int = 0
    failed: int = 0
    pending: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        return self.succeeded + self.failed + self.pending + self.cancelled

    def add(self, status: str, number: int) -> None:
        setattr(self, status, getattr(self, status) + number)


STATUSES: Final = ("succeeded", "failed", "pending", "cancelled")


@dataclass(frozen=True, slots=True)
class Activity:
    buckets: list[tuple[datetime, Counts]]
    """Every bucket of the window, the oldest first; times are their beginnings in UTC."""
    totals: Counts = field(default_factory=Counts)
    is_estimated: bool = False
    """There was too much to be counted one by one."""
    latency_ms: tuple[float, ...] | None = None
    """The percentiles 50, 95 and 99 of the attempts' durations. None: there were none."""
    pending: int = 0
    """Now, whatever the window; up to MOST_PENDING."""

    @property
    def success_rate(self) -> float | None:
        """Of what has ended otherwise than by being cancelled, in percent. None: nothing has."""
        ended = self.totals.succeeded + self.totals.failed
        return 100 * self.totals.succeeded / ended if ended else None


@dataclass(slots=True)
class _Slice:
    start: datetime
    end: datetime
    bucket: int
    """Which one it is of."""
    low: UUID
    high: UUID
    counts: Counts = field(default_factory=Counts)
    number: int = 0
    """Deliveries read."""
    first_sequence: int = 0
    last_sequence: int = 0
    last_at: datetime | None = None

    @property
    def is_whole(self) -> bool:
        return self.number < PER_SLICE


def tenant_activity(*, tenant: Tenant, window: Window, now: datetime) -> Activity:
    """At most nine queries, of bounded cost."""
    layout = LAYOUTS[window]
    starts = _starts(layout, now)
    buckets = [(start, Counts()) for start in starts]
    series = Series.of_tenant(tenant)
    span, rolled = figures.read(series, since=starts[0], until=now, by=layout.bucket)
    durations = figures.durations(series, span, by=None).get(None, Counter()) if rolled else Counter()
    # Where nothing is rolled up, from the window's beginning.
    slices = _slices(starts, layout, after=span.until if span.since < span.until else starts[0])
    bounds: dict[str, Any] = {
        "tenant": tenant.id,
        "low": slices[0].low,
        "high": min(slices[-1].high, last_key()),
    }
    with connection.cursor() as cursor:
        _read(cursor, slices, bounds)
        is_estimated = _complete(cursor, slices, bounds)
        latency = _latency(cursor, slices, bounds, durations)
        cursor.execute(PENDING, {"tenant": tenant.id, "most": MOST_PENDING})
        pending = cursor.fetchone()[0]
    totals = Counts()
    found = [(starts.index(start), each) for start, each in rolled.items()]
    for place, counts in [*found, *((each.bucket, each.counts) for each in slices)]:
        for status in STATUSES:
            number = getattr(counts, status)
            totals.add(status, number)
            buckets[place][1].add(status, number)
    return Activity(buckets, totals, is_estimated, latency, pending)


def _starts(layout: Layout, now: datetime) -> list[datetime]:
    """The last bucket is the one that `now` is in."""
    last = EPOCH + (now - EPOCH) // layout.bucket * layout.bucket
    return [last - place * layout.bucket for place in reversed(range(layout.buckets))]


def _slices(starts: Sequence[datetime], layout: Layout, *, after: datetime) -> list[_Slice]:
    """By key, which begins with the time. What is before `after` is left out."""
    length = layout.bucket / layout.slices
    found = []
    for bucket, start in enumerate(starts):
        edges = [start + place * length for place in range(layout.slices + 1)]
        for edge, end in pairwise(edges):
            if end > after:
                begin = max(edge, after)
                found.append(_Slice(begin, end, bucket, floor_of(begin), floor_of(end)))
    return found


def _read(cursor: Any, slices: Sequence[_Slice], bounds: dict[str, Any]) -> None:
    cursor.execute(FIRST_OF_EACH, bounds | _arrays(slices) | {"most": PER_SLICE})
    for place, number, first, last, last_at, *by_status in cursor.fetchall():
        each = slices[place]
        each.number, each.first_sequence, each.last_sequence, each.last_at = number, first, last, last_at
        each.counts = Counts(*by_status)


def _complete(cursor: Any, slices: list[_Slice], bounds: dict[str, Any]) -> bool:
    """Count what is missing, or estimate it. Returns whether anything was estimated."""
    places = [place for place, each in enumerate(slices) if not each.is_whole]
    if not places:
        return False
    following = _following(cursor, slices, bounds)
    estimates = {place: _estimate(slices[place], following[place]) for place in places}
    wanted = [slices[place] for place in places]
    if sum(estimates.values()) <= EXACT:
        # An estimate may be wrong; the room left to it keeps the query bounded all the same.
        most = max(2 * max(estimates.values()), EXACT // len(places))
        cursor.execute(FIRST_OF_EACH, bounds | _arrays(wanted) | {"most": most})
        counted = cursor.fetchall()
        if all(row[1] < most for row in counted):
            for place, *_, succeeded, failed, pending, cancelled in counted:
                wanted[place].counts = Counts(succeeded, failed, pending, cancelled)
            return False
    cursor.execute(UNSUCCESSFUL, bounds | _arrays(wanted) | {"most": UNSUCCESSFUL_PER_SLICE})
    found = {(place, status): number for place, status, number in cursor.fetchall()}
    for index, place in enumerate(places):
        each, total = slices[place], estimates[place]
        sampled, each.counts = each.counts, Counts()
        for status in STATUSES[1:]:
            number = found[index, status]
            if number == UNSUCCESSFUL_PER_SLICE:
                number = max(number, round(total * getattr(sampled, status) / each.number))
            each.counts.add(status, number)
        each.counts.succeeded = max(total - each.counts.total, 0)
    return True


def _following(cursor: Any, slices: Sequence[_Slice], bounds: dict[str, Any]) -> list[int]:
    """For each slice the sequence at which the next one with a delivery begins; behind the last, the end so far."""
    cursor.execute(NEWEST, bounds)
    begins: int = cursor.fetchone()[0] + 1
    following = []
    for each in reversed(slices):
        following.append(begins)
        if each.number:
            begins = each.first_sequence
    return following[::-1]


def _estimate(each: _Slice, following: int) -> int:
    """How many a slice has whose first ones were read.

    `sequence` counts the events of the whole platform. So the numbers between the beginning of this slice and of the
    next say how much happened, and those that were read say which share of it was this tenant's. A burst is then seen
    for what it is. Where the numbers make no sense, time stands for them.
    """
    assert each.last_at is not None
    if following > each.last_sequence > each.first_sequence:
        share = each.number / (each.last_sequence - each.first_sequence + 1)
        estimate = share * (following - each.first_sequence)
    else:
        estimate = each.number / max((each.last_at - each.start) / (each.end - each.start), 0.001)
    return max(round(estimate), each.number)


def _latency(
    cursor: Any, slices: Sequence[_Slice], bounds: dict[str, Any], durations: Counter[int]
) -> tuple[float, ...] | None:
    """Of a part of the deliveries that are not rolled up, as many of each slice, and of all that are."""
    filled = [each for each in slices if each.number]
    if not filled:
        return figures.percentiles(durations, PERCENTILES)
    since = max(filled[0].start, EPOCH) - CLOCKS_APART
    most = max(SAMPLE // len(filled), 1)
    sample = (
        bounds
        | _arrays(filled)
        | {
            "most": most,
            "percentiles": list(PERCENTILES),
            "first_attempt": first_key(since),
            "last_attempt": last_key(),
        }
    )
    if not durations:
        cursor.execute(LATENCY, sample)
        percentiles = cursor.fetchone()[0]
        return None if percentiles is None else tuple(percentiles)
    read = sum(min(each.number, most) for each in filled)
    weight = max(1, round(sum(each.counts.total for each in filled) / read))
    cursor.execute(DURATIONS, sample)
    for bucket, number in cursor.fetchall():
        durations[bucket] += weight * number
    return figures.percentiles(durations, PERCENTILES)


def _arrays(slices: Sequence[_Slice]) -> dict[str, Any]:
    return {"lows": [each.low for each in slices], "highs": [each.high for each in slices]}


# Along the index `delivery_by_tenant`. The outer bounds let the planner leave out partitions.
FIRST_OF_EACH = """
SELECT slice.place - 1, read.number, read.first, read.last, read.last_at,
       read.succeeded, read.failed, read.pending, read.cancelled
FROM unnest(%(lows)s::uuid[], %(highs)s::uuid[]) WITH ORDINALITY AS slice(low, high, place)
CROSS JOIN LATERAL (
    SELECT count(*) AS number, min(sequence) AS first, max(sequence) AS last, max(created_at) AS last_at,
           count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE status = 'failed') AS failed,
           count(*) FILTER (WHERE status = 'pending') AS pending,
           count(*) FILTER (WHERE status = 'cancelled') AS cancelled
    FROM (
        SELECT d.sequence, d.created_at, d.status FROM deliveries_delivery d
        WHERE d.tenant_id = %(tenant)s AND d.id >= slice.low AND d.id < slice.high
          AND d.id >= %(low)s AND d.id < %(high)s
        ORDER BY d.id LIMIT %(most)s
    ) first_ones
) read
WHERE read.number > 0
"""

# Along the index `delivery_by_status`.
UNSUCCESSFUL = """
SELECT slice.place - 1, wanted.status, found.number
FROM unnest(%(lows)s::uuid[], %(highs)s::uuid[]) WITH ORDINALITY AS slice(low, high, place)
CROSS JOIN unnest(ARRAY['failed', 'pending', 'cancelled']) AS wanted(status)
CROSS JOIN LATERAL (
    SELECT count(*) AS number FROM (
        SELECT FROM deliveries_delivery d
        WHERE d.tenant_id = %(tenant)s AND d.id >= slice.low AND d.id < slice.high
          AND d.id >= %(low)s AND d.id < %(high)s AND d.status = wanted.status AND d.status <> 'succeeded'
        LIMIT %(most)s
    ) first_ones
) found
"""

SAMPLED = """
FROM unnest(%(lows)s::uuid[], %(highs)s::uuid[]) AS slice(low, high)
CROSS JOIN LATERAL (
    SELECT d.id FROM deliveries_delivery d
    WHERE d.tenant_id = %(tenant)s AND d.id >= slice.low AND d.id < slice.high
      AND d.id >= %(low)s AND d.id < %(high)s
    ORDER BY d.id LIMIT %(most)s
) sampled
JOIN deliveries_attempt a
  ON a.delivery_id = sampled.id AND a.id >= %(first_attempt)s AND a.id <= %(last_attempt)s
"""

LATENCY = f"SELECT percentile_cont(%(percentiles)s) WITHIN GROUP (ORDER BY a.duration_ms) {SAMPLED}"

DURATIONS = f"SELECT {BUCKET}, count(*) {SAMPLED} GROUP BY 1"

NEWEST = """
SELECT d.sequence FROM deliveries_delivery d
WHERE d.tenant_id = %(tenant)s AND d.id >= %(low)s AND d.id < %(high)s ORDER BY d.id DESC LIMIT 1
"""

PENDING = """
SELECT count(*) FROM (
    SELECT FROM deliveries_delivery WHERE tenant_id = %(tenant)s AND status = 'pending' LIMIT %(most)s
) waiting
"""
