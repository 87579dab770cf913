"""`kill -9`: what is in the air repeats, and that alone; the rest is delivered once, within 25 s of takeover."""

import os
import signal
import time

import pytest

from tests.faults.size import IN_AIR, RUNS, load_with_many_in_air, tell, wait_for_many_in_air
from tests.support.platform import Place

TAKEOVER_SECONDS = 25


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("victim", ["the dispatcher", "the main process", "all of the worker"])
def test_kill_repeats_only_what_was_in_the_air(place: Place, victim: str, run: int) -> None:
    load_with_many_in_air(place)

    dispatcher = place.dispatcher_pid()
    wait_for_many_in_air(place)
    match victim:
        case "the dispatcher":
            os.kill(dispatcher, signal.SIGKILL)
        case "the main process":
            # Its children end with it.
            os.kill(place.pid("dispatch"), signal.SIGKILL)
        case _:
            place.signal_group("dispatch", signal.SIGKILL)
    killed = time.monotonic()
    place.wait_until_gone(dispatcher, seconds=5)
    sent = place.settled_requests()
    in_air = sent - place.attempts()
    place.receiver.set_rule("/a")
    if victim != "the dispatcher":
        place.begin_dispatch()
    place.receiver.wait_for_requests(sent + 1, seconds=TAKEOVER_SECONDS + 5)
    takeover = time.monotonic() - killed
    place.wait_until_delivered(seconds=60)

    place.assert_nothing_lost()
    report = place.receiver.report()
    repeated = report["requests"] - report["distinct"]
    tell(
        f"`kill -9` of {victim}",
        accepted=place.accepted,
        in_air=in_air,
        repeated=repeated,
        lost=place.accepted - report["distinct"],
        after=f"taken over after {takeover:.1f} s",
    )
    assert report["distinct"] == place.accepted
    assert in_air >= IN_AIR
    assert repeated == in_air
    assert place.attempts() == place.accepted
    assert takeover < TAKEOVER_SECONDS
