"""No foreign key leads between events, deliveries and attempts, so the one writer keeps the tenant: a scan looks."""

import pytest
from django.db import connection

from deliveries.models import Delivery
from deliveries.pipeline import ingest
from deliveries.pipeline.again import Again, deliver_again
from tenants.ids import new_id
from tenants.models import Tenant
from tests.support.builders import (
    deliveries_of,
    events_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    new_event,
    publish,
)
from tests.support.running import Reply, Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")

MIXED = {
    "a delivery and its event": """
        SELECT d.id FROM deliveries_delivery d LEFT JOIN deliveries_event e ON e.id = d.event_id
        WHERE e.tenant_id IS DISTINCT FROM d.tenant_id""",
    "a delivery and its endpoint": """
        SELECT d.id FROM deliveries_delivery d LEFT JOIN deliveries_endpoint e ON e.id = d.endpoint_id
        WHERE e.tenant_id IS DISTINCT FROM d.tenant_id""",
    "a delivery and its subscription": """
        SELECT d.id FROM deliveries_delivery d JOIN deliveries_subscription s ON s.id = d.subscription_id
        WHERE s.tenant_id <> d.tenant_id""",
    "an attempt and its delivery": """
        SELECT a.id FROM deliveries_attempt a LEFT JOIN deliveries_delivery d ON d.id = a.delivery_id
        WHERE d.tenant_id IS DISTINCT FROM a.tenant_id""",
    "an event and its tenant": """
        SELECT e.id FROM deliveries_event e LEFT JOIN tenants_tenant t ON t.id = e.tenant_id WHERE t.id IS NULL""",
    "an incoming request and its source": """
        SELECT r.id FROM deliveries_incomingrequest r LEFT JOIN deliveries_source s ON s.id = r.source_id
        WHERE s.tenant_id IS DISTINCT FROM r.tenant_id""",
    "an incoming request and its event": """
        SELECT r.id FROM deliveries_incomingrequest r JOIN deliveries_event e ON e.id = r.event_id
        WHERE e.tenant_id <> r.tenant_id""",
    "an announcement and its endpoint": """
        SELECT a.id FROM deliveries_announcement a JOIN deliveries_endpoint e ON e.id = a.endpoint_id
        WHERE e.tenant_id <> a.tenant_id""",
    "an announcement and its delivery": """
        SELECT a.id FROM deliveries_announcement a JOIN deliveries_delivery d ON d.id = a.delivery_id
        WHERE d.tenant_id <> a.tenant_id""",
    "a polled item and its endpoint": """
        SELECT i.id FROM deliveries_pollitem i JOIN deliveries_endpoint e ON e.id = i.endpoint_id
        WHERE e.tenant_id <> i.tenant_id""",
    "a polled item and its delivery": """
        SELECT i.id FROM deliveries_pollitem i JOIN deliveries_delivery d ON d.id = i.delivery_id
        WHERE d.tenant_id <> i.tenant_id""",
    "a lane and its endpoint": """
        SELECT l.endpoint_id FROM deliveries_lane l JOIN deliveries_endpoint e ON e.id = l.endpoint_id
        WHERE e.tenant_id <> l.tenant_id""",
}


def mixed_rows() -> dict[str, int]:
    """By pair: the rows whose tenant differs."""
    found = {}
    with connection.cursor() as cursor:
        for pair, query in MIXED.items():
            cursor.execute(query)
            found[pair] = len(cursor.fetchall())
    return found


def test_the_history_that_every_writer_makes_keeps_its_tenants_apart() -> None:
    tenants = [make_tenant() for _ in range(3)]
    with Webhooks(fails=Reply(500)) as webhooks:
        for tenant in tenants:
            make_endpoints(tenant, [webhooks.url("/a"), webhooks.url("/fails")], retry_schedule=[0])
        # One group of all of them, mixed.
        ingest.publish([new_event(tenant, b'{"n":%d}' % n) for n in range(20) for tenant in tenants])
        for tenant in tenants:
            endpoint = make_endpoint(tenant, webhooks.url("/b"))
            publish(tenant, type="webhook.test", only_endpoint=endpoint.id.bytes)
            deliver_again(
                tenant_id=tenant.id,
                again=[Again(event.id, endpoint.id) for event in events_of(tenant)[:3]],
                trigger=Delivery.Trigger.REPLAY,
            )
        run_until_dry()

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM deliveries_event), (SELECT count(*) FROM deliveries_delivery),"
            " (SELECT count(*) FROM deliveries_attempt)"
        )
        row = cursor.fetchone()
    assert row == (3 * 21, 3 * (20 * 2 + 1 + 3), 3 * (20 * 3 + 1 + 3))
    assert mixed_rows() == dict.fromkeys(MIXED, 0)


def test_the_scan_finds_a_row_of_a_wrong_tenant() -> None:
    tenant, other = make_tenant(), make_tenant()
    make_endpoint(tenant, "http://127.0.0.1:9/")
    publish(tenant)

    Delivery.objects.for_tenant(tenant).update(tenant=other)

    assert mixed_rows() == dict.fromkeys(MIXED, 0) | {
        "a delivery and its event": 1,
        "a delivery and its endpoint": 1,
        "a delivery and its subscription": 1,
    }


@pytest.mark.parametrize("whose", ["event", "endpoint", "both"])
def test_another_tenants_event_or_endpoint_cannot_be_delivered_again(whose: str) -> None:
    tenant, stranger = make_tenant(), make_tenant()
    mine, theirs = (make_endpoint(each, "http://127.0.0.1:9/") for each in (tenant, stranger))
    for each in (tenant, stranger):
        publish(each)

    def event_of(of: Tenant) -> object:
        return events_of(of)[0].id

    made = deliver_again(
        tenant_id=tenant.id,
        again=[
            Again(
                events_of(stranger if whose in {"event", "both"} else tenant)[0].id,
                theirs.id if whose in {"endpoint", "both"} else mine.id,
            ),
            Again(new_id(), mine.id),
        ],
        trigger=Delivery.Trigger.REPLAY,
    )

    assert made == []
    assert (len(deliveries_of(tenant)), len(deliveries_of(stranger))) == (1, 1)
    assert event_of(tenant) != event_of(stranger)
