"""The database goes away under load and comes back: nothing accepted is lost, and nobody hears of a 500."""

import time

import pytest

from tests.faults.runs import RUNS
from tests.support.platform import Place
from tests.support.publishing import Publishers
from webhooks_platform.embedded.servers import StopMode


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_under_load_loses_nothing(place: Place, mode: StopMode, run: int) -> None:
    busy = place.make_world("a", 100, max_in_flight=20)
    place.receiver.set_rule("/a", seconds=0.5)
    world = place.make_world("b", 20)
    place.start()
    place.publish(busy, 10_000)
    place.receiver.wait_for_in_air(500, seconds=60)

    with Publishers(place.port, world.targets, rate=150) as publishers:
        time.sleep(1)
        in_air = place.receiver.count()["in_air"]
        place.servers.postgres.stop(mode)
        stopped = time.monotonic()
        time.sleep(2)
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
    again = min(reply.at for reply in replies.all if reply.status == 202 and reply.at > stopped)
    longest = max(reply.seconds for reply in replies.all)
    print(
        f"{mode}: {replies.statuses}, {in_air} in the air, {repeated} repeated, accepted again after"
        f" {again - back:.2f} s, longest answer {longest:.2f} s, all delivered after {delivered:.1f} s"
    )
    assert in_air >= 500
    assert set(replies.statuses) == {202, 503}
    assert all(reply.retry_after is not None for reply in replies.all if reply.status == 503)
    assert place.delivered_ids(world) >= replies.accepted
    assert report["distinct"] >= place.accepted + len(replies.accepted)
    assert repeated <= 2048
    assert again - back < 2
    # The main processes of web server and workers are those that there were.
    for service in place.services.values():
        service.check()
