"""Lists read what they show and little more, by every filter, however much there is; and never a whole table."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from deliveries.models import Delivery
from deliveries.pipeline.partitions import ensure_partitions
from tenants import ids
from tenants.models import Tenant
from tests.support.api import Api, make_tenant, tenant_api
from tests.support.plans import reads_at_most
from tests.support.portal import browser
from tests.support.published import make_endpoint
from tests.support.seeding import seed

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.timeout(300)]

MANY = 150_000
"""In three partitions: far more than a list could read in time."""

MOST_ROWS = 3_000
"""That a statement may look at for a page of fifty. A millisecond or two."""


NEWEST_FAILED = 20_000
"""Of the tenant whose endpoints have been down for long."""


@dataclass(frozen=True)
class Seeded:
    tenant: Tenant
    api: Api
    event: str
    middle: str
    down: Tenant


@pytest.fixture(scope="module")
def seeded(django_db_setup: None, django_db_blocker: Any) -> Iterator[Seeded]:
    with django_db_blocker.unblock():
        with connection.cursor() as cursor:
            # The few that other tests left would be read whole, as that costs nothing.
            cursor.execute("TRUNCATE deliveries_attempt")
        now = datetime.now(UTC)
        ensure_partitions(now=now, weeks_back=4)
        tenant = make_tenant()
        endpoints = [make_endpoint(tenant, uid=f"e{number}", event_types=[]) for number in range(5)]
        seed(tenant, endpoints, count=MANY, since=now - timedelta(days=15), length=timedelta(days=15))
        down = make_tenant()
        seed(
            down,
            [make_endpoint(down, event_types=[])],
            count=NEWEST_FAILED + 5_000,
            since=now - timedelta(days=10),
            length=timedelta(days=10),
        )
        keys = Delivery.objects.for_tenant(down).order_by("-id").values("id")[:NEWEST_FAILED]
        Delivery.objects.for_tenant(down).filter(id__in=list(keys.values_list("id", flat=True))).update(
            status="failed", last_outcome="http_error", last_status_code=503, next_attempt_at=None
        )
        failed = Delivery.objects.for_tenant(tenant).filter(status="failed").earliest("id")
        yield Seeded(
            tenant,
            tenant_api(tenant),
            ids.to_text("evt", failed.event_id),
            (now - timedelta(days=7)).isoformat(),
            down,
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


@pytest.mark.parametrize("filters", [{"status": "succeeded"}, {"outcome": "succeeded"}], ids=str)
def test_what_succeeded_before_everything_failed_is_found_at_once(
    seeded: Seeded, filters: dict[str, str]
) -> None:
    page = check_page(tenant_api(seeded.down), f"/tenants/{seeded.down.slug}/deliveries", filters)

    assert len(page["data"]) == 50
    assert {delivery["status"] for delivery in page["data"]} == {"succeeded"}


def test_what_hangs_on_one_event_or_delivery_is_found_by_its_key(seeded: Seeded) -> None:
    root = f"/tenants/{seeded.tenant.slug}"
    (found,) = check_page(seeded.api, f"{root}/events/{seeded.event}/deliveries", {})["data"]
    check_page(seeded.api, f"{root}/deliveries/{found['id']}/attempts", {})
    for path in (f"/deliveries/{found['id']}", f"/events/{seeded.event}", f"/events/{seeded.event}/explain"):
        check_page(seeded.api, root + path, {})


def check_page(api: Api, path: str, query: dict[str, str]) -> Any:
    with reads_at_most(MOST_ROWS):
        response = api.get(path, **query)
    assert response.status_code == 200, response.content
    return json.loads(response.content)


# --- the portal's pages -----------------------------------------------------------------------------------------------

SEARCHED_ROWS = 3_500
"""Of a search in payloads: a thousand rows, their events, and what an index says of both."""

COUNTED_ROWS = 10_100
"""Of a page that counts, up to its bound."""

MOST_SECONDS = 0.1
"""What a page takes, beside the statements that are counted above: a few milliseconds each."""

PORTAL_PAGES = {
    "deliveries": MOST_ROWS,
    "deliveries?status=failed&within=7d": MOST_ROWS,
    "deliveries?status=succeeded&event_type=order.kind3": MOST_ROWS,
    "deliveries?outcome=tls_failed": MOST_ROWS,
    "deliveries?endpoint=e1&status=failed": MOST_ROWS,
    "deliveries?q=nowhere": SEARCHED_ROWS,
    "deliveries?q=nowhere&endpoint=e1": SEARCHED_ROWS,
    "events": MOST_ROWS,
    "events?type=order.kind3&within=24h": MOST_ROWS,
    "events?q=nowhere": SEARCHED_ROWS,
    "events/{event}": MOST_ROWS,
    "deliveries/{delivery}": MOST_ROWS,
    "deliveries/everything": COUNTED_ROWS,
    "deliveries/everything?status=failed": COUNTED_ROWS,
    "live": MOST_ROWS,
    "live/rows?after={after}&oldest={after}": MOST_ROWS,
    "endpoints/e1/again?only=failed&within=24h": MOST_ROWS,
    "jobs": MOST_ROWS,
}


@pytest.mark.parametrize("page", PORTAL_PAGES)
def test_a_page_of_the_portal_reads_little_and_is_made_soon(seeded: Seeded, page: str) -> None:
    client = browser(seeded.tenant)
    delivery = Delivery.objects.for_tenant(seeded.tenant).latest("id")
    sample = {
        "event": seeded.event,
        "delivery": ids.to_text("dlv", delivery.id),
        "after": ids.floor_of(delivery.created_at - timedelta(minutes=5)).hex,
    }
    path = f"/portal/{seeded.tenant.slug}/{page.format(**sample)}"

    with reads_at_most(PORTAL_PAGES[page]):
        assert client.get(path).status_code == 200
    assert min(seconds(client, path) for _ in range(5)) < MOST_SECONDS


def seconds(client: Client, path: str) -> float:
    """Of the processor, so that other tests beside this one do not count."""
    begun = time.thread_time()
    client.get(path)
    return time.thread_time() - begun
