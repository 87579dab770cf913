"""Every list of the API asks the database as often for thirty rows as for one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deliveries.models import Attempt, Delivery, IncomingRequest, Job
from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import NewEvent
from deliveries.services.endpoints import create_endpoint
from deliveries.services.sources import create_source
from tenants import ids
from tenants.ids import new_id
from tenants.models import EventType, PortalLink, Tenant
from tenants.services.audit import COMMAND
from tests.architecture.test_strangers import API, Route
from tests.support.api import make_key, make_tenant, tenant_api

AT = datetime(2026, 1, 1, tzinfo=UTC)
MANY = 30

LISTS = [
    route
    for route in API
    if hasattr(route.callback, "view_class")
    and any(each.name == "cursor" for each in route.callback.view_class.parameters.get("GET", ()))
    and "tenant" in route.names
]


@dataclass(frozen=True)
class Rows:
    tenant: Tenant
    sample: dict[str, str]


@pytest.fixture(scope="module")
def one(django_db_setup: None, django_db_blocker: Any) -> Iterator[Rows]:
    with django_db_blocker.unblock():
        yield rows(1)


@pytest.fixture(scope="module")
def many(django_db_setup: None, django_db_blocker: Any) -> Iterator[Rows]:
    with django_db_blocker.unblock():
        yield rows(MANY)


def rows(count: int) -> Rows:
    """So many of everything, and of each within the first of its parents."""
    tenant = make_tenant(limits={"endpoints": None})
    EventType.objects.bulk_create(EventType(tenant=tenant, name=f"kind.n{number}") for number in range(count))
    endpoints = [
        create_endpoint(
            actor=COMMAND,
            tenant=tenant,
            url=f"https://{number}.example.com",
            event_types=["*", *(f"other{each}.*" for each in range(count - 1))],
        )
        for number in range(count)
    ]
    ingest.publish([NewEvent(tenant_id=tenant.id.bytes, type="kind.n0", data=b"{}") for _ in range(count)])
    delivery = Delivery.objects.for_tenant(tenant).filter(endpoint=endpoints[0]).earliest("id")
    Attempt.objects.for_tenant(tenant).bulk_create(
        Attempt(
            id=new_id(),
            tenant=tenant,
            delivery_id=delivery.id,
            number=number + 1,
            trigger="automatic",
            started_at=AT,
            duration_ms=1.0,
            outcome="http_error",
            status_code=500,
            request_headers=b"a: b",
            response_headers=b"c: d",
            response_body=b"e",
        )
        for number in range(count)
    )
    Job.objects.for_tenant(tenant).bulk_create(
        Job(
            id=new_id(),
            tenant=tenant,
            endpoint=endpoints[0],
            kind="recover",
            status="done",
            since=AT,
            until=AT,
        )
        for _ in range(count)
    )
    PortalLink.objects.for_tenant(tenant).bulk_create(
        PortalLink(id=new_id(), tenant=tenant, hash=new_id().bytes, role="viewer", expires_at=AT)
        for _ in range(count)
    )
    sources = [
        create_source(actor=COMMAND, tenant=tenant, name=f"s{number}", event_type='"kind.n0"')[0]
        for number in range(count)
    ]
    IncomingRequest.objects.for_tenant(tenant).bulk_create(
        IncomingRequest(
            id=new_id(),
            tenant=tenant,
            source=sources[0],
            verdict="unmapped",
            method="POST",
            query=b"",
            headers=b"a: b",
            body=b"{}",
            size=2,
            status_code=200,
            created_at=AT,
        )
        for _ in range(count)
    )
    for _ in range(count):
        make_key(tenant)
    return Rows(
        tenant,
        {
            "tenant": tenant.slug,
            "endpoint": ids.to_text("ep", endpoints[0].id),
            "source": ids.to_text("src", sources[0].id),
            "incoming": ids.to_text(
                "req", IncomingRequest.objects.for_tenant(tenant).values_list("id", flat=True)[0]
            ),
            "event": ids.to_text("evt", delivery.event_id),
            "delivery": ids.to_text("dlv", delivery.id),
            "subscription": ids.to_text("sub", endpoints[0].subscriptions.all()[0].id),
        },
    )


@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.path)
@pytest.mark.usefixtures("database")
def test_as_many_queries_for_thirty_rows_as_for_one(route: Route, one: Rows, many: Rows) -> None:
    counted = []
    for rows_ in (one, many):
        api = tenant_api(rows_.tenant)
        path = route.at(rows_.sample).removeprefix("/api/v1")
        # The second time: what a process remembers of a key was looked up by the first.
        for _ in range(2):
            with CaptureQueriesContext(connection) as queries:
                response = api.get(path, limit=250)
        found = json.loads(response.content)["data"]
        assert len(found) >= (1 if rows_ is one else MANY), path
        counted.append((len(queries), [query["sql"][:80] for query in queries.captured_queries]))

    assert counted[0][0] == counted[1][0], counted
