"""Trying again and cancelling many deliveries: those that were picked, at once, or a batch of a job. Called by the portal and by jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import connection, transaction

from deliveries.models import Delivery, Endpoint
from deliveries.pipeline.cancel import cancel
from deliveries.pipeline.wake import request_manual_attempt
from deliveries.services.deliveries import BODIES
from tenants import ids
from tenants.models import Tenant
from tenants.services import audit
from tenants.services.audit import Actor

MOST_PICKED: Final = 250
"""Deliveries that one request may name."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of the deliveries that were picked."""

    changed: int
    endpoint_stopped: int = 0
    payload_erased: int = 0
    ended: int = 0
    """Not pending any more, so not cancelled; or gone."""


def retry_picked(*, actor: Actor, tenant: Tenant, delivery_ids: Sequence[UUID], now: datetime) -> Done:
    """One attempt each, whatever their state; what cannot be sent is left out and counted."""
    with transaction.atomic():
        rows = _found(tenant, delivery_ids)
        done = retry_batch(tenant_id=tenant.id, rows=rows, now=now)
        _record(actor, tenant, "deliveries.retried", [row.id for row in rows], done.changed)
    return done


def cancel_picked(*, actor: Actor, tenant: Tenant, delivery_ids: Sequence[UUID]) -> Done:
    """Those that are pending."""
    with transaction.atomic():
        wanted = [row.id for row in _found(tenant, delivery_ids)]
        ended = cancel(tenant_id=tenant.id, delivery_ids=wanted, reason=Delivery.CancelReason.REQUESTED)
        _record(actor, tenant, "deliveries.cancelled", wanted, len(ended))
    return Done(changed=len(ended), ended=len(set(delivery_ids)) - len(ended))


def _found(tenant: Tenant, delivery_ids: Sequence[UUID]) -> list[Delivery]:
    rows = Delivery.objects.for_tenant(tenant).defer(*BODIES)
    return list(rows.filter(id__in=list(delivery_ids)[:MOST_PICKED]).order_by("id"))


def _record(actor: Actor, tenant: Tenant, action: str, wanted: Sequence[UUID], changed: int) -> None:
    audit.record(
        actor=actor,
        tenant=tenant,
        action=action,
        after={"deliveries": [ids.to_text(ids.DELIVERY, each) for each in wanted], "changed": changed},
    )


# --- a batch ----------------------------------------------------------------------------------------------------------


def retry_batch(*, tenant_id: UUID, rows: Sequence[Delivery], now: datetime) -> Done:
    """Inside the caller's transaction."""
    if not rows:
        return Done(0)
    running = _running_endpoints(tenant_id, rows)
    sendable = [row for row in rows if row.endpoint_id in running]
    kept = _hold_payloads(tenant_id, sendable)
    wanted = [row for row in sendable if row.event_id in kept]
    request_manual_attempt(wanted, now=now)
    return Done(
        changed=len(wanted),
        endpoint_stopped=len(rows) - len(sendable),
        payload_erased=len(sendable) - len(wanted),
    )


def _running_endpoints(tenant_id: UUID, rows: Sequence[Delivery]) -> set[UUID]:
    found = Endpoint.objects.for_tenant(tenant_id).filter(
        id__in={row.endpoint_id for row in rows}, status=Endpoint.Status.ENABLED, deleted_at__isnull=True
    )
    return set(found.values_list("id", flat=True))


def _hold_payloads(tenant_id: UUID, rows: Sequence[Delivery]) -> set[UUID]:
    """Of these deliveries, the events that have one: it cannot be erased until the transaction ends."""
    event_ids = sorted({row.event_id for row in rows})
    if not event_ids:
        return set()
    with connection.cursor() as cursor:
        # In key order, as every statement that locks several rows.
        cursor.execute(
            "SELECT id FROM deliveries_event WHERE id = ANY(%s) AND id >= %s AND id <= %s AND tenant_id = %s"
            " AND data IS NOT NULL ORDER BY id FOR SHARE",
            [event_ids, event_ids[0], event_ids[-1], tenant_id],
        )
        return {row[0] for row in cursor.fetchall()}
