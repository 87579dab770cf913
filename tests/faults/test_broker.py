"""The broker carries hints. Emptied, stopped, restarted or hanging, it costs no event, and no publisher any time."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest
import redis

from deliveries.bench.world import World
from tests.support.platform import Place
from tests.support.publishing import Publishers, Replies

SLOWEST_MS = 100
"""99 of 100 publishes are answered within this."""

SECONDS = 4.0
"""Of the fault, under load."""

RATE = 150


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


@contextmanager
def hanging(place: Place) -> Iterator[None]:
    place.servers.valkey.pause()
    yield
    place.servers.valkey.resume()


Fault = Callable[[Place], AbstractContextManager[None]]


def publish_meanwhile(place: Place, world: World, fault: Fault) -> tuple[Replies, float]:
    """What publishers were told during the fault, and the slowest hundredth in as long without it, in ms."""
    with Publishers(place.port, world.targets, rate=RATE):
        time.sleep(1)  # the first ones make connections and read settings
    with Publishers(place.port, world.targets, rate=RATE) as publishers:
        time.sleep(SECONDS)
    usual = publishers.replies.p99_ms()
    with Publishers(place.port, world.targets, rate=RATE) as faulty, fault(place):
        time.sleep(SECONDS)
    return faulty.replies, usual


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", [emptied, stopped, restarted, hanging])
def test_publishers_and_a_running_dispatcher_do_not_notice(place: Place, fault: Fault) -> None:
    world = place.make_world("a", 20)
    place.start()

    replies, usual = publish_meanwhile(place, world, fault)
    ended = time.time()
    place.wait_until_delivered(seconds=30)
    late = place.receiver.report()["last_at"] - ended

    place.assert_nothing_lost()
    slowest = replies.p99_ms()
    print(f"{fault.__name__}: {replies.statuses}, p99 {slowest} ms (without {usual} ms), last {late:+.2f} s")
    assert set(replies.statuses) == {202}
    assert len(replies.all) > SECONDS * RATE * 0.8
    assert place.delivered_ids(world) >= replies.accepted
    assert slowest < max(SLOWEST_MS, 1.5 * usual)
    assert late < 2


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", [emptied, stopped, hanging])
def test_without_a_dispatcher_the_next_sweep_starts_one(place: Place, fault: Fault) -> None:
    # Nobody delivers while the broker is in trouble, and every nudge is lost.
    world = place.make_world("a", 20)
    place.begin_web()
    if fault is not emptied:
        # A worker that waits gets a nudge before anyone can take it away: this one is to find the broker again.
        place.begin_dispatch()
    place.wait_until_ready()

    with fault(place), Publishers(place.port, world.targets, rate=RATE) as publishers:
        time.sleep(SECONDS)
    replies = publishers.replies
    if fault is emptied:
        place.begin_dispatch()
        place.wait_until_ready()
    before = place.receiver.count()["requests"]
    place.begin_sweeps()
    place.wait_for_words("sweeps", "Task deliveries.sweep", seconds=30)
    swept = time.time()
    place.wait_until_delivered(seconds=30)
    late = place.receiver.report()["last_at"] - swept

    place.assert_nothing_lost()
    print(f"{fault.__name__}: {replies.statuses}, {before} before the sweep, last {late:+.2f} s after it")
    assert set(replies.statuses) == {202}
    assert before == 0
    assert place.delivered_ids(world) >= replies.accepted
    assert late < 2
