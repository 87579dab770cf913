"""Writing down what came of attempts, in bulk: attempts by COPY, deliveries by one UPDATE, one transaction.

Called by `dispatch` with a few hundred results at a time. A delivery is updated only if it still has the attempt count
that was read with it: a zombie's late results add attempts and change nothing.
"""

import logging
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import psycopg

from deliveries.pipeline import announce, arrays, fifo
from deliveries.pipeline.database import Row, again_after_deadlock

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Result:
    """An attempt and what it means for its delivery."""

    # the attempt
    attempt_id: bytes
    tenant_id: bytes
    delivery_id: bytes
    number: int
    trigger: str
    started_at: float
    duration_ms: float
    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: float | None
    outcome: str
    detail: str
    status_code: int | None
    remote_ip: str | None
    request_headers: bytes
    response_headers: bytes
    response_body: bytes
    is_truncated: bool
    # the delivery
    read_count: int
    """attempt_count when it was loaded."""
    is_success: bool
    wait_seconds: float | None
    """Until the next automatic attempt. None: there is none."""
    is_automatic: bool
    """Counts as a step of the retry schedule. Manual attempts, and faults of the platform's own, do not."""
    manual_seen: float | None
    """The manual request that this attempt answers."""
    is_ended: bool = False
    """It was pending, and this attempt ended it. For the counts alone."""
    first_due: datetime | None = None
    """When it was due, if this is its first attempt. For the counts alone."""
    is_exhausted: bool = False
    """This attempt ended it in failure, and its event is one of the tenant's own."""
    group: bytes | None = None
    """The same for all that went out in one request."""
    line: fifo.Line | None = None
    """Its ordering key, if it has one and this attempt may have ended it."""
    is_followed: bool = False
    """The next of that line is in memory already. For the loop alone."""


COPY = (
    "COPY deliveries_attempt (id, tenant_id, delivery_id, number, trigger, started_at, duration_ms, dns_ms, connect_ms,"
    " tls_ms, first_byte_ms, outcome, detail, status_code, remote_ip, request_headers, response_headers, response_body,"
    " is_truncated) FROM STDIN (FORMAT BINARY)"
)

# ANY keeps the planner off other partitions, and whichever join it chooses then reads these rows alone. (A lowest and a
# highest key instead are what was made within seconds, newer than what the planner knows of: believed to be a row, they were
# forty thousand.)
# A failed manual attempt leaves a finished delivery as it was.
# A cancelled delivery stays cancelled, a finished one changes only if a manual attempt succeeded. A manual failure
# leaves the automatic schedule where it was.
UPDATE = """
UPDATE deliveries_delivery d
SET attempt_count = d.attempt_count + 1,
    schedule_step = d.schedule_step + r.is_automatic::int,
    status = CASE WHEN r.is_success AND (d.status = 'pending' OR NOT r.is_automatic) THEN 'succeeded'
                  WHEN d.status <> 'pending' OR NOT r.is_automatic OR r.wait_seconds IS NOT NULL THEN d.status
                  ELSE 'failed' END,
    cancel_reason = CASE WHEN r.is_success AND NOT r.is_automatic THEN NULL ELSE d.cancel_reason END,
    next_attempt_at = CASE WHEN d.status <> 'pending' OR r.is_success THEN NULL
                           WHEN r.wait_seconds IS NOT NULL AND (r.is_automatic OR r.manual_seen IS NULL)
                           THEN now() + make_interval(secs => r.wait_seconds)
                           WHEN r.is_automatic THEN NULL
                           ELSE d.next_attempt_at END,
    completed_at = CASE WHEN d.status = 'pending' AND NOT r.is_success AND (NOT r.is_automatic OR r.wait_seconds IS NOT NULL)
                        THEN NULL
                        WHEN d.status = 'pending' OR (r.is_success AND NOT r.is_automatic AND d.status <> 'succeeded')
                        THEN now()
                        ELSE d.completed_at END,
    manual_requested_at = CASE WHEN r.manual_seen IS NOT NULL
                                AND d.manual_requested_at <= to_timestamp(r.manual_seen) + interval '1 microsecond'
                               -- A fault of ours leaves the request standing, for a little later.
                               THEN CASE WHEN NOT r.is_automatic AND NOT r.is_success
                                         THEN now() + make_interval(secs => r.wait_seconds) END
                               ELSE d.manual_requested_at END,
    last_outcome = CASE WHEN d.status = 'pending' OR r.is_success THEN r.outcome ELSE d.last_outcome END,
    last_status_code = CASE WHEN d.status = 'pending' OR r.is_success THEN r.status_code ELSE d.last_status_code END
FROM unnest(%(ids)s::uuid[], %(read_counts)s::int[], %(successes)s::bool[], %(waits)s::float8[], %(automatic)s::bool[],
            %(outcomes)s::text[], %(status_codes)s::int[], %(manual_seen)s::float8[])
     AS r(id, read_count, is_success, wait_seconds, is_automatic, outcome, status_code, manual_seen)
WHERE d.id = ANY(%(ids)s::uuid[]) AND d.id = r.id AND d.attempt_count = r.read_count
"""

BY_INDEX = "-c enable_seqscan=off -c enable_bitmapscan=off"
"""Options of a connection that records. UPDATE locks rows in the order in which its plan comes to them: by an index that is
the order of their keys, whichever join it is; a table of a few hundred rows would be read as it lies. (To lock the rows
first, in a CTE, costs a fifth more.)"""


def record(connection: psycopg.Connection[Row], results: Sequence[Result], *, is_retry: bool = False) -> None:
    """Commit all of them. Raises psycopg.OperationalError when the database is away: call again with `is_retry`.

    What the database refuses for its content is found by halving and kept bare, as `internal_error`.
    """
    if is_retry:
        results = _without_recorded(connection, results)
    try:
        _write(connection, results)
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        if len(results) > 1:
            middle = len(results) // 2
            record(connection, results[:middle])
            record(connection, results[middle:])
            return
        logger.exception(
            "an attempt could not be recorded as it was", extra={"delivery_id": results[0].delivery_id.hex()}
        )
        _write(connection, [_bare(results[0])])


@again_after_deadlock
def _write(connection: psycopg.Connection[Row], results: Sequence[Result]) -> None:
    if not results:
        return
    # In key order, as every statement that touches several deliveries; see BY_INDEX.
    ordered = sorted(results, key=lambda result: result.delivery_id)
    lines = {result.line for result in results if result.line is not None}
    exhausted = [(result.tenant_id, result.delivery_id) for result in ordered if result.is_exhausted]
    with connection.transaction(), connection.cursor() as cursor:
        if lines:
            fifo.lock_lines(cursor, lines)
        with cursor.copy(COPY) as copy:
            copy.write(copy_rows(results))
        update_deliveries(cursor, ordered=ordered)
        if lines:
            fifo.pass_on(cursor, lines)
        if exhausted:
            announce.keep_exhausted(cursor, exhausted)


def update_deliveries(cursor: Any, *, ordered: Sequence[Result]) -> None:
    """`ordered`: by the ids of their deliveries."""
    cursor.execute(
        UPDATE,
        {
            "ids": arrays.uuids([result.delivery_id for result in ordered]),
            "read_counts": arrays.int4s([result.read_count for result in ordered]),
            "successes": arrays.bools([result.is_success for result in ordered]),
            "waits": arrays.nullable_float8s([result.wait_seconds for result in ordered]),
            "automatic": arrays.bools([result.is_automatic for result in ordered]),
            "outcomes": arrays.texts([result.outcome for result in ordered]),
            "status_codes": arrays.nullable_int4s([result.status_code for result in ordered]),
            "manual_seen": arrays.nullable_float8s([result.manual_seen for result in ordered]),
        },
    )


def _without_recorded(connection: psycopg.Connection[Row], results: Sequence[Result]) -> list[Result]:
    """After a connection was lost in the commit, nobody knows whether it happened; the attempts' keys do."""
    rows = connection.execute(
        "SELECT id FROM deliveries_attempt WHERE id = ANY(%s)",
        [arrays.uuids([result.attempt_id for result in results])],
        binary=True,
    ).fetchall()
    recorded = {row[0] for row in rows}
    return [result for result in results if result.attempt_id not in recorded]


def _bare(result: Result) -> Result:
    result.attempt_id = result.attempt_id[:8] + b"\x80" + os.urandom(7)
    result.outcome = "internal_error"
    result.detail = "the answer could not be stored"
    result.status_code = None
    result.remote_ip = None
    result.request_headers = result.response_headers = result.response_body = b""
    return result


# --- COPY in binary, row by row as bytes (psycopg's writer costs several times as much) --------------------------------

COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
COPY_TRAILER = struct.pack("!h", -1)

_FIXED = struct.Struct("!h i16s i16s i16s ii")
_TIMES = struct.Struct("!iq id")
_FLOAT = struct.Struct("!id")
_LENGTH = struct.Struct("!i")
_SMALL = struct.Struct("!ih")
_NULL = _LENGTH.pack(-1)
_TRUE = b"\x00\x00\x00\x01\x01"
_FALSE = b"\x00\x00\x00\x01\x00"
_COLUMNS = 19
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC).timestamp()

_inet_cache: dict[str, bytes] = {}


def copy_rows(results: Sequence[Result]) -> bytes:
    pack_length = _LENGTH.pack
    parts = [COPY_HEADER]
    add = parts.append
    for r in results:
        trigger = r.trigger.encode()
        outcome = r.outcome.encode()
        detail = r.detail.encode()
        add(_FIXED.pack(_COLUMNS, 16, r.attempt_id, 16, r.tenant_id, 16, r.delivery_id, 4, r.number))
        add(pack_length(len(trigger)) + trigger)
        add(_TIMES.pack(8, int((r.started_at - _POSTGRES_EPOCH) * 1_000_000), 8, r.duration_ms))
        add(_NULL if r.dns_ms is None else _FLOAT.pack(8, r.dns_ms))
        add(_NULL if r.connect_ms is None else _FLOAT.pack(8, r.connect_ms))
        add(_NULL if r.tls_ms is None else _FLOAT.pack(8, r.tls_ms))
        add(_NULL if r.first_byte_ms is None else _FLOAT.pack(8, r.first_byte_ms))
        add(pack_length(len(outcome)) + outcome)
        add(pack_length(len(detail)) + detail)
        add(_NULL if r.status_code is None else _SMALL.pack(2, r.status_code))
        add(_NULL if r.remote_ip is None else _inet(r.remote_ip))
        add(pack_length(len(r.request_headers)) + r.request_headers)
        add(pack_length(len(r.response_headers)) + r.response_headers)
        add(pack_length(len(r.response_body)) + r.response_body)
        add(_TRUE if r.is_truncated else _FALSE)
    add(COPY_TRAILER)
    return b"".join(parts)


def _inet(text: str) -> bytes:
    """inet in binary: family (2 or 3), bits, whether a network, length, address."""
    known = _inet_cache.get(text)
    if known is None:
        address = ip_address(text.partition("%")[0])
        packed = address.packed
        body = bytes([2 if address.version == 4 else 3, len(packed) * 8, 0, len(packed)]) + packed
        known = _LENGTH.pack(len(body)) + body
        if len(_inet_cache) > 10_000:
            _inet_cache.clear()
        _inet_cache[text] = known
    return known
