"""`kill -9` at the places in the loop where something is half done."""

import time

import pytest

from tests.faults.size import IN_AIR, RUNS, load_with_many_in_air, tell
from tests.support.platform import Place
from tests.support.publishing import Publishers

TAKEOVER_SECONDS = 25
REPAIR_SECONDS = 35


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
def test_a_lane_whose_release_is_half_done_is_not_forgotten(place: Place, run: int) -> None:
    # What is published to a lane while its holder gives it back wakes it first, and then the holder's first step clears
    # that. The second step would see the delivery; without it, the lane says that there is nothing to do.
    load_with_many_in_air(place, dispatch_at="between the two steps of a release")
    quick = place.make_world("quick", 20)

    place.arm()
    place.publish(quick, 20)
    pid = place.wait_for_step()
    place.publish(quick, 20)
    place.let_die(pid)
    killed = time.monotonic()
    sent = place.settled_requests()
    in_air = sent - place.attempts()
    hidden = place.count(
        "SELECT count(*) FROM deliveries_lane l WHERE ready_at IS NULL AND dispatcher_id IS NOT NULL AND EXISTS"
        " (SELECT FROM deliveries_delivery d WHERE d.endpoint_id = l.endpoint_id AND d.status = 'pending')"
    )
    place.receiver.set_rule("/a")
    place.receiver.wait_for_requests(sent + 1, seconds=TAKEOVER_SECONDS + 5)
    takeover = time.monotonic() - killed
    place.wait_until_delivered(seconds=60)

    place.assert_nothing_lost()
    report = place.receiver.report()
    repeated = report["requests"] - report["distinct"]
    tell(
        "`kill -9` between the two steps of a release",
        accepted=place.accepted,
        in_air=in_air,
        repeated=repeated,
        lost=place.accepted - report["distinct"],
        after=f"taken over after {takeover:.1f} s, {hidden} lanes said that they had nothing",
    )
    assert hidden > 0
    assert in_air >= IN_AIR
    assert report["distinct"] == place.accepted
    assert repeated == in_air
    assert takeover < TAKEOVER_SECONDS


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
def test_what_was_answered_but_not_recorded_repeats_and_nothing_else(place: Place, run: int) -> None:
    load_with_many_in_air(place, dispatch_at="between send and record")

    place.arm()
    pid = place.wait_for_step()
    # Meanwhile more is answered: none of it gets recorded.
    time.sleep(0.3)
    place.let_die(pid)
    killed = time.monotonic()
    sent = place.settled_requests()
    in_air = sent - place.attempts()
    place.receiver.set_rule("/a")
    place.receiver.wait_for_requests(sent + 1, seconds=TAKEOVER_SECONDS + 5)
    takeover = time.monotonic() - killed
    place.wait_until_delivered(seconds=60)

    place.assert_nothing_lost()
    report = place.receiver.report()
    repeated = report["requests"] - report["distinct"]
    tell(
        "`kill -9` between send and record",
        accepted=place.accepted,
        in_air=in_air,
        repeated=repeated,
        lost=place.accepted - report["distinct"],
        after=f"taken over after {takeover:.1f} s",
    )
    assert in_air >= IN_AIR
    assert report["distinct"] == place.accepted
    assert repeated == in_air
    assert takeover < TAKEOVER_SECONDS


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
def test_events_whose_wake_never_came_are_found_by_the_repair_sweep(place: Place, run: int) -> None:
    busy = load_with_many_in_air(place, web_at="between commit and wake")
    idle = place.make_world("idle", 20)
    place.allow_repair(is_allowed=True)

    place.arm()
    with Publishers(place.port, idle.targets, rate=200, connections=8) as publishers:
        pid = place.wait_for_step()
        publishers.stop_asking()
        place.let_die(pid)
        killed = time.monotonic()
    in_air = place.receiver.count()["in_air"]
    forgotten = place.count(
        "SELECT count(*) FROM deliveries_delivery d JOIN deliveries_lane l USING (endpoint_id)"
        " WHERE d.status = 'pending' AND l.ready_at IS NULL AND l.dispatcher_id IS NULL AND d.tenant_id = ANY(%s)",
        idle.tenants,
    )
    place.wait_until_delivered(seconds=REPAIR_SECONDS + 5, tenants=idle.tenants)
    repaired = time.monotonic() - killed
    place.receiver.set_rule("/a")
    place.wait_until_delivered(seconds=60)

    place.assert_nothing_lost()
    report = place.receiver.report()
    repeated = report["requests"] - report["distinct"]
    missing = publishers.replies.accepted - place.delivered_ids(idle)
    tell(
        "`kill -9` between commit and wake",
        accepted=place.accepted + len(publishers.replies.accepted),
        in_air=in_air,
        repeated=repeated,
        lost=len(missing) + place.accepted - len(place.delivered_ids(busy)),
        after=f"{forgotten} that nobody was told of, delivered after {repaired:.1f} s",
    )
    assert forgotten > 0
    assert in_air >= IN_AIR
    assert not missing
    assert len(place.delivered_ids(busy)) == place.accepted
    assert repeated == 0
    assert repaired < REPAIR_SECONDS
