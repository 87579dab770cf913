"""Scheduled repair: what a crash, an empty broker or a lost wake left behind. Called by `deliveries/tasks.py`.

No sweep scans what is pending, idle or finished: each costs the same with ten million finished deliveries as with a
thousand.
"""

import logging
import time
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from deliveries.pipeline import announce, counters, fifo, lanes, lease
from deliveries.pipeline.fan_out import OPERATIONAL_PREFIXES
from deliveries.pipeline.wake import nudge, wake
from tenants.clock import MOST_APART_SECONDS
from tenants.ids import floor_of

logger = logging.getLogger(__name__)

REPAIR_SECONDS = 30
"""How often `repair` runs."""

OVERLAP_SECONDS = 60
"""How far before its last run a repair begins: transactions that were open then have committed by now."""

WALK_SECONDS = 600
"""In this time the repair has walked over all lanes, a slice at each run."""

PIECE_SECONDS = 0.01
"""How long one statement of it should take."""

SHORTEST_PIECE, LONGEST_PIECE = 0.25, 4.0
"""Seconds of what was published. Where the database is slow, shorter ones would be more work, not less; and a long one
after a quiet time might be all of a burst."""

FEWEST_LANES_A_PIECE, MOST_LANES_A_PIECE = 20, 500

RESTING_SECONDS = 3.0
"""A run that has lasted for so long goes on without rests: other sweeps wait for its process."""

LONGEST_PENDING = timedelta(days=30)

EXPIRED_AT_ONCE = 1000
"""Deliveries in one transaction."""


def enough_dispatchers(wanted: int) -> bool:
    """Whether as many as wanted are alive and not about to end."""
    with connection.cursor() as cursor:
        cursor.execute(lease.ARE_ALIVE)
        row = cursor.fetchone()
    return bool(row and row[0] >= wanted)


def sweep(*, wanted: int) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        freed = lease.take_over(cursor)
    if freed:
        counters.add("lanes_taken_over", freed)
        logger.warning("took over lanes of dead dispatchers", extra={"lanes": freed})
    with connection.cursor() as cursor:
        cursor.execute(lanes.IS_ANY_READY)
        row = cursor.fetchone()
    if row and row[0] and not enough_dispatchers(wanted):
        nudge(lasts=MOST_APART_SECONDS)


# Lanes that should be looked at and do not say so. `due` is the oldest owed delivery of each.
WAKE_FORGOTTEN = """
WITH l AS MATERIALIZED (
    SELECT lane.endpoint_id, forgotten.due FROM deliveries_lane lane JOIN forgotten USING (endpoint_id)
    -- One whose time has come keeps it, and with it its place at the back of the queue.
    WHERE lane.dispatcher_id IS NULL AND (lane.ready_at IS NULL OR lane.ready_at > GREATEST(forgotten.due, now()))
    ORDER BY lane.endpoint_id FOR NO KEY UPDATE OF lane
)
UPDATE deliveries_lane lane SET ready_at = l.due, is_ready = GREATEST(l.due, lane.hold_until) <= now(),
       owed_from = CASE WHEN lane.owed_from IS NOT NULL THEN LEAST(lane.owed_from, l.due) END
FROM l WHERE lane.endpoint_id = l.endpoint_id
"""

# By key range, so the cost is that of what was published since, not of what is pending.
REPAIR_RECENT = f"""
WITH forgotten AS MATERIALIZED (
    SELECT d.endpoint_id, min({lanes.DUE}) AS due FROM deliveries_delivery d
    WHERE d.id >= %s AND d.id < %s AND {lanes.IS_OWED} AND {lanes.DUE} IS NOT NULL GROUP BY d.endpoint_id
),{WAKE_FORGOTTEN.replace("WITH l", " l", 1)}"""  # noqa: S608

REPAIR_SLICE = f"""
WITH forgotten AS MATERIALIZED (
    SELECT slice.endpoint_id, next.due
    FROM (SELECT endpoint_id, CASE WHEN %s THEN COALESCE(owed_from, '-infinity') ELSE '-infinity' END AS owed_from
          FROM deliveries_lane WHERE endpoint_id > %s AND endpoint_id <= %s AND dispatcher_id IS NULL) slice
    CROSS JOIN LATERAL (
        SELECT {lanes.DUE} AS due FROM deliveries_delivery d
        WHERE d.endpoint_id = slice.endpoint_id AND {lanes.IS_OWED} AND {lanes.DUE} >= slice.owed_from
        ORDER BY {lanes.DUE}, d.id LIMIT 1
    ) next
),{WAKE_FORGOTTEN.replace("WITH l", " l", 1)}"""  # noqa: S608

NEXT_SLICE = """
SELECT max(endpoint_id::text)::uuid, count(*)
FROM (SELECT endpoint_id FROM deliveries_lane WHERE endpoint_id > %s ORDER BY endpoint_id LIMIT %s) slice
"""

MANY_LANES = """
SELECT GREATEST(5000, reltuples * %s / %s)::int FROM pg_class WHERE oid = 'deliveries_lane'::regclass
"""


def repair(*, now: datetime) -> int:
    """Wake lanes whose wake was lost: those of recent deliveries, and a slice of all others. Returns how many.

    In short statements with rests between them: all at once it is a quarter of a second in which a core is missing to
    whoever publishes. Two at once do no harm; the state is moved by the one that ends first.
    """
    pace = Pace()
    with connection.cursor() as cursor:
        cursor.execute("SELECT repaired_at, walked_to FROM deliveries_sweepstate WHERE id = 1")
        repaired_at, walked_to = cursor.fetchone()
        # After a long stop the walk finds what the range leaves out.
        since = max(repaired_at, now - timedelta(seconds=WALK_SECONDS)) - timedelta(seconds=OVERLAP_SECONDS)
        woken = _repair_recent(cursor, pace, since=since, now=now)
        last, more = _repair_slice(cursor, pace, walked_to)
        woken += more
        cursor.execute(
            "UPDATE deliveries_sweepstate SET repaired_at = %s, walked_to = %s"
            " WHERE id = 1 AND repaired_at = %s AND walked_to = %s",
            [now, last, repaired_at, walked_to],
        )
    if woken:
        counters.add("lanes_repaired", woken)
        logger.warning("woke lanes whose wake was lost", extra={"lanes": woken})
        nudge(lasts=MOST_APART_SECONDS)
    return woken


class Pace:
    """Of work that can wait: rests twice as long as each piece took, so that a third of a core is the most it takes."""

    def __init__(self) -> None:
        self.rests_until = time.monotonic() + RESTING_SECONDS

    def rest(self, began: float) -> float:
        """How long the piece took that began then, by time.monotonic()."""
        now = time.monotonic()
        time.sleep(max(0.0, min(2 * (now - began), self.rests_until - now)))
        return now - began


def fitting(piece: float, *, seconds: float, low: float, high: float) -> float:
    """How large the next piece should be, after this one took so long."""
    if seconds > PIECE_SECONDS:
        return max(piece / 2, low)
    return min(piece * 2, high) if seconds < PIECE_SECONDS / 2 else piece


def _repair_recent(cursor: CursorWrapper, pace: Pace, *, since: datetime, now: datetime) -> int:
    """Pieces of so much time that each is done in a moment, however much was published in it."""
    woken, piece = 0, 1.0
    while since < now:
        until = since + timedelta(seconds=piece)
        began = time.monotonic()
        # The last one takes what clocks that are ahead of the database's have made.
        top = until if until < now else now + timedelta(days=1)
        cursor.execute(REPAIR_RECENT, [floor_of(since), floor_of(top)])
        woken += cursor.rowcount
        piece = fitting(piece, seconds=pace.rest(began), low=SHORTEST_PIECE, high=LONGEST_PIECE)
        since = until
    return woken


def _repair_slice(cursor: CursorWrapper, pace: Pace, walked_to: UUID) -> tuple[UUID, int]:
    """Where the walk goes on next time, and how many lanes were woken."""
    is_piling_up = lanes.are_piling_up(cursor)
    cursor.execute(MANY_LANES, [REPAIR_SECONDS, WALK_SECONDS])
    (left,) = cursor.fetchone()
    woken, piece = 0, float(MOST_LANES_A_PIECE)
    while left > 0:
        began = time.monotonic()
        cursor.execute(NEXT_SLICE, [walked_to, min(int(piece), left)])
        last, count = cursor.fetchone()
        if not count:
            return lanes.NO_TENANT, woken
        cursor.execute(REPAIR_SLICE, [is_piling_up, walked_to, last])
        woken += cursor.rowcount
        walked_to, left = last, left - count
        piece = fitting(piece, seconds=pace.rest(began), low=FEWEST_LANES_A_PIECE, high=MOST_LANES_A_PIECE)
    return walked_to, woken


# The oldest by the index of ages. Passed over are those that a publisher has locked, to keep its new answer there: a sweep
# that waits for publishers could wait for ever, and drop what is no longer old.
EXPIRE_IDEMPOTENCY = """
WITH old AS MATERIALIZED (
    SELECT space, key FROM tenants_idempotencyrecord
    WHERE created_at < now() - interval '24 hours' ORDER BY created_at LIMIT 5000
), l AS MATERIALIZED (
    SELECT record.space, record.key FROM tenants_idempotencyrecord record JOIN old USING (space, key)
    WHERE record.created_at < now() - interval '24 hours'
    ORDER BY record.space, record.key FOR UPDATE OF record SKIP LOCKED
)
DELETE FROM tenants_idempotencyrecord record USING l WHERE record.space = l.space AND record.key = l.key
"""


def expire_idempotency() -> int:
    """Drop records past their day, in batches. Returns how many. What is passed over is left to the next run."""
    dropped: int = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(EXPIRE_IDEMPOTENCY)
            dropped += cursor.rowcount
            if not cursor.rowcount:
                return dropped


# By the partial index of what is owed, in old partitions only.
OLD = f"""
SELECT d.id, d.endpoint_id, d.ordering_key FROM deliveries_delivery d JOIN tenants_tenant t ON t.id = d.tenant_id
WHERE d.id < %s AND {lanes.IS_OWED} AND d.created_at < %s - make_interval(days => GREATEST(30, t.retention_days))
ORDER BY d.id LIMIT {EXPIRED_AT_ONCE}
"""  # noqa: S608

# In key order, as every statement that touches several deliveries.
EXPIRE = f"""
WITH ended AS MATERIALIZED (
    SELECT d.id, d.status FROM deliveries_delivery d
    WHERE d.id = ANY(%(ids)s::uuid[]) AND d.id >= %(low)s AND d.id <= %(high)s AND {lanes.IS_OWED}
    ORDER BY d.id FOR NO KEY UPDATE
)
UPDATE deliveries_delivery d
SET status = CASE WHEN d.status = 'pending' THEN 'failed' ELSE d.status END,
    cancel_reason = CASE WHEN d.status = 'pending' THEN 'expired' ELSE d.cancel_reason END,
    completed_at = COALESCE(d.completed_at, now()), next_attempt_at = NULL, manual_requested_at = NULL
FROM ended WHERE d.id = ended.id AND d.id >= %(low)s AND d.id <= %(high)s
RETURNING d.tenant_id, d.id, d.event_type, ended.status = 'pending'
"""  # noqa: S608


def expire_pending(*, now: datetime) -> int:
    """End what waited longer than it is kept: the tenant's retention, or 30 days, the longer. Returns how many.

    Who subscribed to `delivery.exhausted` hears of them as of any that failed for good, and who is next in line goes on.
    """
    ended: int = 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(OLD, [floor_of(now - LONGEST_PENDING), now])
            old = cursor.fetchall()
            if not old:
                return ended
            lines = {(endpoint_id.bytes, key) for _, endpoint_id, key in old if key is not None}
            fifo.lock_lines(cursor, lines)
            wanted = [delivery_id for delivery_id, *_ in old]
            cursor.execute(EXPIRE, {"ids": wanted, "low": wanted[0], "high": wanted[-1]})
            expired = cursor.fetchall()
            # The others had ended before, and waited for a manual attempt.
            failed = [row for row in expired if row[3]]
            # Of the platform's own events nothing is told: that would make further ones for ever.
            told = [(row[0], row[1]) for row in failed if not row[2].startswith(OPERATIONAL_PREFIXES)]
            if told:
                announce.keep_expired(cursor, told)
            fifo.pass_on(cursor, lines)
        counters.add("deliveries_ended:failed", len(failed))
        wake([(UUID(bytes=endpoint_id), None) for endpoint_id in {endpoint_id for endpoint_id, _ in lines}])
        ended += len(expired)
        if len(old) < EXPIRED_AT_ONCE:
            return ended


MOST_COUNTED = 10_000

# By the partial index of what is owed; a sequential scan would read all history.
COUNT_PENDING = (
    f"SELECT count(*) FROM (SELECT FROM deliveries_delivery d WHERE {lanes.IS_OWED} LIMIT %s) owed"  # noqa: S608
)

CORRECT_BACKLOG = """
INSERT INTO deliveries_metrictotal AS total (key, value)
SELECT 'backlog_correction', %s - COALESCE(sum(CASE WHEN key LIKE 'deliveries_ended:%%' THEN -value ELSE value END), 0)
FROM deliveries_metrictotal
WHERE key LIKE 'deliveries_made:%%' OR key LIKE 'deliveries_ended:%%' OR key = 'backlog_correction'
ON CONFLICT (key) DO UPDATE SET value = total.value + EXCLUDED.value
"""


def correct_backlog() -> int | None:
    """What killed processes did not count any more, made up for while little is pending. Returns how much is.

    Metrics never count what is pending: they take what ended from what was made. Here it is counted, but no further
    than a bound; a real backlog is left for later.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL statement_timeout = '3s'")
        cursor.execute(COUNT_PENDING, [MOST_COUNTED + 1])
        row = cursor.fetchone()
        pending: int = row[0] if row else 0
        if pending > MOST_COUNTED:
            return None
        cursor.execute(CORRECT_BACKLOG, [pending])
    return pending
