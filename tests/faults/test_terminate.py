"""`SIGTERM`: stops taking, finishes what is in the air, records, releases. Nothing is sent twice."""

import os
import signal
import time

import pytest

from tests.faults.runs import RUNS, load_with_many_in_air
from tests.support.platform import Place

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
    print(f"{told}: {in_air} in the air, drained in {seconds:.1f} s, {sent} sent, {recorded} recorded")
    assert in_air >= 500
    assert recorded == sent < place.accepted
    assert (held, dispatchers) == (0, 0)
    assert report["requests"] == report["distinct"] == place.accepted
    assert seconds < DRAIN_SECONDS


@pytest.mark.timeout(120)
def test_lanes_given_back_by_one_that_ends_are_taken_by_another_within_two_seconds(place: Place) -> None:
    # No sweep: the nudge of the one that ends is what starts the next.
    load_with_many_in_air(place, seconds=1.0)
    place.begin_dispatch(name="standby")
    place.wait_until_ready("standby")
    place.stop("sweeps")

    os.kill(place.pid("dispatch"), signal.SIGTERM)
    place.wait_until_ended("dispatch", seconds=40)
    ended = time.monotonic()
    place.receiver.set_rule("/a")
    while not place.dispatcher_pids():
        assert time.monotonic() - ended < 2
        time.sleep(0.05)
    place.wait_until_delivered(seconds=40)

    place.assert_nothing_lost()
    report = place.receiver.report()
    assert report["requests"] == report["distinct"] == place.accepted
