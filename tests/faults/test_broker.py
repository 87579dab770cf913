"""The broker carries hints. Emptied, stopped, restarted or hanging, it costs no event, and no publisher any time."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest
import redis

from deliveries.bench.world import World
from tests.faults.size import EVENTS, IN_AIR, IS_FULL, RUNS, SLOWEST_MS, tell
from tests.support.platform import Place
from tests.support.publishing import Publishers, Replies

pytestmark = pytest.mark.alone

LATE_SECONDS = 2
"""Until all is delivered, after the fault or the sweep that follows it."""

SECONDS = 4.0
"""Of the fault, under load."""

RATE = 150

PROMISED_PER_SECOND = 6_000
"""Deliveries, over 50 endpoints (docs/performance.md)."""


@contextmanager
def repeatedly(action: Callable[[], object], every_seconds: float) -> Iterator[None]:
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(every_seconds):
            action()

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(go_on)
        try:
            yield
        finally:
            over.set()
            running.result()


@contextmanager
def emptied(place: Place) -> Iterator[None]:
    with redis.Redis.from_url(place.servers.valkey.url) as broker, repeatedly(broker.flushall, 0.01):
        yield


@contextmanager
def stopped(place: Place) -> Iterator[None]:
    place.servers.valkey.stop()
    yield
    place.servers.valkey.start()


@contextmanager
def restarted(place: Place) -> Iterator[None]:
    with repeatedly(place.servers.valkey.restart, SECONDS / 4):
        yield
    # Once more, so that what the last one came too early for is forgotten as well.
    place.servers.valkey.restart()


@contextmanager
def hanging(place: Place) -> Iterator[None]:
    place.servers.valkey.pause()
    yield
    place.servers.valkey.resume()


Fault = Callable[[Place], AbstractContextManager[None]]

WORDS: dict[Fault, str] = {
    emptied: "the broker emptied a hundred times a second",
    stopped: "the broker stopped for 4 s",
    restarted: "the broker restarted each second",
    hanging: "the broker accepts and never answers, for 4 s",
}


def publish_beside_a_backlog(
    place: Place, world: World, busy: World, fault: Fault | None = None
) -> tuple[Replies, int]:
    """What publishers were told while thousands of deliveries were on their way, and how many of them in the air."""
    place.publish(busy, EVENTS // 2)
    place.receiver.wait_for_in_air(IN_AIR + 100, seconds=30)
    with Publishers(place.port, world.targets, rate=RATE) as publishers:
        if fault is None:
            time.sleep(SECONDS)
            return publishers.replies, 0
        with fault(place):
            in_air = place.receiver.count()["in_air"]
            time.sleep(SECONDS)
    return publishers.replies, in_air


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("fault", WORDS)
def test_publishers_and_a_running_dispatcher_do_not_notice(place: Place, fault: Fault, run: int) -> None:
    world = place.make_world("a", 20)
    busy = place.make_world("busy", 100, max_in_flight=20)
    place.receiver.set_rule("/busy", seconds=0.7)
    place.start()
    with Publishers(place.port, world.targets, rate=RATE) as publishers:
        time.sleep(1)  # the first ones make connections and read settings

    usual, _ = publish_beside_a_backlog(place, world, busy)
    replies, in_air = publish_beside_a_backlog(place, world, busy, fault)
    ended = time.time()
    place.wait_until_delivered(seconds=30)

    place.assert_nothing_lost()
    report = place.receiver.report()
    late = report["last_at"] - ended
    slowest, usually = replies.p99_ms(), usual.p99_ms()
    accepted = publishers.replies.accepted | usual.accepted | replies.accepted
    missing = accepted - place.delivered_ids(world)
    print(f"{fault.__name__}: {replies.statuses}, p99 {slowest} ms, without {usually} ms, last {late:+.2f} s")
    tell(
        WORDS[fault],
        accepted=place.accepted + len(accepted),
        in_air=in_air,
        repeated=report["requests"] - report["distinct"],
        lost=len(missing) + place.accepted - len(place.delivered_ids(busy)),
        after=f"`202` after {slowest:.0f} ms p99 ({usually:.0f} ms without)",
    )
    assert set(replies.statuses) == {202}
    assert len(replies.all) > SECONDS * RATE * 0.8
    assert place.accepted + len(accepted) >= EVENTS
    assert in_air >= IN_AIR
    assert not missing
    assert len(place.delivered_ids(busy)) == place.accepted
    assert report["requests"] == report["distinct"]
    assert slowest < SLOWEST_MS
    assert late < LATE_SECONDS


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("fault", WORDS)
def test_without_a_dispatcher_the_next_sweep_starts_one(place: Place, fault: Fault, run: int) -> None:
    # Nobody delivers while the broker is in trouble, and every nudge is lost.
    world = place.make_world("a", 20)
    busy = place.make_world("busy", 50)
    place.begin_web()
    if is_away := fault in (stopped, hanging):
        # A worker that waits gets a nudge before anyone can take it away: this one is to find the broker again.
        place.begin_dispatch()
    place.wait_until_ready()

    with fault(place), Publishers(place.port, world.targets, rate=RATE) as publishers:
        if IS_FULL:
            place.publish(busy, EVENTS)
        time.sleep(SECONDS)
    replies = publishers.replies
    if not is_away:
        place.begin_dispatch()
        place.wait_until_ready()
    before = place.receiver.count()["requests"]
    place.begin_sweeps()
    place.wait_for_words("sweeps", "Task deliveries.sweep", seconds=30)
    swept = time.time()
    place.wait_until_delivered(seconds=30)

    place.assert_nothing_lost()
    report = place.receiver.report()
    first, late = report["first_at"] - swept, report["last_at"] - swept
    slowest = replies.p99_ms()
    missing = replies.accepted - place.delivered_ids(world)
    tell(
        f"{WORDS[fault]}, without a dispatcher",
        accepted=place.accepted + len(replies.accepted),
        in_air=None,
        repeated=report["requests"] - report["distinct"],
        lost=len(missing) + place.accepted - len(place.delivered_ids(busy)),
        after=f"`202` after {slowest:.0f} ms p99; first delivered {first:.1f} s after the sweep, all {late:.1f} s",
    )
    assert set(replies.statuses) == {202}
    assert place.accepted + len(replies.accepted) >= (EVENTS if IS_FULL else SECONDS * RATE * 0.8)
    assert before == 0
    assert not missing
    assert len(place.delivered_ids(busy)) == place.accepted
    assert report["requests"] == report["distinct"]
    assert slowest < SLOWEST_MS
    assert first < LATE_SECONDS
    # Thousands take as long as thousands take.
    assert late < LATE_SECONDS + place.accepted / PROMISED_PER_SECOND
