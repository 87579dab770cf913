"""What the endpoint services do together in their transaction: raise the version, change, keep a snapshot of the result.

Explain answers from these snapshots, so each change that routing can see writes one.
"""

import json
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from deliveries.models import Endpoint, EndpointVersion, Subscription
from deliveries.validation import mask_url
from tenants import access
from tenants.services.versions import raise_settings_version


def mark_changed(endpoint: Endpoint) -> int:
    """For changes of what belongs to it: raise the version, which locks the tenant's settings, and give it to its row.

    Raises access.NotFound if it was deleted meanwhile.
    """
    version = raise_settings_version(endpoint.tenant_id)
    rows = Endpoint.objects.for_tenant(endpoint.tenant_id).filter(id=endpoint.id, deleted_at__isnull=True)
    if not rows.update(version=version, updated_at=Now()):
        raise access.NotFound
    return version


def subscriptions_of(endpoint: Endpoint) -> list[Subscription]:
    """The oldest first: the oldest that matches decides."""
    return list(Subscription.objects.for_tenant(endpoint.tenant_id).filter(endpoint=endpoint).order_by("id"))


def keep_snapshot(endpoint: Endpoint, *, version: int) -> None:
    """Of the endpoint as its rows now are, unless the last one says the same.

    `version`: what the transaction raised the tenant's settings to.
    """
    rows: QuerySet[EndpointVersion] = EndpointVersion.objects.for_tenant(endpoint.tenant_id)
    snapshot = snapshot_of(endpoint, subscriptions_of(endpoint))
    last = rows.filter(endpoint=endpoint).order_by("-settings_version").first()
    if last is not None and last.snapshot == snapshot:
        return
    # One transaction may change an endpoint twice under one version; the last state is the one that is seen.
    rows.bulk_create(
        [
            EndpointVersion(
                tenant_id=endpoint.tenant_id, endpoint=endpoint, settings_version=version, snapshot=snapshot
            )
        ],
        update_conflicts=True,
        unique_fields=["tenant", "endpoint", "settings_version"],
        update_fields=["snapshot"],
    )


def snapshot_of(endpoint: Endpoint, subscriptions: list[Subscription]) -> dict[str, Any]:
    return {
        "uid": endpoint.uid,
        "url": mask_url(endpoint.url),
        "status": endpoint.status,
        "disabled_reason": endpoint.disabled_reason,
        "is_deleted": endpoint.deleted_at is not None,
        "channels": endpoint.channels,
        "subscriptions": [
            {
                "id": str(subscription.id),
                "event_type": subscription.event_type,
                "filter": subscription.filter,
                "has_transformation": subscription.transformation is not None,
            }
            for subscription in subscriptions
        ],
    }


def snapshots_at(tenant_id: UUID, *, version: int) -> list[tuple[UUID, dict[str, Any] | None]]:
    """Every endpoint of the tenant, the oldest first, with how it stood at that version; None: it was not there yet."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT e.id, s.snapshot::text
            FROM deliveries_endpoint e LEFT JOIN LATERAL (
                SELECT snapshot FROM deliveries_endpointversion v
                WHERE v.tenant_id = e.tenant_id AND v.endpoint_id = e.id AND v.settings_version <= %s
                ORDER BY v.settings_version DESC LIMIT 1
            ) s ON true
            WHERE e.tenant_id = %s ORDER BY e.id
            """,
            [version, tenant_id],
        )
        return [(row[0], None if row[1] is None else json.loads(row[1])) for row in cursor.fetchall()]
