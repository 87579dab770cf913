"""A tenant's activity: exact while there is little, estimated and bounded when there is much."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deliveries.models import Attempt, Delivery
from deliveries.pipeline.partitions import ensure_partitions
from deliveries.services.activity import PER_SLICE, Activity, Counts, Window, tenant_activity
from tenants.ids import new_id
from tests.support.builders import make_endpoint, make_tenant, publish
from tests.support.seeding import seed

pytestmark = pytest.mark.usefixtures("nothing_rolled_up")


def test_nothing_at_all() -> None:
    now = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)

    found = tenant_activity(tenant=make_tenant(), window=Window.DAY, now=now)

    assert [start for start, _ in found.buckets] == [
        datetime(2026, 5, 3, 13, tzinfo=UTC) + timedelta(hours=hour) for hour in range(24)
    ]
    assert (found.totals, found.is_estimated, found.latency_ms, found.pending) == (Counts(), False, None, 0)
    assert found.success_rate is None


@pytest.mark.parametrize(
    ("window", "first", "buckets"),
    [
        (Window.DAY, datetime(2026, 5, 3, 13, tzinfo=UTC), 24),
        (Window.WEEK, datetime(2026, 4, 27, 18, tzinfo=UTC), 28),
        (Window.MONTH, datetime(2026, 4, 5, tzinfo=UTC), 30),
    ],
)
def test_windows_end_with_the_bucket_of_now(window: Window, first: datetime, buckets: int) -> None:
    now = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)

    found = tenant_activity(tenant=make_tenant(), window=window, now=now)

    assert (found.buckets[0][0], len(found.buckets)) == (first, buckets)


def test_every_delivery_by_its_outcome_and_time() -> None:
    tenant, stranger = make_tenant(), make_tenant()
    for owner in (tenant, stranger):
        make_endpoint(owner, "https://a.example.com")
        for _ in range(6):
            publish(owner)
    rows = list(Delivery.objects.for_tenant(tenant).order_by("id"))
    for row, status in zip(
        rows, ["succeeded", "succeeded", "succeeded", "failed", "cancelled"], strict=False
    ):
        Delivery.objects.for_tenant(tenant).filter(id=row.id).update(status=status, next_attempt_at=None)
    for row, duration in zip(rows[:3], (10.0, 20.0, 40.0), strict=True):
        Attempt.objects.for_tenant(tenant).bulk_create(
            [
                Attempt(
                    id=new_id(),
                    tenant=tenant,
                    delivery_id=row.id,
                    number=1,
                    trigger="automatic",
                    started_at=row.created_at,
                    duration_ms=duration,
                    outcome="succeeded",
                    request_headers=b"",
                    response_headers=b"",
                    response_body=b"",
                )
            ]
        )

    found = tenant_activity(tenant=tenant, window=Window.DAY, now=datetime.now(UTC))

    assert found.totals == Counts(succeeded=3, failed=1, pending=1, cancelled=1)
    assert sum(counts.total for _, counts in found.buckets[-2:]) == 6
    assert (found.is_estimated, found.pending, found.success_rate) == (False, 1, 75.0)
    assert found.latency_ms == (20.0, 38.0, 39.6)


def test_a_burst_is_counted_one_by_one() -> None:
    tenant = make_tenant()
    endpoints = [make_endpoint(tenant, "https://a.example.com")]
    now = datetime.now(UTC)
    seed(tenant, endpoints, count=2_000, since=now - timedelta(hours=3), length=timedelta(seconds=20))

    found = tenant_activity(tenant=tenant, window=Window.DAY, now=now)

    assert (found.totals.total, found.totals.failed, found.is_estimated) == (2_000, 2, False)


def test_much_is_estimated_and_failures_are_exact() -> None:
    tenant = make_tenant()
    endpoints = [make_endpoint(tenant, "https://a.example.com")]
    now = datetime.now(UTC)
    ensure_partitions(now=now, weeks_back=1)
    count = 60_000
    seed(tenant, endpoints, count=count, since=now - timedelta(hours=22), length=timedelta(hours=20))

    with CaptureQueriesContext(connection) as queries:
        found = tenant_activity(tenant=tenant, window=Window.DAY, now=now)

    assert found.is_estimated
    assert abs(found.totals.total - count) < count * 0.03
    assert found.totals.failed == count // 1_000
    assert len(queries) <= 7
    assert per_hour(found) == pytest.approx([3_000] * 18, rel=0.05)


def per_hour(found: Activity) -> list[int]:
    """Of the hours that are full from end to end."""
    filled = [counts.total for _, counts in found.buckets if counts.total]
    return filled[1:19]


def test_a_slice_that_was_read_to_its_end_is_no_estimate() -> None:
    tenant = make_tenant()
    endpoints = [make_endpoint(tenant, "https://a.example.com")]
    now = datetime.now(UTC)
    seed(tenant, endpoints, count=PER_SLICE, since=now - timedelta(minutes=2), length=timedelta(seconds=1))

    found = tenant_activity(tenant=tenant, window=Window.MONTH, now=now)

    assert (found.totals.total, found.is_estimated) == (PER_SLICE, False)
