"""Deleting endpoints, and undoing it within a minute. Called by the API, the portal and a sweep."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from deliveries.models import Endpoint, EndpointSecret
from deliveries.pipeline.wake import end_holds
from deliveries.services import credentials
from deliveries.services.endpoint_changes import (
    check_limit,
    endpoints_of,
    finish,
    hold_lane,
    under_lock,
    wake_after_commit,
)
from deliveries.services.endpoint_settings import facts
from deliveries.services.snapshots import keep_snapshot
from tenants import access, ids
from tenants.models import Tenant
from tenants.services import audit
from tenants.services.audit import Actor
from tenants.services.versions import raise_settings_version

UNDO: Final = timedelta(minutes=1)
"""So long a deletion in the portal can be undone."""

FORGOTTEN_AT_ONCE: Final = 500
"""Endpoints whose secrets go in one transaction; the next run goes on."""


class TooLate(Exception):
    """It was deleted longer than UNDO ago, or in a way that cannot be undone: its secrets are gone."""


@dataclass(frozen=True, slots=True)
class Restored:
    endpoint: Endpoint
    is_uid_lost: bool
    """Another endpoint has it by now."""


def delete_endpoint(*, actor: Actor, endpoint: Endpoint, is_undoable: bool = False) -> None:
    """Soft: it is gone for clients, what is pending ends as cancelled, history still names it. Its secrets go.

    `is_undoable`: for UNDO they stay, so that `restore_endpoint` can bring it back. Raises access.NotFound.
    """
    with transaction.atomic():
        version = raise_settings_version(endpoint.tenant_id)
        row = under_lock(endpoint)
        row.deleted_at = Now()
        row.version = version
        if is_undoable:
            row.restorable_until = Now() + UNDO
            row.save(update_fields=["deleted_at", "restorable_until", "version"])
        else:
            row.sensitive_headers_encrypted = None
            credentials.forget(row)
            row.save(
                update_fields=[
                    "deleted_at",
                    "version",
                    "sensitive_headers_encrypted",
                    *credentials.SEALED_COLUMNS,
                ]
            )
            EndpointSecret.objects.for_tenant(row.tenant_id).filter(endpoint=row).delete()
        row.refresh_from_db(fields=["deleted_at"])
        hold_lane(row)
        keep_snapshot(row, version=version)
        audit.record(
            actor=actor,
            tenant=row.tenant_id,
            action="endpoint.deleted",
            target=ids.to_text(ids.ENDPOINT, row.id),
            before=facts(row),
        )
        end_holds([row.id])
        wake_after_commit(row.id)


def restorable(*, tenant: Tenant, reference: str) -> Endpoint | None:
    """What was deleted under this id less than UNDO ago, and can come back."""
    try:
        endpoint_id = ids.from_text(ids.ENDPOINT, reference)
    except ids.InvalidId:
        return None
    rows: QuerySet[Endpoint] = Endpoint.objects.for_tenant(tenant)
    rows = rows.select_related("tenant").filter(id=endpoint_id, deleted_at__isnull=False)
    return rows.filter(restorable_until__gt=Now()).first()


def restore_endpoint(*, actor: Actor, tenant: Tenant, reference: str) -> Restored:
    """Undo a deletion: the endpoint as it was, with its secrets.

    What was pending has been cancelled meanwhile, and what was published made nothing: it is remembered as missed.
    A uid that another endpoint took goes. Raises access.NotFound, TooLate, EndpointLimitReached.
    """
    with transaction.atomic():
        version = raise_settings_version(tenant.id)
        tenant = Tenant.objects.get(id=tenant.id)
        row = restorable(tenant=tenant, reference=reference)
        if row is None:
            # Or there never was one.
            access.find(Endpoint.objects.for_tenant(tenant), ids.ENDPOINT, reference)
            raise TooLate
        check_limit(tenant)
        uid = row.uid
        if uid is not None and endpoints_of(tenant).filter(uid=uid).exists():
            row.uid = None
        if row.status == Endpoint.Status.ENABLED and row.missed_since is None:
            row.missed_since = row.deleted_at
        row.deleted_at = row.restorable_until = None
        row.version = version
        row.updated_at = Now()
        row.save(
            update_fields=["uid", "missed_since", "deleted_at", "restorable_until", "version", "updated_at"]
        )
        hold_lane(row)
        finish(actor, row, version=version, action="endpoint.restored", before={"uid": uid})
        return Restored(row, is_uid_lost=row.uid != uid)


def forget_deleted() -> None:
    """What cannot be restored any more loses its secrets. A sweep."""
    with transaction.atomic():
        over = Endpoint.unscoped.select_for_update(skip_locked=True).filter(restorable_until__lte=Now())
        endpoint_ids = [row.id for row in over.order_by("id")[:FORGOTTEN_AT_ONCE]]
        EndpointSecret.unscoped.filter(endpoint_id__in=endpoint_ids).delete()
        Endpoint.unscoped.filter(id__in=endpoint_ids).update(
            restorable_until=None,
            sensitive_headers_encrypted=None,
            **dict.fromkeys(credentials.SEALED_COLUMNS),
        )
