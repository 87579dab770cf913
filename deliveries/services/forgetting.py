"""The end of bookkeeping that nobody looks at any more: jobs, operators' actions, old versions of settings.

Called by a daily task. History itself ends in `pipeline/retention.py`.
"""

from datetime import datetime, timedelta
from typing import Final

from django.db import connection

from deliveries.models import BulkAction, Job

KEPT: Final = timedelta(days=90)
"""Of jobs and actions that are over. What they did stands in the audit log."""

BATCH: Final = 5_000

# One that a newer one had replaced before the oldest event that is kept: no event was fanned out by it. A week more,
# for events that are only just being deleted, and for clocks.
SUPERSEDED: Final = f"""
DELETE FROM deliveries_endpointversion WHERE id = ANY(ARRAY(
    SELECT v.id FROM deliveries_endpointversion v JOIN tenants_tenant t ON t.id = v.tenant_id
    CROSS JOIN LATERAL (SELECT %s - make_interval(days => GREATEST(30, t.retention_days) + 7) AS before) kept
    WHERE v.created_at < kept.before AND EXISTS (
        SELECT FROM deliveries_endpointversion newer
        WHERE newer.tenant_id = v.tenant_id AND newer.endpoint_id = v.endpoint_id
          AND newer.settings_version > v.settings_version AND newer.created_at < kept.before
    )
    ORDER BY v.id LIMIT {BATCH}
))
"""  # noqa: S608 - a number of ours


def forget_old(*, now: datetime) -> dict[str, int]:
    """Returns how many of each went. Can be run twice."""
    before = now - KEPT
    jobs = Job.unscoped.exclude(status=Job.Status.RUNNING).filter(completed_at__lt=before)
    actions = BulkAction.objects.exclude(status=BulkAction.Status.RUNNING).filter(completed_at__lt=before)
    return {"jobs": jobs.delete()[0], "actions": actions.delete()[0], "versions": _forget_versions(now)}


def _forget_versions(now: datetime) -> int:
    gone: int = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(SUPERSEDED, [now])
            gone += cursor.rowcount
            if cursor.rowcount < BATCH:
                return gone
