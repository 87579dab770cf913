"""`SIGSTOP` for longer than the lease, then `SIGCONT`: the one that slept finds its lanes gone and sends nothing more."""

import os
import signal
import time

import pytest

from deliveries.pipeline.dispatch import STARTS_A_TURN
from tests.faults.size import IN_AIR, RUNS, load_with_many_in_air, tell, wait_for_many_in_air
from tests.support.platform import Place

STOPPED_SECONDS = 40
TAKEOVER_SECONDS = 25


@pytest.mark.timeout(240)
@pytest.mark.parametrize("run", RUNS)
def test_a_dispatcher_that_slept_through_its_lease_sends_nothing_more(place: Place, run: int) -> None:
    load_with_many_in_air(place)

    sleeper = place.dispatcher_pid()
    wait_for_many_in_air(place)
    os.kill(sleeper, signal.SIGSTOP)
    stopped = time.monotonic()
    place.begin_dispatch(name="standby")
    sent = place.settled_requests()
    in_air = sent - place.attempts()
    place.receiver.set_rule("/a")
    place.receiver.wait_for_requests(sent + 1, seconds=TAKEOVER_SECONDS + 5)
    takeover = time.monotonic() - stopped
    place.wait_until_delivered(seconds=60)
    others = place.attempts()
    # What it would send now, nobody is owed any more.
    time.sleep(max(0.0, STOPPED_SECONDS - (time.monotonic() - stopped)))
    os.kill(sleeper, signal.SIGCONT)
    place.wait_for_words("dispatch", "lease lost", seconds=20)
    place.publish(place.worlds[0], 1000)
    place.wait_until_delivered(seconds=30)

    place.assert_nothing_lost()
    report = place.receiver.report()
    zombie = place.attempts() - others - 1000
    repeated = report["requests"] - report["distinct"]
    tell(
        f"`SIGSTOP` for {STOPPED_SECONDS} s, then `SIGCONT`",
        accepted=place.accepted,
        in_air=in_air,
        repeated=repeated,
        lost=place.accepted - report["distinct"],
        after=f"taken over after {takeover:.1f} s",
    )
    assert report["distinct"] == place.accepted
    assert in_air >= IN_AIR
    # What libcurl was told of and had not written yet was in the air as well: it goes on with that, then looks up.
    assert in_air <= repeated <= in_air + STARTS_A_TURN
    assert 0 <= zombie <= in_air + STARTS_A_TURN
    assert takeover < TAKEOVER_SECONDS
