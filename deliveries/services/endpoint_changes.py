"""What every change of an endpoint has in common: the row under the tenant's lock, its lane, its traces.

Called by the services that make, change, stop, delete and restore endpoints. Each change runs in one transaction: raise
the tenant's settings version (its row's lock puts the changes of a tenant in a line, so limits hold), change, keep a
snapshot for explain, write the audit entry. Lanes are woken after the commit.
"""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Prefetch, QuerySet

from deliveries.models import Endpoint, Lane, Subscription
from deliveries.pipeline.wake import wake
from deliveries.services.endpoint_settings import facts
from deliveries.services.snapshots import keep_snapshot
from tenants import access, ids
from tenants.models import Tenant
from tenants.services import audit
from tenants.services.audit import Actor


class EndpointLimitReached(Exception):
    """The tenant has as many endpoints as were agreed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"The tenant may have {limit} endpoints.")


def endpoints_of(tenant: Tenant) -> "QuerySet[Endpoint]":
    """Those that were not deleted, with their lane, and their subscriptions, the oldest first."""
    rows: QuerySet[Endpoint] = Endpoint.objects.for_tenant(tenant).filter(deleted_at__isnull=True)
    own = Subscription.objects.for_tenant(tenant).order_by("id")
    return rows.select_related("lane", "tenant").prefetch_related(Prefetch("subscriptions", queryset=own))


def under_lock(endpoint: Endpoint) -> Endpoint:
    """The row as it is now that the tenant's version is locked. Raises access.NotFound."""
    row = endpoints_of(endpoint.tenant).filter(id=endpoint.id).select_related("tenant").first()
    if row is None:
        raise access.NotFound
    return row


def check_limit(tenant: Tenant) -> None:
    """`tenant` as it is under the lock. Raises EndpointLimitReached if it may have no further endpoint."""
    limit = tenant.effective_limits["endpoints"]
    if limit is not None and endpoints_of(tenant).count() >= limit:
        raise EndpointLimitReached(limit)


def is_held(row: Endpoint) -> bool:
    """Whether its lane rests: paused, of a suspended tenant, or polled. What is stopped for good never does.

    Nobody takes a lane that rests, and what is pending of a stopped endpoint is ended by a dispatcher. (As `PAUSE` in
    `tenants.py`.)
    """
    is_live = (
        row.status == Endpoint.Status.ENABLED and row.deleted_at is None and row.tenant.deleted_at is None
    )
    is_suspended = row.tenant.status == Tenant.Status.SUSPENDED
    return is_live and (row.is_paused or is_suspended or row.kind == Endpoint.Kind.POLL)


def hold_lane(row: Endpoint) -> None:
    """Let its lane rest, or go on, after a change that decides it."""
    Lane.objects.for_tenant(row.tenant_id).filter(endpoint=row).update(is_paused=is_held(row))


def finish(
    actor: Actor, endpoint: Endpoint, *, version: int, action: str, before: dict[str, Any]
) -> Endpoint:
    """The end of every change: the row as it now is, its snapshot, the audit entry, the wake."""
    row = endpoints_of(endpoint.tenant).select_related("tenant").get(id=endpoint.id)
    keep_snapshot(row, version=version)
    old, new = audit.changes(before, facts(row))
    audit.record(
        actor=actor,
        tenant=row.tenant_id,
        action=action,
        target=ids.to_text(ids.ENDPOINT, row.id),
        before=old or None,
        after=new or None,
    )
    if before:
        wake_after_commit(row.id)
    return row


def wake_after_commit(endpoint_id: UUID) -> None:
    transaction.on_commit(lambda: wake([(endpoint_id, None)]))
