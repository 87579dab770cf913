"""The statistics of an endpoint: counts and latencies by bucket, zeros included."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deliveries.models import Delivery
from deliveries.services import stats
from tenants import ids
from tenants.ids import Minter
from tenants.models import Tenant
from tests.support.api import error_codes, make_tenant, tenant_api
from tests.support.published import add_attempt, delivery_of, end, make_endpoint, make_type, publish

pytestmark = pytest.mark.usefixtures("nothing_rolled_up")

NOTHING: dict[str, Any] = {
    "succeeded": 0,
    "failed": 0,
    "cancelled": 0,
    "attempts": 0,
    "latency_ms": {"p50": None, "p95": None, "p99": None},
}


@pytest.fixture
def tenant(database: None) -> Tenant:
    made = make_tenant()
    make_type(made)
    return made


def asked(tenant: Tenant, endpoint: Any, **query: Any) -> Any:
    response = tenant_api(tenant).get(
        f"/tenants/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/stats", **query
    )
    assert response.status_code == 200, response.content
    return json.loads(response.content)


def created_at(delivery: Delivery, at: datetime) -> Delivery:
    """Key and column, as if it had been made then."""
    key = Minter(int(at.timestamp() * 1_000_000)).next()
    Delivery.objects.for_tenant(delivery.tenant_id).filter(id=delivery.id).update(id=key, created_at=at)
    moved: Delivery = Delivery.objects.for_tenant(delivery.tenant_id).get(id=key)
    return moved


def text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_the_last_day_by_hour_with_its_zeros(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    before = datetime.now(UTC)

    found = asked(tenant, endpoint)

    assert len(found["data"]) == 25
    first = (before - timedelta(hours=24)).replace(minute=0, second=0, microsecond=0)
    starts = [one.pop("start") for one in found["data"]]
    assert starts[0] in {text(first), text(first + timedelta(hours=1))}
    assert all(one == NOTHING for one in found["data"])
    assert found["totals"] == NOTHING
    assert (found["pending"], found["oldest_pending_at"]) == (0, None)


def test_counts_by_minute(tenant: Tenant) -> None:
    endpoint, other = make_endpoint(tenant), make_endpoint(tenant, event_types=[])
    noon = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
    made = [created_at(delivery_of(publish(tenant)), noon + timedelta(seconds=at)) for at in (0, 30, 60, 90)]
    end(made[0], "succeeded", attempt_count=2)
    end(made[1], "failed", attempt_count=1)
    end(made[2], "cancelled")
    for number, milliseconds in enumerate((10.0, 30.0)):
        add_attempt(made[0], number=number + 1, duration_ms=milliseconds)
    add_attempt(made[1], duration_ms=20.0)

    found = asked(
        tenant, endpoint, since=text(noon), until=text(noon + timedelta(minutes=3)), bucket="minute"
    )

    latency = {"p50": 20.0, "p95": 29.0, "p99": 29.8}
    assert found["data"] == [
        {
            "start": text(noon),
            "succeeded": 1,
            "failed": 1,
            "cancelled": 0,
            "attempts": 3,
            "latency_ms": latency,
        },
        {"start": text(noon + timedelta(minutes=1)), **NOTHING, "cancelled": 1},
        {"start": text(noon + timedelta(minutes=2)), **NOTHING},
    ]
    assert found["totals"] == {
        "succeeded": 1,
        "failed": 1,
        "cancelled": 1,
        "attempts": 3,
        "latency_ms": latency,
    }
    assert (found["pending"], found["oldest_pending_at"]) == (1, text(noon + timedelta(seconds=90)))
    assert asked(tenant, other)["totals"] == NOTHING


def test_the_window_cuts_to_the_second(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
    end(created_at(delivery_of(publish(tenant)), at), "succeeded")

    for since, until, expected in ((at, at + timedelta(seconds=1), 1), (at - timedelta(hours=1), at, 0)):
        found = asked(tenant, endpoint, since=text(since), until=text(until), bucket="day")
        assert found["totals"]["succeeded"] == expected


def test_current_to_the_second(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    assert asked(tenant, endpoint)["totals"] == NOTHING

    end(delivery, "succeeded", attempt_count=1)

    assert asked(tenant, endpoint)["totals"]["succeeded"] == 1
    # An hour may have begun since.
    assert sum(bucket["succeeded"] for bucket in asked(tenant, endpoint)["data"][-2:]) == 1


def test_percentiles_of_very_many_come_from_a_part(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "SAMPLE", 5)
    endpoint = make_endpoint(tenant)
    for _ in range(60):
        delivery = end(delivery_of(publish(tenant)), "succeeded", attempt_count=1)
        add_attempt(delivery, duration_ms=20.0)

    found = asked(tenant, endpoint)

    assert found["totals"]["succeeded"] == found["totals"]["attempts"] == 60
    assert found["totals"]["latency_ms"] == {"p50": 20.0, "p95": 20.0, "p99": 20.0}


@pytest.mark.parametrize(
    ("query", "errors"),
    [
        ({"bucket": "week"}, ["bucket"]),
        ({"since": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00Z", "bucket": "minute"}, ["bucket"]),
        ({"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, ["until"]),
        ({"since": "2999-01-01T00:00:00Z"}, ["since"]),
        ({"limit": "5"}, ["limit"]),
    ],
)
def test_odd_windows_are_refused(tenant: Tenant, query: dict[str, str], errors: list[str]) -> None:
    endpoint = make_endpoint(tenant)

    response = tenant_api(tenant).get(
        f"/tenants/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/stats", **query
    )

    assert response.status_code == 422
    assert [field for field, _ in error_codes(response)] == errors


def test_the_edges_of_the_calendar(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)

    for since, until in (
        ("0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z"),
        ("9999-12-31T00:00:00Z", "9999-12-31T23:59:59Z"),
    ):
        path = f"/tenants/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/stats"
        assert tenant_api(tenant).get(path, until=since).status_code == 200
        for history in ("events", "deliveries"):
            found = tenant_api(tenant).get(f"/tenants/{tenant.slug}/{history}", since=since, until=until)
            assert json.loads(found.content)["data"] == []
        assert asked(tenant, endpoint, since=since, until=until)["totals"] == NOTHING
