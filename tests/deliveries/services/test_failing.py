"""Endpoints that fail for days: warned, disabled, and what they missed is ready to be sent."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from deliveries.models import Announcement, Delivery, Endpoint, Job, Lane, Notice
from deliveries.pipeline import ingest
from deliveries.services import endpoint_changes, failing, health, job_work, jobs, missed, notices, stopping
from deliveries.services.failing import Judged, judge_failing
from tenants.models import Tenant
from tenants.services.audit import PLATFORM
from tests.support.builders import deliveries_of, lane_of, make_endpoint, make_tenant, new_event, publish
from tests.support.portal import make_member
from tests.support.running import Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")

URL = "https://receiver.example/hooks"
DAY = timedelta(days=1)


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def fail(endpoint: Endpoint, *, since: timedelta, last: timedelta = timedelta(), **fields: Any) -> None:
    """Its lane as a holder leaves it: failing since so long ago, last so long ago."""
    now = timezone.now()
    values = {
        "failures": 100,
        "failing_since": now - since,
        "failed_at": now - last,
        "is_own_failing": True,
        "circuit_opened_at": now - since,
        "circuit_seconds": 900,
        "hold_until": now + timedelta(minutes=15),
        "hold_reason": "circuit",
    }
    Lane.unscoped.filter(endpoint=endpoint).update(**(values | fields))


def told(tenant: Tenant) -> list[str]:
    return list(Announcement.objects.for_tenant(tenant).order_by("id").values_list("kind", flat=True))


def now_of(endpoint: Endpoint) -> Endpoint:
    row: Endpoint = endpoint_changes.endpoints_of(endpoint.tenant).get(id=endpoint.id)
    return row


def test_it_is_warned_after_four_days_and_disabled_after_five(now: datetime) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)

    fail(endpoint, since=4 * DAY - timedelta(minutes=1))
    early = judge_failing(now=now)
    fail(endpoint, since=4 * DAY)
    warned, again = judge_failing(now=now), judge_failing(now=now)
    warning = Announcement.objects.for_tenant(tenant).get()
    fail(endpoint, since=5 * DAY)
    too_soon_after_the_warning = judge_failing(now=now)
    fail(endpoint, since=5 * DAY, warned_at=now - DAY)
    disabled = judge_failing(now=now)

    assert [early, warned, again] == [Judged(0, 0), Judged(1, 0), Judged(0, 0)]
    assert [too_soon_after_the_warning, disabled] == [Judged(0, 0), Judged(0, 1)]
    assert told(tenant) == ["endpoint.disabling", "endpoint.disabled"]
    assert abs(warning.data["disables_at"] - (now + DAY).timestamp()) < 5
    row = now_of(endpoint)
    assert (row.status, row.disabled_reason) == ("disabled", "failing")
    assert row.missed_since == lane_of(endpoint).failing_since


def test_nothing_is_disabled_without_a_warning_before(now: datetime) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    fail(endpoint, since=50 * DAY)

    judged = judge_failing(now=now), judge_failing(now=now)

    assert judged == (Judged(1, 0), Judged(0, 0))
    warning = Announcement.objects.for_tenant(tenant).get()
    assert abs(warning.data["disables_at"] - (now + DAY).timestamp()) < 5
    assert now_of(endpoint).status == "enabled"


@pytest.mark.parametrize(
    ("limits", "fields"),
    [
        ({}, {"failures": 19}),
        ({}, {"last": 2 * DAY}),
        ({"disable_after_days": 0}, {}),
        ({"disable_after_days": 30}, {}),
    ],
    ids=["few failures", "the last one long ago", "never agreed", "later agreed"],
)
def test_it_stays_enabled(now: datetime, limits: dict[str, int], fields: dict[str, Any]) -> None:
    tenant = make_tenant(limits=limits)
    endpoint = make_endpoint(tenant, URL)
    fail(endpoint, since=6 * DAY, **fields)
    Lane.unscoped.filter(endpoint=endpoint).update(warned_at=now - 3 * DAY)

    assert judge_failing(now=now) == Judged(0, 0)
    assert now_of(endpoint).status == "enabled"


def test_one_that_a_dispatcher_has_is_left_for_the_next_run(now: datetime) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    fail(endpoint, since=6 * DAY, warned_at=now - 3 * DAY, dispatcher_id=tenant.id)

    assert judge_failing(now=now) == Judged(0, 0)


def test_so_many_failures_in_a_row_are_enough_where_that_is_agreed(now: datetime) -> None:
    tenant = make_tenant(limits={"disable_after_failures": 50})
    endpoint = make_endpoint(tenant, URL)

    fail(endpoint, since=timedelta(minutes=1), failures=39)
    none = judge_failing(now=now)
    fail(endpoint, since=timedelta(minutes=1), failures=40)
    warned = judge_failing(now=now)
    fail(endpoint, since=timedelta(minutes=1), failures=49)
    not_yet = judge_failing(now=now)
    fail(endpoint, since=timedelta(minutes=1), failures=50)
    too_soon_after_the_warning = judge_failing(now=now)
    fail(endpoint, since=timedelta(minutes=1), failures=50, warned_at=now - timedelta(hours=1))
    disabled = judge_failing(now=now)

    assert [none, warned, not_yet] == [Judged(0, 0), Judged(1, 0), Judged(0, 0)]
    assert [too_soon_after_the_warning, disabled] == [Judged(0, 0), Judged(0, 1)]


def test_who_had_a_notice_a_moment_ago_reads_the_warning_before_it_is_disabled(now: datetime) -> None:
    """A notice waits for a quarter of an hour after the last one, and says of each endpoint what is so by then."""
    tenant = make_tenant(limits={"disable_after_failures": 50})
    make_member(tenant)
    other, endpoint = make_endpoint(tenant, URL), make_endpoint(tenant, URL)
    fail(other, since=4 * DAY)
    judge_failing(now=now)
    notices.gather(now=now)
    fail(endpoint, since=timedelta(minutes=1), failures=50)
    warning = judge_failing(now=now)
    data = Announcement.objects.for_tenant(tenant).latest("id").data

    minutes = [judge_failing(now=now + timedelta(minutes=minute)) for minute in range(3)]
    for minute in (3, 16):
        notices.gather(now=now + timedelta(minutes=minute))

    first, second = Notice.objects.filter(tenant=tenant).order_by("created_at")
    assert (warning, minutes) == (Judged(1, 0), [Judged(0, 0)] * 3)
    assert second.created_at - first.created_at == timedelta(minutes=16)
    assert [fact["kind"] for fact in second.facts] == ["endpoint.disabling"]
    assert abs(data["disables_at"] - (now + timedelta(hours=1)).timestamp()) < 5
    assert now_of(endpoint).status == "enabled"


def test_an_endpoint_that_recovers_between_look_and_lock_stays_enabled(now: datetime) -> None:
    """The sweep has read that it fails; a good answer comes before it has the locks."""
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    fail(endpoint, since=6 * DAY, warned_at=now - 3 * DAY)
    (found,) = failing._failing(is_warned=True, share=1.0)
    Lane.unscoped.filter(endpoint=endpoint).update(failing_since=None, failures=0)

    assert not failing._disable(*found)
    assert now_of(endpoint).status == "enabled"
    assert told(tenant) == []


def test_what_fails_for_operational_events_alone_is_disabled_quietly(now: datetime) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    fail(endpoint, since=5 * DAY, warned_at=now - DAY, is_own_failing=False)

    judge_failing(now=now)

    assert list(Announcement.objects.for_tenant(tenant).values_list("kind", "is_quiet")) == [
        ("endpoint.disabled", True)
    ]


def test_disabling_ends_what_waited_and_enabling_has_what_was_missed_ready(now: datetime) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        ingest.publish([new_event(tenant) for _ in range(5)])
        fail(endpoint, since=5 * DAY, warned_at=now - DAY)
        judge_failing(now=now)
        run_until_dry()
        cancelled = [(row.status, row.cancel_reason) for row in deliveries_of(tenant)]
        publish(tenant)

        enabled = stopping.enable_endpoint(actor=PLATFORM, endpoint=endpoint)
        assert enabled.missed_since is not None
        plan = jobs.Plan(
            kind=Job.Kind.RECOVER,
            only=Job.Only.FAILED,
            since=enabled.missed_since,
            until=datetime.now(UTC),
        )
        recovery = jobs.create_job(actor=PLATFORM, endpoint=enabled, plan=plan)
        job_work.work(job_id=recovery.id)
        # What was published meanwhile made no delivery that could have failed: it is still to be sent.
        between = now_of(endpoint)
        rest = missed.send_missed(actor=PLATFORM, endpoint=between, now=datetime.now(UTC))
        job_work.work(job_id=rest.id)
        run_until_dry()

    assert cancelled == [("cancelled", "endpoint_disabled")] * 5
    assert len(webhooks.requests) == 6
    assert (recovery.total, between.missed_since, rest.total) == (5, enabled.missed_since, 1)
    assert now_of(endpoint).missed_since is None
    found = health.of(now_of(endpoint), now=timezone.now())
    assert (found.circuit, found.failures, found.failing_since, found.disables_at) == (
        "closed",
        0,
        None,
        None,
    )


def test_a_recovery_of_a_part_leaves_the_rest_to_be_recovered() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    stopping.disable_endpoint(actor=PLATFORM, endpoint=endpoint)
    enabled = stopping.enable_endpoint(actor=PLATFORM, endpoint=endpoint)
    assert enabled.missed_since is not None
    since = enabled.missed_since + timedelta(microseconds=1)
    plan = jobs.Plan(kind=Job.Kind.RECOVER, only=Job.Only.FAILED, since=since, until=datetime.now(UTC))

    with transaction.atomic():
        jobs.create_job(actor=PLATFORM, endpoint=enabled, plan=plan)

    assert now_of(endpoint).missed_since == enabled.missed_since
    assert not Delivery.objects.for_tenant(tenant).exists()
