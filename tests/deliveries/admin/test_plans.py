"""Every list of the admin reads along an index, whatever it is filtered by, and counts nothing.

A few ten thousand rows tell the plans of ten million: what reads a range here reads a range there.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from deliveries.models import Delivery, Endpoint
from deliveries.services import hosts
from tenants import ids
from tenants.models import Tenant
from tests.support.api import make_tenant
from tests.support.operators import operator
from tests.support.plans import SMALL
from tests.support.published import make_endpoint, make_type
from tests.support.seeding import seed

pytestmark = pytest.mark.usefixtures("database")

COUNT = 30_000

HISTORY = ("deliveries_event", "deliveries_delivery", "deliveries_attempt")


@dataclass(frozen=True)
class Seeded:
    tenant: Tenant
    endpoint: Endpoint
    delivery: Delivery


@pytest.fixture(scope="module")
def seeded(django_db_setup: None, django_db_blocker: Any) -> Iterator[Seeded]:
    with django_db_blocker.unblock():
        tenant, other = make_tenant(), make_tenant(limits={"endpoints": None})
        for each in (tenant, other):
            make_type(each)
        endpoint = make_endpoint(tenant)
        theirs = [make_endpoint(other, f"https://n{number}.busy.example.com") for number in range(20)]
        since = timezone.now() - timedelta(days=3)
        for whose, count in ((tenant, COUNT // 10), (other, COUNT)):
            seed(
                whose,
                [endpoint] if whose is tenant else theirs,
                count=count,
                since=since,
                length=timedelta(days=3),
            )
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO deliveries_attempt (id, tenant_id, delivery_id, number, trigger, started_at, duration_ms,"
                " outcome, detail, request_headers, response_headers, response_body, is_truncated)"
                " SELECT id, tenant_id, id, 1, 'automatic', created_at, 1, 'succeeded', '', '', '', '', false"
                " FROM deliveries_delivery WHERE tenant_id IN (%s, %s)",
                [tenant.id, other.id],
            )
            cursor.execute("VACUUM ANALYZE deliveries_attempt")
            cursor.execute("ANALYZE deliveries_endpoint")
        yield Seeded(tenant, endpoint, Delivery.objects.for_tenant(tenant).latest("id"))


def lists(seeded: Seeded) -> Iterator[str]:
    """Every list of history, with every filter, and its second page."""
    slug, endpoint = seeded.tenant.slug, ids.to_text("ep", seeded.endpoint.id)
    delivery = ids.to_text("dlv", seeded.delivery.id)
    filters = {
        "deliveries_event": [
            "",
            f"tenant={slug}",
            f"tenant={slug}&type=rare.type",
            f"tenant={slug}&channel=rare",
        ],
        "deliveries_delivery": [
            "",
            f"tenant={slug}",
            *(f"tenant={slug}&status={status}" for status in ("pending", "succeeded", "failed", "cancelled")),
            f"tenant={slug}&outcome=tls_failed",
            f"tenant={slug}&event_type=rare.type",
            f"tenant={slug}&endpoint={endpoint}",
            f"tenant={slug}&endpoint={endpoint}&status=failed",
        ],
        "deliveries_attempt": ["", f"delivery={delivery}"],
    }
    for model, queries in filters.items():
        path = reverse(f"admin:{model}_changelist")
        for query in queries:
            yield f"{path}?{query}"
            yield f"{path}?{query}&cursor=a{seeded.delivery.id.hex}"


def plans_of(client: Client, path: str) -> list[tuple[str, str]]:
    """(query, plan) of every query on history that the page asks."""
    with CaptureQueriesContext(connection) as captured:
        response = client.get(path)
    assert response.status_code == 200, path
    found = []
    for query in captured.captured_queries:
        sql = query["sql"]
        if sql.startswith("SELECT") and any(f'"{table}"' in sql for table in HISTORY):
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN {sql}")
                found.append((sql, "\n".join(row[0] for row in cursor.fetchall())))
    return found


def test_every_list_of_history_reads_along_an_index_and_counts_nothing(seeded: Seeded) -> None:
    client = operator()
    looked = 0

    for path in lists(seeded):
        for sql, plan in plans_of(client, path):
            looked += 1
            assert "COUNT(" not in sql.upper(), path
            for line in plan.splitlines():
                found = re.search(r"Seq Scan on (deliveries_(?:event|delivery|attempt)_\w+)", line)
                # A week that is empty, or has just begun, is read as it is: nothing is cheaper.
                assert not (found and _has_rows(found[1])), f"{path}\n{plan}"
    assert looked >= 30


def _has_rows(partition: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples > %s FROM pg_class WHERE relname = %s", [SMALL, partition])
        row = cursor.fetchone()
    return bool(row and row[0])


def test_a_host_is_found_along_the_index_of_hosts(seeded: Seeded) -> None:
    for rows in (
        hosts.endpoints_of_host("n3.busy.example.com").order_by("id")[:50],
        hosts.endpoints_of_host("busy.example.com", with_subdomains=True).order_by("id")[:50],
    ):
        with connection.cursor() as cursor:
            # The table of the tests is too small for the planner to care.
            cursor.execute("SET enable_seqscan = off")
            try:
                plan = rows.explain()
            finally:
                cursor.execute("RESET enable_seqscan")
        assert "endpoint_by_host" in plan, plan


def test_hosts_are_told_apart_exactly() -> None:
    mark = make_tenant().slug
    tenant = make_tenant()
    urls = [
        f"https://{mark}.example.com/hooks",
        f"https://api.{mark}.example.com:8443/x?y=1",
        f"https://not{mark}.example.com",
        f"https://{mark}.example.com.evil.example",
        f"https://other.example/?next=https://{mark}.example.com",
        "https://[2606:4700::1]:8443/hooks",
    ]
    made = {make_endpoint(tenant, url).id: url for url in urls}

    def found(host: str, *, with_subdomains: bool = False) -> list[str]:
        rows = hosts.endpoints_of_host(host, with_subdomains=with_subdomains).filter(tenant=tenant)
        return [made[row.id] for row in rows.order_by("id")]

    assert found(f"{mark}.example.com") == urls[:1]
    assert found(f"{mark}.EXAMPLE.com", with_subdomains=True) == urls[:2]
    assert found("[2606:4700::1]") == urls[-1:]
    assert found("%") == []
    assert [hosts.host_of(url) for url in urls] == [
        f"{mark}.example.com",
        f"api.{mark}.example.com",
        f"not{mark}.example.com",
        f"{mark}.example.com.evil.example",
        "other.example",
        "[2606:4700::1]",
    ]
