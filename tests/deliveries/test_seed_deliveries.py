"""The command that fills a database with a past: as many as asked for, of every kind, and it goes on where it stopped."""

import io
from collections import Counter
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from deliveries.bench.past import Customer, Hour, rows_of
from deliveries.models import Attempt, Delivery, Event, Rollup
from deliveries.pipeline.partitions import Week, weeks_of
from tenants.ids import time_of
from tenants.models import Tenant
from tests.support.seeded import forget, weeks

pytestmark = pytest.mark.usefixtures("nothing_rolled_up")

TABLES = "deliveries_event, deliveries_delivery, deliveries_attempt"


@pytest.fixture
def alone(nothing_rolled_up: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {TABLES}")


def seed(**options: Any) -> str:
    said = io.StringIO()
    call_command("seed_deliveries", stdout=said, stderr=io.StringIO(), **options)
    return said.getvalue()


def test_as_many_as_asked_for_and_again_nothing(alone: None) -> None:
    options = {"deliveries": 1_500, "tenants": 3, "endpoints": 12, "days": 9, "yes": True}
    before = weeks()
    try:
        assert seed(**options).startswith("1,500 deliveries in")

        rows = Delivery.unscoped.all()
        statuses = Counter(rows.values_list("status", flat=True))
        assert statuses.keys() >= {"succeeded", "failed"}
        assert sum(statuses.values()) == 1_500
        assert Event.unscoped.count() < 1_500
        assert Attempt.unscoped.count() == sum(rows.values_list("attempt_count", flat=True))
        # Each stands in the week of its key, which tells when it was made.
        assert all(abs((time_of(row.id) - row.created_at).total_seconds()) < 0.002 for row in rows[:100])
        oldest = rows.order_by("id").first()
        assert oldest is not None
        assert Week.of(oldest.created_at) in weeks_of("deliveries_delivery")
        # And is counted.
        assert (
            sum(each.succeeded for each in Rollup.unscoped.exclude(series_id__in=tenants()))
            == statuses["succeeded"]
        )

        assert seed(**options).startswith("Nothing to do")
        assert rows.count() == 1_500
    finally:
        forget(before)


def tenants() -> list[Any]:
    return list(Tenant.objects.filter(slug__startswith="seeded-").values_list("id", flat=True))


def test_a_database_that_somebody_uses_is_left_alone() -> None:
    Tenant.objects.create(slug="somebodys-own", name="Somebody")
    try:
        with pytest.raises(CommandError, match="somebody may be using it"):
            seed(deliveries=10)
    finally:
        Tenant.objects.filter(slug="somebodys-own").delete()
    assert not tenants()


@pytest.mark.parametrize("odd", [{"deliveries": 0}, {"days": 400}, {"tenants": 10, "endpoints": 5}])
def test_odd_numbers_are_refused(odd: dict[str, int]) -> None:
    with pytest.raises(CommandError, match="must be between"):
        seed(**odd)


def test_the_same_hour_is_made_up_alike() -> None:
    hour = Hour(1_700_000_000_000_000, 1_700_003_600_000_000, 1_700_003_600_000_000, 500, 1, False)
    customers = [Customer("0" * 31 + "1", [("0" * 31 + "2", "0" * 31 + "3")])]

    events, deliveries, attempts = rows_of(hour, customers, 1)

    assert rows_of(hour, customers, 1) == (events, deliveries, attempts)
    assert deliveries.count(b"\n") == 500
    assert {line.split(b"\t")[2] for line in deliveries.splitlines()} == {b"0" * 31 + b"2"}
