"""The one function that tells lanes that work waits, and the nudge that follows it.

Called after commit by everything that makes work: `ingest`, and the services for retry, enable, resume and the rest.
Nothing here can change the answer of what was committed: a failure is logged, counted and left to the sweeps.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from math import inf
from uuid import UUID

import psycopg
from celery import current_app
from django.db import connection, transaction

from deliveries.models import Delivery
from deliveries.pipeline import arrays, counters, fifo
from deliveries.pipeline.database import Row

logger = logging.getLogger(__name__)

NUDGE_PAUSE_SECONDS = 0.05
"""A process sends at most one nudge in this time. A nudge is a hint: one is as good as twenty."""

LONGEST_NUDGE_PAUSE_SECONDS = 1.0
"""Between those that follow one another: pauses double up to the sweep's own, as what the first ones did not bring about
the next will not either. So that the broker gets fewer than 25 messages a second from twenty web processes, sweeps among
them, however much is published while no dispatcher has room."""

NUDGE_EXPIRES_SECONDS = 5
"""By then the sweep has done what an undelivered nudge would have. Where clocks are further apart, it always does: its own
nudges last longer (`MOST_APART_SECONDS`)."""

_AT = """
CASE WHEN %(seconds)s::float8[] IS NULL THEN now()
     ELSE COALESCE(to_timestamp((%(seconds)s::float8[])[array_position(%(ids)s::uuid[], lane.endpoint_id)]), now()) END
"""

# A statement of its own after the commit: the holder clears `ready_at` in one statement and looks for deliveries in a
# later one, so whichever way the two interleave, one sees the other. Lanes are locked in key order. Each is named
# (`= ANY`): a join's plan, made once, might read all lanes that there came to be since.
WAKE = f"""
WITH l AS MATERIALIZED (
    SELECT lane.endpoint_id FROM deliveries_lane lane
    WHERE lane.endpoint_id = ANY(%(ids)s::uuid[]) AND (lane.ready_at IS NULL OR lane.ready_at > {_AT})
    ORDER BY lane.endpoint_id FOR NO KEY UPDATE
), woken AS (
    UPDATE deliveries_lane lane
    SET ready_at = {_AT}, is_ready = GREATEST({_AT}, lane.hold_until) <= now()
    WHERE lane.endpoint_id = ANY(ARRAY(SELECT endpoint_id FROM l))
    RETURNING lane.is_ready AND lane.dispatcher_id IS NULL AND NOT lane.is_paused AS needs_dispatcher
)
SELECT bool_or(needs_dispatcher) AND NOT EXISTS (
    -- Renewed lately, so it polls; one killed since is replaced by the sweep.
    SELECT FROM deliveries_dispatcher
    WHERE alive_until > now() + interval '12 seconds' AND has_room AND NOT is_draining
) FROM woken
"""  # noqa: S608 - an expression of ours

Wanted = tuple[bytes, float | None]
"""Endpoint id and the Unix time from which it has work; None: now."""


def wake_lanes(publisher: psycopg.Connection[Row], wanted: Sequence[Wanted]) -> None:
    """For the pipeline's own connections, each lane once. Raises psycopg.Error; the caller has committed."""
    is_scheduled = any(at is not None for _, at in wanted)
    parameters = {
        "ids": arrays.uuids([lane for lane, _ in wanted]),
        "seconds": arrays.nullable_float8s([at for _, at in wanted]) if is_scheduled else None,
    }
    row = publisher.execute(WAKE, parameters).fetchone()
    if row is not None and row[0]:
        nudge()


def wake(lanes: Iterable[tuple[UUID, datetime | None]]) -> None:
    """For services, after their commit (`transaction.on_commit`). Never raises."""
    wanted: dict[UUID, float | None] = {}
    for lane, at in lanes:
        known = wanted.get(lane, inf)
        wanted[lane] = None if at is None or known is None else min(at.timestamp(), known)
    if not wanted:
        return
    ids = sorted(wanted)
    is_scheduled = any(at is not None for at in wanted.values())
    seconds = [wanted[lane] for lane in ids] if is_scheduled else None
    try:
        with connection.cursor() as cursor:
            cursor.execute(WAKE, {"ids": ids, "seconds": seconds})
            row = cursor.fetchone()
    except Exception:  # the caller has committed
        logger.exception("waking lanes failed, the repair sweep will")
        counters.add("wake_errors:service")
        return
    if row is not None and row[0]:
        nudge()


# Locked in key order. One that is served will be looked at anyway.
LET_THROUGH = """
WITH l AS MATERIALIZED (
    SELECT endpoint_id FROM deliveries_lane
    WHERE endpoint_id = ANY(%s) AND dispatcher_id IS NULL AND hold_reason = 'circuit' AND hold_until > now()
    ORDER BY endpoint_id FOR NO KEY UPDATE
)
UPDATE deliveries_lane lane
SET hold_until = NULL, hold_reason = NULL, is_ready = COALESCE(lane.ready_at <= now(), false)
FROM l WHERE lane.endpoint_id = l.endpoint_id
"""


def let_through(endpoint_ids: Iterable[UUID]) -> None:
    """Somebody acts on these: let an open circuit end its wait and send its next probe. Before their `wake`."""
    with connection.cursor() as cursor:
        cursor.execute(LET_THROUGH, [list(endpoint_ids)])


# Also of one that is served: `resets` keeps its holder from giving it back with a wait. In key order.
END_HOLDS = """
WITH l AS MATERIALIZED (
    SELECT endpoint_id FROM deliveries_lane WHERE endpoint_id = ANY(%s) ORDER BY endpoint_id FOR NO KEY UPDATE
)
UPDATE deliveries_lane lane
SET hold_until = NULL, hold_reason = NULL, is_ready = COALESCE(lane.ready_at <= now(), false), resets = lane.resets + 1
FROM l WHERE lane.endpoint_id = l.endpoint_id
"""


def end_holds(endpoint_ids: Iterable[UUID]) -> None:
    """These are stopped for good: whatever their lanes wait for, their holder is to end what is pending. Before their `wake`."""
    with connection.cursor() as cursor:
        cursor.execute(END_HOLDS, [list(endpoint_ids)])


# Never due before now by the database's clock, whatever ours says. In key order. The lines first, as by everybody: who
# ends a head locks the next one behind it, whichever key that has.
REQUEST = """
WITH l AS MATERIALIZED (
    SELECT d.id FROM deliveries_delivery d
    WHERE d.id = ANY(%(ids)s::uuid[]) AND d.id >= %(low)s AND d.id <= %(high)s AND d.manual_requested_at IS NULL
    ORDER BY d.id FOR NO KEY UPDATE
)
UPDATE deliveries_delivery d SET manual_requested_at = GREATEST(%(now)s, now())
FROM l WHERE d.id = l.id AND d.id >= %(low)s AND d.id <= %(high)s
"""


def request_manual_attempt(deliveries: Iterable[Delivery], *, now: datetime) -> int:
    """One attempt more, whatever the state. Inside the caller's transaction; wakes the lanes after it.

    Returns how many deliveries took the request. The step in the retry schedule stays where it is.
    """
    rows = list(deliveries)
    if not rows:
        return 0
    wanted = [row.id for row in rows]
    with connection.cursor() as cursor:
        fifo.lock_lines(
            cursor,
            {(row.endpoint_id.bytes, row.ordering_key) for row in rows if row.ordering_key is not None},
        )
        cursor.execute(REQUEST, {"ids": wanted, "low": min(wanted), "high": max(wanted), "now": now})
        changed: int = cursor.rowcount
    lanes = [(row.endpoint_id, None) for row in rows]
    let_through({row.endpoint_id for row in rows})
    transaction.on_commit(lambda: wake(lanes))
    return changed


class _Nudger:
    """Sends nudges from a thread of its own: a broker that accepts and never answers must not delay a reply."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._lasts = NUDGE_EXPIRES_SECONDS

    def want(self, *, lasts: int) -> None:
        self._lasts = max(self._lasts, lasts)
        self._wanted.set()
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                # A fork leaves the thread behind and the object here.
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="nudger", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        pause, last = 0.0, -inf
        while True:
            self._wanted.wait()
            self._wanted.clear()
            lasts, self._lasts = self._lasts, NUDGE_EXPIRES_SECONDS
            now = time.monotonic()
            pause, last = next_pause(pause, seconds=now - last), now
            try:
                current_app.send_task("deliveries.dispatch", queue="dispatch", expires=lasts, retry=False)
            except Exception as error:  # noqa: BLE001 - whatever the broker's client raises: the sweep starts one
                counters.add("broker_errors:nudge")
                logger.warning("nudge not sent", extra={"error": type(error).__name__})
            time.sleep(pause)


def next_pause(pause: float, *, seconds: float) -> float:
    """How long not to nudge, so many seconds after the nudge that this pause followed."""
    if seconds > 2 * LONGEST_NUDGE_PAUSE_SECONDS:
        return NUDGE_PAUSE_SECONDS
    return min(max(NUDGE_PAUSE_SECONDS, 2 * pause), LONGEST_NUDGE_PAUSE_SECONDS)


_nudger = _Nudger()


def nudge(*, lasts: int = NUDGE_EXPIRES_SECONDS) -> None:
    """Ask for a dispatcher, soon. Returns at once and never fails. `lasts`: seconds, by this machine's clock."""
    try:
        _nudger.want(lasts=lasts)
    except Exception:  # no thread is to be had: the sweep starts a dispatcher
        logger.exception("a dispatcher could not be asked for")
        counters.add("wake_errors:nudge")
