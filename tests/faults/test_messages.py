"""The broker carries hints, not deliveries: fewer than one message for a hundred deliveries under load."""

import time

import redis

from tests.support.platform import Place
from tests.support.publishing import Publishers


def test_a_hundred_deliveries_need_less_than_one_message(place: Place) -> None:
    world = place.make_world("a", 100)
    place.start()
    with redis.Redis.from_url(place.servers.valkey.url) as broker:
        before = messages(broker)
        began = time.monotonic()

        with Publishers(place.port, world.targets, rate=150) as publishers:
            place.publish(world, 10_000)
            time.sleep(5)
        place.wait_until_delivered(seconds=60)

        sent = messages(broker) - before
    seconds = time.monotonic() - began
    deliveries = place.attempts()
    print(f"{sent} messages, sweeps among them, for {deliveries} deliveries in {seconds:.0f} s")
    assert deliveries == place.accepted + len(publishers.replies.accepted)
    assert 0 < sent < deliveries / 100


def messages(broker: redis.Redis) -> int:
    """All that were ever put into a queue."""
    return int(broker.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"])
