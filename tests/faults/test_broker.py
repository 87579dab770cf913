"""The broker carries hints. Emptied, stopped, restarted or hanging, it costs no event, and no publisher any time."""

import time
from collections.abc import Callable

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


def emptied(place: Place) -> None:
    with redis.Redis.from_url(place.servers.valkey.url) as broker:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            broker.flushall()
            time.sleep(0.01)


def stopped(place: Place) -> None:
    place.servers.valkey.stop()
    time.sleep(SECONDS)
    place.servers.valkey.start()


def restarted(place: Place) -> None:
    for _ in range(3):
        place.servers.valkey.restart()
        time.sleep(SECONDS / 3)


def hanging(place: Place) -> None:
    place.servers.valkey.pause()
    time.sleep(SECONDS)
    place.servers.valkey.resume()


def publish_meanwhile(place: Place, world: World, fault: Callable[[Place], None]) -> tuple[Replies, float]:
    """What publishers were told during the fault, and the slowest hundredth in as long without it, in ms."""
    with Publishers(place.port, world.targets, rate=RATE):
        time.sleep(1)  # the first ones make connections and read settings
    with Publishers(place.port, world.targets, rate=RATE) as publishers:
        time.sleep(SECONDS)
    usual = publishers.replies.p99_ms()
    with Publishers(place.port, world.targets, rate=RATE) as faulty:
        fault(place)
    return faulty.replies, usual


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", [emptied, stopped, restarted, hanging])
def test_publishers_and_a_running_dispatcher_do_not_notice(
    place: Place, fault: Callable[[Place], None]
) -> None:
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
def test_without_a_dispatcher_the_next_sweep_starts_one(place: Place, fault: Callable[[Place], None]) -> None:
    # Nobody delivers while the broker is in trouble, and every nudge is lost.
    world = place.make_world("a", 20)
    place.begin_web()
    if fault is not emptied:
        # A worker that waits gets a nudge before anyone can take it away: this one is to find the broker again.
        place.begin_dispatch()
    place.wait_until_ready()

    with Publishers(place.port, world.targets, rate=RATE) as publishers:
        fault(place)
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
