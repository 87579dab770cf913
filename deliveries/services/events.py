"""Published events: found, listed, and sent again. Called by the API and the portal."""

from datetime import datetime

from django.db import transaction

from deliveries.models import Delivery, Endpoint, Event
from deliveries.pipeline.again import Again, deliver_again
from deliveries.services.deliveries import PayloadErased, check_sendable, hold_payload
from deliveries.services.history import created_between
from deliveries.services.routing import owed, settings_now, targets_of
from tenants import access, ids
from tenants.models import Tenant
from tenants.scoping import TenantQuerySet
from tenants.services import audit
from tenants.services.audit import Actor


def find_events(
    tenant: Tenant,
    *,
    type: str | None = None,
    channel: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> "TenantQuerySet[Event]":
    """Without payloads. Each filter has an index; see the model."""
    rows: TenantQuerySet[Event] = Event.objects.for_tenant(tenant).defer("data")
    if type is not None:
        rows = rows.filter(type=type)
    if channel is not None:
        # `channels` is not null: what the index of channels is limited to.
        rows = rows.filter(channels__contains=[channel], channels__isnull=False)
    return created_between(rows, since=since, until=until)


def get_event(*, tenant: Tenant, reference: str, with_data: bool = False) -> Event:
    """Raises access.NotFound, without a query for what is no id."""
    rows: TenantQuerySet[Event] = Event.objects.for_tenant(tenant)
    return access.find(rows if with_data else rows.defer("data"), ids.EVENT, reference)


def replay_event(*, actor: Actor, tenant: Tenant, event: Event, endpoint: Endpoint | None) -> list[Delivery]:
    """New deliveries to what matches now, or to that endpoint alone, whether it matches or not. The oldest first.

    Raises PayloadErased, EndpointStopped.
    """
    with transaction.atomic():
        hold_payload(tenant_id=tenant.id, event_id=event.id)
        if endpoint is not None:
            check_sendable(tenant_id=tenant.id, endpoint_id=endpoint.id)
        event = Event.objects.for_tenant(tenant).get(id=event.id)
        if event.data is None:
            raise PayloadErased
        again = _again(tenant, event, endpoint)
        made = deliver_again(tenant_id=tenant.id, again=again, trigger=Delivery.Trigger.REPLAY)
        audit.record(
            actor=actor,
            tenant=tenant,
            action="event.replayed",
            target=ids.to_text(ids.EVENT, event.id),
            after={"deliveries": len(made)},
        )
    return list(Delivery.objects.for_tenant(tenant).filter(id__in=made).order_by("id"))


def _again(tenant: Tenant, event: Event, endpoint: Endpoint | None) -> list[Again]:
    targets = targets_of(settings_now(tenant, endpoint=endpoint), event)
    if endpoint is not None and not targets:
        return [Again(event.id, endpoint.id)]
    return owed(event.id, targets)
