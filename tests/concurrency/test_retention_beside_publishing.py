"""Retention deletes what is kept no longer while people publish, and nobody who publishes waits for its locks.

    WEBHOOKS_EXPIRED=1000000 make test ARGS="-s tests/concurrency/test_retention_beside_publishing.py"

measures the same with as many rows as `docs/performance.md` tells of, and prints how long publishes took.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction

from deliveries.bench.history import PREFIX
from deliveries.models import Attempt, Delivery, Event
from deliveries.pipeline import ingest, retention
from deliveries.pipeline.database import connect
from deliveries.pipeline.ingest import Accepted, NewEvent
from tenants.models import Tenant
from tests.support.builders import make_endpoint, make_tenant
from tests.support.seeded import forget, weeks

WANTED = os.environ.get("WEBHOOKS_EXPIRED")
EXPIRED = int(WANTED or 6_000)
DAYS = 20 if WANTED else 5
ALONE_SECONDS = 20 if WANTED else 1

MOST_WAITED_MS = 50
"""That a publish may wait for a lock of retention's."""

A_SECOND = 100
"""Publishes."""

pytestmark = [pytest.mark.timeout(7_200 if WANTED else 120), pytest.mark.alone]


@pytest.fixture
def expired(nothing_rolled_up: None) -> Iterator[Tenant]:
    before = weeks()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE deliveries_event, deliveries_delivery, deliveries_attempt")
    try:
        call_command("seed_deliveries", deliveries=EXPIRED, tenants=1, endpoints=10, days=DAYS, yes=True)
        tenant = Tenant.objects.get(slug=f"{PREFIX}0000")
        Tenant.objects.filter(id=tenant.id).update(retention_days=1)
        yield tenant
    finally:
        forget(before)


class Publisher:
    """A hundred publishes a second, each timed."""

    def __init__(self, tenant: Tenant) -> None:
        self.event = NewEvent(tenant_id=tenant.id.bytes, type="order.created", data=b'{"a":1}')
        self.milliseconds: list[float] = []
        self.stop = threading.Event()

    def run(self) -> None:
        begun = time.perf_counter()
        for number in range(10_000_000):
            if self.stop.wait(max(0.0, begun + number / A_SECOND - time.perf_counter())):
                break
            at = time.perf_counter()
            (result,) = ingest.publish([self.event])
            self.milliseconds.append(1000 * (time.perf_counter() - at))
            assert isinstance(result, Accepted)


WAITS_FOR = """
SELECT a.wait_event_type = 'Lock' AND %s = ANY(pg_blocking_pids(a.pid)), COALESCE(a.wait_event, 'processor')
FROM pg_stat_activity a WHERE a.application_name = 'webhooks-publish' AND a.state <> 'idle'
"""


class Watch:
    """How long the publisher's connection waits for locks of another, and for what else, as PostgreSQL itself says."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self.others_ms: dict[str, float] = {}
        self.stop = threading.Event()

    def run(self, pid: int) -> None:
        with connect(application_name="test-watch", statement_timeout_seconds=5) as own:
            since, last = time.perf_counter(), None
            while not self.stop.wait(0.004):
                found = own.execute(WAITS_FOR, [pid]).fetchone()
                now = time.perf_counter()
                if found != last:
                    since, last = now, found
                elif found is not None and found[0]:
                    self.longest_ms = max(self.longest_ms, 1000 * (now - since))
                elif found is not None:
                    self.others_ms[found[1]] = max(self.others_ms.get(found[1], 0.0), 1000 * (now - since))


def test_no_publish_waits_for_retention(expired: Tenant) -> None:
    tenant = make_tenant(retention_days=90)
    for name in "ab":
        make_endpoint(tenant, f"https://{name}.example.com", is_paused=True)
    alone, beside, watch = Publisher(tenant), Publisher(tenant), Watch()
    with_publisher(alone, lambda: time.sleep(ALONE_SECONDS))
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    watching = threading.Thread(target=watch.run, args=[pid])
    watching.start()
    begun = time.perf_counter()

    with_publisher(beside, let_all_go)

    took = time.perf_counter() - begun
    watch.stop.set()
    watching.join()
    print(f"{EXPIRED} deliveries in {took:.0f} s; publishes alone {told(alone)}, beside {told(beside)};")
    print(f"the longest wait for a lock of retention's: {watch.longest_ms:.1f} ms")
    print("for anything else:", {name: round(waited) for name, waited in watch.others_ms.items()})
    assert watch.longest_ms < MOST_WAITED_MS
    assert len(beside.milliseconds) > 10
    # Of a day, and a step of retention's less, nothing but that is left.
    left = Event.objects.for_tenant(expired).order_by("id").first()
    assert left is None or (datetime.now(UTC) - left.created_at).days <= 1
    for model in (Delivery, Attempt):
        assert model.objects.for_tenant(expired).count() < EXPIRED / 3


def test_the_watch_sees_who_waits(database: None) -> None:
    tenant = make_tenant()
    make_endpoint(tenant, "https://a.example.com", is_paused=True)
    publisher, watch = Publisher(tenant), Watch()

    def stand_in_the_way() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            watching = threading.Thread(target=watch.run, args=[cursor.fetchone()[0]])
            watching.start()
            cursor.execute("LOCK TABLE deliveries_event IN EXCLUSIVE MODE")
            deadline = time.monotonic() + 20
            while watch.longest_ms < 2 * MOST_WAITED_MS and time.monotonic() < deadline:
                time.sleep(0.02)
        watch.stop.set()
        watching.join()

    with_publisher(publisher, stand_in_the_way)

    assert watch.longest_ms > MOST_WAITED_MS
    assert max(publisher.milliseconds) > MOST_WAITED_MS


def let_all_go() -> None:
    retention.let_go(now=datetime.now(UTC), seconds=7_200)


def with_publisher(publisher: Publisher, meanwhile: Callable[[], None]) -> None:
    def run() -> None:
        try:
            publisher.run()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        meanwhile()
    finally:
        publisher.stop.set()
        thread.join()


def told(publisher: Publisher) -> str:
    found = sorted(publisher.milliseconds)
    return f"p50 {found[len(found) // 2]:.1f} ms, p99 {found[len(found) * 99 // 100]:.1f} ms, at most {found[-1]:.1f} ms"
