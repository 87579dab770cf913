"""Ending deliveries that somebody no longer wants. Called by the services that cancel and that erase payloads.

The conditional UPDATE decides: what ended meanwhile stays as it ended, and an attempt in the air is kept when it lands.
"""

from collections.abc import Sequence
from uuid import UUID

from django.db import connection, transaction

from deliveries.models import Delivery
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
RETURNING d.id, d.endpoint_id, d.ordering_key
"""

# Whoever is first in line of an ordering key now is its head, and due unless it was the head already.
SUCCEED = """
WITH line AS MATERIALIZED (
    SELECT next.id FROM unnest(%s::uuid[], %s::text[]) AS u(endpoint_id, ordering_key)
    CROSS JOIN LATERAL (
        SELECT d.id, d.next_attempt_at FROM deliveries_delivery d
        WHERE d.endpoint_id = u.endpoint_id AND d.ordering_key = u.ordering_key AND d.status = 'pending'
        ORDER BY d.sequence LIMIT 1
    ) next
    WHERE next.next_attempt_at IS NULL
)
UPDATE deliveries_delivery d SET next_attempt_at = now()
FROM line WHERE d.id = line.id AND d.status = 'pending' AND d.next_attempt_at IS NULL
"""


def cancel(*, tenant_id: UUID, delivery_ids: Sequence[UUID], reason: Delivery.CancelReason) -> list[UUID]:
    """Cancel those that are pending; returns which were. Inside the caller's transaction; lanes are woken after it."""
    if not delivery_ids:
        return []
    wanted = list(delivery_ids)
    with connection.cursor() as cursor:
        cursor.execute(CANCEL, [wanted, tenant_id, reason.value, wanted])
        ended = cursor.fetchall()
        lines = sorted({(endpoint_id, key) for _, endpoint_id, key in ended if key is not None})
        if lines:
            cursor.execute(SUCCEED, [[endpoint_id for endpoint_id, _ in lines], [key for _, key in lines]])
            lanes = [(endpoint_id, None) for endpoint_id in {endpoint_id for endpoint_id, _ in lines}]
            transaction.on_commit(lambda: wake(lanes))
    return [row[0] for row in ended]
