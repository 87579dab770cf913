"""What happened to endpoints and deliveries that their owners may want to hear: rows, written where it happens.

Called by `dispatch`, `record` and the sweeps, and by the services that stop and start endpoints. What becomes of the rows, webhooks
of the platform's own (operational events) and notifications, is for `services/announcements.py`.

On transitions only. A delivery that ends in failure makes a row only if somebody of its tenant subscribed to that.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import psycopg

from deliveries.pipeline import arrays, lanes
from deliveries.pipeline.database import Row
from deliveries.pipeline.lanes import LaneHealth
from tenants import ids


class Kind(StrEnum):
    """The values are event types of the platform's own; they reach subscriptions that name them."""

    ENDPOINT_FAILING = "endpoint.failing"
    ENDPOINT_RECOVERED = "endpoint.recovered"
    ENDPOINT_DISABLING = "endpoint.disabling"
    """The warning: it fails, and will be disabled if that goes on."""
    ENDPOINT_DISABLED = "endpoint.disabled"
    ENDPOINT_ENABLED = "endpoint.enabled"
    DELIVERY_EXHAUSTED = "delivery.exhausted"


@dataclass(frozen=True, slots=True)
class Transition:
    """A circuit that opened or closed, and the lane's health with it."""

    id: bytes
    tenant_id: bytes
    kind: Kind
    data: dict[str, Any]
    is_quiet: bool
    """Nothing but operational events failed there: those make no operational events."""
    lane: LaneHealth


INSERT = """
INSERT INTO deliveries_announcement (id, tenant_id, endpoint_id, kind, data, is_quiet, created_at)
SELECT u.id, u.tenant_id, u.endpoint_id, u.kind, u.data::jsonb, u.is_quiet, now()
FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::bool[])
     AS u(id, tenant_id, endpoint_id, kind, data, is_quiet)
WHERE u.endpoint_id = ANY(%s)
ON CONFLICT DO NOTHING
"""


def keep_transitions(
    connection: psycopg.Connection[Row], *, me: Any, transitions: Sequence[Transition]
) -> None:
    """Keep the lanes' health and say so, together. Of lanes that were lost or wiped meanwhile nothing is said."""
    # Of a lane that opened and closed again in one batch, both happened and the last holds.
    newest = {transition.lane.endpoint_id: transition.lane for transition in transitions}
    with connection.transaction():
        kept = lanes.keep_health(connection, me=me, lanes=list(newest.values()))
        connection.execute(
            INSERT,
            [
                arrays.uuids([one.id for one in transitions]),
                arrays.uuids([one.tenant_id for one in transitions]),
                arrays.uuids([one.lane.endpoint_id for one in transitions]),
                arrays.texts([one.kind.value for one in transitions]),
                arrays.texts([json.dumps(one.data) for one in transitions]),
                arrays.bools([one.is_quiet for one in transitions]),
                arrays.uuids(list(kept)),
            ],
        )


SUBSCRIBED = ("delivery.*", Kind.DELIVERY_EXHAUSTED.value)
"""The condition of the index `subscription_exhausted`, to the letter."""

# One probe per tenant of the batch, whatever it holds.
INSERT_EXHAUSTED = f"""
WITH r AS MATERIALIZED (SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[]) AS r(id, tenant_id, delivery_id)),
listening AS MATERIALIZED (
    SELECT t.tenant_id FROM (SELECT DISTINCT tenant_id FROM r) t
    WHERE EXISTS (
        SELECT FROM deliveries_subscription s JOIN deliveries_endpoint e ON e.id = s.endpoint_id
        WHERE s.tenant_id = t.tenant_id AND s.event_type IN {SUBSCRIBED!r}
          AND e.status = 'enabled' AND e.deleted_at IS NULL
    )
)
INSERT INTO deliveries_announcement (id, tenant_id, delivery_id, kind, data, is_quiet, created_at,
                                     notified_at, reported_at)
-- Nobody is notified of each.
SELECT r.id, r.tenant_id, r.delivery_id, '{Kind.DELIVERY_EXHAUSTED.value}', '{{}}', false, now(), now(), now()
FROM r JOIN listening USING (tenant_id)
ON CONFLICT DO NOTHING
"""  # noqa: S608 - words of ours


def keep_exhausted(cursor: psycopg.Cursor[Row], exhausted: Sequence[tuple[bytes, bytes]]) -> None:
    """(tenant, delivery) of deliveries that ended in failure; inside the transaction that ends them."""
    cursor.execute(
        INSERT_EXHAUSTED,
        [
            arrays.uuids([ids.new_id().bytes for _ in exhausted]),
            arrays.uuids([tenant_id for tenant_id, _ in exhausted]),
            arrays.uuids([delivery_id for _, delivery_id in exhausted]),
        ],
    )


def keep_expired(cursor: Any, expired: Sequence[tuple[UUID, UUID]]) -> None:
    """The same with a cursor of Django's: for those that waited too long, and those that have nothing to be polled."""
    cursor.execute(
        INSERT_EXHAUSTED,
        [
            [ids.new_id() for _ in expired],
            [tenant_id for tenant_id, _ in expired],
            [delivery_id for _, delivery_id in expired],
        ],
    )
