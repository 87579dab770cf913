"""Many events and deliveries at once, by INSERT … SELECT: what lists and statistics look like after months."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from deliveries.models import Endpoint
from tenants.models import Tenant

# A key of the given millisecond; the rest of its bits is random.
KEY = """
(lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3)
 || '8' || substr(md5(random()::text), 1, 15))::uuid
"""

EVENTS = f"""
INSERT INTO deliveries_event (id, tenant_id, type, occurred_at, data, channels, sequence, settings_version,
                              delivery_count, hops, created_at)
SELECT {KEY.format(at="made.at")}, %(tenant)s, CASE WHEN n %% 50000 = 7 THEN 'rare.type' ELSE 'order.kind' || n %% 20 END,
       made.at, '{{}}', CASE WHEN n %% 50000 = 9 THEN ARRAY['rare'] WHEN n %% 3 = 0 THEN ARRAY['eu', 'all'] END,
       n, 1, 1, 0, made.at
FROM generate_series(1, %(count)s) n,
     LATERAL (SELECT %(since)s::timestamptz + n * (%(length)s::interval / %(count)s) AS at) made
"""

# Nine in ten succeeded; one in a thousand failed, one in fifty thousand of it by TLS; a few are pending.
DELIVERIES = f"""
INSERT INTO deliveries_delivery (id, tenant_id, endpoint_id, event_id, event_type, status, trigger, sequence,
                                 attempt_count, schedule_step, size, last_outcome, last_status_code, created_at,
                                 completed_at, next_attempt_at)
SELECT {KEY.format(at="e.created_at")}, e.tenant_id, (%(endpoints)s::uuid[])[1 + e.sequence %% %(number)s], e.id, e.type,
       state.status, 'automatic', e.sequence, 1, 1, 2,
       CASE WHEN state.status = 'succeeded' THEN 'succeeded' WHEN e.sequence %% 50000 = 11 THEN 'tls_failed'
            ELSE 'http_error' END,
       CASE WHEN state.status = 'succeeded' THEN 200 ELSE 500 END, e.created_at,
       CASE WHEN state.status <> 'pending' THEN e.created_at END,
       CASE WHEN state.status = 'pending' THEN e.created_at + interval '1 day' END
FROM deliveries_event e, LATERAL (
    SELECT CASE WHEN e.sequence %% 50000 = 13 THEN 'pending' WHEN e.sequence %% 50000 = 17 THEN 'cancelled'
                WHEN e.sequence %% 1000 = 11 THEN 'failed' ELSE 'succeeded' END AS status) state
WHERE e.tenant_id = %(tenant)s AND e.sequence <= %(count)s
"""


def seed(
    tenant: Tenant, endpoints: list[Endpoint], *, count: int, since: datetime, length: timedelta
) -> None:
    """So many events evenly over the time, each with a delivery. The planner's statistics are made anew."""
    ids: list[UUID] = [endpoint.id for endpoint in endpoints]
    parameters: dict[str, Any] = {
        "tenant": tenant.id,
        "count": count,
        "since": since,
        "length": length,
        "endpoints": ids,
        "number": len(ids),
    }
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(EVENTS, parameters)
        cursor.execute(DELIVERIES, parameters)
        cursor.execute("VACUUM ANALYZE deliveries_event")
        cursor.execute("VACUUM ANALYZE deliveries_delivery")
        cursor.execute("RESET statement_timeout")
