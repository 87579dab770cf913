"""An old snapshot keeps dead rows alive; lanes and what is pending must not become slow by it."""

import os
import time

import psycopg
import pytest

from tests.faults.compare import SLACK, compare
from tests.support.platform import Place

SECONDS = float(os.environ.get("FAULT_SNAPSHOT_SECONDS", "20"))
"""The table says ten minutes; what it does shows in the first one."""

LEAST = 0.7 - SLACK


@pytest.mark.timeout(3 * int(SECONDS) + 120)
def test_a_snapshot_held_open_costs_less_than_a_third(place: Place) -> None:
    world = place.make_world("a", 50)
    place.start()
    with place.beside() as quiet:
        usual = quiet.make_world("a", 50)
        quiet.start()

        with psycopg.connect(place.database_url) as old:
            old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            old.execute("SELECT count(*) FROM deliveries_lane")
            began = time.monotonic()
            while time.monotonic() - began < SECONDS:
                # As many to either, so that snapshots are all that they differ in.
                quiet.deliveries_per_second(usual)
                place.deliveries_per_second(world)
            compared = compare(quiet, usual, place, world)

    print(f"snapshot: {compared}, after {place.accepted} events")
    assert place.accepted >= 10_000
    assert compared.ratio > LEAST
