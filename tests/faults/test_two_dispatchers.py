"""Two dispatchers on the same lanes: every delivery is one's or the other's, never both's."""

import time

import pytest

from tests.faults.runs import RUNS
from tests.support.platform import Place


@pytest.mark.timeout(120)
@pytest.mark.parametrize("run", RUNS)
def test_two_dispatchers_never_send_the_same_delivery(place: Place, run: int) -> None:
    # Few lanes, small backlogs: they pass from hand to hand all the time.
    world = place.make_world("a", 20)
    place.receiver.set_rule("/a", seconds=0.02)
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
    print(f"two dispatchers: {done} deliveries each")
    assert place.accepted == 10_000
    assert most == 2
    assert sum(done) == place.accepted
    assert min(done) > place.accepted // 10
    assert report["requests"] == report["distinct"] == place.accepted
    assert place.attempts() == place.accepted
