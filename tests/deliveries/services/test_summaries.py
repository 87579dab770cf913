"""Daily and weekly summaries: to whom, when, and once."""

from datetime import UTC, date, datetime, timedelta

import pytest
from django.core import mail
from django.db import connection

from deliveries.models import Lane, Notice, Usage
from deliveries.services.notice_sending import send_waiting
from deliveries.services.summaries import make_summaries
from deliveries.tasks import open_configured_transport
from tenants.models import Tenant, User
from tenants.services import notifications
from tenants.services.audit import COMMAND
from tenants.services.notifications import Digest, Wanted
from tests.support.builders import make_endpoint, make_tenant
from tests.support.portal import make_member

MONDAY = datetime(2026, 3, 2, 6, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def nothing_waits(database: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE deliveries_announcement, deliveries_notice, tenants_notificationpreference")


def reader(tenant: Tenant, digest: Digest) -> User:
    user = make_member(tenant)
    notifications.set_wanted(actor=COMMAND, tenant=tenant, user=user, wanted=Wanted(True, True, digest))
    return user


def used(tenant: Tenant, day: date, succeeded: int, failed: int) -> None:
    Usage.objects.for_tenant(tenant).create(tenant=tenant, day=day, succeeded=succeeded, failed=failed)


def test_each_reader_gets_the_day_or_the_week_once() -> None:
    tenant = make_tenant()
    daily, weekly = reader(tenant, Digest.DAILY), reader(tenant, Digest.WEEKLY)
    reader(tenant, Digest.NEVER)
    used(tenant, date(2026, 2, 22), 1000, 1000)
    used(tenant, date(2026, 2, 23), 1000, 1)
    used(tenant, date(2026, 3, 1), 234, 2)
    used(tenant, date(2026, 3, 2), 5000, 5000)
    failing = make_endpoint(tenant, "https://receiver.example/?key=secret", uid="shop")
    since = datetime(2026, 2, 28, tzinfo=UTC)
    Lane.unscoped.filter(endpoint=failing).update(failing_since=since, circuit_opened_at=since, failures=30)

    made = [make_summaries(now=MONDAY + hours * timedelta(hours=1)) for hours in range(24)]
    sent = send_waiting(now=MONDAY + DAY, open_transport=open_configured_transport)
    next_day = make_summaries(now=MONDAY + DAY)

    assert made == [2] + [0] * 23
    assert (sent, next_day) == (2, 1)
    by_reader = {message.to[0]: message for message in mail.outbox}
    assert by_reader[daily.email].subject == f"Webhooks of {tenant.slug}, 2026-03-01"
    assert by_reader[weekly.email].subject == f"Webhooks of {tenant.slug}, 2026-02-23 to 2026-03-01"
    assert "- Delivered: 234. Failed for good: 2.\n" in by_reader[daily.email].body
    assert "- Delivered: 1,234. Failed for good: 3.\n" in by_reader[weekly.email].body
    line = "- shop (https://receiver.example/?key=***) has done nothing but fail since 2026-02-28T"
    assert line in by_reader[daily.email].body


def test_a_week_is_named_in_the_readers_language() -> None:
    tenant = make_tenant()
    user = reader(tenant, Digest.WEEKLY)
    User.objects.filter(id=user.id).update(language="de")
    make_summaries(now=MONDAY)

    send_waiting(now=MONDAY, open_transport=open_configured_transport)

    assert [message.subject for message in mail.outbox] == [
        f"Webhooks von {tenant.slug}, 2026-02-23 bis 2026-03-01"
    ]


def test_before_six_it_is_still_yesterday() -> None:
    tenant = make_tenant()
    reader(tenant, Digest.DAILY)

    early = make_summaries(now=MONDAY - timedelta(minutes=1))
    at_six = make_summaries(now=MONDAY)

    assert (early, at_six) == (1, 1)
    due = Notice.objects.filter(tenant=tenant).order_by("summary_on").values_list("summary_on", flat=True)
    assert list(due) == [date(2026, 3, 1), date(2026, 3, 2)]


def test_a_deleted_tenant_has_no_readers_any_more() -> None:
    tenant = make_tenant(deleted_at=MONDAY)
    reader(tenant, Digest.DAILY)

    assert make_summaries(now=MONDAY) == 0
