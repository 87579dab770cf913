"""Whole batches under a key of their own, in transactions that they share with others."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest
from django.db.models.functions import Now

from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import Accepted, Batch, Idempotency, NewEvent, Refusal, Refused, Result
from tenants.models import IdempotencyRecord, Tenant
from tests.support.builders import accepted, events_of, make_tenant, new_event

pytestmark = pytest.mark.usefixtures("database")


def told(results: Sequence[Result]) -> bytes:
    """A reply that says of each event whether it was accepted."""
    return msgspec.json.encode(
        ["accepted" if isinstance(result, Accepted) else result.reason for result in results]
    )


def batch_of(tenant: Tenant, key: str, fingerprint: bytes = b"f") -> Batch:
    return Batch(tenant.id.bytes, key, fingerprint.ljust(32), told)


def in_batch(batch: Batch, tenant: Tenant, *datas: bytes) -> list[NewEvent]:
    return [new_event(tenant, data, batch=batch) for data in datas]


def datas_of(tenant: Tenant) -> list[bytes]:
    return [bytes(event.data or b"") for event in events_of(tenant)]


def test_a_group_with_a_batch_that_came_before_writes_all_but_that() -> None:
    tenant = make_tenant()
    ingest.publish(in_batch(batch_of(tenant, "old"), tenant, b'{"n":1}', b'{"n":2}'))
    again, fresh = batch_of(tenant, "old"), batch_of(tenant, "new")
    group = [
        new_event(tenant, b'{"n":3}'),
        *in_batch(again, tenant, b'{"n":1}', b'{"n":2}'),
        *in_batch(fresh, tenant, b'{"n":4}'),
        new_event(tenant, b'{"n":5}', idempotency=Idempotency("a", b"f" * 32)),
    ]

    results = accepted(ingest.publish(group))

    assert [result.is_replayed for result in results] == [False, True, True, False, False]
    assert (again.reply, again.is_replayed) == (b'["accepted","accepted"]', True)
    assert (fresh.reply, fresh.is_replayed) == (b'["accepted"]', False)
    assert datas_of(tenant) == [b'{"n":%d}' % n for n in (1, 2, 3, 4, 5)]


def test_of_two_batches_with_one_key_in_a_group_the_second_is_told_that_the_first_is_running() -> None:
    tenant = make_tenant()
    first, same, other = (
        batch_of(tenant, "k"),
        batch_of(tenant, "k"),
        batch_of(tenant, "k", b"g"),
    )
    events = [each for batch in (first, same, other) for each in in_batch(batch, tenant, b"{}")]

    results = ingest.publish(events)

    assert [batch.refused and batch.refused.reason for batch in (first, same, other)] == [
        None,
        Refusal.IDEMPOTENCY_IN_PROGRESS,
        Refusal.IDEMPOTENCY_KEY_REUSED,
    ]
    assert results[1:] == [same.refused, other.refused]
    assert len(events_of(tenant)) == 1


def test_a_single_event_with_the_key_of_a_batch_in_its_group_is_refused() -> None:
    tenant, stranger = make_tenant(), make_tenant()
    batch = batch_of(tenant, "k")
    single, elsewhere = (
        new_event(each, b'{"n":1}', idempotency=Idempotency("k", b"g" * 32)) for each in (tenant, stranger)
    )

    results = ingest.publish([single, elsewhere, *in_batch(batch, tenant, b'{"n":2}')])

    assert results[0] == Refused(Refusal.IDEMPOTENCY_KEY_REUSED)
    assert [isinstance(result, Accepted) for result in results[1:]] == [True, True]
    assert (datas_of(tenant), datas_of(stranger)) == ([b'{"n":2}'], [b'{"n":1}'])


def test_a_culprit_is_refused_alone_and_the_kept_reply_says_so() -> None:
    tenant = make_tenant()
    batch = batch_of(tenant, "k")
    events = [*in_batch(batch, tenant, b'{"n":1}', b'{"n":2}', b'{"n":3}'), new_event(tenant, b'{"n":4}')]
    # PostgreSQL takes none.
    events[1].ordering_key = "\x00"

    results = ingest.publish(events)

    assert results[1] == Refused(Refusal.INTERNAL_ERROR)
    assert batch.reply == b'["accepted","internal_error","accepted"]'
    assert datas_of(tenant) == [b'{"n":1}', b'{"n":3}', b'{"n":4}']
    record = IdempotencyRecord.objects.get(space=tenant.id, key="k")
    assert bytes(record.body) == batch.reply
    assert record.event_ids == [event.id for event in events_of(tenant)[:2]]


def test_what_a_suspended_tenant_sends_is_not_kept() -> None:
    tenant, other = make_tenant(status="suspended"), make_tenant()
    batch = batch_of(tenant, "k")

    results = ingest.publish([*in_batch(batch, tenant, b"{}"), new_event(other)])

    assert results[0] == Refused(Refusal.TENANT_SUSPENDED)
    assert isinstance(results[1], Accepted)
    assert not IdempotencyRecord.objects.filter(space=tenant.id).exists()


def test_a_batchs_key_is_free_again_after_a_day() -> None:
    tenant = make_tenant()
    ingest.publish(in_batch(batch_of(tenant, "k"), tenant, b'{"n":1}'))
    IdempotencyRecord.objects.filter(space=tenant.id).update(
        created_at=Now() - timedelta(hours=24, seconds=1)
    )

    (result,) = ingest.publish([new_event(tenant, b'{"n":2}', idempotency=Idempotency("k", b"g" * 32))])

    assert isinstance(result, Accepted)
    assert not result.is_replayed
    record = IdempotencyRecord.objects.get(space=tenant.id)
    assert (record.event_ids, record.event_id) == (None, events_of(tenant)[1].id)
