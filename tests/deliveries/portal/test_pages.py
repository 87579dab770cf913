"""Of every page: few queries however many rows, a strict policy, nothing from elsewhere, nothing inline."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deliveries.models import Attempt, Delivery, Endpoint, IncomingRequest, Job
from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import NewEvent
from deliveries.services.endpoints import create_endpoint
from deliveries.services.live import SETTLED
from deliveries.services.sources import create_source
from tenants import ids
from tenants.models import EventType, Tenant
from tenants.services.audit import COMMAND
from tests.architecture.test_query_counts import rows as api_rows
from tests.support.api import make_tenant
from tests.support.portal import browser
from tests.support.published import add_attempt

MOST_QUERIES = 15

PAGES = [
    "",
    "endpoints",
    "endpoints/new",
    "endpoints/{endpoint}",
    "endpoints/{endpoint}/edit",
    "endpoints/{endpoint}/secret",
    "endpoints/{endpoint}/subscriptions/new",
    "endpoints/{endpoint}/subscriptions/{subscription}",
    "endpoints/{endpoint}/test",
    "sources",
    "sources/new",
    "sources/{source}",
    "sources/{source}/edit",
    "sources/{source}/recent",
    "sources/{source}/requests/{incoming}",
    "events",
    "events/{event}",
    "deliveries",
    "deliveries/{delivery}",
    "deliveries/{delivery}/progress",
    "deliveries/everything",
    "deliveries?q=e&since=2026-01-01T00:00",
    "events?q=e",
    "attempts/{attempt}",
    "endpoints/{endpoint}/again",
    "endpoints/{endpoint}/again?only=all&within=24h&count=1",
    "jobs",
    "jobs/{job}",
    "jobs/{job}/progress",
    "live",
]


@dataclass(frozen=True)
class Rows:
    tenant: Tenant
    sample: dict[str, str]


@pytest.fixture(scope="module")
def one(django_db_setup: None, django_db_blocker: Any) -> Iterator[Rows]:
    with django_db_blocker.unblock():
        made = api_rows(1)
        yield Rows(made.tenant, made.sample | of_history(made.tenant))


@pytest.fixture(scope="module")
def many(django_db_setup: None, django_db_blocker: Any) -> Iterator[Rows]:
    with django_db_blocker.unblock():
        made = api_rows(30)
        # Or the live page has nothing to show yet.
        time.sleep(SETTLED.total_seconds())
        yield Rows(made.tenant, made.sample | of_history(made.tenant))


def make_job(tenant: Tenant, endpoint: Endpoint) -> Job:
    at = timezone.now()
    job = Job(tenant=tenant, endpoint=endpoint, kind="replay", only="all", since=at, until=at)
    job.save(force_insert=True)
    return job


def of_history(tenant: Tenant) -> dict[str, str]:
    """An attempt and a job of those that there are."""
    return {
        "attempt": ids.to_text("att", Attempt.objects.for_tenant(tenant).latest("id").id),
        "job": ids.to_text("job", Job.objects.for_tenant(tenant).latest("id").id),
    }


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("database")
def test_as_many_queries_for_thirty_rows_as_for_one_and_few(page: str, one: Rows, many: Rows) -> None:
    counted = []
    for rows in (one, many):
        client = browser(rows.tenant, "admin")
        with CaptureQueriesContext(connection) as queries:
            response = client.get(f"/portal/{rows.tenant.slug}/{page.format(**rows.sample)}")
        assert response.status_code == 200
        counted.append(len(queries))

    # What the overview did not read at first is counted in two queries more, however much it is.
    assert counted[1] - counted[0] == (2 if page == "" else 0)
    assert counted[1] <= MOST_QUERIES


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("database")
def test_pages_keep_to_a_strict_policy(page: str, one: Rows) -> None:
    response = browser(one.tenant, "admin").get(f"/portal/{one.tenant.slug}/{page.format(**one.sample)}")

    check_policy(response)


@pytest.mark.parametrize("path", ["/portal/sign-in", f"/portal/enter/{'x' * 43}", "/portal/no/such/page"])
@pytest.mark.usefixtures("database")
def test_so_do_those_before_a_tenant(path: str) -> None:
    check_policy(Client().get(path))


def check_policy(response: Any) -> None:
    page = response.content.decode()
    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", page) == []
    assert [url for url in re.findall(r'(?:src|href)="([^"]*)"', page) if re.match(r"[a-z]+:|//", url)] == []
    if "<html" in page:
        assert '<html lang="en">' in page
        assert page.count("<h1") == 1


@pytest.mark.usefixtures("database")
def test_hostile_names_are_text() -> None:
    """Whatever a customer chose, on every page that shows it."""
    hostile = "<script>alert(1)</script>"
    tenant = make_tenant(name=hostile)
    EventType.objects.create(tenant=tenant, name="a.b", description=hostile)
    endpoint = create_endpoint(
        actor=COMMAND, tenant=tenant, url=f"https://a.example.com/?q={hostile}", description=hostile
    )
    ingest.publish([NewEvent(tenant.id.bytes, "a.b", b'{"x":"<script>alert(1)</script>"}')])
    delivery = Delivery.objects.for_tenant(tenant).get()
    add_attempt(delivery, response_body=hostile.encode(), response_headers=f"x-a: {hostile}".encode())
    make_job(tenant, endpoint)
    source, token = create_source(actor=COMMAND, tenant=tenant, name=hostile, event_type='"<script>"')
    Client(headers={"X-A": hostile}).post(
        f"/in/{token}?a={hostile}", f'{{"a": "{hostile}"}}', content_type="application/json"
    )
    incoming = IncomingRequest.objects.for_tenant(tenant).get()
    sample = of_history(tenant) | {
        "endpoint": ids.to_text("ep", endpoint.id),
        "event": ids.to_text("evt", delivery.event_id),
        "delivery": ids.to_text("dlv", delivery.id),
        "subscription": ids.to_text("sub", endpoint.subscriptions.all()[0].id),
        "source": ids.to_text("src", source.id),
        "incoming": ids.to_text("req", incoming.id),
    }
    client = browser(tenant, "admin")

    for page in PAGES:
        response = client.get(f"/portal/{tenant.slug}/{page.format(**sample)}")
        assert response.status_code == 200, page
        assert b"<script>" not in response.content, page
