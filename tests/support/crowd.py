"""Ten thousand tenants on a bad day: thousands of their endpoints fail, and hundreds of those lead to one host."""

from uuid import UUID

from django.db import connection

from deliveries.models import Endpoint, Lane
from tenants.models import Tenant

PREFIX = "crowd-"

TENANTS = 10_000

FAILING = 5_000

SHARED = 400
"""Failing endpoints on one host, of as many tenants."""

DISABLED = 1_000
"""By the platform."""

HOST = "shared.crowd.invalid"


# Each row is the first one's, apart from what is said.
TENANTS_LIKE_IT = """
INSERT INTO tenants_tenant SELECT made.* FROM tenants_tenant first, generate_series(1, %(last)s) n, LATERAL
jsonb_populate_record(first, jsonb_build_object(
    'id', gen_random_uuid(), 'slug', 'crowd-' || lpad(n::text, 5, '0'), 'name', 'Crowd ' || n)) made
WHERE first.slug = 'crowd-00000'
"""

ENDPOINTS_LIKE_IT = """
INSERT INTO deliveries_endpoint SELECT made.* FROM deliveries_endpoint first
JOIN tenants_tenant tenant ON tenant.slug > 'crowd-00000' AND tenant.slug LIKE 'crowd-%%',
LATERAL (SELECT right(tenant.slug, 5)::int) AS place(n),
LATERAL jsonb_populate_record(first, jsonb_build_object(
    'id', gen_random_uuid(), 'tenant_id', tenant.id,
    'url', CASE WHEN n < %(shared)s THEN first.url ELSE 'https://n' || n %% 3000 || '.crowd.invalid/hooks' END,
    'status', CASE WHEN n < %(disabled_from)s THEN 'enabled' ELSE 'disabled' END,
    'disabled_reason', CASE WHEN n >= %(disabled_from)s THEN 'failing' END)) made
WHERE first.id = %(first)s
"""

# Failing since less than three days, so that no sweep disables them.
LANES_LIKE_IT = """
INSERT INTO deliveries_lane SELECT made.* FROM deliveries_lane first
JOIN deliveries_endpoint endpoint ON endpoint.id <> first.endpoint_id
JOIN tenants_tenant tenant ON tenant.id = endpoint.tenant_id AND tenant.slug LIKE 'crowd-%%',
LATERAL (SELECT right(tenant.slug, 5)::int) AS place(n),
LATERAL jsonb_populate_record(first, jsonb_build_object(
    'endpoint_id', endpoint.id, 'tenant_id', tenant.id)
    || CASE WHEN n >= %(failing)s THEN '{}' ELSE jsonb_build_object(
           'failing_since', now() - n * interval '50 seconds', 'failed_at', now(), 'failures', 30) END) made
WHERE first.endpoint_id = %(first)s
"""


def gather() -> None:
    """Each has an endpoint; the first one's is well."""
    tenant = Tenant.objects.create(slug=f"{PREFIX}00000", name="Crowd 0")
    first: Endpoint = Endpoint.objects.for_tenant(tenant).create(tenant=tenant, url=f"https://{HOST}/hooks")
    Lane.objects.for_tenant(tenant).create(endpoint=first, tenant=tenant)
    parameters: dict[str, int | UUID] = {
        "last": TENANTS - 1,
        "first": first.id,
        "shared": SHARED + 1,
        "failing": FAILING + 1,
        "disabled_from": TENANTS - DISABLED,
    }
    with connection.cursor() as cursor:
        for statement in (TENANTS_LIKE_IT, ENDPOINTS_LIKE_IT, LANES_LIKE_IT):
            cursor.execute(statement, parameters)
    _analyze()


def disperse() -> None:
    with connection.cursor() as cursor:
        of_crowd = "IN (SELECT id FROM tenants_tenant WHERE slug LIKE %s)"
        for table in ("deliveries_lane", "deliveries_endpoint"):
            cursor.execute(f"DELETE FROM {table} WHERE tenant_id {of_crowd}", [f"{PREFIX}%"])
        cursor.execute("DELETE FROM tenants_tenant WHERE slug LIKE %s", [f"{PREFIX}%"])
    _analyze()


def _analyze() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE tenants_tenant, deliveries_endpoint, deliveries_lane")
