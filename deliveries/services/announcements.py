"""What was announced (`pipeline/announce.py`) goes out as operational events, through the same engine as any other event.

To endpoints that subscribed to the type by name. Deliveries of these events make no announcements themselves, so nothing
goes in circles. Called by a task every few seconds; what a crash left is taken up by the next run.
"""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db.models import QuerySet

from deliveries.models import Announcement, Delivery, Endpoint, Subscription
from deliveries.pipeline import ingest
from deliveries.pipeline.announce import Kind
from deliveries.pipeline.ingest import Accepted, Idempotency, NewEvent, Refusal, Refused
from deliveries.pipeline.json_bytes import format_time
from deliveries.validation import mask_url
from tenants import ids
from tenants.idempotency import fingerprint
from tenants.ids import floor_of

logger = logging.getLogger(__name__)

BATCH: Final = 500
"""Announcements handed to ingest at once."""

RUN_SECONDS: Final = 20.0
"""How long one run goes on while there is more: the queue has other tasks, too."""

KEPT: Final = timedelta(days=30)
"""Of what was told."""

TIMES: Final = ("failing_since", "disables_at", "missed_since")
"""Unix seconds in `Announcement.data`, shown as every time of the API is."""


def publish_waiting() -> int:
    """All that was not told yet, the oldest first. Returns how many operational events it made.

    Raises ingest.DatabaseUnavailable. Safe to run twice at once: each announcement has its idempotency key.
    """
    until = time.monotonic() + RUN_SECONDS
    made = 0
    while time.monotonic() < until:
        rows = list(_waiting().order_by("id")[:BATCH])
        made += _publish(rows)
        if len(rows) < BATCH:
            break
    return made


def forget_old(*, now: datetime) -> int:
    """Drop what was told long ago. Returns how many."""
    old = Announcement.unscoped.filter(
        id__lt=floor_of(now - KEPT),
        published_at__isnull=False,
        notified_at__isnull=False,
        reported_at__isnull=False,
    )
    dropped: int = old.delete()[0]
    return dropped


def facts_of(rows: Sequence[Announcement]) -> list[dict[str, Any] | None]:
    """What the events of these say, in the order given. None: a delivery that did not fail after all. Two queries."""
    deliveries = _deliveries([row.delivery_id for row in rows if row.delivery_id is not None])
    wanted = {row.endpoint_id for row in rows if row.endpoint_id is not None}
    wanted |= {delivery.endpoint_id for delivery in deliveries.values()}
    endpoints = {row.id: row for row in Endpoint.unscoped.filter(id__in=wanted)}
    facts: list[dict[str, Any] | None] = []
    for row in rows:
        if row.delivery_id is None:
            facts.append(_endpoint_facts(endpoints[row.endpoint_id]) | _shown(row.data))
            continue
        delivery = deliveries.get(row.delivery_id)
        facts.append(
            None
            if delivery is None
            else _delivery_facts(delivery) | _endpoint_facts(endpoints[delivery.endpoint_id])
        )
    return facts


# --- parts ------------------------------------------------------------------------------------------------------------


def _waiting() -> "QuerySet[Announcement]":
    return Announcement.unscoped.filter(published_at__isnull=True)


def _publish(rows: Sequence[Announcement]) -> int:
    heard = _heard_by({row.tenant_id for row in rows})
    loud = [row for row in rows if not row.is_quiet and (row.tenant_id, row.kind) in heard]
    told = [
        (row, _event(row, data)) for row, data in zip(loud, facts_of(loud), strict=True) if data is not None
    ]
    results = ingest.publish([event for _, event in told]) if told else []
    later: set[UUID] = set()
    for (row, _), result in zip(told, results, strict=True):
        if isinstance(result, Refused) and result.reason is Refusal.IDEMPOTENCY_IN_PROGRESS:
            # Another run is at it; if that fails, the next one is not.
            later.add(row.id)
        elif isinstance(result, Refused) and result.reason is not Refusal.TENANT_NOT_FOUND:
            logger.error("an operational event was refused", extra={"reason": result.reason.value})
    done = _waiting().filter(id__in=[row.id for row in rows if row.id not in later])
    # In the order of ids everywhere; these of deliveries have served.
    done.filter(delivery_id__isnull=False).delete()
    done.update(published_at=datetime.now(UTC))
    return sum(isinstance(result, Accepted) and not result.is_replayed for result in results)


def _heard_by(tenant_ids: set[UUID]) -> set[tuple[UUID, str]]:
    """(tenant, kind) of which an enabled endpoint wants to hear: nobody stores events for nobody."""
    patterns: dict[str, list[str]] = {}
    for kind in Kind:
        patterns.setdefault(kind.value, []).append(kind.value)
        patterns.setdefault(f"{kind.value.partition('.')[0]}.*", []).append(kind.value)
    rows = Subscription.unscoped.filter(
        endpoint__tenant_id__in=tenant_ids,
        endpoint__status=Endpoint.Status.ENABLED,
        endpoint__deleted_at__isnull=True,
        event_type__in=list(patterns),
    )
    return {
        (tenant_id, kind)
        for tenant_id, pattern in rows.values_list("tenant_id", "event_type").distinct()
        for kind in patterns[pattern]
    }


def _event(row: Announcement, data: dict[str, Any]) -> NewEvent:
    key = f"\x02{row.id.hex}"
    return NewEvent(
        tenant_id=row.tenant_id.bytes,
        type=row.kind,
        data=msgspec.json.encode(data),
        occurred_at=row.created_at,
        # No client can send a control character in a key, so it is nobody else's.
        idempotency=Idempotency(key, fingerprint("ANNOUNCE", key, b"")),
        is_operational=True,
    )


def _deliveries(delivery_ids: list[UUID]) -> dict[UUID, Delivery]:
    """Those that ended in failure. By key range, so that only their weeks are looked at."""
    if not delivery_ids:
        return {}
    rows = Delivery.unscoped.filter(
        id__in=delivery_ids, id__gte=min(delivery_ids), id__lte=max(delivery_ids), status="failed"
    )
    return {row.id: row for row in rows.defer("body")}


def _endpoint_facts(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "endpoint": ids.to_text(ids.ENDPOINT, endpoint.id),
        "uid": endpoint.uid,
        "url": mask_url(endpoint.url),
    }


def _delivery_facts(delivery: Delivery) -> dict[str, Any]:
    return {
        "delivery": ids.to_text(ids.DELIVERY, delivery.id),
        "event": ids.to_text(ids.EVENT, delivery.event_id),
        "event_type": delivery.event_type,
        "attempt_count": delivery.attempt_count,
        "last_outcome": delivery.last_outcome,
        "last_status_code": delivery.last_status_code,
        "cancel_reason": delivery.cancel_reason,
        "completed_at": None if delivery.completed_at is None else format_time(delivery.completed_at),
    }


def _shown(data: dict[str, Any]) -> dict[str, Any]:
    return {
        name: format_time(datetime.fromtimestamp(value, UTC))
        if name in TIMES and value is not None
        else value
        for name, value in data.items()
    }
