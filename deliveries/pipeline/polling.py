"""The line of an endpoint of kind poll: numbered, read, acknowledged. Called by `services/polling.py`.

Deliveries are made as for any other endpoint. Its lane is held, so no dispatcher takes it and the loop knows nothing of
this; what is due is put at the end of the line here, when somebody reads.
"""

from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction

from deliveries.pipeline import announce, counters
from deliveries.pipeline.fan_out import OPERATIONAL_PREFIXES
from deliveries.pipeline.lanes import DUE, IS_OWED

COLLECTED: Final = 1_000
"""Deliveries that one reading puts in line at most."""

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('poll ' || %s::text, 0))"

IS_DUE = f"{IS_OWED} AND {DUE} <= now()"

# As the load of a dispatcher reads: what is due, the oldest first. Then it is no longer due to be sent. Locked in key
# order, as by everybody. What could not be prepared has nothing to read: it ends here, as at its first attempt elsewhere.
COLLECT = f"""
WITH due AS MATERIALIZED (
    SELECT d.id FROM deliveries_delivery d
    WHERE d.endpoint_id = %(endpoint)s AND {IS_DUE} ORDER BY {DUE}, d.id LIMIT %(most)s
), l AS MATERIALIZED (
    SELECT d.id, d.event_id, d.sequence, d.status = 'pending' AND d.preparation_error IS NOT NULL AS is_failed
    FROM deliveries_delivery d
    WHERE d.id = ANY(ARRAY(SELECT due.id FROM due)) AND {IS_DUE} ORDER BY d.id FOR NO KEY UPDATE
), taken AS (
    UPDATE deliveries_delivery d SET next_attempt_at = NULL, manual_requested_at = NULL,
        status = CASE WHEN l.is_failed THEN 'failed' ELSE d.status END,
        last_outcome = CASE WHEN l.is_failed THEN 'transformation_failed' ELSE d.last_outcome END,
        completed_at = CASE WHEN l.is_failed THEN now() ELSE d.completed_at END
    FROM l WHERE d.id = l.id RETURNING d.id, d.event_type, d.preparation_error IS NULL AS is_readable, l.is_failed
), put AS (
    INSERT INTO deliveries_pollitem (tenant_id, endpoint_id, delivery_id, event_id)
    SELECT %(tenant)s, %(endpoint)s, l.id, l.event_id FROM l JOIN taken USING (id)
    WHERE taken.is_readable ORDER BY l.sequence, l.id
)
SELECT id, event_type FROM taken WHERE is_failed
"""  # noqa: S608

READ = """
SELECT i.id, d.id, d.event_id, d.event_type, d.body, e.data, e.occurred_at, e.hops, d.attempt_count
FROM deliveries_pollitem i
JOIN deliveries_delivery d ON d.id = i.delivery_id AND d.tenant_id = i.tenant_id
JOIN deliveries_event e ON e.id = i.event_id AND e.tenant_id = i.tenant_id
WHERE i.endpoint_id = %s AND i.tenant_id = %s AND i.id > %s AND d.status <> 'cancelled' AND e.data IS NOT NULL
  AND d.preparation_error IS NULL
ORDER BY i.id LIMIT %s
"""

ACKNOWLEDGE = """
WITH read AS (
    UPDATE deliveries_pollitem SET acknowledged_at = now()
    WHERE endpoint_id = %(endpoint)s AND tenant_id = %(tenant)s AND id <= %(position)s AND acknowledged_at IS NULL
    RETURNING delivery_id
), ended AS MATERIALIZED (
    SELECT d.id FROM deliveries_delivery d JOIN read ON read.delivery_id = d.id
    WHERE d.status = 'pending' AND d.tenant_id = %(tenant)s ORDER BY d.id FOR NO KEY UPDATE OF d
)
UPDATE deliveries_delivery d SET status = 'succeeded', last_outcome = 'succeeded', completed_at = now(),
    next_attempt_at = NULL, manual_requested_at = NULL
FROM ended WHERE d.id = ended.id AND d.status = 'pending'
"""

STEP = """
INSERT INTO deliveries_pollconsumer AS c (tenant_id, endpoint_id, name, position, seen_at)
VALUES (%s, %s, %s, %s, now())
ON CONFLICT (endpoint_id, name) DO UPDATE SET position = GREATEST(c.position, EXCLUDED.position), seen_at = now()
RETURNING position
"""

LAST = "SELECT COALESCE(max(id), 0) FROM deliveries_pollitem WHERE endpoint_id = %s"

FORGET = """
DELETE FROM deliveries_pollitem WHERE id = ANY(ARRAY(
    SELECT id FROM deliveries_pollitem WHERE created_at < now() - make_interval(days => %s) ORDER BY created_at LIMIT 5000
))
"""


class UnknownPosition(Exception):
    """Further than the line is long: no cursor of this endpoint."""


def advance(*, tenant_id: UUID, endpoint_id: UUID, consumer: str, after: int | None) -> int:
    """Put in line what is due, acknowledge up to `after`; where the consumer reads on. Raises UnknownPosition."""
    # Two transactions: each locks deliveries in the order of their keys, one after the other they would not be in it.
    with transaction.atomic(), connection.cursor() as cursor:
        # Numbers are given by one reader at a time, whose transaction is over before the next one's begin.
        cursor.execute(LOCK, [str(endpoint_id)])
        cursor.execute(COLLECT, {"endpoint": endpoint_id, "tenant": tenant_id, "most": COLLECTED})
        _tell_of_failed(cursor, tenant_id, cursor.fetchall())
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(LOCK, [str(endpoint_id)])
        if after is not None:
            cursor.execute(LAST, [endpoint_id])
            if after > cursor.fetchone()[0]:
                raise UnknownPosition
            facts: dict[str, Any] = {"endpoint": endpoint_id, "tenant": tenant_id, "position": after}
            cursor.execute(ACKNOWLEDGE, facts)
            ended = cursor.rowcount
            if ended:
                transaction.on_commit(lambda: counters.add("deliveries_ended:succeeded", ended))
        cursor.execute(STEP, [tenant_id, endpoint_id, consumer, after or 0])
        position: int = cursor.fetchone()[0]
    return position if after is None else after


def _tell_of_failed(cursor: Any, tenant_id: UUID, failed: list[tuple[UUID, str]]) -> None:
    """As of any that ended in failure; of the platform's own events nobody hears."""
    if not failed:
        return
    told = [(tenant_id, key) for key, event_type in failed if not event_type.startswith(OPERATIONAL_PREFIXES)]
    if told:
        announce.keep_expired(cursor, told)
    transaction.on_commit(lambda: counters.add("deliveries_ended:failed", len(failed)))


def read(*, tenant_id: UUID, endpoint_id: UUID, position: int, most: int) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(READ, [endpoint_id, tenant_id, position, most])
        return list(cursor.fetchall())


def forget(*, days: int) -> int:
    """Items of long ago, in batches."""
    gone = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(FORGET, [days])
            if cursor.rowcount == 0:
                return gone
            gone += cursor.rowcount
