"""Publishing: what is accepted is written whole, what is refused is not written at all, and nobody spoils another."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from deliveries import cel_core
from deliveries.models import Delivery, Event
from deliveries.pipeline import arrays, claims, ingest
from deliveries.pipeline.database import connect
from deliveries.pipeline.group_commit import GroupCommit
from deliveries.pipeline.ingest import Accepted, Idempotency, Refusal, Refused
from tenants.ids import EVENT, to_text
from tenants.models import EventType, IdempotencyRecord, Tenant
from tests.support.builders import (
    accepted,
    change_endpoint,
    deliveries_of,
    events_of,
    lane_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    new_event,
    publish,
    raise_version,
)
from tests.support.plans import rows_of
from tests.support.racing import at_once

pytestmark = pytest.mark.usefixtures("database")

URL = "http://127.0.0.1:9/never"


def refusal(result: ingest.Result) -> Refusal:
    assert isinstance(result, Refused)
    return result.reason


def keyed(tenant: Tenant, key: str, data: bytes = b"{}") -> ingest.NewEvent:
    return new_event(tenant, data, idempotency=Idempotency(key, data.ljust(32)))


def test_an_event_and_its_deliveries_are_written_as_they_came() -> None:
    tenant = make_tenant()
    first, second = make_endpoints(tenant, [URL, URL])
    occurred_at = datetime(2026, 3, 1, 12, 30, 1, 250_000, tzinfo=UTC)
    data = b'{"b":1.10,"a":12345678901234567890123}'

    result = publish(tenant, data, occurred_at=occurred_at, channels=["red", "blue"], hops=1)

    (event,) = events_of(tenant)
    assert event.id.bytes == result.event_id
    assert bytes(event.data or b"") == data
    assert (event.type, event.occurred_at, event.channels, event.hops) == (
        "order.created",
        occurred_at,
        ["red", "blue"],
        1,
    )
    tenant.refresh_from_db()
    assert (event.settings_version, event.delivery_count) == (tenant.settings_version, 2)
    deliveries = deliveries_of(tenant)
    assert {d.endpoint_id for d in deliveries} == {first.id, second.id}
    assert {d.id.bytes for d in deliveries} == set(result.delivery_ids)
    assert {
        (d.event_id, d.status, d.trigger, d.attempt_count, d.schedule_step, d.size) for d in deliveries
    } == {(event.id, "pending", "automatic", 0, 0, len(data))}
    assert {(d.next_attempt_at, d.created_at, d.sequence) for d in deliveries} == {
        (event.created_at, event.created_at, event.sequence)
    }
    assert json.loads(result.reply) == {
        "id": to_text(EVENT, event.id),
        "type": "order.created",
        "occurred_at": "2026-03-01T12:30:01.250000Z",
        "created_at": event.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "channels": ["red", "blue"],
        "deliveries": 2,
    }
    assert all(lane_of(endpoint).is_ready for endpoint in (first, second))


def test_what_is_wrong_with_an_event_is_said_and_nothing_of_it_is_written() -> None:
    tenant = make_tenant("order.created", "order.old", limits={"payload_bytes": 20})
    EventType.objects.filter(tenant=tenant, name="order.created").update(
        schema={"type": "object", "properties": {"n": {"type": "integer"}}}
    )
    EventType.objects.filter(tenant=tenant, name="order.old").update(archived_at=timezone.now())
    suspended, deleted = make_tenant(status="suspended"), make_tenant(deleted_at=timezone.now())
    nobody = Tenant(slug="nobody")

    results = ingest.publish(
        [
            new_event(tenant, type="order.unknown"),
            new_event(tenant, type="endpoint.disabled"),
            new_event(tenant, type="order.old"),
            new_event(tenant, b'{"n":"12345678901234567890"}'),
            new_event(tenant, b'{"n":"one"}'),
            new_event(tenant, deliver_at=timezone.now() + timedelta(days=31)),
            new_event(suspended),
            new_event(deleted),
            new_event(nobody),
            new_event(tenant, b'{"n":1}'),
        ]
    )

    assert [refusal(result) for result in results[:-1]] == [
        Refusal.UNKNOWN_EVENT_TYPE,
        Refusal.UNKNOWN_EVENT_TYPE,
        Refusal.EVENT_TYPE_ARCHIVED,
        Refusal.PAYLOAD_TOO_LARGE,
        Refusal.SCHEMA_VIOLATION,
        Refusal.DELIVER_AT_TOO_FAR,
        Refusal.TENANT_SUSPENDED,
        Refusal.TENANT_NOT_FOUND,
        Refusal.TENANT_NOT_FOUND,
    ]
    too_large, violation = results[3], results[4]
    assert isinstance(too_large, Refused)
    assert too_large.limit == 20
    assert isinstance(violation, Refused)
    assert [field for field, _ in violation.errors] == ["data.n"]
    assert isinstance(results[-1], Accepted)
    assert [bytes(event.data or b"") for event in events_of(tenant)] == [b'{"n":1}']
    assert events_of(suspended) == events_of(deleted) == []


def test_a_tenant_that_only_wants_warnings_gets_them_with_the_event() -> None:
    tenant = make_tenant(schema_validation="warn")
    EventType.objects.filter(tenant=tenant).update(schema={"type": "object", "required": ["n"]})

    publish(tenant, b"{}")

    (event,) = events_of(tenant)
    assert isinstance(event.schema_warning, list)
    assert [warning["field"] for warning in event.schema_warning] == ["data"]


def test_one_event_that_the_database_refuses_does_not_spoil_its_group() -> None:
    tenant, other = make_tenant(), make_tenant()
    make_endpoint(tenant, URL)
    events = [new_event(tenant, b'{"n":%d}' % n) for n in range(20)]
    events[7].ordering_key = "no text of PostgreSQL: \x00"
    events.append(keyed(other, "a-key"))

    results = ingest.publish(events)

    assert refusal(results[7]) is Refusal.INTERNAL_ERROR
    fine = [result for n, result in enumerate(results) if n != 7]
    assert all(isinstance(result, Accepted) for result in fine)
    stored = events_of(tenant)
    assert [bytes(event.data or b"") for event in stored] == [b'{"n":%d}' % n for n in range(20) if n != 7]
    assert [event.id.bytes for event in stored] == [r.event_id for r in fine[:-1] if isinstance(r, Accepted)]
    assert len(deliveries_of(tenant)) == 19
    assert len(events_of(other)) == 1


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_transformation_whose_time_has_no_form_in_utc_fails_its_own_delivery_alone(at: str) -> None:
    tenant, other = make_tenant(), make_tenant()
    make_endpoint(other, URL)
    endpoint = make_endpoint(tenant, URL)
    endpoint.subscriptions.update(transformation='{"r": timestamp(data.s)}')
    raise_version(tenant)

    results = ingest.publish([new_event(tenant, b'{"s":"%b"}' % at.encode()), new_event(other)])

    assert [type(result) for result in results] == [Accepted, Accepted]
    (delivery,) = deliveries_of(tenant)
    assert (delivery.status, delivery.body, delivery.preparation_error) == (
        "pending",
        None,
        "The transformation failed: its result contains a time outside the years 1 to 9999 of UTC.",
    )
    (delivery,) = deliveries_of(other)
    assert delivery.preparation_error is None


def test_one_event_whose_expressions_break_the_engine_does_not_spoil_its_group(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tenant, other = make_tenant(), make_tenant()
    make_endpoint(other, URL)
    make_endpoint(tenant, URL).subscriptions.update(filter="data.n > 0")
    raise_version(tenant)

    def broken(**_: object) -> None:
        raise LookupError("what nobody foresaw")

    monkeypatch.setattr(cel_core, "Context", broken)

    results = ingest.publish([new_event(other), new_event(tenant, b'{"n":1}'), new_event(other)])

    assert refusal(results[1]) is Refusal.INTERNAL_ERROR
    assert [type(result) for result in results[::2]] == [Accepted, Accepted]
    assert (len(events_of(tenant)), len(deliveries_of(other))) == (0, 2)
    assert [record.message for record in caplog.records] == ["an event could not be prepared"]


def test_a_test_of_an_endpoint_and_a_publish_in_one_group_keep_their_triggers() -> None:
    """Callers of any kind share a transaction; the first of them must not speak for the others."""
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)

    ingest.publish(
        [
            new_event(tenant, type="webhook.test", only_endpoint=endpoint.id.bytes),
            new_event(tenant),
            new_event(tenant, type="webhook.test", only_endpoint=endpoint.id.bytes),
        ]
    )

    assert [d.trigger for d in deliveries_of(tenant)] == ["test", "automatic", "test"]


def test_a_batch_keeps_its_order_and_comes_after_what_was_published_before() -> None:
    tenant = make_tenant()
    publish(tenant, b'{"n":0}')
    ingest.publish([new_event(tenant, b'{"n":%d}' % n) for n in range(1, 500)])
    publish(tenant, b'{"n":500}')

    events = events_of(tenant)
    assert [json.loads(bytes(event.data or b""))["n"] for event in events] == list(range(501))
    assert [event.id for event in events] == sorted(event.id for event in events)


def test_many_callers_at_once_are_all_answered_and_share_commits() -> None:
    tenants = [make_tenant() for _ in range(4)]
    for tenant in tenants:
        make_endpoint(tenant, URL)

    def publish_often(caller: int) -> list[Accepted]:
        tenant = tenants[caller % 4]
        return [publish(tenant, b'{"caller":%d,"n":%d}' % (caller, n)) for n in range(25)]

    answers = at_once(24, publish_often)

    assert [len(results) for results in answers] == [25] * 24
    place = {event.id.bytes: n for n, event in enumerate(Event.unscoped.order_by("sequence"))}
    for caller, results in enumerate(answers):
        # Published after the reply to the one before: after it in every order.
        order = [place[result.event_id] for result in results]
        assert order == sorted(order)
        data = {
            json.loads(bytes(Event.unscoped.get(id=UUID(bytes=result.event_id)).data))["n"]
            for result in results
        }
        assert data == set(range(25)), caller
    assert [len(deliveries_of(tenant)) for tenant in tenants] == [150] * 4
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT xmin::text), count(*) FROM deliveries_event WHERE tenant_id = ANY(%s)",
            [[tenant.id for tenant in tenants]],
        )
        row = cursor.fetchone()
    assert row is not None
    transactions, events = row
    assert events == 600
    assert transactions < 300


class Panic(BaseException):
    """What engines written in Rust raise when they panic is no Exception."""


@pytest.mark.parametrize("error", [ingest.DatabaseUnavailable, Panic])
def test_an_error_reaches_every_caller_of_the_group_and_the_next_group_is_served(
    error: type[BaseException],
) -> None:
    calls: list[int] = []

    def work(events: Any) -> list[ingest.Result]:
        calls.append(len(events))
        if len(calls) == 1:
            second.start()
            while not group._waiting:
                pass
            raise error
        return [Accepted(b"", b"") for _ in events]

    group = GroupCommit(work)
    answered: list[ingest.Result] = []
    second = threading.Thread(
        target=lambda: answered.extend(group.submit([new_event(Tenant())])), daemon=True
    )

    with pytest.raises(error):
        group.submit([new_event(Tenant())])
    second.join(5)

    assert len(answered) == 1
    assert calls == [1, 1]


def test_a_change_of_settings_holds_for_the_next_publish() -> None:
    tenant = make_tenant()
    counts = [len(publish(tenant).delivery_ids)]
    endpoint = make_endpoint(tenant, URL)
    counts.append(len(publish(tenant).delivery_ids))
    change_endpoint(endpoint, channels=["red"])
    counts.append(len(publish(tenant).delivery_ids))
    counts.append(len(publish(tenant, channels=["blue", "red"]).delivery_ids))
    change_endpoint(endpoint, status="disabled", disabled_reason="manual")
    counts.append(len(publish(tenant, channels=["red"]).delivery_ids))

    assert counts == [0, 1, 0, 1, 0]


def test_deliver_at_is_when_the_first_attempt_is_due() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    later = datetime.now(UTC) + timedelta(hours=2)

    publish(tenant, deliver_at=later)

    (delivery,) = deliveries_of(tenant)
    assert delivery.next_attempt_at == later
    assert (lane_of(endpoint).ready_at, lane_of(endpoint).is_ready) == (later, False)

    publish(tenant, deliver_at=datetime.now(UTC) - timedelta(hours=2))

    past = deliveries_of(tenant)[1]
    assert past.next_attempt_at == past.created_at
    assert lane_of(endpoint).is_ready


def test_a_connection_that_was_lost_since_the_last_publish_is_replaced() -> None:
    tenant = make_tenant()
    publish(tenant)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'webhooks-publish' AND datname = current_database()"
        )

    publish(tenant)

    assert len(events_of(tenant)) == 2


# --- idempotency ------------------------------------------------------------------------------------------------------


def test_the_same_key_and_request_gets_the_first_reply_and_makes_nothing() -> None:
    tenant = make_tenant()
    make_endpoint(tenant, URL)

    first, again = accepted([*ingest.publish([keyed(tenant, "k")]), *ingest.publish([keyed(tenant, "k")])])

    assert (first.is_replayed, again.is_replayed) == (False, True)
    assert (again.event_id, again.reply) == (first.event_id, first.reply)
    assert len(events_of(tenant)) == len(deliveries_of(tenant)) == 1


def test_the_same_key_with_another_request_is_refused_and_in_another_tenant_it_is_another_key() -> None:
    tenant, other = make_tenant(), make_tenant()
    ingest.publish([keyed(tenant, "k", b'{"n":1}')])

    reused, fine = ingest.publish([keyed(tenant, "k", b'{"n":2}'), keyed(other, "k", b'{"n":2}')])

    assert refusal(reused) is Refusal.IDEMPOTENCY_KEY_REUSED
    assert isinstance(fine, Accepted)
    assert [bytes(event.data or b"") for event in events_of(tenant)] == [b'{"n":1}']


def test_a_key_that_stands_twice_in_one_group_makes_one_event() -> None:
    tenant = make_tenant()

    results = ingest.publish(
        [keyed(tenant, "k"), keyed(tenant, "other"), keyed(tenant, "k"), keyed(tenant, "k", b'{"n":2}')]
    )

    first, _, copy = accepted(results[:3])
    assert (copy.event_id, copy.reply, copy.is_replayed) == (first.event_id, first.reply, True)
    assert refusal(results[3]) is Refusal.IDEMPOTENCY_KEY_REUSED
    assert len(events_of(tenant)) == 2


@pytest.mark.parametrize(
    ("refusal_now", "event_type", "of_tenant"),
    [
        (Refusal.EVENT_TYPE_ARCHIVED, {"archived_at": timezone.now()}, {}),
        (Refusal.UNKNOWN_EVENT_TYPE, {"name": "order.made"}, {}),
        (Refusal.SCHEMA_VIOLATION, {"schema": {"required": ["total"]}}, {}),
        (Refusal.PAYLOAD_TOO_LARGE, {}, {"limits": {"payload_bytes": 3}}),
        (Refusal.TENANT_RATE_LIMITED, {}, {"limits": {"events_per_second": 0.01}}),
    ],
)
def test_the_same_request_gets_the_first_reply_although_it_would_be_refused_by_now(
    refusal_now: Refusal, event_type: dict[str, Any], of_tenant: dict[str, Any]
) -> None:
    tenant = make_tenant()
    make_endpoint(tenant, URL)
    first = publish(tenant, b'{"n":1}', idempotency=Idempotency("k", b"1" * 32))
    if event_type:
        EventType.objects.filter(tenant=tenant).update(**event_type)
    if of_tenant:
        Tenant.objects.filter(id=tenant.id).update(**of_tenant)
    raise_version(tenant)
    if refusal_now is Refusal.TENANT_RATE_LIMITED:
        publish(tenant)

    again, other, without = ingest.publish(
        [
            new_event(tenant, b'{"n":1}', idempotency=Idempotency("k", b"1" * 32)),
            new_event(tenant, b'{"n":2}', idempotency=Idempotency("k", b"2" * 32)),
            new_event(tenant, b'{"n":1}'),
        ]
    )

    assert again == Accepted(first.event_id, first.reply, is_replayed=True)
    assert [refusal(other), refusal(without)] == [refusal_now] * 2
    stored = [event.id.bytes for event in events_of(tenant)]
    assert stored[0] == first.event_id
    assert len(stored) == 1 + (refusal_now is Refusal.TENANT_RATE_LIMITED)


def test_a_suspended_tenant_gets_no_reply_again() -> None:
    tenant = make_tenant()
    publish(tenant, idempotency=Idempotency("k", b"1" * 32))
    Tenant.objects.filter(id=tenant.id).update(status="suspended")

    (again,) = ingest.publish([new_event(tenant, idempotency=Idempotency("k", b"1" * 32))])

    assert refusal(again) is Refusal.TENANT_SUSPENDED


def test_a_refused_request_does_not_keep_its_key() -> None:
    tenant = make_tenant()
    wrong = keyed(tenant, "k")
    wrong.type = "order.unknown"

    results = [*ingest.publish([wrong]), *ingest.publish([keyed(tenant, "k", b'{"n":2}')])]

    assert refusal(results[0]) is Refusal.UNKNOWN_EVENT_TYPE
    assert isinstance(results[1], Accepted)
    assert not results[1].is_replayed


def test_a_key_is_free_again_after_a_day() -> None:
    tenant = make_tenant()
    ingest.publish([keyed(tenant, "k")])
    IdempotencyRecord.objects.filter(space=tenant.id).update(
        created_at=timezone.now() - timedelta(hours=24, seconds=1)
    )

    (result,) = ingest.publish([keyed(tenant, "k", b'{"n":2}')])

    assert isinstance(result, Accepted)
    assert not result.is_replayed
    assert IdempotencyRecord.objects.filter(space=tenant.id).count() == 1


def test_keys_in_a_group_with_a_culprit_are_kept_for_those_that_were_accepted() -> None:
    tenant = make_tenant()
    events = [keyed(tenant, f"k{n}") for n in range(6)]
    events[2].ordering_key = "\x00"
    # Twice in the group, with the culprit between them.
    events.append(keyed(tenant, "k0"))

    results = ingest.publish(events)

    assert refusal(results[2]) is Refusal.INTERNAL_ERROR
    first, copy = accepted([results[0], results[6]])
    assert (copy.event_id, copy.is_replayed) == (first.event_id, True)
    assert sorted(IdempotencyRecord.objects.filter(space=tenant.id).values_list("key", flat=True)) == [
        "k0",
        "k1",
        "k3",
        "k4",
        "k5",
    ]
    assert len(events_of(tenant)) == 5


def test_a_test_reaches_its_endpoint_alone_whatever_catalogue_and_subscriptions_say() -> None:
    tenant = make_tenant()
    wanted = make_endpoint(tenant, URL, patterns=[])
    make_endpoint(tenant, URL)

    result = publish(tenant, b'{"a":1}', type="webhook.test", only_endpoint=wanted.id.bytes)

    (delivery,) = deliveries_of(tenant)
    assert delivery.id.bytes == result.delivery_ids[0]
    assert (delivery.endpoint_id, delivery.trigger, delivery.event_type) == (
        wanted.id,
        "test",
        "webhook.test",
    )


def test_events_per_second_refuses_the_last_ones_of_a_group() -> None:
    tenant, free = make_tenant(limits={"events_per_second": 5}), make_tenant()

    results = ingest.publish([new_event(tenant, b'{"n":%d}' % n) for n in range(8)] + [new_event(free)])

    assert [isinstance(result, Accepted) for result in results] == [True] * 5 + [False] * 3 + [True]
    assert [refusal(result) for result in results[5:8]] == [Refusal.TENANT_RATE_LIMITED] * 3
    assert len(events_of(tenant)) == 5


def test_a_limit_that_was_raised_lets_through_at_once_what_the_old_one_made_wait() -> None:
    tenant = make_tenant(limits={"events_per_second": 0.01})
    ingest.publish([new_event(tenant)])
    slow = ingest.publish([new_event(tenant)])[0]
    Tenant.objects.filter(id=tenant.id).update(limits={"events_per_second": 10})
    raise_version(tenant)

    # A full bucket of the new limit is empty after a second.
    until = time.monotonic() + 5
    while refused := [each for each in ingest.publish([new_event(tenant)]) if isinstance(each, Refused)]:
        assert time.monotonic() < until, refused
        time.sleep(0.05)

    assert refusal(slow) is Refusal.TENANT_RATE_LIMITED


def test_deliveries_keep_the_subscription_that_decided() -> None:
    tenant = make_tenant("order.created", "order.paid")
    endpoint = make_endpoint(tenant, URL, patterns=["order.paid", "order.*", "*"])

    publish(tenant)
    raise_version(tenant)

    (delivery,) = Delivery.objects.for_tenant(tenant)
    (subscription,) = endpoint.subscriptions.filter(event_type="order.*")
    assert delivery.subscription_id == subscription.id


def test_a_plan_of_when_there_were_few_idempotency_keys_looks_at_no_others() -> None:
    """The statement is planned once a connection, and records come to be afterwards."""
    tenant = make_tenant()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE tenants_idempotencyrecord")
    publish(tenant, idempotency=Idempotency("first", bytes(32)))

    def look(connection: Any) -> None:
        places = [arrays.uuids([tenant.id.bytes]), arrays.texts(["first"]), arrays.int4s([60])]
        connection.execute(claims.LOOK, places)

    def more() -> None:
        ingest.publish([keyed(tenant, f"key-{number}") for number in range(2000)])

    with connect(application_name="test", statement_timeout_seconds=10, options=ingest.OPTIONS) as publisher:
        publisher.execute("ANALYZE tenants_idempotencyrecord")
        looked_at = rows_of(publisher, look, once_planned=more)

    assert 2 <= looked_at < 10
