"""What is kept no longer goes, in its order and no more than that; nothing owed goes, nor what it needs."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from deliveries.models import Attempt, Delivery, Endpoint, Event, RetentionMark
from deliveries.pipeline import partitions, retention, rollups, wake
from deliveries.pipeline.partitions import TABLES, Week
from deliveries.services.deliveries import retry_delivery
from tenants import access
from tenants.ids import Minter
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.support.builders import make_endpoint, make_tenant
from tests.support.running import until

pytestmark = pytest.mark.usefixtures("database")

URL = "http://127.0.0.1:9/"


def make_old_tenant(**fields: Any) -> tuple[Tenant, Endpoint]:
    tenant = make_tenant(**fields)
    Tenant.objects.filter(id=tenant.id).update(created_at=timezone.now() - timedelta(days=400))
    return tenant, make_endpoint(tenant, URL)


def insert(endpoint: Endpoint, *ages: float, copies: int = 1, **fields: Any) -> None:
    """Events of so many days ago, each with a delivery and an attempt."""
    tenant = endpoint.tenant
    for age in ages:
        at = timezone.now() - timedelta(days=age)
        partitions.ensure_partitions(now=at, weeks_ahead=0)
        minter = Minter(int(at.timestamp() * 1e6))
        events, deliveries, attempts = [], [], []
        for _ in range(copies):
            event_id, delivery_id, attempt_id = minter.next(), minter.next(), minter.next()
            events.append(
                Event(
                    id=event_id,
                    tenant=tenant,
                    type="order.created",
                    occurred_at=at,
                    created_at=at,
                    data=b'{"a":1}',
                    sequence=1,
                    settings_version=1,
                    delivery_count=1,
                )
            )
            deliveries.append(
                Delivery(
                    **{
                        "id": delivery_id,
                        "tenant": tenant,
                        "endpoint": endpoint,
                        "event_id": event_id,
                        "event_type": "order.created",
                        "status": "succeeded",
                        "sequence": 1,
                        "size": 7,
                        "body": b"{}",
                        "attempt_count": 1,
                        "created_at": at,
                        "completed_at": at,
                    }
                    | fields
                )
            )
            attempts.append(
                Attempt(
                    id=attempt_id,
                    tenant=tenant,
                    delivery_id=delivery_id,
                    number=1,
                    trigger="automatic",
                    started_at=at,
                    duration_ms=5,
                    outcome="succeeded",
                    status_code=200,
                    request_headers=b"a: b",
                    response_headers=b"c: d",
                    response_body=b"ok",
                )
            )
        Event.objects.for_tenant(tenant).bulk_create(events)
        Delivery.objects.for_tenant(tenant).bulk_create(deliveries)
        Attempt.objects.for_tenant(tenant).bulk_create(attempts)


OWED: dict[str, Any] = {
    "status": "pending",
    "next_attempt_at": datetime(2026, 1, 1, tzinfo=UTC),
    "completed_at": None,
}


def ages(tenant: Tenant) -> dict[str, list[int]]:
    """In whole days, of what is there."""
    now = timezone.now()

    def of(times: Any) -> list[int]:
        return sorted((now - at).days for at in times)

    return {
        "events": of(Event.objects.for_tenant(tenant).values_list("created_at", flat=True)),
        "deliveries": of(Delivery.objects.for_tenant(tenant).values_list("created_at", flat=True)),
        "attempts": of(Attempt.objects.for_tenant(tenant).values_list("started_at", flat=True)),
        "payloads": of(
            Event.objects.for_tenant(tenant).filter(data__isnull=False).values_list("created_at", flat=True)
        ),
        "bodies": of(
            Attempt.objects.for_tenant(tenant)
            .exclude(request_headers=b"")
            .exclude(response_headers=b"")
            .exclude(response_body=b"")
            .values_list("started_at", flat=True)
        ),
    }


def all_of(*days: int) -> dict[str, list[int]]:
    return {name: list(days) for name in ("events", "deliveries", "attempts", "payloads", "bodies")}


def let_all_go() -> None:
    retention.let_go(now=timezone.now(), seconds=60)


def drop_until_gone(*tables: str) -> list[str]:
    """As often as it takes: what a run cannot have at once, on a busy machine, is left for the next one."""
    dropped: list[str] = []

    def are_gone() -> bool:
        dropped.extend(retention.drop_partitions(now=timezone.now()))
        return set(tables) <= set(dropped)

    until(are_gone)
    return dropped


def test_three_and_ninety_days_side_by_side() -> None:
    (short, of_short), (long, of_long) = make_old_tenant(retention_days=3), make_old_tenant(retention_days=90)
    for endpoint in (of_short, of_long):
        insert(endpoint, 1.5, 4.5, 20.5, 80.5)

    let_all_go()

    assert ages(short) == all_of(1)
    assert ages(long) == all_of(1, 4, 20, 80)


def test_bodies_go_first_then_payloads_then_rows() -> None:
    tenant, endpoint = make_old_tenant(retention_days=10, payload_retention_days=5, attempt_retention_days=2)
    make_old_tenant(retention_days=90)
    insert(endpoint, 1.5, 3.5, 7.5, 12.5)

    let_all_go()

    kept = [1, 3, 7]
    assert ages(tenant) == {
        "events": kept,
        "deliveries": kept,
        "attempts": kept,
        "payloads": [1, 3],
        "bodies": [1],
    }
    gone = Event.objects.for_tenant(tenant).get(data__isnull=True)
    delivery = Delivery.objects.for_tenant(tenant).get(event_id=gone.id)
    assert gone.data_erased_at is not None
    # Later than it is looked for echoes of what people erase.
    assert timezone.now() - gone.data_erased_at > timedelta(minutes=59)
    assert delivery.body is None


def test_a_tenant_that_keeps_as_long_as_any_waits_for_its_weeks_to_be_dropped() -> None:
    tenant, endpoint = make_old_tenant(retention_days=365)
    insert(endpoint, 20.5)

    let_all_go()

    assert ages(tenant) == all_of(20)
    assert not RetentionMark.objects.for_tenant(tenant).exists()


def test_what_is_owed_stays_with_its_event_and_attempts() -> None:
    tenant, endpoint = make_old_tenant(retention_days=3, payload_retention_days=2, attempt_retention_days=1)
    make_old_tenant(retention_days=90)
    insert(endpoint, 5.5, **OWED)
    insert(endpoint, 6.5, manual_requested_at=timezone.now())
    insert(endpoint, 7.5)

    let_all_go()

    assert ages(tenant) == all_of(5, 6)


def test_many_go_in_batches_and_a_second_run_goes_on_where_the_first_stopped() -> None:
    tenant, endpoint = make_old_tenant(retention_days=3)
    make_old_tenant(retention_days=90)
    insert(endpoint, 5.5, 6.5, copies=1_250)

    first = retention.let_go(now=timezone.now(), seconds=0)
    let_all_go()
    second = retention.let_go(now=timezone.now(), seconds=60)

    # One batch, of this tenant or of another one's that is due.
    assert len(first) == 1
    assert ages(tenant) == all_of()
    assert second == {}
    assert {mark.kind for mark in RetentionMark.objects.for_tenant(tenant)} == {"deliveries", "events"}


def test_weeks_older_than_the_longest_retention_are_dropped_unless_something_owed_needs_them() -> None:
    keep = retention.longest_days()
    tenant, endpoint = make_old_tenant(retention_days=keep)
    free, needed = keep + 60.0, keep + 30.0
    insert(endpoint, keep - 10.0, free)
    insert(endpoint, needed, **OWED)

    now = timezone.now()
    of_free, of_needed = (Week.of(now - timedelta(days=days)) for days in (free, needed))

    dropped = drop_until_gone(*[of_free.table(parent) for parent in TABLES])
    again = retention.drop_partitions(now=timezone.now())

    assert not {of_needed.table(parent) for parent in TABLES} & {*dropped, *again}
    assert not set(dropped) & set(again)
    assert ages(tenant) == all_of(int(keep - 10.0), int(needed))


def test_a_drop_waits_for_nobody_longer_than_its_moment() -> None:
    """A reader of the table in a long transaction: the drop gives way each time, and goes the next time."""
    keep = retention.longest_days()
    tenant, endpoint = make_old_tenant(retention_days=keep)
    age = keep + 90.0
    insert(endpoint, age)
    table = Week.of(timezone.now() - timedelta(days=age)).table("deliveries_attempt")
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f'SELECT count(*) FROM "{table}"')
            reading.set()
            done.wait(20)
            cursor.execute("COMMIT")
        connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    reading.wait(10)
    try:
        first = retention.drop_partitions(now=timezone.now())
    finally:
        done.set()
        reader.join()

    assert table not in first
    assert table in drop_until_gone(table)
    assert ages(tenant) == all_of()


RACED = {
    "deliveries_delivery": "a retry of a delivery of that week",
    "deliveries_attempt": "a retry of one that was attempted in it",
    "deliveries_event": "a retry of a later delivery, a replay's, that carries an event of it",
}


@pytest.mark.parametrize("parent", RACED)
def test_what_is_asked_for_between_look_and_lock_keeps_its_week(
    monkeypatch: pytest.MonkeyPatch, parent: str
) -> None:
    """The run has seen that nothing is owed. While it closes the roll-ups, somebody retries; then it has its lock."""
    keep = retention.longest_days()
    tenant, endpoint = make_old_tenant(retention_days=keep)
    age = (
        keep + {"deliveries_delivery": 120.0, "deliveries_attempt": 150.0, "deliveries_event": 180.0}[parent]
    )
    insert(endpoint, age)
    week = Week.of(timezone.now() - timedelta(days=age))
    deliveries = Delivery.objects.for_tenant(tenant)
    if parent == "deliveries_event":
        event = Event.objects.for_tenant(tenant).get()
        insert(endpoint, 1.0)
        deliveries.filter(created_at__gt=timezone.now() - timedelta(days=2)).update(event_id=event.id)
    last = deliveries.latest("id")
    asked: list[int] = []

    def ask(*, until: datetime, now: datetime) -> None:
        if until == week.next().begins_at and not asked:
            asked.append(wake.request_manual_attempt([last], now=now))

    monkeypatch.setattr(retention, "TABLES", (parent,))
    monkeypatch.setattr(rollups, "close_before", ask)

    dropped = retention.drop_partitions(now=timezone.now())

    assert asked == [1]
    assert week.table(parent) not in dropped
    deliveries.filter(id=last.id).update(manual_requested_at=None)
    assert week.table(parent) in drop_until_gone(week.table(parent))


def test_a_retry_that_comes_too_late_finds_nothing() -> None:
    """The page was open when its week was dropped. The event is in the week after, and still there."""
    tenant, endpoint = make_old_tenant()
    insert(endpoint, 1.0)
    delivery = Delivery.objects.for_tenant(tenant).get()
    Delivery.objects.for_tenant(tenant).all().delete()

    with pytest.raises(access.NotFound):
        retry_delivery(actor=COMMAND, delivery=delivery, now=timezone.now())
