"""Deliveries and their attempts: found, listed, tried again by hand, cancelled. Called by the API and the portal."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from deliveries.models import Attempt, Delivery, Endpoint
from deliveries.pipeline.cancel import cancel
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.wake import request_manual_attempt
from deliveries.services.history import created_between
from tenants import access, ids
from tenants.ids import floor_of
from tenants.models import Tenant
from tenants.scoping import TenantQuerySet
from tenants.services import audit
from tenants.services.audit import Actor

BODIES: Final = ("body", "preparation_error")
"""Columns of a delivery that lists do not show."""

CLOCKS_APART: Final = timedelta(minutes=2)
"""An attempt's key is made by the dispatcher's clock, its delivery's by the database's."""


class EndpointStopped(Exception):
    """Its endpoint is disabled or deleted: nothing is sent to it."""

    def __init__(self, *, is_deleted: bool) -> None:
        self.is_deleted = is_deleted
        super().__init__("The endpoint is deleted." if is_deleted else "The endpoint is disabled.")


class PayloadErased(Exception):
    """The event's payload is gone: there is nothing to send."""


class NotPending(Exception):
    """It has ended already."""


# --- finding ----------------------------------------------------------------------------------------------------------


def find_deliveries(
    tenant: Tenant,
    *,
    endpoint_id: UUID | None = None,
    event_id: UUID | None = None,
    event_type: str | None = None,
    status: str | None = None,
    outcome: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> "TenantQuerySet[Delivery]":
    """Each filter has an index that gives its rows in the order of their keys; see the model."""
    rows: TenantQuerySet[Delivery] = Delivery.objects.for_tenant(tenant).defer(*BODIES)
    wanted: dict[str, Any] = {
        "endpoint_id": endpoint_id,
        "event_id": event_id,
        "event_type": event_type,
        "status": status,
        "last_outcome": outcome,
    }
    if status == Delivery.Status.SUCCEEDED and outcome is None:
        # True of each of them, and what its index is made for.
        wanted["last_outcome"] = Outcome.SUCCEEDED.value
    rows = rows.filter(**{name: value for name, value in wanted.items() if value is not None})
    return created_between(rows, since=since, until=until)


def endpoint_id_of(tenant: Tenant, reference: str) -> UUID | None:
    """For filters: of an endpoint by id or uid. Deleted ones are found by id. None: there is none."""
    rows = Endpoint.objects.for_tenant(tenant)
    if reference.startswith(f"{ids.ENDPOINT}_"):
        return rows.filter(id=ids.from_text(ids.ENDPOINT, reference)).values_list("id", flat=True).first()
    return rows.filter(uid=reference, deleted_at__isnull=True).values_list("id", flat=True).first()


def get_delivery(*, tenant: Tenant, reference: str, with_body: bool = False) -> Delivery:
    """Raises access.NotFound, without a query for what is no id."""
    rows: TenantQuerySet[Delivery] = Delivery.objects.for_tenant(tenant)
    return access.find(rows if with_body else rows.defer(*BODIES), ids.DELIVERY, reference)


def get_attempt(*, tenant: Tenant, reference: str) -> Attempt:
    """Raises access.NotFound, without a query for what is no id."""
    rows: TenantQuerySet[Attempt] = Attempt.objects.for_tenant(tenant)
    return access.find(rows, ids.ATTEMPT, reference)


def attempts_of(delivery: Delivery) -> "TenantQuerySet[Attempt]":
    rows: TenantQuerySet[Attempt] = Attempt.objects.for_tenant(delivery.tenant_id)
    return created_after(rows, delivery.created_at).filter(delivery_id=delivery.id)


def created_after(rows: "TenantQuerySet[Any]", at: datetime) -> "TenantQuerySet[Any]":
    """What belongs to something made at that time: older partitions are not looked at."""
    return rows.filter(id__gte=floor_of(at - CLOCKS_APART), id__lte=floor_of(timezone.now() + CLOCKS_APART))


# --- verbs ------------------------------------------------------------------------------------------------------------


def retry_delivery(*, actor: Actor, delivery: Delivery, now: datetime) -> Delivery:
    """One attempt, whatever the state. Automatic ones stay as they are planned.

    Raises EndpointStopped, PayloadErased, and access.NotFound if its time ended meanwhile.
    """
    with transaction.atomic():
        check_sendable(tenant_id=delivery.tenant_id, endpoint_id=delivery.endpoint_id)
        hold_payload(tenant_id=delivery.tenant_id, event_id=delivery.event_id)
        request_manual_attempt([delivery], now=now)
        _record(actor, delivery, "delivery.retried")
    try:
        delivery.refresh_from_db()
    except Delivery.DoesNotExist:
        raise access.NotFound from None
    return delivery


def cancel_delivery(*, actor: Actor, delivery: Delivery) -> Delivery:
    """Raises NotPending. An attempt in the air is kept, and changes nothing."""
    with transaction.atomic():
        if not cancel(
            tenant_id=delivery.tenant_id,
            delivery_ids=[delivery.id],
            reason=Delivery.CancelReason.REQUESTED,
        ):
            raise NotPending
        _record(actor, delivery, "delivery.cancelled")
    delivery.refresh_from_db()
    return delivery


def cancel_pending(*, actor: Actor, endpoint: Endpoint, most: int) -> int:
    """Cancel what waits for an endpoint, the oldest first, and no more than `most`. Returns how many there were."""
    with transaction.atomic():
        waiting = Delivery.objects.for_tenant(endpoint.tenant_id).filter(
            endpoint_id=endpoint.id, status=Delivery.Status.PENDING
        )
        found = list(waiting.order_by("id").values_list("id", flat=True)[:most])
        ended = cancel(
            tenant_id=endpoint.tenant_id, delivery_ids=found, reason=Delivery.CancelReason.REQUESTED
        )
        if ended:
            audit.record(
                actor=actor,
                tenant=endpoint.tenant_id,
                action="endpoint.drained",
                target=ids.to_text(ids.ENDPOINT, endpoint.id),
                after={"cancelled": len(ended)},
            )
    return len(found)


def check_sendable(*, tenant_id: UUID, endpoint_id: UUID) -> None:
    """Raises EndpointStopped. The lane's holder ends what is owed to an endpoint that is stopped a moment later."""
    endpoint = Endpoint.objects.for_tenant(tenant_id).filter(id=endpoint_id).first()
    if endpoint is None or endpoint.deleted_at is not None:
        raise EndpointStopped(is_deleted=True)
    if endpoint.status != Endpoint.Status.ENABLED:
        raise EndpointStopped(is_deleted=False)


def hold_payload(*, tenant_id: UUID, event_id: UUID) -> None:
    """The payload cannot be erased until the transaction ends. Raises PayloadErased if it was."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT data IS NOT NULL FROM deliveries_event WHERE id = %s AND tenant_id = %s FOR SHARE",
            [event_id, tenant_id],
        )
        row = cursor.fetchone()
    if row is None or not row[0]:
        raise PayloadErased


def _record(actor: Actor, delivery: Delivery, action: str) -> None:
    audit.record(
        actor=actor,
        tenant=delivery.tenant_id,
        action=action,
        target=ids.to_text(ids.DELIVERY, delivery.id),
    )
