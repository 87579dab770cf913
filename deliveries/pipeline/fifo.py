"""Order within an ordering key: only the head of each key has a `next_attempt_at`.

Called by whoever adds to a line or ends its head (`ingest`, `again`, `record`, `cancel`, `lanes`, `sweeps`), inside
their transaction: first `lock_lines`, before any row is written; then, when all is written, `pass_on`, which makes
whoever is first in line due. The lock is what makes the two sides see each other: a publisher that found a head waiting
has committed before that head's end looks for a successor, or comes after it.

`pass_on` locks rows behind those that were written, so not in the order of their keys. Nobody waits for them the other
way round, because whoever writes to several rows that stand in lines locks the lines first; so does `wake` for attempts
by hand, which end nothing.

The load never reads those that wait, so the loop idles when all are blocked.
"""

import hashlib
from collections.abc import Iterable
from typing import Any
from uuid import UUID

Line = tuple[bytes, str]
"""Endpoint id and ordering key ('' for events without one)."""

LOCK = "SELECT pg_advisory_xact_lock(n) FROM unnest(%s::bigint[]) AS n"

# The first pending of each line, due unless it was the head already. Scheduled events wait for their time even then.
MAKE_DUE = """
WITH head AS MATERIALIZED (
    SELECT next.id, e.deliver_at
    FROM unnest(%s::uuid[], %s::text[]) AS line(endpoint_id, ordering_key)
    CROSS JOIN LATERAL (
        SELECT d.id, d.event_id, d.next_attempt_at FROM deliveries_delivery d
        WHERE d.endpoint_id = line.endpoint_id AND d.ordering_key = line.ordering_key
          AND d.ordering_key IS NOT NULL AND d.status = 'pending'
        ORDER BY d.sequence, d.id LIMIT 1
    ) next
    LEFT JOIN deliveries_event e ON e.id = next.event_id
    WHERE next.next_attempt_at IS NULL
)
UPDATE deliveries_delivery d SET next_attempt_at = GREATEST(now(), head.deliver_at)
FROM head WHERE d.id = head.id AND d.status = 'pending' AND d.next_attempt_at IS NULL
"""


def lock_lines(cursor: Any, lines: Iterable[Line]) -> None:
    """Until the end of the transaction, in one order for everybody. `cursor`: psycopg's or Django's."""
    numbers = sorted({_number(line) for line in lines})
    if numbers:
        cursor.execute(LOCK, [numbers])


def pass_on(cursor: Any, lines: Iterable[Line]) -> None:
    """Make the first of each line due."""
    ordered = sorted(set(lines))
    if ordered:
        cursor.execute(
            MAKE_DUE, [[UUID(bytes=endpoint_id) for endpoint_id, _ in ordered], [key for _, key in ordered]]
        )


def _number(line: Line) -> int:
    digest = hashlib.sha256(b"ordering\x00" + line[0] + line[1].encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
