"""How large the faults are, and what is printed of them: the rows of the table in docs/performance.md.

`FAULT_FULL=1` is the size that the design asks for: each fault three times in a row, a snapshot held for ten minutes,
100,000 requests to a source, and no allowance for a busy machine. Without it each is done once. One at a time:

    FAULT_RUNS=3                  how often each is done
    FAULT_SNAPSHOT_SECONDS=600    how long the snapshot is held
    FAULT_INCOMING=100000         requests to a source
    FAULT_SLACK=0                 added to what a fault may cost the others, as a share of their throughput
    FAULT_SLOWEST_MS=100          within which 99 of 100 publishes are answered
"""

import os

from deliveries.bench.world import World
from tests.support.platform import Place


def size(name: str, usual: float, full: float) -> float:
    """What the environment says, or the usual or the full one."""
    return float(os.environ.get(name) or (full if IS_FULL else usual))


IS_FULL = os.environ.get("FAULT_FULL", "") not in ("", "0")

RUNS = range(int(size("FAULT_RUNS", 1, 3)))

SNAPSHOT_SECONDS = size("FAULT_SNAPSHOT_SECONDS", 45, 600)
"""The table says ten minutes. An engine that suffers from it is down to half after this."""

INCOMING = int(size("FAULT_INCOMING", 3_000, 100_000))

SLACK = size("FAULT_SLACK", 0.1, 0)
"""For what still differs between two runs of the same on a busy machine."""

SLOWEST_MS = size("FAULT_SLOWEST_MS", 400, 100)
"""99 of 100 publishes are answered within this, fault or not. Waiting for a broker that does not answer takes longer."""

ROUNDS = 15 if IS_FULL else 5
"""Of a comparison, which takes the median."""

EVENTS = 10_000
"""Accepted before a fault or during it, at least."""

IN_AIR = 500
"""Unanswered at the fault, at least."""


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
    wait_for_many_in_air(place)
    return world


def wait_for_many_in_air(place: Place) -> None:
    """Right before the fault: answers come in waves, between which there are few."""
    place.receiver.wait_for_in_air(IN_AIR + 100, seconds=60)


def tell(
    fault: str,
    *,
    accepted: int,
    in_air: int | None,
    repeated: int,
    lost: int,
    after: str,
) -> None:
    """A row of the table. `in_air`: at the fault; None where nothing was on its way."""
    counts = [f"{accepted:,}", "–" if in_air is None else f"{in_air:,}", f"{repeated:,}", f"{lost:,}"]
    print(f"\n| {fault} | {' | '.join(counts)} | {after} |")
