"""The same key from two processes at the same time makes one event; the other is told to wait, or gets the reply."""

import os
import subprocess
import sys
import threading

import pytest

from deliveries.pipeline import ingest
from deliveries.pipeline.database import connect
from deliveries.pipeline.ingest import Accepted, Idempotency, Refusal, Refused, Result
from tenants.idempotency import lock_key
from tenants.models import Tenant
from tests.support.builders import deliveries_of, events_of, make_endpoint, make_tenant, new_event

pytestmark = pytest.mark.usefixtures("database")


def keyed(tenant: Tenant, key: str) -> ingest.NewEvent:
    return new_event(tenant, b'{"n":1}', idempotency=Idempotency(key, b"f" * 32))


def test_two_connections_at_once_make_one_event_for_each_key() -> None:
    tenant = make_tenant()
    make_endpoint(tenant, "http://127.0.0.1:9/")
    rounds = 60
    start = threading.Barrier(2)
    answers: list[list[Result]] = [[], []]

    def publish_all(who: int) -> None:
        with connect(application_name="test", statement_timeout_seconds=10) as own:
            for n in range(rounds):
                # Batches whose keys overlap, in the opposite order: they must not lock each other up.
                keys = [f"{n}-{each}" for each in ("a", "b", "c")]
                events = [keyed(tenant, key) for key in (keys if who else reversed(keys))]
                start.wait(10)
                answered = ingest._publish(own, events, ingest._read(own, events))
                answers[who] += answered if who else reversed(answered)

    threads = [threading.Thread(target=publish_all, args=[who]) for who in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [len(each) for each in answers] == [3 * rounds] * 2
    made = set()
    for first, second in zip(*answers, strict=True):
        fresh = [r for r in (first, second) if isinstance(r, Accepted) and not r.is_replayed]
        (one,) = fresh
        made.add(one.event_id)
        other = second if one is first else first
        match other:
            case Accepted():
                assert (other.event_id, other.reply) == (one.event_id, one.reply)
            case Refused():
                assert other.reason is Refusal.IDEMPOTENCY_IN_PROGRESS
    assert {event.id.bytes for event in events_of(tenant)} == made
    assert len(made) == len(deliveries_of(tenant)) == 3 * rounds


def test_while_the_first_is_still_running_the_second_is_told_so_and_afterwards_gets_its_reply() -> None:
    tenant = make_tenant()
    with connect(application_name="test", statement_timeout_seconds=10) as first:
        events = [keyed(tenant, "k")]
        read = ingest._read(first, events)
        with first.transaction():
            (made,) = ingest._publish(first, events, read)
            (meanwhile,) = ingest.publish([keyed(tenant, "k")])
        (afterwards,) = ingest.publish([keyed(tenant, "k")])

    assert isinstance(made, Accepted)
    assert meanwhile == Refused(Refusal.IDEMPOTENCY_IN_PROGRESS)
    assert isinstance(afterwards, Accepted)
    assert (afterwards.event_id, afterwards.is_replayed) == (made.event_id, True)
    assert len(events_of(tenant)) == 1


def test_a_key_whose_first_request_was_rolled_back_is_free() -> None:
    tenant = make_tenant()
    with connect(application_name="test", statement_timeout_seconds=10) as first:
        first.execute("BEGIN")
        events = [keyed(tenant, "k")]
        ingest._publish(first, events, ingest._read(first, events))
        first.execute("ROLLBACK")

    (result,) = ingest.publish([keyed(tenant, "k")])

    assert isinstance(result, Accepted)
    assert not result.is_replayed
    assert len(events_of(tenant)) == 1


RACER = """
import sys, django
django.setup()
from uuid import UUID
from deliveries.pipeline import ingest
tenant = UUID(sys.argv[1]).bytes
print("ready", flush=True)
sys.stdin.readline()
for n in range(40):
    event = ingest.NewEvent(tenant, "order.created", b"{}", idempotency=ingest.Idempotency(f"k{n}", b"f" * 32))
    (result,) = ingest.publish([event])
    while isinstance(result, ingest.Refused):
        assert result.reason is ingest.Refusal.IDEMPOTENCY_IN_PROGRESS, result
        (result,) = ingest.publish([event])
    print(result.event_id.hex(), flush=True)
ingest._publisher.drop()
"""


def test_two_processes_that_try_until_they_are_answered_get_the_same_events() -> None:
    tenant = make_tenant()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tenant.id)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "webhooks_platform.settings"},
            text=True,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"

    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outputs = [racer.communicate(timeout=30)[0].split() for racer in racers]

    assert outputs[0] == outputs[1]
    assert len(set(outputs[0])) == 40
    assert [event.id.hex for event in events_of(tenant)] == outputs[0]


def test_keys_of_different_tenants_lock_apart() -> None:
    first, second = make_tenant(), make_tenant()

    assert lock_key(first.id.bytes, "k") != lock_key(second.id.bytes, "k")
