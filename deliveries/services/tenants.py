"""What a tenant's suspension, return or end means for its lanes. Called by `tenants/services/tenants.py`, which knows
no lanes: `apps.py` adds it to the list of those who want to hear.
"""

from django.db import connection, transaction

from deliveries.pipeline.wake import end_holds, wake
from tenants.models import Tenant

# Lanes in key order, as every statement that locks several. An endpoint's own pause outlasts its tenant's; what is stopped
# for good does not rest. (As `is_held` in `endpoint_changes.py`.)
PAUSE = """
WITH l AS MATERIALIZED (
    SELECT endpoint_id FROM deliveries_lane WHERE endpoint_id IN (SELECT id FROM deliveries_endpoint WHERE tenant_id = %(tenant)s)
    ORDER BY endpoint_id FOR NO KEY UPDATE
)
UPDATE deliveries_lane lane
SET is_paused = endpoint.status = 'enabled' AND endpoint.deleted_at IS NULL AND NOT %(is_deleted)s
                AND (%(is_suspended)s OR endpoint.is_paused OR endpoint.kind = 'poll')
FROM l JOIN deliveries_endpoint endpoint ON endpoint.id = l.endpoint_id
WHERE lane.endpoint_id = l.endpoint_id
RETURNING lane.endpoint_id
"""


def follow_status(tenant: Tenant) -> None:
    """Hold its lanes, let them go on, or, of a deleted tenant, let their holders end what is pending.

    Inside the transaction of the change, which has raised the settings version.
    """
    is_deleted = tenant.deleted_at is not None
    is_suspended = tenant.status == Tenant.Status.SUSPENDED
    with connection.cursor() as cursor:
        if is_deleted:
            # A dispatcher reads an endpoint again, and sees whose it was, when its version changed.
            cursor.execute(
                "UPDATE deliveries_endpoint SET version = %s WHERE tenant_id = %s",
                [tenant.settings_version, tenant.id],
            )
        cursor.execute(PAUSE, {"tenant": tenant.id, "is_suspended": is_suspended, "is_deleted": is_deleted})
        lanes = [(row[0], None) for row in cursor.fetchall()]
    if is_deleted:
        # What is pending ends now, not when the wait of its lane is over.
        end_holds(endpoint_id for endpoint_id, _ in lanes)
    if is_deleted or not is_suspended:
        transaction.on_commit(lambda: wake(lanes))
