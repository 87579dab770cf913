"""Roll-ups tell what a scan of the same history tells: as it grows, as it changes, and after it is gone."""

import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from deliveries.models import Attempt, Delivery, Endpoint, Rollup, RollupGone, RollupState
from deliveries.pipeline import partitions, retention, rollups
from deliveries.services import figures
from deliveries.services.activity import Window, tenant_activity
from deliveries.services.figures import Series
from deliveries.services.stats import Bucket, endpoint_stats
from tenants.ids import Minter
from tenants.models import Tenant
from tests.support.builders import make_endpoint, make_tenant
from tests.support.running import until

pytestmark = pytest.mark.usefixtures("database")

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def alone(nothing_rolled_up: None) -> None:
    """History is this test's alone: roll-ups are of all tenants."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE deliveries_event, deliveries_delivery, deliveries_attempt")


def at(**ago: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(**ago)


def insert(
    endpoint: Endpoint, made_at: datetime, *statuses: str, milliseconds: float = 20.0
) -> list[Delivery]:
    """One delivery a status, each with an attempt, but for those that were cancelled."""
    partitions.ensure_partitions(now=made_at, weeks_ahead=0)
    minter = Minter(int(made_at.timestamp() * 1e6))
    rows = [
        Delivery(
            id=minter.next(),
            tenant_id=endpoint.tenant_id,
            endpoint_id=endpoint.id,
            event_id=minter.next(),
            event_type="order.created",
            status=status,
            sequence=1,
            size=2,
            attempt_count=0 if status == "cancelled" else 1,
            next_attempt_at=made_at + timedelta(days=60) if status == "pending" else None,
            created_at=made_at,
            completed_at=None if status == "pending" else made_at,
        )
        for status in statuses
    ]
    Delivery.objects.for_tenant(endpoint.tenant_id).bulk_create(rows)
    for row in rows:
        if row.attempt_count:
            attempt(row, made_at, milliseconds=milliseconds)
    return rows


def attempt(delivery: Delivery, when: datetime, *, milliseconds: float) -> None:
    Attempt.objects.for_tenant(delivery.tenant_id).bulk_create(
        [
            Attempt(
                id=Minter(int(when.timestamp() * 1e6)).next(),
                tenant_id=delivery.tenant_id,
                delivery_id=delivery.id,
                number=1,
                trigger="automatic",
                started_at=when,
                duration_ms=milliseconds,
                outcome="succeeded",
                request_headers=b"",
                response_headers=b"",
                response_body=b"",
            )
        ]
    )


def ended(delivery: Delivery, status: str, *, attempts: int) -> None:
    rows = Delivery.objects.for_tenant(delivery.tenant_id).filter(id=delivery.id)
    rows.update(status=status, next_attempt_at=None, attempt_count=attempts)


def roll_up(now: datetime | None = None) -> None:
    """To the end, as beat does with its runs: one sees who writes, the next finds that they are done."""
    now = now or datetime.now(UTC)
    rollups.roll_up(now=now, seconds=30)
    wait_for_other_writers()
    rollups.roll_up(now=now + timedelta(seconds=30), seconds=30)


def wait_for_other_writers() -> None:
    """Transactions are numbered for the whole server, and other tests write to other databases of it."""
    deadline = time.monotonic() + 60
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute(
                "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > seen_transaction"
                " FROM deliveries_rollupstate"
            )
            if cursor.fetchone() == (True,):
                return
            time.sleep(0.01)
    raise AssertionError("somebody writes for a minute")


def rolled_to() -> datetime | None:
    state: RollupState = RollupState.objects.get()
    return state.minutes_to


def counted(
    endpoint: Endpoint, *, since: datetime, until: datetime | None = None, bucket: Bucket = Bucket.HOUR
) -> list[Any]:
    found = endpoint_stats(endpoint=endpoint, since=since, until=until or datetime.now(UTC), bucket=bucket)
    return [
        (start, each.succeeded, each.failed, each.cancelled, each.attempts) for start, each in found.buckets
    ]


def shown(tenant: Tenant, window: Window, *, now: datetime) -> Any:
    found = tenant_activity(tenant=tenant, window=window, now=now)
    return asdict(found) | {"latency_ms": None}


def history_is_gone(tenant: Tenant) -> None:
    for model in (Delivery, Attempt):
        model.objects.for_tenant(tenant).all().delete()


LONG_AGO = timedelta(days=40)


def make_history(tenant: Tenant) -> list[Endpoint]:
    """Of weeks, days, hours and minutes ago, on both sides of every border there is."""
    endpoints = [make_endpoint(tenant, f"https://{name}.example.com") for name in "ab"]
    times = [
        at(days=35),
        at(days=8),
        at(days=2).replace(minute=0, second=0),
        at(days=2).replace(minute=59, second=59),
        *(at(hours=hours, minutes=7) for hours in (27, 26, 25, 3, 1)),
        *(at(minutes=minutes) for minutes in (50, 6, 5, 4, 3, 2, 1, 0)),
    ]
    for number, made_at in enumerate(times):
        insert(endpoints[0], made_at, *["succeeded"] * (number + 1), "failed", "cancelled")
        insert(endpoints[1], made_at, "succeeded", milliseconds=400.0)
    return endpoints


def test_the_same_figures_as_of_history_itself() -> None:
    tenant, stranger = make_tenant(), make_tenant()
    endpoints = [*make_history(tenant), make_endpoint(stranger, "https://c.example.com")]
    insert(endpoints[2], at(days=2), "failed")
    # Of one moment before and after: an hour may begin in between.
    now = datetime.now(UTC)
    since = now - LONG_AGO
    scanned = [counted(each, since=since, until=now) for each in endpoints]
    charts = [shown(tenant, window, now=now) for window in Window]

    roll_up()

    assert Rollup.unscoped.filter(series_id=endpoints[0].id).count() >= 12
    assert [counted(each, since=since, until=now) for each in endpoints] == scanned
    days = counted(endpoints[2], since=since, until=now, bucket=Bucket.DAY)
    assert [row[1:] for row in days if any(row[1:])] == [(0, 1, 0, 1)]
    assert [shown(tenant, window, now=now) for window in Window] == charts


def test_figures_outlast_their_history() -> None:
    tenant = make_tenant()
    endpoints = make_history(tenant)
    since = datetime.now(UTC) - LONG_AGO
    roll_up()
    last = rolled_to() or since
    before = [[row for row in counted(each, since=since) if row[0] + HOUR <= last] for each in endpoints]

    history_is_gone(tenant)
    roll_up()

    after = [[row for row in counted(each, since=since) if row[0] + HOUR <= last] for each in endpoints]
    assert after == before
    assert sum(row[1] for row in after[0]) > 40


def test_minutes_of_the_last_day_and_hours_before() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "https://a.example.com")
    for made_at in (at(hours=30), at(hours=5)):
        insert(endpoint, made_at.replace(minute=10), "succeeded", "succeeded")
        insert(endpoint, made_at.replace(minute=20), "succeeded", "succeeded")

    roll_up()

    cells = Rollup.unscoped.filter(series_id=endpoint.id).order_by("begins_at")
    hour = at(hours=30).replace(minute=0, second=0)
    assert [(each.minutes, each.succeeded) for each in cells if each.minutes == 60] == [(60, 4)]
    assert cells[0].begins_at == hour
    assert [(each.minutes, each.succeeded) for each in cells if each.minutes == 1] == [(1, 2), (1, 2)]

    # A day later what were minutes are an hour, and nothing is counted twice.
    roll_up(datetime.now(UTC) + timedelta(days=1))

    assert [(each.minutes, each.succeeded) for each in cells.all()] == [(60, 4), (60, 4)]
    assert [row[1] for row in counted(endpoint, since=at(hours=31)) if row[1]] == [4, 4]
    tenants = Rollup.unscoped.filter(series_id=tenant.id)
    assert sorted((each.minutes, each.succeeded) for each in tenants) == [(60, 4), (60, 4)]


def test_what_ends_later_is_counted_where_it_was_made() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "https://a.example.com")
    old, late = at(days=3), at(hours=2)
    first, second = insert(endpoint, old, "pending", "succeeded")[0], insert(endpoint, late, "pending")[0]
    roll_up()
    assert sum(row[1] for row in counted(endpoint, since=at(days=4))) == 1

    ended(first, "succeeded", attempts=2)
    ended(second, "cancelled", attempts=1)
    attempt(first, datetime.now(UTC), milliseconds=30.0)

    def shown_now() -> list[Any]:
        return [row[1:] for row in counted(endpoint, since=at(days=4)) if any(row[1:])]

    # Before it is counted again, statistics look at what was open themselves.
    assert shown_now() == [(2, 0, 0, 3), (0, 0, 1, 1)]
    for hours in (1, 2):
        roll_up(datetime.now(UTC) + hours * HOUR)
        assert shown_now() == [(2, 0, 0, 3), (0, 0, 1, 1)]
    assert not Rollup.unscoped.filter(tenant=tenant, is_open=True).exists()
    history_is_gone(tenant)
    assert shown_now() == [(2, 0, 0, 3), (0, 0, 1, 1)]


def test_a_retry_by_hand_of_what_had_ended_is_counted_too() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "https://a.example.com")
    (failed,) = insert(endpoint, at(days=3), "failed")
    roll_up()
    assert not Rollup.unscoped.filter(tenant=tenant, is_open=True).exists()

    ended(failed, "succeeded", attempts=2)
    attempt(failed, datetime.now(UTC), milliseconds=30.0)
    roll_up(datetime.now(UTC) + HOUR)

    assert [row[1:] for row in counted(endpoint, since=at(days=4)) if any(row[1:])] == [(1, 0, 0, 2)]


def test_what_commits_late_is_not_left_out() -> None:
    """A publisher makes its keys, stands still for minutes, and commits. Roll-ups wait for it."""
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "https://a.example.com")
    insert(endpoint, at(minutes=30), "succeeded")
    made_at = at(minutes=20)
    written, go_on = threading.Event(), threading.Event()

    def publish() -> None:
        from django.db import connections, transaction

        with transaction.atomic():
            insert(endpoint, made_at, "succeeded", "failed")
            written.set()
            go_on.wait(20)
        connections.close_all()

    publisher = threading.Thread(target=publish)
    publisher.start()
    assert written.wait(20)
    now = datetime.now(UTC)
    for minutes in (0, 1, 2):
        rollups.roll_up(now=now + minutes * MINUTE, seconds=10)
    assert rolled_to() is None

    go_on.set()
    publisher.join()
    for minutes in (3, 4):
        wait_for_other_writers()
        rollups.roll_up(now=now + minutes * MINUTE, seconds=10)

    assert (rolled_to() or now - HOUR) >= now - 3 * MINUTE
    cells = Rollup.unscoped.filter(series_id=endpoint.id).order_by("begins_at")
    assert [(each.succeeded, each.failed) for each in cells] == [(1, 0), (1, 1)]


def test_two_runs_at_once_count_once() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "https://a.example.com")
    for hours in range(1, 60, 3):
        insert(endpoint, at(hours=hours), "succeeded", "pending", "failed")
    now = datetime.now(UTC)
    rollups.roll_up(now=now, seconds=10)
    wait_for_other_writers()
    begin = threading.Barrier(3)

    def run() -> None:
        from django.db import connections

        begin.wait(20)
        for seconds in range(20, 60, 2):
            rollups.roll_up(now=now + timedelta(seconds=seconds), seconds=10)
        connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for each in threads:
        each.start()
    begin.wait(20)
    for each in threads:
        each.join()

    found = [row[1:] for row in counted(endpoint, since=at(hours=61)) if any(row[1:])]
    assert found == [(1, 1, 0, 3)] * 20
    assert sum(each.succeeded for each in Rollup.unscoped.filter(series_id=tenant.id)) == 20


def test_a_run_that_was_stopped_goes_on() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "https://a.example.com")
    for hours in range(1, 60, 3):
        insert(endpoint, at(hours=hours), "succeeded")
    now = datetime.now(UTC)

    runs = 0
    while (rolled_to() or at(days=3)) < now - 5 * MINUTE:
        rollups.roll_up(now=now + runs * MINUTE, seconds=0)
        runs += 1

    assert runs > 20
    assert [row[1] for row in counted(endpoint, since=at(hours=61)) if row[1]] == [1] * 20


def test_very_many_pending_are_not_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "https://a.example.com")
    oldest = at(days=2).replace(minute=30, second=17)
    insert(endpoint, oldest, *["pending"] * 5, "succeeded")
    insert(endpoint, at(hours=3), *["pending"] * 4)
    insert(endpoint, at(), *["pending"] * 2)
    roll_up()
    expected = (11, oldest)
    assert figures.pending_of(Series(endpoint.id, tenant.id)) == expected

    monkeypatch.setattr(figures, "MOST_PENDING", 10)

    assert figures.pending_of(Series(endpoint.id, tenant.id)) == expected
    assert figures.pending_of(Series.of_tenant(tenant)) == expected


# --- with retention ---------------------------------------------------------------------------------------------------


def test_retention_takes_rows_and_leaves_figures() -> None:
    """A delivery is pending when the others of its hour go: that hour is counted again later, without them."""
    tenant = make_tenant(retention_days=3)
    Tenant.objects.filter(id=tenant.id).update(created_at=at(days=100))
    endpoint = make_endpoint(tenant, "https://a.example.com")
    closed, mixed = at(days=6), at(days=5).replace(minute=30)
    insert(endpoint, closed, "succeeded", "failed", "cancelled")
    pending, *_ = insert(endpoint, mixed, "pending", "succeeded", "succeeded", "failed")
    insert(endpoint, mixed + MINUTE, "cancelled", milliseconds=80.0)
    expected = [(1, 1, 1, 2), (2, 1, 1, 4)]
    roll_up()

    def shown_now() -> list[Any]:
        return [row[1:] for row in counted(endpoint, since=at(days=7)) if any(row[1:])]

    retention.let_go(now=datetime.now(UTC), seconds=30)
    assert [row.id for row in Delivery.objects.for_tenant(tenant)] == [pending.id]
    (gone,) = RollupGone.unscoped.filter(tenant=tenant)
    assert (gone.succeeded, gone.failed, gone.cancelled, gone.attempts) == (2, 1, 1, 3)

    roll_up(datetime.now(UTC) + HOUR)
    assert shown_now() == expected
    assert [each.pending for each in Rollup.unscoped.filter(series_id=endpoint.id).order_by("begins_at")] == [
        0,
        1,
    ]

    ended(pending, "failed", attempts=2)
    attempt(pending, datetime.now(UTC), milliseconds=30.0)
    for hours in (3, 5):
        roll_up(datetime.now(UTC) + hours * HOUR)
        assert shown_now() == [(1, 1, 1, 2), (2, 2, 1, 5)]
    (cell,) = Rollup.unscoped.filter(series_id=endpoint.id, begins_at__gt=closed)
    assert (sum(cell.latency_counts), cell.is_open) == (5, False)


def test_a_week_is_counted_for_the_last_time_before_it_is_dropped() -> None:
    tenant = make_tenant(retention_days=1)
    endpoint = make_endpoint(tenant, "https://a.example.com")
    made_at = at(days=450)
    (pending,) = insert(endpoint, made_at, "pending")
    roll_up(made_at + HOUR)
    Delivery.objects.for_tenant(tenant).filter(id=pending.id).update(
        status="failed", next_attempt_at=None, cancel_reason="expired"
    )

    week = partitions.Week.of(made_at)
    dropped: set[str] = set()

    def is_dropped() -> bool:
        # What a run cannot have at once, on a busy machine, is left for the next one.
        dropped.update(retention.drop_partitions(now=datetime.now(UTC)))
        return {week.table(parent) for parent in partitions.TABLES} <= dropped

    until(is_dropped)

    (cell,) = Rollup.unscoped.filter(series_id=endpoint.id)
    assert (cell.pending, cell.failed, cell.attempts, cell.is_open) == (0, 1, 1, False)

    # And is forgotten itself, in the end.
    roll_up()
    assert not Rollup.unscoped.filter(tenant=tenant).exists()


def test_percentiles_come_close() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "https://a.example.com")
    for milliseconds in range(1, 201):
        insert(endpoint, at(hours=3), "succeeded", milliseconds=float(milliseconds) * 10)

    def latencies() -> Any:
        found = endpoint_stats(endpoint=endpoint, since=at(hours=5), until=at(), bucket=Bucket.HOUR)
        charted = tenant_activity(tenant=tenant, window=Window.DAY, now=datetime.now(UTC))
        return [*found.totals.latency_ms, *(charted.latency_ms or ())]

    exact = latencies()
    roll_up()
    history_is_gone(tenant)

    assert latencies() == pytest.approx(exact, rel=0.04)
    assert exact[:3] == pytest.approx([1005.0, 1900.5, 1980.1])
