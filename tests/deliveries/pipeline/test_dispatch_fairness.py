"""A bad endpoint hurts only itself, a busy tenant only itself: slots, memory and turns of one dispatcher."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest

from deliveries.models import Endpoint, Lane
from deliveries.pipeline import dispatch, ingest, lanes
from deliveries.pipeline.book import BUSY_LANES, Book, HeldLane
from deliveries.pipeline.database import Row
from deliveries.pipeline.dispatch import Dispatcher
from deliveries.pipeline.hub import Hub
from deliveries.pipeline.lanes import TENANTS_A_TURN
from deliveries.pipeline.needs import FEWEST_LANES_A_ROUND
from deliveries.pipeline.payloads import PAYLOAD_BYTES
from deliveries.pipeline.rounds import Round, RoundWorker
from deliveries.pipeline.wake import wake
from tests.support.builders import (
    deliveries_of,
    delivery_of,
    lane_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    new_event,
    publish,
)
from tests.support.running import Reply, Request, Webhooks, running, until

pytestmark = [pytest.mark.usefixtures("quiet_lanes"), pytest.mark.alone]


def test_new_work_of_a_lane_is_sent_beside_answers_that_hang() -> None:
    """The lane stays with its holder while an answer hangs; what is published meanwhile must not wait for it."""
    tenant = make_tenant()

    def first_hangs(request: Request) -> Reply:
        return Reply(waits=b'"n":0' in request.body)

    with Webhooks(a=first_hangs) as webhooks, running():
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant, b'{"n":0}')
        webhooks.wait_for(1)
        for n, pause in enumerate([0.2, 1.5, 0.5], start=1):
            time.sleep(pause)
            publish(tenant, b'{"n":%d}' % n)
            published = time.monotonic()

            request = webhooks.wait_for(n + 1)[-1]

            assert b'"n":%d' % n in request.body
            # A transfer hangs from its first second on.
            assert request.at - published < 1.6
        assert len(webhooks.open) == 1
        webhooks.release()
        until(lambda: lane_of(endpoint).dispatcher_id is None)

    assert [delivery.status for delivery in deliveries_of(tenant)] == ["succeeded"] * 4
    assert webhooks.together == []


@pytest.mark.parametrize(
    ("name", "capacity", "in_air"),
    [
        ("curl", 32, 10),
        # It has 256 threads, whatever is asked for: hanging requests must not wait inside for one, nor the others.
        ("requests", 2048, 79),
    ],
)
def test_hanging_endpoints_of_one_tenant_leave_room_for_another(
    name: str, capacity: int, in_air: int
) -> None:
    hanging, quick = make_tenant(), make_tenant()
    with Webhooks(a=Reply()) as webhooks, running(name=name, capacity=capacity):
        for n in range(200):
            webhooks.replies[f"/{n}"] = Reply(waits=True)
        make_endpoints(hanging, [webhooks.url(f"/{n}") for n in range(200)])
        make_endpoint(quick, webhooks.url("/a"))
        publish(hanging)
        publish(hanging)
        until(lambda: len(webhooks.open) == in_air)
        for n in range(5):
            publish(quick)
            published = time.monotonic()

            request = webhooks.wait_for(n + 1, "/a")[-1]

            assert request.at - published < 0.5
        assert webhooks.most_open <= in_air + 1
        webhooks.release()
        until(lambda: len(webhooks.requests) == 405)


def test_the_round_after_one_without_the_busy_is_for_them_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[tuple[list[bytes], UUID, bool]] = []
    take = RoundWorker._take

    def and_note(worker: RoundWorker, connection: psycopg.Connection[Row], plan: Round) -> None:
        begins_behind = plan.after_tenant
        take(worker, connection, plan)
        rounds.append((plan.busy_tenants, begins_behind, plan.is_of_others))

    # With more tenants than come in one round, the next begins behind the last one.
    monkeypatch.setattr(lanes, "TENANTS_A_TURN", 1)

    monkeypatch.setattr(RoundWorker, "_take", and_note)
    busy, quiet = make_tenant(), make_tenant()
    with Webhooks(a=Reply()) as webhooks, running(capacity=256):
        webhooks.replies |= {f"/{n}": Reply(waits=True) for n in range(BUSY_LANES)}
        make_endpoints(busy, [webhooks.url(f"/{n}") for n in range(BUSY_LANES)])
        make_endpoint(quiet, webhooks.url("/a"))
        publish(busy)
        until(lambda: len(webhooks.open) == BUSY_LANES)
        for n in range(5):
            publish(quiet)
            webhooks.wait_for(n + 1, "/a")
        webhooks.release()

    assert any(tenants == [busy.id.bytes] and is_of_others for tenants, _, is_of_others in rounds)
    assert {begins_behind for _, begins_behind, _ in rounds} > {lanes.NO_TENANT}
    for (_, began_behind, is_of_others), (tenants, begins_behind, _) in pairwise(rounds):
        # Else one that was not asked could be before it each time.
        assert not is_of_others or (tenants == [] and begins_behind == began_behind)


def test_endpoints_that_hang_leave_room_for_one_that_has_not_answered_yet() -> None:
    """Even if more and more tenants' do: else a new lane, of which nobody knows, would wait for a time-out."""
    with Webhooks() as webhooks, running(capacity=256):
        for number in range(6):
            tenant = make_tenant()
            webhooks.replies |= {f"/{number}/{n}": Reply(waits=True) for n in range(30)}
            make_endpoints(tenant, [webhooks.url(f"/{number}/{n}") for n in range(30)], timeout_seconds=30)
            publish(tenant)
            publish(tenant)
            mine = f"/{number}/"
            until(lambda mine=mine: any(path.startswith(mine) for path, _ in list(webhooks.open)))  # type: ignore[misc]
        time.sleep(1.2)
        held = len(webhooks.open)
        for n in range(3):
            new = make_tenant()
            make_endpoint(new, webhooks.url(f"/new-{n}"))
            publish(new)
            published = time.monotonic()

            (request,) = webhooks.wait_for(1, f"/new-{n}")

            assert request.at - published < 0.5
        assert 100 < held < 128
        webhooks.release()
        until(lambda: len(webhooks.requests) == 363)


def test_a_backlog_of_one_lane_does_not_delay_another_tenant() -> None:
    behind, quick = make_tenant(), make_tenant()
    with Webhooks(a=Reply(seconds=0.02)) as webhooks:
        make_endpoint(behind, webhooks.url("/a"), max_in_flight=5)
        make_endpoint(quick, webhooks.url("/b"))
        ingest.publish([new_event(behind) for _ in range(2000)])
        with running():
            webhooks.wait_for(20)
            publish(quick)
            published = time.monotonic()

            (request,) = webhooks.wait_for(1, "/b")

            assert request.at - published < 0.5
    assert len(webhooks.requests) < 2000


def test_a_thousand_lanes_of_one_tenant_do_not_delay_another_by_more_than_a_turn() -> None:
    busy, quick = make_tenant(), make_tenant()
    with Webhooks() as webhooks:
        make_endpoints(busy, [webhooks.url(f"/{n}") for n in range(1000)])
        make_endpoint(quick, webhooks.url("/quick"))
        publish(busy)
        with running(capacity=256):
            webhooks.wait_for(50)
            publish(quick)
            before = len(webhooks.requests)

            webhooks.wait_for(1, "/quick")

            # In requests, which a slow machine does not change.
            assert len(webhooks.requests) - before < 700


def test_jobs_go_on_in_the_middle_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a round, which waits for the database a handful of times, takes as many turns of a busy loop."""
    tenant = make_tenant()
    in_a_row = {"begun": 0, "judged": 0}
    most = {"begun": 0, "judged": 0}
    go_on = Hub.go_on

    def counted(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            in_a_row[what] += 1
            most[what] = max(most[what], in_a_row[what])
            return original(*arguments)

        return call

    def goes_on(self: Hub, *arguments: Any) -> None:
        in_a_row.update(begun=0, judged=0)
        go_on(self, *arguments)

    monkeypatch.setattr(Hub, "go_on", goes_on)
    monkeypatch.setattr(Dispatcher, "_start", counted("begun", Dispatcher._start))
    monkeypatch.setattr(Dispatcher, "_answered", counted("judged", Dispatcher._answered))
    with Webhooks(a=Reply(seconds=0.3)) as webhooks:
        make_endpoints(tenant, [webhooks.url("/a")] * 200)
        publish(tenant)
        with running():
            webhooks.wait_for(200)

    assert 1 < most["begun"] <= dispatch.JOBS_EVERY
    assert 1 < most["judged"] <= dispatch.JOBS_EVERY


def test_what_a_job_brought_in_the_middle_of_a_turn_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send = Dispatcher._send

    def jobs_end_here(self: Dispatcher) -> None:
        send(self)
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            self.hub.go_on(0.01)

    monkeypatch.setattr(Dispatcher, "_send", jobs_end_here)
    tenant = make_tenant()
    pauses: list[float] = []
    pause = Dispatcher._pause

    def noted(self: Dispatcher) -> float:
        has_news = self.lanes_clerk.has_news or self.records_clerk.has_news
        seconds = pause(self)
        if has_news:
            pauses.append(seconds)
        return seconds

    monkeypatch.setattr(Dispatcher, "_pause", noted)
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        with running():
            publish(tenant)
            webhooks.wait_for(1)

    assert pauses
    assert set(pauses) == {0.0}


def test_large_payloads_of_an_endpoint_that_hangs_leave_memory_for_another_tenant() -> None:
    hanging, quick = make_tenant(), make_tenant()
    data = b'{"a":"' + b"x" * 261_000 + b'"}'
    with Webhooks(a=Reply(waits=True)) as webhooks:
        make_endpoints(hanging, [webhooks.url("/a")] * 10, max_in_flight=10)
        make_endpoint(quick, webhooks.url("/b"))
        for _ in range(10):
            ingest.publish([new_event(hanging, data) for _ in range(15)])
        with running() as one:
            webhooks.wait_for(20)
            time.sleep(0.5)

            event = publish(quick, data)
            published = time.monotonic()
            (request,) = webhooks.wait_for(1, "/b")

            assert request.at - published < 1
            until(lambda: delivery_of(event).status == "succeeded")
            assert one.dispatcher.book.payloads.bytes <= PAYLOAD_BYTES
            webhooks.release()


@pytest.mark.parametrize("fields", [{}, {"rate_limit": 1.5}])
def test_backlogs_of_endpoints_that_hang_or_have_a_pace_leave_room_for_others_of_their_tenant(
    fields: dict[str, Any],
) -> None:
    """Each is loaded when it becomes ready, as far as there is room, and keeps that for minutes."""
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=not fields)) as webhooks, running(capacity=512) as one:
        busy = make_endpoints(tenant, [webhooks.url("/a")] * 7, **fields)
        Lane.objects.for_tenant(tenant).update(is_paused=True)
        ingest.publish([new_event(tenant) for _ in range(600)])

        def let_go(endpoint: Endpoint) -> None:
            before = len(webhooks.requests)
            Lane.unscoped.filter(endpoint=endpoint).update(is_paused=False)
            wake([(endpoint.id, None)])
            until(lambda: one.dispatcher.book.full_tenants() or len(webhooks.requests) > before)

        for endpoint in busy:
            let_go(endpoint)
        time.sleep(1.5)
        make_endpoint(tenant, webhooks.url("/healthy"))
        publish(tenant)
        webhooks.wait_for(1, "/healthy", seconds=6)
        webhooks.release()


def test_as_many_lanes_go_back_as_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A take brings one lane of each tenant, also in rounds that are to be small: more and more would be held, done or not,
    and what is published to them waits for each to be given back."""
    most_held = 0

    def small(*_: Any, **__: Any) -> int:
        return FEWEST_LANES_A_ROUND

    def counted(book: Book, lanes: Any, *, at_most: int) -> list[HeldLane]:
        nonlocal most_held
        most_held = max(most_held, len(book.lanes))
        return leave(book, lanes, at_most=at_most)

    leave = Book.leave
    monkeypatch.setattr(Book, "leave", counted)
    monkeypatch.setattr(dispatch, "lanes_a_round", small)
    tenants = [make_tenant() for _ in range(TENANTS_A_TURN)]
    with Webhooks(a=Reply()) as webhooks:
        for tenant in tenants:
            make_endpoints(tenant, [webhooks.url("/a")] * 20)
            publish(tenant)
        with running():
            webhooks.wait_for(1280)

    # Those whose results are being recorded, not half of all.
    assert most_held < 10 * TENANTS_A_TURN
