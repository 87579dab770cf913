"""An upgrade while publishers publish: the version before on the new schema, both at once, then the new one alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deliveries.bench.children import ROOT
from tests.support.checkouts import check_out_before_newest_migration
from tests.support.platform import Place
from tests.support.publishing import Publishers, Replies
from webhooks_platform.embedded.servers import free_port

EVENTS = 2_000
RATE = 200


@pytest.mark.timeout(180)
def test_the_version_before_runs_on_the_new_schema_and_beside_the_new_one(
    place: Place, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    commit = check_out_before_newest_migration(before)
    world = place.make_world("a", 20)
    place.code = before
    assert where_it_comes_from(place) == str(before / "deliveries" / "__init__.py")
    place.begin_web()
    place.begin_sweeps()
    place.begin_dispatch(processes=2)
    place.wait_until_ready()

    with Publishers(place.port, world.targets, rate=RATE) as publishers:
        place.receiver.wait_for(EVENTS // 4)
        place.code = ROOT
        # The old ones want one dispatcher, and have it.
        place.begin_dispatch(name="dispatch-new", processes=2, WEBHOOKS_DISPATCHERS="2")
        place.begin_sweeps(name="sweeps-new", WEBHOOKS_DISPATCHERS="2")
        old_port, place.port = place.port, free_port()
        place.begin_web(name="web-new")
        place.wait_until_ready("dispatch-new", "sweeps-new", "web-new")
        versions = wait_for_a_dispatcher_of_each(place)
        os.kill(place.pid("dispatch"), signal.SIGTERM)
        place.wait_until_ended("dispatch", seconds=40)
        place.stop("sweeps")
        wait_until_accepted(publishers, EVENTS // 2)
    with (
        Publishers(old_port, world.targets, rate=RATE / 2, connections=4) as to_the_old,
        Publishers(place.port, world.targets, rate=RATE / 2, connections=4) as to_the_new,
    ):
        wait_until_accepted(to_the_old, EVENTS // 4)
        wait_until_accepted(to_the_new, EVENTS // 4)
    replies = [each.replies for each in (publishers, to_the_old, to_the_new)]
    place.wait_until_delivered(seconds=60)

    report = place.receiver.report()
    accepted = set().union(*(each.accepted for each in replies))
    print(f"{commit[:8]}, {versions} dispatchers, {len(accepted)} events, {report}")
    assert [set(each.statuses) for each in replies] == [{202}] * 3
    assert len(accepted) >= EVENTS
    assert place.delivered_ids(world) == accepted
    assert report["requests"] == report["distinct"] == len(accepted)
    place.assert_nothing_lost()


def where_it_comes_from(place: Place) -> str:
    """What a process of that checkout imports."""
    return subprocess.run(
        [sys.executable, "-c", "import deliveries; print(deliveries.__file__)"],
        env=place.environment | {"PYTHONPATH": str(place.code)},
        cwd=place.code,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout.strip()


def wait_for_a_dispatcher_of_each(place: Place) -> int:
    """The old one is there; a nudge that comes to the new ones starts another."""
    deadline = time.monotonic() + 30
    while not (alive := set(place.dispatcher_pids())) & set(place.services["dispatch-new"].family()):
        assert time.monotonic() < deadline, alive
        place.nudge()
        time.sleep(0.2)
    assert alive & set(place.services["dispatch"].family())
    return len(alive)


def wait_until_accepted(publishers: Publishers, count: int) -> Replies:
    deadline = time.monotonic() + 60
    while len(publishers.replies.all) < count:
        assert time.monotonic() < deadline, publishers.replies.statuses
        time.sleep(0.05)
    return publishers.replies
