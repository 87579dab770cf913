"""Erasing an event's payload and every copy and echo of it that is kept. Called by the API and the portal.

What was in the air at that moment lands later, with the receiver's answer; `erase_echoes` looks at events erased lately
once more. (`job_tasks.py`, every minute.)
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from deliveries.models import Attempt, Delivery, Event, IncomingRequest
from deliveries.pipeline.cancel import cancel, hold
from deliveries.pipeline.json_bytes import format_time
from deliveries.services import exports
from deliveries.services.deliveries import created_after
from tenants import ids
from tenants.clock import database_now
from tenants.models import IdempotencyRecord, Tenant
from tenants.services import audit
from tenants.services.audit import Actor

ECHO: Final = timedelta(minutes=15)
"""How long after an erasure its event is looked at again: longer than any attempt, and than a dispatcher's stop."""

ERASED: Final = {"headers": b"", "query": b"", "body": b""}
"""Of an incoming request."""

COMMITTED_WITHIN: Final = timedelta(seconds=15)
"""A publish keeps its reply in the transaction of the event, which is over by then."""


def erase_data(*, actor: Actor, tenant: Tenant, event: Event) -> None:
    """The payload is gone from here on; what is pending of it ends as cancelled. Erasing again changes nothing."""
    with transaction.atomic():
        # First: its lock keeps retries and replays out, or waits for those that were before.
        is_first = (
            Event.objects.for_tenant(tenant)
            .filter(id=event.id, data_erased_at__isnull=True)
            .update(data=None, schema_warning=None, data_erased_at=Now())
        )
        _erase_copies(tenant.id, event)
        exports.forget_payload(event)
        if is_first:
            _erase_replies(tenant, event)
            audit.record(
                actor=actor, tenant=tenant, action="event.erased", target=ids.to_text(ids.EVENT, event.id)
            )


def erase_echoes() -> int:
    """Returns how many events were looked at."""
    erased = list(
        Event.unscoped.filter(data_erased_at__gte=database_now() - ECHO).defer("data").order_by("id")[:10_000]
    )
    for event in erased:
        with transaction.atomic():
            _erase_copies(event.tenant_id, event)
    return len(erased)


def _erase_copies(tenant_id: UUID, event: Event) -> None:
    """Transformation results, what attempts kept of requests and answers, and the incoming requests it was made of."""
    deliveries = Delivery.objects.for_tenant(tenant_id)
    of_event = created_after(deliveries, event.created_at).filter(event_id=event.id)
    delivery_ids = list(of_event.order_by("id").values_list("id", flat=True))
    hold(tenant_id=tenant_id, delivery_ids=delivery_ids)
    cancel(tenant_id=tenant_id, delivery_ids=delivery_ids, reason=Delivery.CancelReason.PAYLOAD_ERASED)
    of_event.filter(Q(body__isnull=False) | Q(manual_requested_at__isnull=False)).update(
        body=None, manual_requested_at=None
    )
    attempts = created_after(Attempt.objects.for_tenant(tenant_id), event.created_at)
    attempts.filter(delivery_id__in=delivery_ids).exclude(
        request_headers=b"", response_headers=b"", response_body=b""
    ).update(request_headers=b"", response_headers=b"", response_body=b"")
    incoming = IncomingRequest.objects.for_tenant(tenant_id).filter(event_id=event.id)
    incoming.filter(erased_at__isnull=True).update(**ERASED, erased_at=Now())
    _erase_in_batches(tenant_id, event)


def _erase_in_batches(tenant_id: UUID, event: Event) -> None:
    """The replies of whole batches that tell of it, from whenever: one may have repeated a key of its own later."""
    text = ids.to_text(ids.EVENT, event.id)
    records = IdempotencyRecord.objects.filter(space=tenant_id, event_ids__contains=[event.id])
    for record in records.select_for_update().order_by("key"):
        reply = msgspec.json.decode(bytes(record.body))
        told = [item for item in reply["data"] if item.get("id") == text and item["channels"] is not None]
        if told:
            for item in told:
                item["channels"] = None
            records.filter(key=record.key).update(body=msgspec.json.encode(reply))


def _erase_replies(tenant: Tenant, event: Event) -> None:
    """What is given again to who repeats the publish keeps its shape, so that it does not publish the event anew.

    Of what the publisher chose, channels may name a person.
    """
    reply = msgspec.json.encode(
        {
            "id": ids.to_text(ids.EVENT, event.id),
            "type": event.type,
            "occurred_at": format_time(event.occurred_at),
            "created_at": format_time(event.created_at),
            "channels": None,
            "deliveries": event.delivery_count,
        }
    )
    IdempotencyRecord.objects.filter(
        space=tenant.id,
        event_id=event.id,
        # There is an index of them by time.
        created_at__gte=event.created_at - COMMITTED_WITHIN,
        created_at__lte=event.created_at + COMMITTED_WITHIN,
    ).update(body=reply)
