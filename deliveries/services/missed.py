"""What an endpoint missed while it was stopped: send it now, or leave it. Called by the portal and the admin.

`Endpoint.missed_since` remembers from when on. It is kept by the endpoint services, and wiped by a job that sends it.
"""

from datetime import datetime, timedelta
from typing import Final

from django.db import connection, transaction

from deliveries.models import Endpoint, Job
from deliveries.services import jobs
from deliveries.services.history import first_key, last_key
from deliveries.services.jobs import Plan
from tenants import access, ids
from tenants.services import audit
from tenants.services.audit import Actor

LONGEST_RETRIED: Final = timedelta(days=20)
"""What was cancelled when it was stopped may have been published so long before: twenty waits of a day."""


class NothingMissed(Exception):
    """Somebody sent it, or left it, in the meantime."""


def send_missed(*, actor: Actor, endpoint: Endpoint, now: datetime) -> Job:
    """Everything published since that did not reach it, and what was cancelled when it was stopped.

    Raises NothingMissed, jobs.JobRunning, EndpointStopped.
    """
    if endpoint.missed_since is None:
        raise NothingMissed
    plan = Plan(
        kind=Job.Kind.REPLAY,
        only=Job.Only.MISSED,
        since=min(_oldest_cancelled(endpoint) or endpoint.missed_since, endpoint.missed_since),
        until=now,
    )
    return jobs.create_job(actor=actor, endpoint=endpoint, plan=plan)


def leave_missed(*, actor: Actor, endpoint: Endpoint) -> None:
    """Nobody wants it. Raises NothingMissed, access.NotFound."""
    with transaction.atomic():
        rows = Endpoint.objects.for_tenant(endpoint.tenant_id).filter(id=endpoint.id, deleted_at__isnull=True)
        if not rows.filter(missed_since__isnull=False).update(missed_since=None):
            raise NothingMissed if rows.exists() else access.NotFound
        audit.record(
            actor=actor,
            tenant=endpoint.tenant_id,
            action="endpoint.missed_left",
            target=ids.to_text(ids.ENDPOINT, endpoint.id),
        )


def _oldest_cancelled(endpoint: Endpoint) -> datetime | None:
    """When the oldest was made of what ended because the endpoint was stopped."""
    assert endpoint.missed_since is not None
    with connection.cursor() as cursor:
        cursor.execute(
            OLDEST_CANCELLED,
            {
                "endpoint": endpoint.id,
                "tenant": endpoint.tenant_id,
                "since": endpoint.missed_since,
                "low": first_key(endpoint.missed_since - LONGEST_RETRIED),
                "high": last_key(),
            },
        )
        row = cursor.fetchone()
    oldest: datetime | None = row[0] if row else None
    return oldest


# Along the index `delivery_unsuccessful`.
OLDEST_CANCELLED = """
SELECT created_at FROM deliveries_delivery
WHERE endpoint_id = %(endpoint)s AND tenant_id = %(tenant)s AND id >= %(low)s AND id <= %(high)s
  AND status = 'cancelled' AND cancel_reason IN ('endpoint_disabled', 'endpoint_deleted')
  AND completed_at >= %(since)s
ORDER BY id LIMIT 1
"""
