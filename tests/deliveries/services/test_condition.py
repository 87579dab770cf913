"""How endpoints are doing: the latest deliveries, what is due, what holds them; one query for all."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deliveries.models import Delivery, Lane
from deliveries.services.condition import LATEST, Condition, conditions_of, may_need_attention
from deliveries.services.stopping import disable_endpoint
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.support.builders import make_endpoint, make_tenant, publish

pytestmark = pytest.mark.usefixtures("database")


def set_deliveries(tenant: Tenant, *changes: dict[str, Any]) -> None:
    """The tenant's deliveries, the oldest first, one change each."""
    rows = Delivery.objects.for_tenant(tenant).order_by("id")
    for row, change in zip(rows, changes, strict=True):
        Delivery.objects.for_tenant(tenant).filter(id=row.id).update(**change)


FAILED = {
    "status": "failed",
    "attempt_count": 3,
    "last_outcome": "http_error",
    "last_status_code": 500,
    "next_attempt_at": None,
}
SUCCEEDED = {"status": "succeeded", "attempt_count": 1, "last_outcome": "succeeded", "next_attempt_at": None}


def test_the_latest_deliveries_in_letters() -> None:
    tenant = make_tenant()
    row = make_endpoint(tenant, "https://a.example.com")
    for _ in range(6):
        publish(tenant)
    now = datetime.now(UTC)
    set_deliveries(
        tenant,
        SUCCEEDED,
        FAILED,
        {"status": "cancelled", "cancel_reason": "requested", "next_attempt_at": None},
        {
            "attempt_count": 1,
            "last_outcome": "timeout",
            "next_attempt_at": now + timedelta(hours=1),
        },
        {"next_attempt_at": now - timedelta(hours=2)},
        {"next_attempt_at": now - timedelta(hours=1)},
    )
    Lane.objects.for_tenant(tenant).filter(endpoint=row).update(
        hold_until=now + timedelta(minutes=1),
        hold_reason="rate",
        failing_since=now - timedelta(hours=3),
        circuit_opened_at=now,
    )

    found = conditions_of(tenant=tenant, endpoint_ids=[row.id], now=now)

    assert found == {
        row.id: Condition(
            latest="sfcrpp",
            last_outcome="timeout",
            last_status_code=None,
            due=2,
            due_since=now - timedelta(hours=2),
            hold_reason="rate",
            hold_until=now + timedelta(minutes=1),
            is_paused=False,
            failing_since=now - timedelta(hours=3),
            is_circuit_open=True,
        )
    }
    health = found[row.id]
    assert (health.tried, health.unsuccessful, health.failing_in_a_row) == (3, 2, 2)


def test_a_hold_that_is_over_is_none() -> None:
    tenant = make_tenant()
    row = make_endpoint(tenant, "https://a.example.com")
    now = datetime.now(UTC)
    Lane.objects.for_tenant(tenant).filter(endpoint=row).update(hold_until=now, hold_reason="circuit")

    assert conditions_of(tenant=tenant, endpoint_ids=[row.id], now=now) == {row.id: Condition()}


def test_of_many_deliveries_the_newest() -> None:
    tenant = make_tenant()
    row = make_endpoint(tenant, "https://a.example.com")
    for _ in range(LATEST + 2):
        publish(tenant)
    set_deliveries(tenant, FAILED, FAILED, *[SUCCEEDED] * LATEST)

    health = conditions_of(tenant=tenant, endpoint_ids=[row.id], now=datetime.now(UTC))[row.id]

    assert (health.latest, health.last_outcome) == ("s" * LATEST, None)


def test_another_tenants_endpoint_has_nothing_to_tell() -> None:
    tenant, stranger = make_tenant(), make_tenant()
    row = make_endpoint(tenant, "https://a.example.com")
    publish(tenant)

    with CaptureQueriesContext(connection) as queries:
        assert conditions_of(tenant=stranger, endpoint_ids=[row.id], now=datetime.now(UTC)) == {}
        assert conditions_of(tenant=stranger, endpoint_ids=[], now=datetime.now(UTC)) == {}

    assert len(queries) == 1


def test_those_that_the_platform_disabled_are_looked_at_first() -> None:
    tenant = make_tenant()
    gone, by_hand, busy, idle = (make_endpoint(tenant, f"https://{name}.example.com") for name in "abcd")
    disable_endpoint(actor=COMMAND, endpoint=gone, reason=gone.DisabledReason.GONE)
    disable_endpoint(actor=COMMAND, endpoint=by_hand)
    lanes = Lane.objects.for_tenant(tenant)
    lanes.update(ready_at=None, is_ready=False)
    lanes.filter(endpoint=busy).update(ready_at=datetime.now(UTC))

    assert [row.id for row in may_need_attention(tenant)] == [gone.id, busy.id, idle.id, by_hand.id]
