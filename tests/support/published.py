"""Events, deliveries and attempts as publishing and dispatchers leave them, without running a dispatcher."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from deliveries.models import Attempt, Delivery, Endpoint, Event
from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import Accepted, NewEvent
from deliveries.services.endpoints import create_endpoint
from tenants.ids import new_id
from tenants.models import EventType, Tenant
from tenants.services.audit import COMMAND


def make_type(tenant: Tenant, name: str = "order.created", **fields: Any) -> EventType:
    return EventType.objects.create(tenant=tenant, name=name, **fields)


def make_endpoint(tenant: Tenant, url: str = "https://shop.example.com/hooks", **fields: Any) -> Endpoint:
    return create_endpoint(actor=COMMAND, tenant=tenant, url=url, **fields)


def publish(tenant: Tenant, type: str = "order.created", data: bytes = b"{}", **fields: Any) -> Event:
    (accepted,) = ingest.publish([NewEvent(tenant_id=tenant.id.bytes, type=type, data=data, **fields)])
    assert isinstance(accepted, Accepted), accepted
    event: Event = Event.objects.for_tenant(tenant).get(id=UUID(bytes=accepted.event_id))
    return event


def deliveries_of(event: Event) -> list[Delivery]:
    """The oldest first."""
    return list(Delivery.objects.for_tenant(event.tenant_id).filter(event_id=event.id).order_by("id"))


def delivery_of(event: Event) -> Delivery:
    (delivery,) = deliveries_of(event)
    return delivery


def end(delivery: Delivery, status: str, **fields: Any) -> Delivery:
    """As a dispatcher would have ended it."""
    rows = Delivery.objects.for_tenant(delivery.tenant_id).filter(id=delivery.id)
    due: dict[str, Any] = {"next_attempt_at": None, "completed_at": datetime.now(UTC)}
    rows.update(status=status, **(due | fields))
    delivery.refresh_from_db()
    return delivery


def add_attempt(delivery: Delivery, **fields: Any) -> Attempt:
    """As a dispatcher would have recorded it; the delivery stays as it is."""
    values: dict[str, Any] = {
        "number": 1,
        "trigger": "automatic",
        "started_at": datetime.now(UTC),
        "duration_ms": 12.5,
        "outcome": "http_error",
        "status_code": 500,
        "request_headers": b"content-type: application/json\nauthorization: ***",
        "response_headers": b"HTTP/1.1 500 Oops\r\ncontent-type: text/plain\r\n\r\n",
        "response_body": b"oops",
    } | fields
    attempt = Attempt(**({"id": new_id()} | values), tenant_id=delivery.tenant_id, delivery_id=delivery.id)
    attempt.save(force_insert=True)
    return attempt
