"""Order by ordering key: the next goes out only after the one before has ended, whatever fails, and other keys go on."""

import json
import random
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from deliveries.models import Lane
from deliveries.pipeline import ingest, lanes, rounds
from deliveries.pipeline.hub import outside
from deliveries.services import deliveries
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.support.builders import (
    accepted,
    change_endpoint,
    deliveries_of,
    delivery_of,
    lane_of,
    make_endpoint,
    make_tenant,
    new_event,
    publish,
)
from tests.support.running import Reply, Request, Webhooks, run_until_dry, running, until

pytestmark = pytest.mark.usefixtures("quiet_lanes")


@pytest.fixture(params=["curl", "requests"])
def transport_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def publish_line(tenant: Tenant, count: int, *, key: str = "k") -> list[ingest.Accepted]:
    return accepted(
        ingest.publish(
            [
                new_event(tenant, json.dumps({"k": key, "n": n}).encode(), ordering_key=key, is_fifo=True)
                for n in range(count)
            ]
        )
    )


def number(request: Request) -> int:
    n: int = json.loads(request.body)["data"]["n"]
    return n


def key(request: Request) -> str:
    k: str = json.loads(request.body)["data"]["k"]
    return k


def statuses(tenant: Tenant) -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT status, count(*) FROM deliveries_delivery WHERE tenant_id = %s GROUP BY 1", [tenant.id]
        )
        return dict(cursor.fetchall())


def test_many_keys_with_failures_keep_their_order_and_lose_nothing(transport_name: str) -> None:
    tenant = make_tenant()
    dice = random.Random(7)
    answered: dict[str, list[int]] = defaultdict(list)
    lock = threading.Lock()

    def sometimes(request: Request) -> Reply:
        if dice.random() < 0.05:
            return Reply(500)
        with lock:
            answered[key(request)].append(number(request))
        return Reply(200)

    with Webhooks(a=sometimes) as webhooks:
        make_endpoint(
            tenant, webhooks.url("/a"), ordering="fifo", retry_schedule=[0, 0, 0, 0, 0], max_in_flight=50
        )
        with running(name=transport_name):
            for _ in range(6):
                accepted(
                    ingest.publish(
                        [
                            new_event(
                                tenant,
                                json.dumps({"k": f"k{n % 40}", "n": at}).encode(),
                                ordering_key=f"k{n % 40}",
                                is_fifo=True,
                            )
                            for n in range(120)
                            for at in [time.monotonic_ns()]
                        ]
                    )
                )
            until(lambda: statuses(tenant) == {"succeeded": 720}, seconds=40)

    assert webhooks.together == []
    assert len(answered) == 40
    assert all(numbers == sorted(numbers) for numbers in answered.values())
    assert sum(len(numbers) for numbers in answered.values()) == 720


def test_one_key_does_not_wait_for_a_round_between_two(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), ordering="fifo")
        publish_line(tenant, 400)

        run_until_dry(name=transport_name)

    assert [number(request) for request in webhooks.requests] == list(range(400))
    assert webhooks.most_open == 1
    seconds = webhooks.requests[-1].at - webhooks.requests[0].at
    # Alone on a machine it is many times as fast.
    assert 400 / seconds > 40
    assert statuses(tenant) == {"succeeded": 400}


def test_a_failure_stops_its_line_at_once_and_keeps_its_place() -> None:
    tenant = make_tenant()
    replies = iter([Reply(200), Reply(500)])
    with Webhooks(a=lambda _: next(replies, Reply(200))) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), ordering="fifo", retry_schedule=[1])
        publish_line(tenant, 5)
        with running():
            until(lambda: statuses(tenant) == {"succeeded": 5})

    assert [number(request) for request in webhooks.requests] == [0, 1, 1, 2, 3, 4]
    assert webhooks.requests[2].at - webhooks.requests[1].at >= 1.0


def test_one_that_ends_as_failed_lets_the_next_go() -> None:
    tenant = make_tenant()
    replies = iter([Reply(500)])
    with Webhooks(a=lambda _: next(replies, Reply(200))) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), ordering="fifo", retry_schedule=[])
        publish_line(tenant, 4)

        run_until_dry()

    assert [number(request) for request in webhooks.requests] == [0, 1, 2, 3]
    assert [d.status for d in deliveries_of(tenant)] == ["failed", "succeeded", "succeeded", "succeeded"]


def test_behind_a_blocked_key_thousands_cost_nothing_and_others_go_at_full_speed() -> None:
    tenant = make_tenant()
    with Webhooks(a=lambda request: Reply(500 if key(request) == "bad" else 200)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), ordering="fifo", retry_schedule=[3600])
        publish_line(tenant, 3000, key="bad")
        for n in range(5):
            publish_line(tenant, 20, key=f"good{n}")

        run_until_dry()

    assert len([request for request in webhooks.requests if key(request) == "bad"]) == 1
    assert len([request for request in webhooks.requests if key(request) != "bad"]) == 100
    lane = lane_of(endpoint)
    # Nothing to look at before the blocked one's time.
    assert lane.ready_at is not None
    assert lane.ready_at > datetime.now(UTC) + timedelta(minutes=50)
    assert (lane.is_ready, lane.dispatcher_id) == (False, None)


def test_one_that_is_cancelled_while_it_waits_in_memory_is_passed_over() -> None:
    tenant = make_tenant()

    def wait_for_it(request: Request) -> Reply:
        return Reply(waits=number(request) == 0)

    with Webhooks(a=wait_for_it) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), ordering="fifo")
        events = publish_line(tenant, 6)
        with running() as one:
            webhooks.wait_for(1)
            until(lambda: one.dispatcher.book.loaded == 5)
            deliveries.cancel_delivery(actor=COMMAND, delivery=delivery_of(events[2]))
            until(lambda: one.dispatcher.book.loaded == 0)
            webhooks.release()
            until(lambda: statuses(tenant) == {"succeeded": 5, "cancelled": 1})

    assert [number(request) for request in webhooks.requests] == [0, 1, 3, 4, 5]


def test_a_scheduled_one_holds_its_line_until_its_time() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), ordering="fifo")
        publish(tenant, b'{"n":0}', ordering_key="k", is_fifo=True)
        began = time.monotonic()
        at = datetime.now(UTC) + timedelta(seconds=1.5)
        publish(tenant, b'{"n":1}', ordering_key="k", is_fifo=True, deliver_at=at)
        publish(tenant, b'{"n":2}', ordering_key="k", is_fifo=True)
        with running():
            until(lambda: statuses(tenant) == {"succeeded": 3})

    assert [number(request) for request in webhooks.requests] == [0, 1, 2]
    assert webhooks.requests[1].at - began > 1.4


def test_disabling_stops_a_line_that_is_read_ahead() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(seconds=0.4)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), ordering="fifo")
        publish_line(tenant, 50)
        with running():
            webhooks.wait_for(1)
            change_endpoint(endpoint, status="disabled", disabled_reason="manual")
            until(lambda: "pending" not in statuses(tenant))

    ended = statuses(tenant)
    assert ended["succeeded"] == len(webhooks.requests) < 20
    assert ended["cancelled"] == 50 - ended["succeeded"]


def test_what_is_published_meanwhile_takes_its_place_behind() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), ordering="fifo")
        with running():
            for _ in range(30):
                publish_line(tenant, 10)
            until(lambda: statuses(tenant) == {"succeeded": 300}, seconds=40)

    expected = [json.loads(d)["n"] for d in _data(tenant)]
    assert [number(request) for request in webhooks.requests] == expected


def _data(tenant: Tenant) -> list[bytes]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT data FROM deliveries_event WHERE tenant_id = %s ORDER BY sequence", [tenant.id]
        )
        return [bytes(row[0]) for row in cursor.fetchall()]


def test_a_key_does_not_wait_for_the_end_of_what_was_read_ahead_of_another() -> None:
    tenant = make_tenant()
    with Webhooks(a=lambda request: Reply(seconds=0.4 if key(request) == "slow" else 0.0)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), ordering="fifo")
        publish_line(tenant, 30, key="slow")
        publish_line(tenant, 100, key="quick")
        with running():
            until(lambda: [key(request) for request in webhooks.requests].count("quick") == 100)
            slow = [key(request) for request in webhooks.requests].count("slow")

    assert slow < 20


def test_what_became_due_during_a_load_is_loaded_though_that_brought_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The load looked before the head's end was committed, and is heard of after it."""
    monkeypatch.setattr(lanes, "READ_AHEAD_LINES", 0)
    tenant = make_tenant()
    load = lanes.load
    loads: list[int] = []

    def held_up(*args: Any, **fields: Any) -> list[lanes.Owed]:
        owed = load(*args, **fields)
        loads.append(len(owed))
        if len(loads) == 2:
            outside(lambda: until(lambda: one.dispatcher.done == 1))
        return owed

    def rule(request: Request) -> Reply:
        return Reply(waits=True) if key(request) == "hangs" else Reply(seconds=1.5)

    with Webhooks(a=rule) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), ordering="fifo")
        publish_line(tenant, 1, key="hangs")
        publish_line(tenant, 2, key="goes on")
        monkeypatch.setattr(lanes, "load", held_up)
        with running() as one:
            webhooks.wait_for(3, seconds=6)
            still_open = [hung for _, hung in webhooks.open]
            webhooks.release()
            until(lambda: statuses(tenant) == {"succeeded": 3})

    assert loads[:2] == [2, 0]
    assert len(still_open) == 2


def test_a_line_behind_what_was_published_before_its_endpoint_wanted_order_goes_out_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "MAX_LOAD", 3)
    tenant = make_tenant()
    load = lanes.load
    loads: list[int] = []

    def held_up(*args: Any, **fields: Any) -> list[lanes.Owed]:
        loads.append(len(fields["wanted"]))
        if len(loads) == 2:
            outside(lambda: until(lambda: one.dispatcher.done == 3))
        return load(*args, **fields)

    def rule(request: Request) -> Reply:
        return Reply(waits=number(request) == 1)

    with Webhooks(a=rule) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), max_in_flight=1)
        Lane.unscoped.filter(endpoint=endpoint).update(slots=1)
        for _ in range(2):
            publish(tenant, b'{"n": 7}')
        change_endpoint(endpoint, ordering="fifo")
        publish_line(tenant, 4)
        monkeypatch.setattr(lanes, "load", held_up)
        with running() as one:
            webhooks.wait_for(4)
            until(lambda: len(loads) == 2 and not one.dispatcher.lanes_clerk.is_busy)
            webhooks.release()
            until(lambda: statuses(tenant) == {"succeeded": 6})
            time.sleep(0.3)

    assert [number(request) for request in webhooks.requests] == [7, 7, 0, 1, 2, 3]
