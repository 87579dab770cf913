"""Roll-ups of history: what became of an endpoint's, and a tenant's, deliveries in each minute and hour.

Called by beat (`deliveries/tasks.py`), by retention, and by nothing that publishes or delivers. Read by
`services/figures.py`, together with the last few minutes of history, which are not rolled up yet.

    advance   the minutes that ended a few minutes ago, each once; hours at once where history is older than a day
    follow    attempts recorded since: the roll-ups of their deliveries are open, they may have changed
    again     open ones are counted again, until nothing in them is pending
    fold      minutes of more than a day ago become hours
    forget    hours of more than KEPT ago

A delivery, its attempts and their durations stand in the minute in which it was made. A roll-up is always counted as a
whole, so to count it twice, or at the same time, changes nothing. What retention deletes from an open one is added up in
`deliveries_rollupgone` by the deletion itself; a closed one is not counted again.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction

from tenants.ids import floor_of, time_of

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

SECONDS_A_RUN: Final = 3.0
"""The sweeps share this worker and must not wait; the next run goes on."""

LATE: Final = timedelta(minutes=2)
"""Between a key and the first write of the transaction that it is of, with clocks that are apart."""

LONGEST_OPEN: Final = timedelta(minutes=10)
"""No transaction of the platform writes for so long; one of somebody else must not stop the roll-ups."""

MINUTES_KEPT: Final = timedelta(hours=26)
"""A day back from now, whatever the minute, reads no history."""

KEPT: Final = timedelta(days=400)
"""The same month of last year is still there."""

CHUNKS: Final = {1: 5 * MINUTE, 60: HOUR}
"""How much is rolled up in one transaction, by width."""

FOLLOWED: Final = 10 * MINUTE
"""Attempts of so much time are looked at in one transaction."""

CELLS: Final = 200
"""Open roll-ups that are counted again in one transaction, or fewer:"""

ROWS: Final = 50_000
"""as many deliveries as they have together."""

LATER: Final = timedelta(days=8)
"""After a delivery that ended long before there were roll-ups, its attempts' durations are looked for so long."""

ROUNDING: Final = timedelta(milliseconds=2)
"""A key holds its row's creation to the millisecond, give or take one."""


# --- durations --------------------------------------------------------------------------------------------------------

SHORTEST_MS: Final = 0.1
GROWTH: Final = 1.07
"""From one bucket of durations to the next: a percentile read from them is within 4 % of the true one."""

LAST_BUCKET: Final = 220
"""Begins at five minutes, longer than any request."""

BUCKET: Final = (
    f"LEAST({LAST_BUCKET}, GREATEST(0, floor(ln(GREATEST(a.duration_ms, {SHORTEST_MS}) / {SHORTEST_MS})"
    f" / {math.log(GROWTH)})))::smallint"
)


# --- a run ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class State:
    minutes_to: datetime | None
    hours_to: datetime | None
    attempts_to: datetime | None
    seen_at: datetime | None
    settled_at: datetime | None
    is_seen_over: bool | None
    """All transactions that had begun to write at `seen_at` have ended."""

    @property
    def until(self) -> datetime | None:
        """Nothing that was made before appears any more."""
        return None if self.settled_at is None else self.settled_at - LATE


# The first run over an old history counts a full hour of it in one statement. What a crash takes back is counted again.
PATIENCE = "SET LOCAL statement_timeout = '10min'; SET LOCAL synchronous_commit = off"

STATE = """
SELECT minutes_to, hours_to, attempts_to, seen_at, settled_at,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint > seen_transaction
FROM deliveries_rollupstate WHERE id = 1 FOR UPDATE SKIP LOCKED
"""


def roll_up(*, now: datetime, seconds: float = SECONDS_A_RUN) -> dict[str, int]:
    """A slice of the work, each step at least once; returns how often each was done. No step while another run is at it."""
    stop_at = time.monotonic() + seconds
    done: dict[str, int] = {}
    for step in (_look_at_the_time, _fold, _advance, _follow, _count_again, _forget):
        name = step.__name__.lstrip("_")
        while True:
            is_more = _do(step, now)
            done[name] = done.get(name, 0) + 1
            if not is_more or time.monotonic() > stop_at:
                break
    return done


def _do(step: "Callable[[Any, State, datetime], bool]", now: datetime) -> bool:
    """One transaction. Whether there may be more to do."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(PATIENCE)
        cursor.execute(STATE)
        row = cursor.fetchone()
        return row is not None and step(cursor, State(*row), now)


def _look_at_the_time(cursor: Any, state: State, now: datetime) -> bool:
    """No key tells when it was committed. But transactions are numbered as they begin to write: each run keeps its own
    number, and once nobody with a smaller one is left, nothing of before comes any more.
    """
    is_over = state.is_seen_over or (state.seen_at is not None and state.seen_at < now - LONGEST_OPEN)
    if state.seen_at is None or is_over:
        cursor.execute(
            "UPDATE deliveries_rollupstate SET settled_at = seen_at, seen_at = %s,"
            " seen_transaction = pg_current_xact_id()::text::bigint",
            [now],
        )
    return False


# --- counting ---------------------------------------------------------------------------------------------------------

COUNTS: Final = ("succeeded", "failed", "cancelled", "pending", "attempts")

COLUMNS: Final = (
    f"tenant_id, series_id, begins_at, minutes, {', '.join(COUNTS)}, latency_buckets, latency_counts"
)

OVERWRITE: Final = ", ".join(
    f"{name} = EXCLUDED.{name}"
    for name in (*COUNTS, "latency_buckets", "latency_counts", "counted_at", "is_open")
)

BY_STATUS: Final = ", ".join(
    f"count(*) FILTER (WHERE status = '{status}') AS {status}" for status in COUNTS[:-1]
)

SUMS: Final = ", ".join(f"sum({name})::bigint AS {name}" for name in COUNTS)

ZEROS: Final = ", ".join(f"0::bigint AS {name}" for name in COUNTS)

BUCKETS: Final = (
    "COALESCE(array_agg(bucket ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL), '{}') AS latency_buckets,"
    " COALESCE(array_agg(number ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL), '{}') AS latency_counts"
)

NO_BUCKET: Final = "NULL::smallint AS bucket, NULL::bigint AS number"

# Counts and buckets come under each other and are put together by grouping: the planner takes what it reads here for a
# single row, and would join them by looking through all of the one for each of the other.
ROLL_UP = f"""
WITH read AS MATERIALIZED (
    SELECT d.id, d.tenant_id, d.endpoint_id AS series_id, d.status, d.attempt_count,
           date_bin(make_interval(mins => %(minutes)s), d.created_at, TIMESTAMPTZ 'epoch') AS begins_at
    FROM deliveries_delivery d
    WHERE d.id >= %(low)s AND d.id <= %(high)s AND d.created_at >= %(since)s AND d.created_at < %(until)s
)
INSERT INTO deliveries_rollup AS r ({COLUMNS}, counted_at, is_open)
SELECT tenant_id, series_id, begins_at, %(minutes)s, {SUMS}, {BUCKETS}, %(now)s, sum(pending) > 0
FROM (
    SELECT tenant_id, series_id, begins_at, {BY_STATUS}, sum(attempt_count) AS attempts, {NO_BUCKET}
    FROM read GROUP BY 1, 2, 3
    UNION ALL
    SELECT read.tenant_id, read.series_id, read.begins_at, {ZEROS}, {BUCKET}, count(*)
    FROM read JOIN deliveries_attempt a ON a.delivery_id = read.id AND a.id >= %(low_attempt)s AND a.id <= %(last)s
    GROUP BY 1, 2, 3, 9
) each GROUP BY 1, 2, 3
ON CONFLICT (series_id, begins_at, minutes) DO UPDATE SET {OVERWRITE}
"""  # noqa: S608 - names of ours

# A tenant's own, of those of its endpoints. `wanted`: which.
SUM_UP = f"""
, part AS MATERIALIZED (
    SELECT r.* FROM wanted JOIN deliveries_rollup r
      ON r.tenant_id = wanted.tenant_id AND r.begins_at = wanted.begins_at AND r.minutes = wanted.minutes
     AND r.series_id <> r.tenant_id
)
INSERT INTO deliveries_rollup AS r ({COLUMNS}, counted_at, is_open)
SELECT tenant_id, tenant_id, begins_at, minutes, {SUMS}, {BUCKETS}, %(now)s, bool_or(is_open)
FROM (
    SELECT tenant_id, begins_at, minutes, {", ".join(COUNTS)}, {NO_BUCKET}, is_open FROM part
    UNION ALL
    SELECT tenant_id, begins_at, minutes, {ZEROS}, h.bucket, sum(h.number)::bigint, false
    FROM part CROSS JOIN unnest(latency_buckets, latency_counts) AS h(bucket, number) GROUP BY 1, 2, 3, 9
) each GROUP BY 1, 3, 4
ON CONFLICT (series_id, begins_at, minutes) DO UPDATE SET {OVERWRITE}
"""  # noqa: S608

SUM_UP_TIME = f"""
WITH wanted AS MATERIALIZED (
    SELECT DISTINCT tenant_id, begins_at, minutes FROM deliveries_rollup
    WHERE begins_at >= %(since)s AND begins_at < %(until)s AND minutes = %(minutes)s
){SUM_UP}"""  # noqa: S608

SUM_UP_THESE = f"""
WITH wanted AS MATERIALIZED (
    SELECT DISTINCT * FROM unnest(%(tenants)s::uuid[], %(begins)s::timestamptz[], %(widths)s::smallint[])
        AS u(tenant_id, begins_at, minutes)
){SUM_UP}"""  # noqa: S608


# --- advance ----------------------------------------------------------------------------------------------------------


def _advance(cursor: Any, state: State, now: datetime) -> bool:
    if state.until is None:
        return False
    until = _floor(state.until, MINUTE)
    start = state.minutes_to or _beginning(cursor, until)
    hours_to = state.hours_to or start
    if start >= until:
        return False
    yesterday = _floor(now - MINUTES_KEPT, HOUR)
    filled = min(_next(cursor, "deliveries_delivery", start) or until, until)
    if start == hours_to:
        # No minutes wait to become hours, so hours without anything are left out.
        hours_to = max(start, min(_floor(filled, HOUR), yesterday))
    start = max(_floor(filled, MINUTE) if hours_to < _floor(filled, HOUR) else hours_to, start)
    minutes = 60 if start == hours_to and start + HOUR <= min(yesterday, until) else 1
    end = min(start + CHUNKS[minutes], until)
    if filled < end:
        _count(cursor, start, end, minutes, now)
    if minutes == 60:
        hours_to = end
    cursor.execute(
        "UPDATE deliveries_rollupstate SET minutes_to = %s, hours_to = %s, attempts_to = COALESCE(attempts_to, %s)",
        [end, hours_to, state.until],
    )
    return end < until


def _count(cursor: Any, since: datetime, until: datetime, minutes: int, now: datetime) -> None:
    window = {
        "since": since,
        "until": until,
        "minutes": minutes,
        "low": floor_of(since - ROUNDING),
        "high": floor_of(until + ROUNDING),
        "low_attempt": floor_of(since - LATE),
        # In hours, which are of long ago, not all later weeks are looked into.
        "last": floor_of(now + HOUR if minutes == 1 else until + LATER),
        "now": now,
    }
    cursor.execute(ROLL_UP, window)
    cursor.execute(SUM_UP_TIME, window)


def _beginning(cursor: Any, until: datetime) -> datetime:
    """The hour of the oldest delivery there is."""
    cursor.execute("SELECT id FROM deliveries_delivery ORDER BY id LIMIT 1")
    row = cursor.fetchone()
    return _floor(until if row is None else min(until, time_of(row[0]) - ROUNDING), HOUR)


def _next(cursor: Any, table: str, start: datetime) -> datetime | None:
    """When the first row was made that is not older."""
    cursor.execute(
        f"SELECT id FROM {table} WHERE id >= %s ORDER BY id LIMIT 1",  # noqa: S608 - a name of ours
        [floor_of(start - ROUNDING)],
    )
    row = cursor.fetchone()
    return None if row is None else max(start, time_of(row[0]) - ROUNDING)


def _floor(at: datetime, width: timedelta) -> datetime:
    return EPOCH + (at - EPOCH) // width * width


# --- follow -----------------------------------------------------------------------------------------------------------

# Of deliveries that are rolled up already. One at a time along the primary key: the planner thinks that they are many.
FOLLOW = """
WITH late AS MATERIALIZED (
    SELECT DISTINCT delivery_id FROM deliveries_attempt WHERE id >= %(low)s AND id < %(high)s AND delivery_id < %(rolled)s
), touched AS MATERIALIZED (
    SELECT DISTINCT d.tenant_id, d.endpoint_id AS series_id,
           date_bin(make_interval(mins => CASE WHEN d.created_at < %(hours_to)s THEN 60 ELSE 1 END),
                    d.created_at, TIMESTAMPTZ 'epoch') AS begins_at
    FROM late CROSS JOIN LATERAL (
        SELECT tenant_id, endpoint_id, created_at FROM deliveries_delivery WHERE id = late.delivery_id OFFSET 0
    ) d
)
UPDATE deliveries_rollup r SET is_open = true
FROM touched JOIN tenants_tenant t ON t.id = touched.tenant_id
WHERE r.series_id = touched.series_id AND r.begins_at = touched.begins_at AND NOT r.is_open
  -- What retention may have begun to delete cannot be counted again.
  AND r.begins_at >= %(now)s - make_interval(days => t.retention_days, hours => -2)
"""


def _follow(cursor: Any, state: State, now: datetime) -> bool:
    if state.until is None or state.attempts_to is None or state.attempts_to >= state.until:
        return False
    assert state.minutes_to is not None
    since = min(_next(cursor, "deliveries_attempt", state.attempts_to) or state.until, state.until)
    until = min(since + FOLLOWED, state.until)
    if since < until:
        cursor.execute(
            FOLLOW,
            {
                "low": floor_of(since),
                "high": floor_of(until),
                "rolled": floor_of(state.minutes_to + ROUNDING),
                "hours_to": state.hours_to,
                "now": now,
            },
        )
    cursor.execute("UPDATE deliveries_rollupstate SET attempts_to = %s", [until])
    return until < state.until


# --- again ------------------------------------------------------------------------------------------------------------

# The older and the larger, the less often: a day old, about every quarter of an hour.
DUE = f"""
SELECT series_id, tenant_id, begins_at, minutes, succeeded + failed + cancelled + pending FROM deliveries_rollup
WHERE is_open AND series_id <> tenant_id AND counted_at < %(now)s - GREATEST(interval '15 s', (%(now)s - begins_at) / 100,
      make_interval(secs => (succeeded + failed + cancelled + pending) / 1000.0))
ORDER BY counted_at LIMIT {CELLS}
"""  # noqa: S608

BEFORE = f"""
SELECT series_id, tenant_id, begins_at, minutes, succeeded + failed + cancelled + pending FROM deliveries_rollup
WHERE is_open AND series_id <> tenant_id AND begins_at < %(until)s AND counted_at < %(now)s ORDER BY begins_at LIMIT {CELLS}
"""  # noqa: S608

# One that was closed meanwhile stays as it is: its history may be gone.
COUNT_AGAIN = f"""
WITH cell AS MATERIALIZED (
    SELECT * FROM unnest(%(series)s::uuid[], %(begins)s::timestamptz[], %(widths)s::smallint[], %(lows)s::uuid[],
                         %(highs)s::uuid[]) AS u(series_id, begins_at, minutes, low, high)
), read AS MATERIALIZED (
    SELECT cell.series_id, cell.begins_at, d.id, d.status, d.attempt_count AS attempts
    FROM cell CROSS JOIN LATERAL (
        SELECT id, status, attempt_count FROM deliveries_delivery
        WHERE endpoint_id = cell.series_id AND id >= cell.low AND id <= cell.high AND id >= %(low)s AND id <= %(high)s
          AND created_at >= cell.begins_at AND created_at < cell.begins_at + make_interval(mins => cell.minutes) OFFSET 0
    ) d
), gone AS MATERIALIZED (
    SELECT cell.series_id, cell.begins_at, {", ".join(f"g.{name}" for name in COUNTS)}, g.latency_buckets, g.latency_counts
    FROM cell JOIN deliveries_rollupgone g ON g.series_id = cell.series_id
      AND g.begins_at >= cell.begins_at AND g.begins_at < cell.begins_at + make_interval(mins => cell.minutes)
), counted AS MATERIALIZED (
    SELECT series_id, begins_at, {SUMS} FROM (
        SELECT series_id, begins_at, {", ".join(f"(status = '{name}')::int AS {name}" for name in COUNTS[:-1])}, attempts
        FROM read
        UNION ALL SELECT series_id, begins_at, {", ".join(COUNTS)} FROM gone
    ) each GROUP BY 1, 2
), lasted AS MATERIALIZED (
    SELECT series_id, begins_at, array_agg(bucket ORDER BY bucket) AS buckets, array_agg(number ORDER BY bucket) AS numbers
    FROM (
        SELECT series_id, begins_at, bucket, sum(number)::bigint AS number FROM (
            SELECT read.series_id, read.begins_at, {BUCKET} AS bucket, 1 AS number
            FROM read CROSS JOIN LATERAL (
                SELECT duration_ms FROM deliveries_attempt
                WHERE delivery_id = read.id AND id >= %(low_attempt)s AND id <= %(last)s OFFSET 0
            ) a
            UNION ALL
            SELECT series_id, begins_at, h.bucket, h.number
            FROM gone CROSS JOIN unnest(latency_buckets, latency_counts) AS h(bucket, number)
        ) every GROUP BY 1, 2, 3
    ) each GROUP BY 1, 2
)
UPDATE deliveries_rollup r
SET {", ".join(f"{name} = COALESCE(counted.{name}, 0)" for name in COUNTS)},
    latency_buckets = COALESCE(lasted.buckets, '{{}}'), latency_counts = COALESCE(lasted.numbers, '{{}}'),
    counted_at = %(now)s, is_open = COALESCE(counted.pending, 0) > 0
FROM cell LEFT JOIN counted USING (series_id, begins_at) LEFT JOIN lasted USING (series_id, begins_at)
WHERE r.series_id = cell.series_id AND r.begins_at = cell.begins_at AND r.minutes = cell.minutes AND r.is_open
"""  # noqa: S608


def _count_again(cursor: Any, state: State, now: datetime) -> bool:  # noqa: ARG001 - as every step
    cursor.execute(DUE, {"now": now})
    return _again(cursor, cursor.fetchall(), now)


def _again(cursor: Any, found: Sequence[tuple[UUID, UUID, datetime, int, int]], now: datetime) -> bool:
    """Count the first of these again. Whether there was any."""
    cells: list[tuple[UUID, UUID, datetime, int, int]] = []
    rows = 0
    for cell in found:
        rows += cell[4]
        if cells and rows > ROWS:
            break
        cells.append(cell)
    if not cells:
        return False
    begins = [cell[2] for cell in cells]
    widths = [cell[3] for cell in cells]
    lows = [floor_of(at - ROUNDING) for at in begins]
    highs = [floor_of(at + width * MINUTE + ROUNDING) for at, width in zip(begins, widths, strict=True)]
    cursor.execute(
        COUNT_AGAIN,
        {
            "series": [cell[0] for cell in cells],
            "begins": begins,
            "widths": widths,
            "lows": lows,
            "highs": highs,
            "low": min(lows),
            "high": max(highs),
            "low_attempt": floor_of(min(begins) - LATE),
            "last": floor_of(now + HOUR),
            "now": now,
        },
    )
    cursor.execute(
        SUM_UP_THESE, {"tenants": [cell[1] for cell in cells], "begins": begins, "widths": widths, "now": now}
    )
    return True


def close_before(*, until: datetime, now: datetime) -> None:
    """Count what is open of so long ago for the last time. Called before its history is dropped; nothing is owed there."""
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(BEFORE, {"until": until, "now": now})
            if not _again(cursor, cursor.fetchall(), now):
                return


# --- what retention takes ---------------------------------------------------------------------------------------------

# Locked, so that they are what is deleted next.
TAKE_OUT = f"""
WITH dead AS MATERIALIZED (
    SELECT d.id, r.tenant_id, r.series_id, r.begins_at, r.minutes, d.status, d.attempt_count AS attempts
    FROM deliveries_delivery d JOIN deliveries_rollup r
      ON r.tenant_id = %(tenant)s AND r.series_id = d.endpoint_id AND r.is_open AND r.begins_at <= d.created_at
     AND d.created_at < r.begins_at + make_interval(mins => r.minutes)
    WHERE d.id = ANY(%(ids)s) AND d.id >= %(low)s AND d.id <= %(high)s
      AND d.status <> 'pending' AND d.manual_requested_at IS NULL
      AND r.begins_at > %(since)s::timestamptz - interval '1 hour' AND r.begins_at <= %(until)s
    FOR UPDATE OF d
), counted AS MATERIALIZED (
    SELECT tenant_id, series_id, begins_at, minutes, {BY_STATUS}, sum(attempts) AS attempts FROM dead GROUP BY 1, 2, 3, 4
), lasted AS MATERIALIZED (
    SELECT series_id, begins_at, array_agg(bucket ORDER BY bucket) AS buckets, array_agg(number ORDER BY bucket) AS numbers
    FROM (
        SELECT dead.series_id, dead.begins_at, {BUCKET} AS bucket, count(*) AS number
        FROM dead JOIN deliveries_attempt a ON a.delivery_id = dead.id AND a.id >= %(low)s GROUP BY 1, 2, 3
    ) each GROUP BY 1, 2
)
INSERT INTO deliveries_rollupgone AS g ({COLUMNS})
SELECT tenant_id, series_id, begins_at, minutes, {", ".join(COUNTS)}, COALESCE(buckets, '{{}}'), COALESCE(numbers, '{{}}')
FROM counted LEFT JOIN lasted USING (series_id, begins_at)
ON CONFLICT (series_id, begins_at, minutes) DO UPDATE
SET {", ".join(f"{name} = g.{name} + EXCLUDED.{name}" for name in COUNTS)},
    -- A bucket may stand there twice; whoever reads it adds up.
    latency_buckets = g.latency_buckets || EXCLUDED.latency_buckets,
    latency_counts = g.latency_counts || EXCLUDED.latency_counts
"""  # noqa: S608


def take_out(cursor: Any, *, tenant_id: UUID, delivery_ids: Sequence[UUID]) -> None:
    """Deliveries that are about to be deleted, in the caller's transaction: open roll-ups go on counting them.

    `delivery_ids` rise. Those that are still owed are left out.
    """
    cursor.execute(
        TAKE_OUT,
        {
            "tenant": tenant_id,
            "ids": list(delivery_ids),
            "low": delivery_ids[0],
            "high": delivery_ids[-1],
            "since": time_of(delivery_ids[0]) - ROUNDING,
            "until": time_of(delivery_ids[-1]) + ROUNDING,
        },
    )


# --- fold -------------------------------------------------------------------------------------------------------------

FOLD = f"""
WITH part AS MATERIALIZED (
    DELETE FROM deliveries_rollup
    WHERE begins_at >= %(since)s AND begins_at < %(until)s AND minutes = 1 RETURNING *
)
INSERT INTO deliveries_rollup ({COLUMNS}, counted_at, is_open)
SELECT tenant_id, series_id, %(since)s, 60, {SUMS}, {BUCKETS}, min(counted_at), bool_or(is_open)
FROM (
    SELECT tenant_id, series_id, {", ".join(COUNTS)}, {NO_BUCKET}, counted_at, is_open FROM part
    UNION ALL
    SELECT tenant_id, series_id, {ZEROS}, h.bucket, sum(h.number)::bigint, NULL, false
    FROM part CROSS JOIN unnest(latency_buckets, latency_counts) AS h(bucket, number) GROUP BY 1, 2, 8
) each GROUP BY 1, 2
"""  # noqa: S608


def _fold(cursor: Any, state: State, now: datetime) -> bool:
    """One hour. Minutes and hours change places in one statement, so who reads sees each delivery once."""
    if state.hours_to is None or state.minutes_to is None:
        return False
    last = min(_floor(now - MINUTES_KEPT, HOUR), _floor(state.minutes_to, HOUR))
    if state.hours_to >= last:
        return False
    cursor.execute("SELECT min(begins_at) FROM deliveries_rollup WHERE begins_at >= %s", [state.hours_to])
    (filled,) = cursor.fetchone()
    hour = last if filled is None else min(_floor(filled, HOUR), last)
    if hour < last:
        cursor.execute(FOLD, {"since": hour, "until": hour + HOUR})
        hour += HOUR
    cursor.execute("UPDATE deliveries_rollupstate SET hours_to = %s", [hour])
    return hour < last


# --- forget -----------------------------------------------------------------------------------------------------------

FORGET = """
DELETE FROM {table} WHERE id = ANY(ARRAY(
    SELECT id FROM {table} WHERE begins_at < %s ORDER BY begins_at LIMIT 5000
))
"""


def _forget(cursor: Any, state: State, now: datetime) -> bool:  # noqa: ARG001 - as every step
    rows = 0
    for table in ("deliveries_rollup", "deliveries_rollupgone"):
        cursor.execute(FORGET.format(table=table), [now - KEPT])
        rows += cursor.rowcount
    return rows > 0
