"""The statements about lanes: take, load, release, look again. Called by `dispatch` and the sweeps alone.

Every write to a lane says `dispatcher_id = <me>`; a lane that does not come back is lost. Uuids are 16 bytes here
(see `arrays`). Statements that touch several lanes lock them in key order, or skip those that are locked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from deliveries.pipeline import arrays, counters, fifo
from deliveries.pipeline.database import Row, again_after_deadlock
from deliveries.pipeline.health import Health

OPTIONS = (
    "-c synchronous_commit=off -c plan_cache_mode=force_generic_plan"
    " -c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
)
"""Of the connection that takes, loads and releases lanes.

A crash of the database may undo the last of it, as if it had come a moment before: its holder's run ends with the
connection, and the next one finds lanes as they were. At most what was in the air repeats. Waiting for the disk thrice a
round would make everybody wait whose work comes with the next one.

Its statements are few and each has the one index that it is for, so they are planned once (half of what they cost was
planning), and by index whatever a table looked like then: that of an empty partition is no plan for a full one. Row by row,
too: for how many lanes a statement will be is not known then, and with a thousand assumed it reads all there are."""

IS_MINE = "(lane.dispatcher_id = %s) IS TRUE"
"""Of lanes that are named by their keys. Said so that no index serves it: by the one of lanes that are held, all of mine
would be read for each of those few, as that one has grown since the planner last heard of it."""

Connection = psycopg.Connection[Row]


def are_piling_up(connection: Any) -> bool:
    """Whether there are many versions of each lane that nobody needs, and PostgreSQL does not come to clean them.

    Or may not: somebody's snapshot is as old.
    """
    row = connection.execute(
        "SELECT n_dead_tup > 5000 + 20 * n_live_tup FROM pg_stat_user_tables"
        " WHERE relid = 'deliveries_lane'::regclass"
    ).fetchone()
    return bool(row and row[0])


# --- take -------------------------------------------------------------------------------------------------------------

# Scheduled and held lanes that have fallen due become ready ones. One index probe if there are none.
PROMOTE = """
WITH due AS MATERIALIZED (
    SELECT endpoint_id FROM deliveries_lane
    WHERE NOT is_ready AND dispatcher_id IS NULL AND NOT is_paused AND ready_at IS NOT NULL
      AND GREATEST(ready_at, hold_until) <= now()
    ORDER BY GREATEST(ready_at, hold_until) LIMIT 1000
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE deliveries_lane lane SET is_ready = true FROM due WHERE lane.endpoint_id = due.endpoint_id
"""

IS_READY = """
EXISTS (SELECT FROM deliveries_lane WHERE is_ready AND dispatcher_id IS NULL AND NOT is_paused)
"""

IS_DUE = """
EXISTS (SELECT FROM deliveries_lane WHERE NOT is_ready AND dispatcher_id IS NULL AND NOT is_paused
        AND ready_at IS NOT NULL AND GREATEST(ready_at, hold_until) <= now())
"""

IS_ANY_READY = f"SELECT {IS_READY} OR {IS_DUE}"


def is_any_ready(connection: Any) -> bool:
    """Two index probes."""
    row = connection.execute(IS_ANY_READY).fetchone()
    return bool(row and row[0])


# Tenants in turn from where the last take stopped, found by skipping over the index of ready lanes; then each one's
# lanes, longest ready first. Served, scheduled, held and paused lanes are not in that index. A few index probes if
# there is nothing; one row says so.
TAKE = f"""
WITH RECURSIVE ready_tenant AS (
    (SELECT tenant_id FROM deliveries_lane
     WHERE is_ready AND dispatcher_id IS NULL AND NOT is_paused AND tenant_id > %(after)s
     ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT tenant_id FROM deliveries_lane
            WHERE is_ready AND dispatcher_id IS NULL AND NOT is_paused AND tenant_id > ready_tenant.tenant_id
            ORDER BY tenant_id LIMIT 1)
    FROM ready_tenant WHERE ready_tenant.tenant_id IS NOT NULL
), others AS MATERIALIZED (
    SELECT tenant_id FROM ready_tenant
    WHERE tenant_id IS NOT NULL AND tenant_id <> ALL(%(full)s::uuid[]) AND tenant_id <> ALL(%(busy)s::uuid[])
    LIMIT %(tenants)s
), turn AS MATERIALIZED (
    SELECT tenant_id FROM others
    UNION ALL
    SELECT tenant_id FROM ready_tenant
    WHERE tenant_id = ANY(%(busy)s::uuid[]) AND tenant_id <> ALL(%(full)s::uuid[]) AND NOT EXISTS (SELECT FROM others)
), l AS MATERIALIZED (
    SELECT lane.endpoint_id FROM turn CROSS JOIN LATERAL (
        SELECT endpoint_id FROM deliveries_lane
        WHERE tenant_id = turn.tenant_id AND is_ready AND dispatcher_id IS NULL AND NOT is_paused
        ORDER BY ready_at
        LIMIT GREATEST(1, %(lanes)s / (SELECT count(*) FROM turn))
        FOR NO KEY UPDATE SKIP LOCKED
    ) lane
), taken AS (
    UPDATE deliveries_lane lane SET dispatcher_id = %(me)s
    FROM l JOIN deliveries_endpoint endpoint ON endpoint.id = l.endpoint_id
    WHERE lane.endpoint_id = l.endpoint_id
      AND EXISTS (SELECT FROM deliveries_dispatcher WHERE id = %(me)s AND alive_until > now())
    RETURNING lane.endpoint_id, lane.tenant_id, lane.slots, endpoint.version, lane.tokens,
              EXTRACT(EPOCH FROM now() - lane.tokens_at)::float8, lane.resets,
              CASE WHEN lane.failing_since IS NOT NULL THEN ARRAY[
                  EXTRACT(EPOCH FROM lane.failing_since), EXTRACT(EPOCH FROM lane.failed_at), lane.failures,
                  lane.is_own_failing::int, lane.pause_seconds, EXTRACT(EPOCH FROM lane.circuit_opened_at),
                  lane.circuit_seconds]::float8[] END,
              lane.owed_from
)
SELECT {IS_DUE}, EXISTS (SELECT FROM others), ARRAY(
    SELECT t.id FROM unnest(%(full)s::uuid[]) AS t(id) CROSS JOIN LATERAL (
        SELECT FROM deliveries_lane WHERE tenant_id = t.id AND is_ready AND dispatcher_id IS NULL AND NOT is_paused LIMIT 1
    ) ready
), (SELECT max(tenant_id::text) FROM turn), (SELECT count(*) FROM turn), taken.*
FROM (SELECT) always LEFT JOIN taken ON true
"""  # noqa: S608 - conditions of ours

TENANTS_A_TURN = 64

NO_TENANT = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Taken:
    endpoint_id: bytes
    tenant_id: bytes
    slots: float
    version: int
    tokens: float
    seconds_since: float | None
    """Since the tokens were counted; None: never."""
    resets: int
    kept_health: list[float | None] | None
    """None: it is well."""
    owed_from: datetime | None
    """Nothing is owed that was due before. None: not known."""

    def health(self) -> Health | None:
        if self.kept_health is None:
            return None
        failing_since, failed_at, failures, is_own, pause, opened_at, wait = self.kept_health
        assert failing_since is not None
        assert failed_at is not None
        return Health(failing_since, failed_at, int(failures or 0), bool(is_own), pause, opened_at, wait)

    @property
    def is_probed(self) -> bool:
        """Its circuit is open, and its wait is over: one request shows how it does."""
        return self.kept_health is not None and self.kept_health[5] is not None


@dataclass(frozen=True, slots=True)
class Take:
    lanes: list[Taken]
    after: UUID
    """The tenant to go on behind next time."""
    is_due: bool
    """Scheduled lanes are: promote them."""
    is_of_others: bool
    """Tenants that are not busy had lanes; so the busy were not asked."""
    passed_over: set[bytes]
    """Full tenants that have lanes to take."""


def promote(connection: Connection) -> int:
    return connection.execute(PROMOTE).rowcount


def take(
    connection: Connection,
    *,
    me: UUID,
    lanes: int,
    after: UUID,
    full_tenants: Sequence[bytes] = (),
    busy_tenants: Sequence[bytes] = (),
) -> Take:
    """Up to about `lanes` of them. `full_tenants` have their share already; `busy_tenants` come if no others do."""
    parameters = {
        "me": me,
        "after": after,
        "lanes": lanes,
        "tenants": TENANTS_A_TURN,
        "full": arrays.uuids(full_tenants),
        "busy": arrays.uuids(busy_tenants),
    }
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(TAKE, parameters).fetchall()
    is_due, is_of_others, passed_over, last, tenants = rows[0][:5]
    return Take(
        [Taken(*row[5:]) for row in rows if row[5] is not None],
        # A turn that was not full reached the last tenant: begin again at the first.
        UUID(last) if tenants >= TENANTS_A_TURN else NO_TENANT,
        is_due,
        is_of_others,
        set(passed_over),
    )


# --- load -------------------------------------------------------------------------------------------------------------

IS_OWED = "(d.status = 'pending' OR d.manual_requested_at IS NOT NULL)"
"""The predicate of the index `delivery_due`, to the letter."""

DUE = "LEAST(d.next_attempt_at, d.manual_requested_at)"

# `until` keeps the planner off the partitions of the coming weeks, which are empty.
LOAD = f"""
SELECT d.endpoint_id, d.id, d.event_id, d.attempt_count, d.schedule_step, d.trigger, d.size,
       d.body IS NOT NULL, d.next_attempt_at <= now(), d.manual_requested_at, d.due, d.preparation_error, d.ordering_key
FROM unnest(%s::uuid[], %s::int[], %s::timestamptz[], %s::uuid[]) AS lane(endpoint_id, wanted, after_due, after_id)
CROSS JOIN LATERAL (
    SELECT d.*, {DUE} AS due FROM deliveries_delivery d
    WHERE d.endpoint_id = lane.endpoint_id AND {IS_OWED} AND {DUE} <= now()
      AND ({DUE}, d.id) > (lane.after_due, lane.after_id)
      AND d.id <= %s AND d.id <> ALL(%s::uuid[])
    ORDER BY {DUE}, d.id LIMIT lane.wanted
) d
"""  # noqa: S608


@dataclass(slots=True)
class Wanted:
    """What to load of a lane: how many, and behind which (due, id) within this turn."""

    endpoint_id: bytes
    count: int
    after_due: Any
    after_id: bytes


@dataclass(slots=True, eq=False)
class Owed:
    """A delivery in memory: ids and sizes, not payloads."""

    endpoint_id: bytes
    id: bytes
    event_id: bytes
    attempt_count: int
    schedule_step: int
    trigger: str
    size: int
    has_body: bool
    is_automatic_due: bool
    manual_requested_at: Any
    due: Any
    preparation_error: str | None
    ordering_key: str | None

    @property
    def payload_key(self) -> bytes:
        """What a transformation made belongs to this delivery alone; the event's data to all of the event's."""
        return self.id if self.has_body else self.event_id


def load(
    connection: Connection, *, wanted: Sequence[Wanted], held: Sequence[bytes], until: bytes
) -> list[Owed]:
    """What is due on these lanes, oldest first in each. `held`: delivery ids that are in memory already."""
    with connection.cursor(binary=True) as cursor:
        cursor.execute(
            LOAD,
            [
                arrays.uuids([lane.endpoint_id for lane in wanted]),
                arrays.int4s([lane.count for lane in wanted]),
                [lane.after_due for lane in wanted],
                arrays.uuids([lane.after_id for lane in wanted]),
                UUID(bytes=until),
                arrays.uuids(held),
            ],
        )
        return [Owed(*row) for row in cursor.fetchall()]


# Behind now: what is due already is loaded.
PLANNED = f"""
SELECT lane.endpoint_id, EXTRACT(EPOCH FROM next.due - now())::float8
FROM unnest(%s::uuid[]) AS lane(endpoint_id)
CROSS JOIN LATERAL (
    SELECT {DUE} AS due FROM deliveries_delivery d
    WHERE d.endpoint_id = lane.endpoint_id AND {IS_OWED} AND {DUE} > now() AND d.id <= %s
    ORDER BY {DUE}, d.id LIMIT 1
) next
"""  # noqa: S608


def planned(connection: Connection, *, endpoint_ids: Sequence[bytes], until: bytes) -> dict[bytes, float]:
    """In how many seconds the next of these lanes falls due; without those that have nothing planned."""
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(PLANNED, [arrays.uuids(endpoint_ids), UUID(bytes=until)]).fetchall()
    return dict(rows)


READ_AHEAD = 64
"""Of one line (ordering key), what is loaded behind its head, so that the next can start as soon as the one before ends."""

READ_AHEAD_LINES = 64
"""With more heads than this there is enough to do without reading ahead."""

# Behind each head, in order. The first row has to be the head itself, or it is one no more.
FOLLOWERS = """
SELECT d.endpoint_id, d.id, d.event_id, d.attempt_count, d.schedule_step, d.trigger, d.size,
       d.body IS NOT NULL, true, d.manual_requested_at, now(), d.preparation_error, d.ordering_key,
       line.head, d.next_attempt_at IS NOT NULL OR e.deliver_at > now()
FROM unnest(%s::uuid[], %s::text[], %s::uuid[]) AS line(endpoint_id, ordering_key, head)
CROSS JOIN LATERAL (
    SELECT * FROM deliveries_delivery d
    WHERE d.endpoint_id = line.endpoint_id AND d.ordering_key = line.ordering_key
      AND d.ordering_key IS NOT NULL AND d.status = 'pending'
    ORDER BY d.sequence, d.id LIMIT %s
) d
LEFT JOIN deliveries_event e ON e.id = d.event_id
ORDER BY line.head, d.sequence, d.id
"""


def load_followers(connection: Connection, *, heads: Sequence[Owed]) -> dict[bytes, list[Owed]]:
    """By the id of the head: those that come after it, as far as nothing but the one before keeps them waiting."""
    each = max(1, READ_AHEAD // len(heads))
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(
            FOLLOWERS,
            [
                arrays.uuids([head.endpoint_id for head in heads]),
                arrays.texts([head.ordering_key for head in heads]),
                arrays.uuids([head.id for head in heads]),
                each + 1,
            ],
        ).fetchall()
    found: dict[bytes, list[Owed]] = {}
    broken: set[bytes] = set()
    for *fields, head, has_time in rows:
        owed = Owed(*fields)
        if head not in found:
            found[head] = []
            if owed.id != head:
                broken.add(head)
        elif has_time or owed.attempt_count or owed.manual_requested_at is not None:
            broken.add(head)
        elif head not in broken:
            found[head].append(owed)
    return {head: owed for head, owed in found.items() if owed}


def load_events(connection: Connection, event_ids: Sequence[bytes]) -> list[Row]:
    """(key, event id, tenant, type, occurred_at, data or None if erased, hops, channels, traceparent).

    Here the key is the event.
    """
    low, high = UUID(bytes=min(event_ids)), UUID(bytes=max(event_ids))
    with connection.cursor(binary=True) as cursor:
        return cursor.execute(
            "SELECT id, id, tenant_id, type, occurred_at, data, hops, channels, traceparent FROM deliveries_event"
            " WHERE id = ANY(%s) AND id >= %s AND id <= %s",
            [arrays.uuids(event_ids), low, high],
        ).fetchall()


def erased(key: bytes) -> Row:
    """A row as of `load_events` for a payload that is no longer there."""
    return (key, key, NO_TENANT.bytes, "", datetime.now(UTC), None, 0, None, None)


def load_bodies(connection: Connection, delivery_ids: Sequence[bytes]) -> list[Row]:
    """As `load_events`, with the transformation results kept with deliveries; the key is the delivery."""
    low, high = UUID(bytes=min(delivery_ids)), UUID(bytes=max(delivery_ids))
    with connection.cursor(binary=True) as cursor:
        return cursor.execute(
            "SELECT d.id, e.id, e.tenant_id, e.type, e.occurred_at, CASE WHEN e.data IS NOT NULL THEN d.body END,"
            " e.hops, e.channels, e.traceparent FROM deliveries_delivery d JOIN deliveries_event e ON e.id = d.event_id"
            " WHERE d.id = ANY(%s) AND d.id >= %s AND d.id <= %s",
            [arrays.uuids(delivery_ids), low, high],
        ).fetchall()


# --- release ----------------------------------------------------------------------------------------------------------

LATEST_COMMIT_SECONDS = 30
"""What is found owed now may be joined by what was due so long before: it was being committed."""

CLEAR = f"""
WITH l AS MATERIALIZED (
    SELECT endpoint_id FROM deliveries_lane lane WHERE endpoint_id = ANY(%s) AND {IS_MINE}
    ORDER BY endpoint_id FOR NO KEY UPDATE
)
UPDATE deliveries_lane lane SET ready_at = NULL, is_ready = false FROM l WHERE lane.endpoint_id = l.endpoint_id
"""  # noqa: S608

# A later statement than CLEAR, with a later snapshot: a publisher that committed before CLEAR is seen here, one that
# commits after it finds `ready_at` empty and sets it. GREATEST(now(), …) puts a served lane at the back. (LEAST and
# GREATEST skip NULL.)
LOOK_AGAIN = f"""
WITH l AS MATERIALIZED (
    SELECT lane.endpoint_id, u.slots, u.tokens,
           -- Also if a service stopped it meanwhile, whose wake changed nothing: what is planned for later ends now.
           u.is_unfinished OR lane.resets <> u.resets AS is_unfinished,
           COALESCE(to_timestamp(u.owed_from), '-infinity') AS owed_from,
           -- Wiped by a service meanwhile: it waits no longer.
           CASE WHEN lane.resets = u.resets THEN u.hold_seconds END AS hold_seconds,
           CASE WHEN lane.resets = u.resets THEN u.hold_reason END AS hold_reason
    FROM unnest(%s::uuid[], %s::float8[], %s::float8[], %s::text[], %s::float8[], %s::bool[], %s::int[],
                %s::float8[])
         AS u(endpoint_id, slots, hold_seconds, hold_reason, tokens, is_unfinished, resets, owed_from)
    JOIN deliveries_lane lane ON lane.endpoint_id = u.endpoint_id AND {IS_MINE}
    ORDER BY lane.endpoint_id FOR NO KEY UPDATE OF lane
), next AS MATERIALIZED (
    SELECT l.*, now() + make_interval(secs => l.hold_seconds) AS hold_until,
           CASE WHEN l.is_unfinished THEN now() ELSE
               (SELECT {DUE} FROM deliveries_delivery d
                WHERE d.endpoint_id = l.endpoint_id AND {IS_OWED} AND {DUE} >= l.owed_from AND d.id <= %s
                ORDER BY {DUE}, d.id LIMIT 1) END AS due
    FROM l
)
UPDATE deliveries_lane lane
SET dispatcher_id = NULL, slots = next.slots, tokens = COALESCE(next.tokens, 0),
    tokens_at = CASE WHEN next.tokens IS NULL THEN NULL ELSE now() END, hold_until = next.hold_until, hold_reason = next.hold_reason,
    ready_at = CASE WHEN lane.ready_at IS NULL AND next.due IS NULL THEN NULL
                    ELSE GREATEST(now(), LEAST(lane.ready_at, next.due)) END,
    is_ready = (lane.ready_at IS NOT NULL OR next.due IS NOT NULL)
               AND COALESCE(GREATEST(LEAST(lane.ready_at, next.due), next.hold_until) <= now(), false),
    owed_from = CASE WHEN NOT next.is_unfinished THEN LEAST(next.due, now() - interval '{LATEST_COMMIT_SECONDS} seconds') END
FROM next WHERE lane.endpoint_id = next.endpoint_id
RETURNING lane.endpoint_id
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Release:
    endpoint_id: bytes
    slots: float
    hold_seconds: float | None = None
    hold_reason: str | None = None
    tokens: float | None = None
    is_unfinished: bool = False
    """There is more to do, whatever the deliveries say: those that wait in a line have no time of their own."""
    resets: int = 0
    """As when it was taken."""
    owed_from: datetime | None = None
    """Where to begin to look for what is owed; None: at the beginning."""


def release(connection: Connection, *, me: UUID, lanes: Sequence[Release], until: bytes) -> int:
    """Give lanes back whose every result is committed. Returns how many were still mine."""
    clear(connection, me=me, lanes=lanes)
    return look_again(connection, me=me, lanes=lanes, until=until)


def clear(connection: Connection, *, me: UUID, lanes: Sequence[Release]) -> None:
    connection.execute(CLEAR, [arrays.uuids([lane.endpoint_id for lane in lanes]), me])


def look_again(connection: Connection, *, me: UUID, lanes: Sequence[Release], until: bytes) -> int:
    return connection.execute(
        LOOK_AGAIN,
        [
            arrays.uuids([lane.endpoint_id for lane in lanes]),
            arrays.nullable_float8s(lane.slots for lane in lanes),
            arrays.nullable_float8s(lane.hold_seconds for lane in lanes),
            arrays.texts([lane.hold_reason for lane in lanes]),
            arrays.nullable_float8s(lane.tokens for lane in lanes),
            arrays.bools([lane.is_unfinished for lane in lanes]),
            arrays.int4s([lane.resets for lane in lanes]),
            arrays.nullable_float8s(_seconds(lane.owed_from) for lane in lanes),
            me,
            UUID(bytes=until),
        ],
    ).rowcount


def _seconds(at: datetime | None) -> float | None:
    """Of Unix time, not later by a rounding."""
    return None if at is None else at.timestamp() - 1e-5


KEEP_OWED_FROM = f"""
WITH l AS MATERIALIZED (
    SELECT u.* FROM unnest(%s::uuid[], %s::float8[]) AS u(endpoint_id, owed_from)
    JOIN deliveries_lane lane ON lane.endpoint_id = u.endpoint_id AND {IS_MINE}
    ORDER BY lane.endpoint_id FOR NO KEY UPDATE OF lane
)
UPDATE deliveries_lane lane SET owed_from = to_timestamp(l.owed_from) FROM l WHERE lane.endpoint_id = l.endpoint_id
"""  # noqa: S608


def keep_owed_from(connection: Connection, *, me: UUID, owed_from: dict[bytes, datetime]) -> int:
    """For whoever takes these over, if their holder dies. Returns how many are still mine."""
    return connection.execute(
        KEEP_OWED_FROM,
        [
            arrays.uuids(list(owed_from)),
            arrays.nullable_float8s(_seconds(at) for at in owed_from.values()),
            me,
        ],
    ).rowcount


# --- health -----------------------------------------------------------------------------------------------------------

KEEP_HEALTH = f"""
WITH l AS MATERIALIZED (
    SELECT u.* FROM unnest(%s::uuid[], %s::int[], %s::float8[], %s::float8[], %s::int[], %s::bool[], %s::float8[],
                           %s::float8[], %s::float8[])
         AS u(endpoint_id, resets, failing_since, failed_at, failures, is_own, pause_seconds, opened_at, wait_seconds)
    JOIN deliveries_lane lane ON lane.endpoint_id = u.endpoint_id AND {IS_MINE}
         AND lane.resets = u.resets
    ORDER BY lane.endpoint_id FOR NO KEY UPDATE OF lane
)
UPDATE deliveries_lane lane
SET failures = l.failures, failing_since = to_timestamp(l.failing_since), failed_at = to_timestamp(l.failed_at),
    is_own_failing = l.is_own, pause_seconds = l.pause_seconds, circuit_opened_at = to_timestamp(l.opened_at),
    circuit_seconds = l.wait_seconds, warned_at = CASE WHEN l.failing_since IS NOT NULL THEN lane.warned_at END
FROM l WHERE lane.endpoint_id = l.endpoint_id
RETURNING lane.endpoint_id
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class LaneHealth:
    """To be kept on a lane. None: it is well."""

    endpoint_id: bytes
    resets: int
    health: Health | None


def keep_health(connection: Connection, *, me: UUID, lanes: Sequence[LaneHealth]) -> set[bytes]:
    """Apart from the release: most lanes have nothing to keep. Returns those that are still mine and not reset."""
    healths = [lane.health or Health(0.0, 0.0) for lane in lanes]
    is_failing = [lane.health is not None for lane in lanes]
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(
            KEEP_HEALTH,
            [
                arrays.uuids([lane.endpoint_id for lane in lanes]),
                arrays.int4s([lane.resets for lane in lanes]),
                arrays.nullable_float8s(
                    one.failing_since if is_one else None
                    for one, is_one in zip(healths, is_failing, strict=True)
                ),
                arrays.nullable_float8s(
                    one.failed_at if is_one else None for one, is_one in zip(healths, is_failing, strict=True)
                ),
                arrays.int4s([one.failures for one in healths]),
                arrays.bools([one.is_own for one in healths]),
                arrays.nullable_float8s(one.pause_seconds for one in healths),
                arrays.nullable_float8s(one.opened_at for one in healths),
                arrays.nullable_float8s(one.wait_seconds for one in healths),
                me,
            ],
        ).fetchall()
    return {row[0] for row in rows}


# --- what people changed meanwhile ------------------------------------------------------------------------------------


def check(connection: Connection, *, me: UUID) -> list[Row]:
    """(endpoint id, endpoint version, whether paused) of every lane I hold."""
    with connection.cursor(binary=True) as cursor:
        return cursor.execute(
            "SELECT lane.endpoint_id, endpoint.version, lane.is_paused FROM deliveries_lane lane"
            " JOIN deliveries_endpoint endpoint ON endpoint.id = lane.endpoint_id WHERE lane.dispatcher_id = %s",
            [me],
        ).fetchall()


def weights(connection: Connection) -> dict[bytes, int]:
    """Of the tenants whose weight is not 1."""
    with connection.cursor(binary=True) as cursor:
        return dict(
            cursor.execute(
                "SELECT id, weight FROM tenants_tenant WHERE weight <> 1 AND deleted_at IS NULL"
            ).fetchall()
        )


def ended_meanwhile(connection: Connection, delivery_ids: Sequence[bytes]) -> set[bytes]:
    """Of deliveries that wait in memory: those that were cancelled or erased since they were loaded."""
    if not delivery_ids:
        return set()
    low, high = UUID(bytes=min(delivery_ids)), UUID(bytes=max(delivery_ids))
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(
            f"SELECT d.id FROM deliveries_delivery d WHERE d.id = ANY(%s) AND NOT {IS_OWED} AND d.id >= %s AND d.id <= %s",  # noqa: S608
            [arrays.uuids(delivery_ids), low, high],
        ).fetchall()
    return {row[0] for row in rows}


def woken(connection: Connection, *, me: UUID, endpoint_ids: Sequence[bytes]) -> list[bytes]:
    """Of lanes that were cleared while held: those that were woken since."""
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(
            f"SELECT endpoint_id FROM deliveries_lane lane WHERE {IS_MINE} AND ready_at <= now() AND endpoint_id = ANY(%s)",  # noqa: S608
            [me, arrays.uuids(endpoint_ids)],
        ).fetchall()
    return [row[0] for row in rows]


END_BATCH = 1000

# Of an endpoint that is stopped still: it may have been enabled since the holder read that it was stopped, and whoever sees
# in this statement what was published after that sees the enabling as well.
PENDING = f"""
SELECT d.id, d.ordering_key FROM deliveries_delivery d
WHERE d.endpoint_id = %(endpoint)s AND {IS_OWED} AND d.id <> ALL(%(held)s::uuid[]) AND EXISTS (
    SELECT FROM deliveries_endpoint e JOIN tenants_tenant t ON t.id = e.tenant_id
    WHERE e.id = %(endpoint)s AND (e.status <> 'enabled' OR e.deleted_at IS NOT NULL OR t.deleted_at IS NOT NULL)
)
ORDER BY d.id LIMIT {END_BATCH}
"""  # noqa: S608

END_PENDING = f"""
WITH ended AS MATERIALIZED (
    SELECT d.id, d.status FROM deliveries_delivery d
    WHERE d.id = ANY(%(ids)s::uuid[]) AND d.id >= %(low)s AND d.id <= %(high)s AND {IS_OWED}
    ORDER BY d.id FOR NO KEY UPDATE
)
UPDATE deliveries_delivery d
SET status = CASE WHEN d.status = 'pending' THEN 'cancelled' ELSE d.status END,
    cancel_reason = CASE WHEN d.status = 'pending' THEN %(reason)s ELSE d.cancel_reason END,
    completed_at = COALESCE(d.completed_at, now()), next_attempt_at = NULL, manual_requested_at = NULL
FROM ended WHERE d.id = ended.id AND d.id >= %(low)s AND d.id <= %(high)s
RETURNING ended.status = 'pending'
"""  # noqa: S608


@again_after_deadlock
def end_pending(connection: Connection, *, endpoint_id: bytes, reason: str, held: Sequence[bytes]) -> int:
    """Cancel a batch of what is owed to a stopped endpoint, apart from what is in the air. Returns how many there were.

    Whoever is first in line then is due: the endpoint may be enabled before the next batch, and goes on with it.
    """
    with connection.transaction(), connection.cursor(binary=True) as cursor:
        parameters = {"endpoint": UUID(bytes=endpoint_id), "held": arrays.uuids(held)}
        found = cursor.execute(PENDING, parameters).fetchall()
        if not found:
            return 0
        lines = {(endpoint_id, key) for _, key in found if key is not None}
        fifo.lock_lines(cursor, lines)
        wanted = {
            "ids": arrays.uuids([delivery_id for delivery_id, _ in found]),
            "low": UUID(bytes=found[0][0]),
            "high": UUID(bytes=found[-1][0]),
        }
        ended = cursor.execute(END_PENDING, {**wanted, "reason": reason}).fetchall()
        fifo.pass_on(cursor, lines)
    # The others had ended before, and waited for a manual attempt.
    counters.add("deliveries_ended:cancelled", sum(was_pending for (was_pending,) in ended))
    return len(found)
