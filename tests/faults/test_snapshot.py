"""An old snapshot keeps dead rows alive; lanes and what is pending must not become slow by it."""

import time

import psycopg
import pytest

from tests.faults.compare import compare
from tests.faults.size import EVENTS, RUNS, SLACK, SNAPSHOT_SECONDS, tell
from tests.support.platform import Place

pytestmark = pytest.mark.alone

LEAST = 0.7 - SLACK


@pytest.mark.timeout(2 * int(SNAPSHOT_SECONDS) + 240)
@pytest.mark.parametrize("run", RUNS)
def test_a_snapshot_held_open_costs_less_than_a_third(place: Place, run: int) -> None:
    world = place.make_world("a", 50)
    place.start()
    with place.beside() as quiet:
        usual = quiet.make_world("a", 50)
        quiet.start()

        with psycopg.connect(place.database_url) as old:
            old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            old.execute("SELECT count(*) FROM deliveries_lane")
            began = time.monotonic()
            while time.monotonic() - began < SNAPSHOT_SECONDS:
                # As many to either, so that snapshots are all that they differ in.
                quiet.deliveries_per_second(usual)
                place.deliveries_per_second(world)
            compared = compare(quiet, usual, place, world, least=LEAST)
        place.wait_until_delivered(seconds=10)

    tell(
        f"a snapshot held open for {SNAPSHOT_SECONDS:.0f} s",
        accepted=place.accepted,
        in_air=None,
        repeated=place.attempts() - place.accepted,
        lost=place.accepted - place.succeeded(world),
        after=str(compared),
    )
    assert place.accepted >= EVENTS
    assert place.attempts() == place.succeeded(world) == place.accepted
    assert compared.ratio > LEAST
