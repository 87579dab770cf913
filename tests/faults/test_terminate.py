"""`SIGTERM`: stops taking, finishes what is in the air, records, releases. Nothing is sent twice."""

import os
import signal
import time

import pytest

from tests.faults.size import IN_AIR, RUNS, load_with_many_in_air, tell
from tests.support.platform import Place

pytestmark = pytest.mark.alone

DRAIN_SECONDS = 8
"""The receiver answers within one; the rest is Celery's."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("told", ["the main process alone", "the whole group"])
def test_terminate_drains_and_repeats_nothing(place: Place, told: str, run: int) -> None:
    load_with_many_in_air(place, seconds=1.0)

    if told == "the whole group":
        place.signal_group("dispatch", signal.SIGTERM)
    else:
        os.kill(place.pid("dispatch"), signal.SIGTERM)
    in_air = place.receiver.count()["in_air"]
    seconds = place.wait_until_ended("dispatch", seconds=40)
    sent = place.settled_requests()
    recorded = place.attempts()
    held = place.count("SELECT count(*) FROM deliveries_lane WHERE dispatcher_id IS NOT NULL")
    dispatchers = place.count("SELECT count(*) FROM deliveries_dispatcher")
    place.receiver.set_rule("/a")
    place.begin_dispatch()
    place.wait_until_delivered(seconds=40)

    place.assert_nothing_lost()
    report = place.receiver.report()
    tell(
        f"`SIGTERM` to {told}",
        accepted=place.accepted,
        in_air=in_air,
        repeated=report["requests"] - report["distinct"],
        lost=place.accepted - report["distinct"],
        after=f"ended after {seconds:.1f} s",
    )
    assert in_air >= IN_AIR
    assert recorded == sent < place.accepted
    assert (held, dispatchers) == (0, 0)
    assert report["requests"] == report["distinct"] == place.accepted
    assert seconds < DRAIN_SECONDS


@pytest.mark.timeout(120)
@pytest.mark.parametrize("run", RUNS)
def test_lanes_given_back_by_one_that_ends_are_taken_by_another_within_two_seconds(
    place: Place, run: int
) -> None:
    # No sweep: the nudge of the one that ends is what starts the next.
    load_with_many_in_air(place, seconds=1.0)
    place.begin_dispatch(name="standby")
    place.wait_until_ready("standby")
    place.stop("sweeps")

    os.kill(place.pid("dispatch"), signal.SIGTERM)
    in_air = place.receiver.count()["in_air"]
    place.wait_until_ended("dispatch", seconds=40)
    ended = time.monotonic()
    place.receiver.set_rule("/a")
    while not place.dispatcher_pids():
        assert time.monotonic() - ended < 2
        time.sleep(0.05)
    taken = time.monotonic() - ended
    place.wait_until_delivered(seconds=40)

    place.assert_nothing_lost()
    report = place.receiver.report()
    tell(
        "`SIGTERM` without any sweep: nudged alone",
        accepted=place.accepted,
        in_air=in_air,
        repeated=report["requests"] - report["distinct"],
        lost=place.accepted - report["distinct"],
        after=f"another began after {taken:.1f} s",
    )
    assert in_air >= IN_AIR
    assert report["requests"] == report["distinct"] == place.accepted
