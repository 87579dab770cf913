"""Two dispatchers on the same lanes: every delivery is one's or the other's, never both's."""

import time

import pytest

from tests.faults.size import IN_AIR, RUNS, tell
from tests.support.platform import Place


@pytest.mark.timeout(120)
@pytest.mark.parametrize("run", RUNS)
def test_two_dispatchers_never_send_the_same_delivery(place: Place, run: int) -> None:
    # Few lanes, small backlogs: they pass from hand to hand all the time.
    world = place.make_world("a", 50, max_in_flight=20)
    place.receiver.set_rule("/a", seconds=0.3)
    place.start(processes=3, WEBHOOKS_DISPATCHERS="2")

    # One that has room is enough for the platform, so the second must be asked for.
    place.nudge()
    place.nudge()
    for _ in range(50):
        place.publish(world, 200)
    most = len(place.dispatcher_pids())
    place.wait_until_delivered(seconds=60)
    # The counts of their rows are renewed each five seconds.
    time.sleep(5.5)
    done = [
        number for (number,) in place.query("SELECT deliveries_done FROM deliveries_dispatcher ORDER BY id")
    ]

    place.assert_nothing_lost()
    report = place.receiver.report()
    tell(
        "two dispatchers on the same lanes",
        accepted=place.accepted,
        in_air=report["most_in_air"],
        repeated=report["requests"] - report["distinct"],
        lost=place.accepted - report["distinct"],
        after=f"{min(done):,} by the one, {max(done):,} by the other",
    )
    assert place.accepted == 10_000
    assert most == 2
    assert report["most_in_air"] >= IN_AIR
    assert sum(done) == place.accepted
    assert min(done) > place.accepted // 10
    assert report["requests"] == report["distinct"] == place.accepted
    assert place.attempts() == place.accepted
