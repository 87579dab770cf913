"""Writing results down: attempts and deliveries in one transaction, fenced, repeatable, and a culprit found by halving."""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from deliveries.models import Attempt, Delivery
from deliveries.pipeline import ingest
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.record import BY_INDEX, Result, record, update_deliveries
from tenants.ids import new_id
from tests.support.builders import attempts_of, deliveries_of, make_endpoint, make_tenant, new_event
from tests.support.plans import rows_of

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def own(database: None) -> Iterator[psycopg.Connection[Row]]:
    with connect(application_name="test", statement_timeout_seconds=10) as connection:
        yield connection


def result_of(delivery: Delivery, **fields: Any) -> Result:
    """A failure with status 500 of an automatic attempt, unless a field says otherwise."""
    values: dict[str, Any] = {
        "attempt_id": new_id().bytes,
        "tenant_id": delivery.tenant_id.bytes,
        "delivery_id": delivery.id.bytes,
        "number": delivery.attempt_count + 1,
        "trigger": "automatic",
        "started_at": time.time(),
        "duration_ms": 12.5,
        "dns_ms": None,
        "connect_ms": None,
        "tls_ms": None,
        "first_byte_ms": None,
        "outcome": "http_error",
        "detail": "",
        "status_code": 500,
        "remote_ip": "127.0.0.1",
        "request_headers": b"a: b",
        "response_headers": b"HTTP/1.1 500 X",
        "response_body": b"no",
        "is_truncated": False,
        "read_count": delivery.attempt_count,
        "is_success": False,
        "wait_seconds": 60.0,
        "is_automatic": True,
        "manual_seen": None,
    }
    return Result(**(values | fields))


def make_deliveries(count: int) -> list[Delivery]:
    tenant = make_tenant()
    make_endpoint(tenant, "http://127.0.0.1:9/")
    ingest.publish([new_event(tenant) for _ in range(count)])
    return deliveries_of(tenant)


def now_of(delivery: Delivery) -> Delivery:
    delivery.refresh_from_db()
    return delivery


def test_every_column_of_an_attempt_is_kept(own: psycopg.Connection[Row]) -> None:
    (delivery,) = make_deliveries(1)
    started_at = datetime(2026, 11, 20, 10, 11, 12, 345_678, tzinfo=UTC)
    key = new_id()

    record(
        own,
        [
            result_of(
                delivery,
                attempt_id=key.bytes,
                number=7,
                trigger="manual",
                started_at=started_at.timestamp(),
                duration_ms=1.5,
                dns_ms=0.1,
                connect_ms=0.2,
                tls_ms=0.3,
                first_byte_ms=0.4,
                outcome="tls_failed",
                detail="wörds",
                status_code=None,
                remote_ip="2001:db8::1",
                request_headers=b"\xff\x00a",
                response_headers=b"\xff\x00b",
                response_body=b"\xff\x00c",
                is_truncated=True,
            )
        ],
    )

    kept = Attempt.unscoped.filter(id=key).values().get()
    assert abs((kept.pop("started_at") - started_at).total_seconds()) < 0.000_002
    assert {name: bytes(v) if isinstance(v, memoryview) else v for name, v in kept.items()} == {
        "id": key,
        "tenant_id": delivery.tenant_id,
        "delivery_id": delivery.id,
        "number": 7,
        "trigger": "manual",
        "duration_ms": 1.5,
        "dns_ms": 0.1,
        "connect_ms": 0.2,
        "tls_ms": 0.3,
        "first_byte_ms": 0.4,
        "outcome": "tls_failed",
        "detail": "wörds",
        "status_code": None,
        "remote_ip": "2001:db8::1",
        "request_headers": b"\xff\x00a",
        "response_headers": b"\xff\x00b",
        "response_body": b"\xff\x00c",
        "is_truncated": True,
    }


@pytest.mark.parametrize(
    ("before", "fields", "status", "step", "is_due", "is_completed"),
    [
        ("pending", {"is_success": True, "wait_seconds": None}, "succeeded", 1, False, True),
        ("pending", {"wait_seconds": 60.0}, "pending", 1, True, False),
        ("pending", {"wait_seconds": None}, "failed", 1, False, True),
        ("pending", {"is_automatic": False, "wait_seconds": None}, "pending", 0, True, False),
        ("pending", {"is_automatic": False, "wait_seconds": 5.0}, "pending", 0, True, False),
        (
            "pending",
            {"is_automatic": False, "is_success": True, "wait_seconds": None},
            "succeeded",
            0,
            False,
            True,
        ),
        ("failed", {"is_automatic": False, "wait_seconds": None}, "failed", 0, False, False),
        (
            "failed",
            {"is_automatic": False, "is_success": True, "wait_seconds": None},
            "succeeded",
            0,
            False,
            True,
        ),
        ("succeeded", {"is_automatic": False, "wait_seconds": None}, "succeeded", 0, False, False),
        ("cancelled", {"is_success": True, "wait_seconds": None}, "cancelled", 1, False, False),
        ("cancelled", {"wait_seconds": 60.0}, "cancelled", 1, False, False),
        ("cancelled", {"is_automatic": False, "wait_seconds": None}, "cancelled", 0, False, False),
        (
            "cancelled",
            {"is_automatic": False, "is_success": True, "wait_seconds": None},
            "succeeded",
            0,
            False,
            True,
        ),
    ],
    ids=[
        "success",
        "failure with a retry",
        "the last failure",
        "failure by hand",
        "fault of the platform",
        "success by hand",
        "failed, failure by hand",
        "failed, success by hand",
        "succeeded, failure by hand",
        "cancelled in the air, success",
        "cancelled in the air, failure",
        "cancelled, failure by hand",
        "cancelled, success by hand",
    ],
)
def test_what_an_attempt_means_for_its_delivery(
    own: psycopg.Connection[Row],
    before: str,
    fields: dict[str, Any],
    status: str,
    step: int,
    is_due: bool,
    is_completed: bool,
) -> None:
    (delivery,) = make_deliveries(1)
    if before != "pending":
        Delivery.unscoped.filter(id=delivery.id).update(status=before, next_attempt_at=None)

    record(own, [result_of(delivery, **fields)])

    after = now_of(delivery)
    assert (after.status, after.schedule_step, after.attempt_count) == (status, step, 1)
    assert (after.next_attempt_at is not None, after.completed_at is not None) == (is_due, is_completed)
    assert len(attempts_of(delivery)) == 1


def test_a_stale_result_adds_its_attempt_and_changes_nothing(own: psycopg.Connection[Row]) -> None:
    (delivery,) = make_deliveries(1)
    record(own, [result_of(delivery, is_success=True, wait_seconds=None)])
    before = Delivery.unscoped.filter(id=delivery.id).values().get()

    record(own, [result_of(delivery)])

    assert Delivery.unscoped.filter(id=delivery.id).values().get() == before
    assert [attempt.number for attempt in attempts_of(delivery)] == [1, 1]


def test_a_repeated_batch_is_written_once(own: psycopg.Connection[Row]) -> None:
    """The connection was lost in the commit, and nobody knew whether it took place."""
    deliveries = make_deliveries(5)
    results = [result_of(delivery) for delivery in deliveries]
    record(own, results[:3])

    record(own, results, is_retry=True)
    record(own, results, is_retry=True)

    assert [now_of(delivery).attempt_count for delivery in deliveries] == [1] * 5
    assert [len(attempts_of(delivery)) for delivery in deliveries] == [1] * 5


def test_it_looks_at_what_it_is_for_and_at_nothing_between(own: psycopg.Connection[Row]) -> None:
    """Deliveries of the last seconds, of which the planner has not heard yet: it takes them for one."""
    tenant = make_tenant()
    make_endpoint(tenant, "http://127.0.0.1:9/")
    ingest.publish([new_event(tenant) for _ in range(100)])
    own.execute("ANALYZE deliveries_delivery")
    ingest.publish([new_event(tenant) for _ in range(2000)])
    results = [result_of(delivery) for delivery in deliveries_of(tenant)[150::80]]
    ordered = sorted(results, key=lambda result: result.delivery_id)

    with connect(application_name="test", statement_timeout_seconds=10, options=BY_INDEX) as recording:
        looked_at = rows_of(recording, update_deliveries, ordered=ordered)

    assert len(results) <= looked_at <= 4 * len(results)


def test_a_culprit_is_found_and_recorded_bare_and_the_others_as_they_are(
    own: psycopg.Connection[Row], caplog: pytest.LogCaptureFixture
) -> None:
    deliveries = make_deliveries(40)
    results = [result_of(delivery, is_success=True, wait_seconds=None) for delivery in deliveries]
    results[17].detail = "no text of PostgreSQL: \x00"

    with caplog.at_level(logging.ERROR):
        record(own, results)

    attempts = [attempts_of(delivery) for delivery in deliveries]
    assert [len(each) for each in attempts] == [1] * 40
    bare = attempts[17][0]
    assert (bare.outcome, bare.detail, bare.status_code) == (
        "internal_error",
        "the answer could not be stored",
        None,
    )
    assert (bytes(bare.response_body), bytes(bare.request_headers), bare.remote_ip) == (b"", b"", None)
    fine = [each[0] for n, each in enumerate(attempts) if n != 17]
    assert {(a.outcome, a.status_code, bytes(a.response_body)) for a in fine} == {("http_error", 500, b"no")}
    assert {now_of(delivery).attempt_count for delivery in deliveries} == {1}
    assert [r.getMessage() for r in caplog.records] == ["an attempt could not be recorded as it was"]


def test_a_manual_request_that_came_while_the_attempt_was_in_the_air_stays(
    own: psycopg.Connection[Row],
) -> None:
    seen, later = datetime(2026, 11, 20, 10, tzinfo=UTC), datetime(2026, 11, 20, 11, tzinfo=UTC)
    answered, asked_again = make_deliveries(2)
    Delivery.unscoped.filter(id=answered.id).update(manual_requested_at=seen)
    Delivery.unscoped.filter(id=asked_again.id).update(manual_requested_at=later)
    fields = {"is_automatic": False, "wait_seconds": None, "manual_seen": seen.timestamp()}

    record(own, [result_of(answered, **fields), result_of(asked_again, **fields)])

    assert now_of(answered).manual_requested_at is None
    assert now_of(asked_again).manual_requested_at == later


def test_a_fault_of_ours_leaves_a_manual_request_standing_for_a_little_later(
    own: psycopg.Connection[Row],
) -> None:
    (delivery,) = make_deliveries(1)
    asked_at = datetime.now(UTC)
    Delivery.unscoped.filter(id=delivery.id).update(
        status="failed", next_attempt_at=None, completed_at=asked_at, manual_requested_at=asked_at
    )
    fault = {"is_automatic": False, "wait_seconds": 5.0, "outcome": "internal_error", "status_code": None}

    record(own, [result_of(delivery, **fault, manual_seen=asked_at.timestamp())])

    kept = now_of(delivery)
    assert kept.manual_requested_at is not None
    assert 4 < (kept.manual_requested_at - asked_at).total_seconds() < 10
    assert (kept.status, kept.next_attempt_at, kept.last_outcome) == ("failed", None, None)


def test_a_failed_manual_attempt_leaves_a_finished_delivery_as_it_was(own: psycopg.Connection[Row]) -> None:
    (delivery,) = make_deliveries(1)
    record(
        own, [result_of(delivery, is_success=True, outcome="succeeded", status_code=200, wait_seconds=None)]
    )
    asked_at = datetime.now(UTC)
    Delivery.unscoped.filter(id=delivery.id).update(manual_requested_at=asked_at)

    manual = {"is_automatic": False, "wait_seconds": None, "manual_seen": asked_at.timestamp()}
    record(own, [result_of(now_of(delivery), **manual)])

    kept = now_of(delivery)
    assert (kept.status, kept.last_outcome, kept.last_status_code) == ("succeeded", "succeeded", 200)
    assert (kept.attempt_count, kept.manual_requested_at) == (2, None)
