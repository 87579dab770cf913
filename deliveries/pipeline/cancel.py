"""Ending deliveries that somebody no longer wants. Called by the services that cancel and that erase payloads.

The conditional UPDATE decides: what ended meanwhile stays as it ended, and an attempt in the air is kept when it lands.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from deliveries.models import Delivery
from deliveries.pipeline import counters, fifo
from deliveries.pipeline.wake import wake

# In key order, as every statement that touches several deliveries.
CANCEL = """
WITH ended AS MATERIALIZED (
    SELECT d.id FROM deliveries_delivery d
    WHERE d.id = ANY(%s::uuid[]) AND d.tenant_id = %s AND d.status = 'pending'
    ORDER BY d.id FOR NO KEY UPDATE
)
UPDATE deliveries_delivery d
SET status = 'cancelled', cancel_reason = %s, completed_at = now(), next_attempt_at = NULL, manual_requested_at = NULL
FROM ended WHERE d.id = ended.id AND d.id = ANY(%s::uuid[])
RETURNING d.id
"""

LINES = """
SELECT DISTINCT endpoint_id, ordering_key FROM deliveries_delivery
WHERE id = ANY(%s::uuid[]) AND tenant_id = %s AND ordering_key IS NOT NULL
"""


HOLD = """
SELECT FROM deliveries_delivery d WHERE d.id = ANY(%s::uuid[]) AND d.tenant_id = %s ORDER BY d.id FOR NO KEY UPDATE
"""


def hold(*, tenant_id: UUID, delivery_ids: Sequence[UUID]) -> None:
    """Lock all of them, ended or not: for a transaction that writes to some of them before and to others after."""
    wanted = list(delivery_ids)
    with connection.cursor() as cursor:
        fifo.lock_lines(cursor, _lines(cursor, tenant_id, wanted))
        cursor.execute(HOLD, [wanted, tenant_id])


def cancel(*, tenant_id: UUID, delivery_ids: Sequence[UUID], reason: Delivery.CancelReason) -> list[UUID]:
    """Cancel those that are pending; returns which were. Inside the caller's transaction; lanes are woken after it."""
    if not delivery_ids:
        return []
    wanted = list(delivery_ids)
    with connection.cursor() as cursor:
        lines = _lines(cursor, tenant_id, wanted)
        fifo.lock_lines(cursor, lines)
        cursor.execute(CANCEL, [wanted, tenant_id, reason.value, wanted])
        ended = [row[0] for row in cursor.fetchall()]
        fifo.pass_on(cursor, lines)
    if ended:
        transaction.on_commit(lambda: counters.add("deliveries_ended:cancelled", len(ended)))
    if lines:
        lanes = [(UUID(bytes=endpoint_id), None) for endpoint_id in {endpoint_id for endpoint_id, _ in lines}]
        transaction.on_commit(lambda: wake(lanes))
    return ended


def _lines(cursor: Any, tenant_id: UUID, delivery_ids: list[UUID]) -> list[fifo.Line]:
    cursor.execute(LINES, [delivery_ids, tenant_id])
    return [(endpoint_id.bytes, key) for endpoint_id, key in cursor.fetchall()]
