"""What the kill rows have in common: how often, and 10,000 accepted events with 500 and more in the air."""

import os

from deliveries.bench.world import World
from tests.support.platform import Place

RUNS = range(int(os.environ.get("FAULT_RUNS", "1")))

EVENTS = 10_000


def load_with_many_in_air(
    place: Place, *, seconds: float = 0.5, dispatch_at: str | None = None, web_at: str | None = None
) -> World:
    """A platform under load: 10,000 accepted, most of them waiting, and more than 500 unanswered at the receiver."""
    place.receiver.set_rule("/a", seconds=seconds)
    world = place.make_world("a", 100, max_in_flight=20)
    place.begin_web(at_step=web_at)
    place.begin_sweeps()
    place.wait_until_ready()
    place.publish(world, EVENTS)
    place.begin_dispatch(at_step=dispatch_at)
    place.receiver.wait_for_in_air(800, seconds=60)
    return world
