"""The counters that say which settings an event was fanned out by.

Raised first in the transaction of every change that fan-out or explain can see. The row's lock then puts the changes
of a tenant in a line, and each event, which reads the counter in its own transaction, on one side of each of them.
"""

from uuid import UUID

from django.db import connection


def raise_settings_version(tenant_id: UUID) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tenants_tenant SET settings_version = settings_version + 1 WHERE id = %s RETURNING settings_version",
            [tenant_id],
        )
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


def raise_shared_version() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tenants_platformstate SET shared_version = shared_version + 1 WHERE id = 1 RETURNING shared_version"
        )
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])
