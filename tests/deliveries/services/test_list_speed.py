"""Lists read what they show and little more, by every filter, however much there is; and never a whole table."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deliveries.models import Delivery
from deliveries.pipeline.partitions import ensure_partitions
from tenants import ids
from tenants.models import Tenant
from tests.support.api import Api, make_tenant, tenant_api
from tests.support.published import make_endpoint
from tests.support.seeding import seed

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.timeout(300)]

MANY = 150_000
"""In three partitions: far more than a list could read in time."""

MOST_ROWS = 3_000
"""That a statement may look at for a page of fifty. A millisecond or two."""


@dataclass(frozen=True)
class Seeded:
    tenant: Tenant
    api: Api
    event: str
    middle: str


@pytest.fixture(scope="module")
def seeded(django_db_setup: None, django_db_blocker: Any) -> Iterator[Seeded]:
    with django_db_blocker.unblock():
        now = datetime.now(UTC)
        ensure_partitions(now=now, weeks_back=4)
        tenant = make_tenant()
        endpoints = [make_endpoint(tenant, uid=f"e{number}", event_types=[]) for number in range(5)]
        seed(tenant, endpoints, count=MANY, since=now - timedelta(days=15), length=timedelta(days=15))
        failed = Delivery.objects.for_tenant(tenant).filter(status="failed").earliest("id")
        yield Seeded(
            tenant,
            tenant_api(tenant),
            ids.to_text("evt", failed.event_id),
            (now - timedelta(days=7)).isoformat(),
        )


DELIVERY_FILTERS: list[dict[str, str]] = [
    {},
    {"endpoint": "e3"},
    {"event": "{event}"},
    {"event_type": "order.kind3"},
    {"event_type": "rare.type"},
    {"event_type": "no.such"},
    {"status": "succeeded"},
    {"status": "pending"},
    {"status": "failed"},
    {"status": "cancelled"},
    {"outcome": "succeeded"},
    {"outcome": "http_error"},
    {"outcome": "tls_failed"},
    {"outcome": "timeout"},
    {"since": "{middle}"},
    {"until": "{middle}"},
    {"status": "failed", "until": "{middle}"},
    {"event_type": "rare.type", "until": "{middle}"},
    {"endpoint": "e1", "status": "failed"},
    {"endpoint": "e1", "status": "cancelled"},
    {"endpoint": "e3", "status": "pending"},
]

EVENT_FILTERS: list[dict[str, str]] = [
    {},
    {"type": "order.kind3"},
    {"type": "rare.type"},
    {"type": "no.such"},
    {"channel": "eu"},
    {"channel": "rare"},
    {"channel": "none"},
    {"since": "{middle}"},
    {"until": "{middle}"},
    {"channel": "rare", "until": "{middle}"},
]


@pytest.mark.parametrize(
    ("resource", "filters"),
    [("deliveries", each) for each in DELIVERY_FILTERS] + [("events", each) for each in EVENT_FILTERS],
    ids=str,
)
def test_a_page_reads_little_by_any_filter(seeded: Seeded, resource: str, filters: dict[str, str]) -> None:
    query = {name: value.format(event=seeded.event, middle=seeded.middle) for name, value in filters.items()}
    path = f"/tenants/{seeded.tenant.slug}/{resource}"

    first = check_page(seeded.api, path, query)
    if first["next_cursor"] is not None:
        second = check_page(seeded.api, path, query | {"cursor": first["next_cursor"]})
        back = check_page(seeded.api, path, query | {"cursor": second["prev_cursor"]})
        assert back["data"] == first["data"]


def test_what_hangs_on_one_event_or_delivery_is_found_by_its_key(seeded: Seeded) -> None:
    root = f"/tenants/{seeded.tenant.slug}"
    (found,) = check_page(seeded.api, f"{root}/events/{seeded.event}/deliveries", {})["data"]
    check_page(seeded.api, f"{root}/deliveries/{found['id']}/attempts", {})
    for path in (f"/deliveries/{found['id']}", f"/events/{seeded.event}", f"/events/{seeded.event}/explain"):
        check_page(seeded.api, root + path, {})


def check_page(api: Api, path: str, query: dict[str, str]) -> Any:
    """Every statement of the request about history, explained as it was sent."""
    with CaptureQueriesContext(connection) as queries:
        response = api.get(path, **query)
    assert response.status_code == 200, response.content
    statements = [each["sql"] for each in queries.captured_queries if each["sql"].startswith("SELECT")]
    history = [sql for sql in statements if "deliveries_delivery" in sql or "deliveries_event" in sql]
    for sql in history:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
            ((plan,),) = cursor.fetchall()
        plan = json.loads(plan) if isinstance(plan, str) else plan
        looked_at = 0
        for node in nodes(plan[0]["Plan"]):
            rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            if "Scan" in node["Node Type"]:
                looked_at += rows
            # A partition without a row is read whole, which costs nothing.
            assert node["Node Type"] != "Seq Scan" or rows == 0, (sql, plan)
        assert looked_at <= MOST_ROWS, (sql, looked_at)
    return json.loads(response.content)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)
