"""The database goes away under load and comes back: nothing accepted is lost, and nobody hears of a 500."""

import time

import pytest

from tests.faults.size import EVENTS, IN_AIR, RUNS, tell
from tests.support.platform import Place
from tests.support.publishing import Publishers
from webhooks_platform.embedded.servers import StopMode

pytestmark = pytest.mark.alone


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_under_load_loses_nothing(place: Place, mode: StopMode, run: int) -> None:
    busy = place.make_world("a", 100, max_in_flight=20)
    # Less than what counts as slow, of which a dispatcher keeps few in the air.
    place.receiver.set_rule("/a", seconds=0.7)
    world = place.make_world("b", 20)
    place.start()
    place.publish(busy, EVENTS)
    place.receiver.wait_for_in_air(IN_AIR + 100, seconds=60)

    with Publishers(place.port, world.targets, rate=150) as publishers:
        time.sleep(1)
        place.receiver.wait_for_in_air(IN_AIR, seconds=30)
        unanswered = place.receiver.count()["in_air"]
        recorded = place.attempts()
        place.servers.postgres.stop(mode)
        stopped = time.monotonic()
        time.sleep(2)
        # Nothing is sent without the database: all that was, and is not written down, was in the air at the fault.
        in_air = place.receiver.count()["requests"] - recorded
        place.servers.postgres.start()
        back = time.monotonic()
        time.sleep(4)
    replies = publishers.replies
    place.receiver.set_rule("/a")
    place.wait_until_delivered(seconds=60)
    delivered = time.monotonic() - back

    place.assert_nothing_lost()
    report = place.receiver.report()
    repeated = report["requests"] - report["distinct"]
    again = min(
        reply.at + reply.seconds for reply in replies.all if reply.status == 202 and reply.at > stopped
    )
    longest = max(reply.seconds for reply in replies.all)
    missing = replies.accepted - place.delivered_ids(world)
    print(f"{mode}: {replies.statuses}, {unanswered} unanswered, longest answer {longest:.2f} s")
    tell(
        f"the database stopped ({mode}) for 2 s under load",
        accepted=place.accepted + len(replies.accepted),
        in_air=in_air,
        repeated=repeated,
        lost=len(missing) + place.accepted - len(place.delivered_ids(busy)),
        after=f"accepted again after {again - back:.2f} s, all delivered after {delivered:.1f} s",
    )
    assert unanswered >= IN_AIR
    assert set(replies.statuses) == {202, 503}
    assert all(reply.retry_after is not None for reply in replies.all if reply.status == 503)
    assert not missing
    assert len(place.delivered_ids(busy)) == place.accepted
    assert repeated <= in_air
    assert again - back < 2
    # The main processes of web server and workers are those that there were.
    for service in place.services.values():
        service.check()
