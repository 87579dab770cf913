"""New deliveries of events that were published before. Called by the replay and recover services.

The other half of the one writer, beside `ingest`: the tenant of event and endpoint is compared in the statement itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import connection, transaction

from deliveries.models import Delivery
from deliveries.pipeline import counters, fifo
from deliveries.pipeline.wake import wake
from tenants import ids
from tenants.clock import database_now


@dataclass(frozen=True, slots=True)
class Again:
    """One event to one endpoint; body and error are the transformation's, as fan-out gave them."""

    event_id: UUID
    endpoint_id: UUID
    subscription_id: UUID | None = None
    body: bytes | None = None
    error: str | None = None


INSERT = """
INSERT INTO deliveries_delivery (id, tenant_id, endpoint_id, event_id, event_type, status, trigger, subscription_id,
                                 ordering_key, sequence, attempt_count, schedule_step, next_attempt_at, body,
                                 preparation_error, size, created_at)
SELECT u.id, e.tenant_id, endpoint.id, e.id, e.type, 'pending', %s, u.subscription_id,
       CASE WHEN endpoint.ordering = 'fifo' THEN COALESCE(e.ordering_key, '') END,
       nextval('deliveries_sequence'), 0, 0, CASE WHEN endpoint.ordering <> 'fifo' THEN now() END, u.body, u.error, COALESCE(octet_length(u.body), octet_length(e.data)), %s
FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::bytea[], %s::text[])
     AS u(id, event_id, endpoint_id, subscription_id, body, error)
JOIN deliveries_event e ON e.id = u.event_id AND e.tenant_id = %s AND e.data IS NOT NULL
     AND e.id >= %s AND e.id <= %s
JOIN deliveries_endpoint endpoint ON endpoint.id = u.endpoint_id AND endpoint.tenant_id = %s
RETURNING id, endpoint_id, ordering_key
"""

# The lines that are about to grow.
LINES = """
SELECT DISTINCT endpoint.id, COALESCE(e.ordering_key, '')
FROM unnest(%s::uuid[], %s::uuid[]) AS u(event_id, endpoint_id)
JOIN deliveries_endpoint endpoint ON endpoint.id = u.endpoint_id AND endpoint.ordering = 'fifo'
JOIN deliveries_event e ON e.id = u.event_id AND e.tenant_id = %s AND e.id >= %s AND e.id <= %s
"""


def deliver_again(*, tenant_id: UUID, again: Sequence[Again], trigger: Delivery.Trigger) -> list[UUID]:
    """Owe these events to these endpoints once more; events without payload are left out. Returns the new deliveries.

    Inside the caller's transaction; the lanes are woken after it.
    """
    if not again:
        return []
    # Keys and `created_at` tell the same time: lists look for ranges of the one by the other.
    at = database_now()
    minter = ids.Minter(int(at.timestamp() * 1_000_000))
    event_ids, endpoint_ids = [one.event_id for one in again], [one.endpoint_id for one in again]
    with connection.cursor() as cursor:
        cursor.execute(LINES, [event_ids, endpoint_ids, tenant_id, min(event_ids), max(event_ids)])
        lines = [(endpoint_id.bytes, key) for endpoint_id, key in cursor.fetchall()]
        fifo.lock_lines(cursor, lines)
        cursor.execute(
            INSERT,
            [
                trigger.value,
                at,
                [minter.next() for _ in again],
                [one.event_id for one in again],
                [one.endpoint_id for one in again],
                [one.subscription_id for one in again],
                [one.body for one in again],
                [one.error for one in again],
                tenant_id,
                min(one.event_id for one in again),
                max(one.event_id for one in again),
                tenant_id,
            ],
        )
        made = [row[0] for row in cursor.fetchall()]
        fifo.pass_on(cursor, lines)
    lanes = [(endpoint_id, None) for endpoint_id in {one.endpoint_id for one in again}]
    transaction.on_commit(lambda: wake(lanes))
    transaction.on_commit(lambda: counters.add(f"deliveries_made:{trigger.value}", len(made)))
    return made
