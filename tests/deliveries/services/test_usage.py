"""What tenants used: counted by publishing and by dispatchers, added up by month, for operators alone."""

from datetime import UTC, date, datetime

import pytest
from django.urls import reverse

from deliveries.models import Usage
from deliveries.pipeline import counters
from deliveries.pipeline.record import Result
from deliveries.pipeline.tally import tally
from deliveries.services import usage
from deliveries.services.usage import Month
from tenants.ids import new_id
from tenants.models import Tenant
from tests.support.api import make_tenant
from tests.support.operators import looker, operator, without_rights
from tests.support.portal import text_of
from tests.support.published import make_type, publish

pytestmark = pytest.mark.usefixtures("database")


def used(tenant: Tenant, day: date, *counts: int) -> None:
    events, attempts, succeeded, failed = counts
    row = Usage(tenant=tenant, day=day, events=events, attempts=attempts, succeeded=succeeded, failed=failed)
    row.save(force_insert=True)


def result(tenant: Tenant, *, is_success: bool, is_ended: bool = True) -> Result:
    return Result(
        attempt_id=new_id().bytes,
        tenant_id=tenant.id.bytes,
        delivery_id=new_id().bytes,
        number=1,
        trigger="automatic",
        started_at=0.0,
        duration_ms=1.0,
        dns_ms=None,
        connect_ms=None,
        tls_ms=None,
        first_byte_ms=None,
        outcome="succeeded" if is_success else "http_error",
        detail="",
        status_code=200 if is_success else 500,
        remote_ip=None,
        request_headers=b"",
        response_headers=b"",
        response_body=b"",
        is_truncated=False,
        read_count=0,
        is_success=is_success,
        wait_seconds=None,
        is_automatic=True,
        manual_seen=None,
        is_ended=is_ended,
    )


def test_what_is_published_and_delivered_is_counted_for_its_tenant() -> None:
    one, other = make_tenant(), make_tenant()
    make_type(one)
    for _ in range(3):
        publish(one)
    tally(
        [
            result(one, is_success=True),
            result(one, is_success=True),
            result(one, is_success=False),
            result(one, is_success=False, is_ended=False),
            result(other, is_success=True),
        ],
        clock_offset=0.0,
        seconds=0.001,
    )

    counters.write()

    today = datetime.now(UTC).date()
    for tenant, counted in ((one, (3, 4, 2, 1)), (other, (0, 1, 1, 0))):
        row = Usage.objects.for_tenant(tenant).get()
        assert abs((row.day - today).days) <= 1
        assert (row.events, row.attempts, row.succeeded, row.failed) == counted
    # More of the same day is added to it.
    publish(one)
    counters.write()
    assert sum(Usage.objects.for_tenant(one).values_list("events", flat=True)) == 4


def test_days_are_added_up_to_months() -> None:
    tenant, other = make_tenant(), make_tenant()
    used(tenant, date(2026, 1, 31), 5, 6, 4, 1)
    used(tenant, date(2026, 2, 1), 10, 20, 15, 2)
    used(tenant, date(2026, 2, 28), 1, 2, 3, 4)
    used(other, date(2026, 2, 3), 7, 7, 7, 0)

    assert usage.months_of(tenant) == [
        Month(date(2026, 2, 1), 11, 22, 18, 6),
        Month(date(2026, 1, 1), 5, 6, 4, 1),
    ]
    assert usage.month_of([tenant.id, other.id], date(2026, 2, 1)) == {
        tenant.id: Month(date(2026, 2, 1), 11, 22, 18, 6),
        other.id: Month(date(2026, 2, 1), 7, 7, 7, 0),
    }
    assert usage.next_month(date(2026, 12, 1)) == date(2027, 1, 1)


def test_operators_read_it_on_pages_and_take_it_as_a_file() -> None:
    tenant = make_tenant(name="=cmd|' /C calc'!A0")
    used(tenant, date(2025, 7, 4), 1234, 1300, 1200, 34)
    client = looker()

    own = text_of(client.get(reverse("admin:tenant-usage", args=[tenant.pk])))
    assert "2025-07 1,234 1,300 1,200 34" in own
    page = text_of(client.get(reverse("admin:usage"), {"month": "2025-07"}))
    assert f"{tenant.slug} =cmd|' /C calc'!A0 1,234 1,300 1,200 34" in page
    file = client.get(reverse("admin:usage-csv"), {"month": "2025-07"})
    lines = b"".join(file.streaming_content).decode().splitlines()  # type: ignore[attr-defined] # of a streaming answer
    assert lines[0] == "tenant,slug,month,events,attempts,succeeded,failed"
    assert [line.split(",")[1:] for line in lines[1:]] == [
        [tenant.slug, "2025-07", "1234", "1300", "1200", "34"]
    ]
    assert client.get(reverse("admin:usage"), {"month": "July"}).status_code == 422
    assert client.get(reverse("admin:usage-csv"), {"month": "July"}).status_code == 302
    assert operator().get(reverse("admin:usage")).status_code == 200
    for name in ("admin:usage", "admin:usage-csv"):
        assert without_rights().get(reverse(name)).status_code == 403
    assert without_rights().get(reverse("admin:tenant-usage", args=[tenant.pk])).status_code == 403
