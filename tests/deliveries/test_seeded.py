"""With much history, whatever people look at and the schedule does reads along indexes, little, and is soon done.

    WEBHOOKS_SEEDED=10000000 make test ARGS="-s tests/deliveries/test_seeded.py"

measures the same with as much as `docs/performance.md` tells of, and prints the figures.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.urls import reverse

from tests.support import crowd
from tests.support.operators import operator
from tests.support.portal import text_of
from tests.support.seeded import Seeded, faults_of, forget, look, milliseconds, places, weeks

WANTED = os.environ.get("WEBHOOKS_SEEDED")
DELIVERIES = int(WANTED or 500_000)
"""Without measuring, as many as are made in a quarter of a minute: its plans are those of ten million."""

DAYS = 56 if WANTED else 8

SLACK = 1 if WANTED else 4
"""Other tests take half of the machine."""

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.timeout(7_200 if WANTED else 300),
]


@pytest.fixture(scope="module")
def seeded(django_db_setup: None, django_db_blocker: Any) -> Iterator[Seeded]:
    with django_db_blocker.unblock():
        before = weeks()
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE deliveries_event, deliveries_delivery, deliveries_attempt")
        try:
            call_command("seed_deliveries", deliveries=DELIVERIES, days=DAYS, endpoints=200, yes=True)
            crowd.gather()
            yield Seeded.find()
        finally:
            crowd.disperse()
            forget(before)
            _forget_rollups()


def _forget_rollups() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE deliveries_rollupstate SET minutes_to = NULL, hours_to = NULL, attempts_to = NULL"
        )


def test_as_much_history_is_made_as_was_asked_for(seeded: Seeded) -> None:
    """The first, and beside others: to make it takes longer than to look at it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT tenant_id) FROM deliveries_delivery")
        assert cursor.fetchone() == (DELIVERIES, 50)


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["portal", "api", "admin", "sweep"])
def test_whatever_is_looked_at_or_done_reads_little(seeded: Seeded, kind: str) -> None:
    faults = []
    for place in places(seeded):
        if place.kind != kind:
            continue
        looked = look(place)
        took = milliseconds(place, times=5 if WANTED else 2)
        print(f"{kind:7} {took:7.1f} ms {looked.queries:3} queries {looked.rows:8.0f} rows  {place.name}")
        faults += faults_of(place, looked, took, slack=SLACK)
    assert faults == []


@pytest.mark.alone
def test_among_ten_thousand_tenants_the_dashboard_tells_what_hurts_most(seeded: Seeded) -> None:
    page = text_of(operator().get(reverse("admin:index")))

    assert f"{crowd.HOST} {crowd.SHARED} {crowd.SHARED} " in page
    assert "More endpoints fail than are shown" not in page
