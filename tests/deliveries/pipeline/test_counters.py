"""Counts in memory and how they reach the table. What they count is shown by tests/webhooks_platform/test_metrics.py."""

import os
import threading
from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection

from deliveries.models import MetricTotal
from deliveries.pipeline import counters
from deliveries.pipeline.counters import histogram
from deliveries.pipeline.database import connect
from tenants.ids import new_id


@pytest.mark.parametrize(
    ("values", "per_second", "counts"),
    [
        pytest.param([], 1.0, {}, id="nothing"),
        pytest.param([0.001], 1.0, {"h:sum": 0.001, "h:0.001": 1}, id="a bound belongs to its own bucket"),
        pytest.param(
            [3.0, 2.0, 0.2], 1.0, {"h:sum": 5.2, "h:0.25": 1, "h:2.5": 1, "h:5.0": 1}, id="unsorted"
        ),
        pytest.param([1500.0, 20.0], 1000.0, {"h:sum": 1.52, "h:0.025": 1, "h:2.5": 1}, id="milliseconds"),
        pytest.param([4e5, 5e5], 1.0, {"h:sum": 9e5, "h:+Inf": 2}, id="beyond the last bound"),
        pytest.param([-0.25, 0.5], 1.0, {"h:sum": 0.25, "h:0.001": 1, "h:0.5": 1}, id="clocks that differ"),
        pytest.param([-0.5], 1.0, {"h:sum": 0.0, "h:0.001": 1}, id="a sum never falls"),
    ],
)
def test_histogram(values: list[float], per_second: float, counts: dict[str, float]) -> None:
    assert histogram("h", values, per_second=per_second) == counts


@pytest.fixture
def key(database: None) -> Iterator[str]:
    name = f"test_{new_id().hex}"
    yield name
    MetricTotal.objects.filter(key=name).delete()


def total(key: str) -> float:
    return MetricTotal.objects.get(key=key).value


def test_counts_of_many_threads_are_added_to_what_is_there(key: str) -> None:
    MetricTotal.objects.create(key=key, value=5)

    def count() -> None:
        for _ in range(1000):
            counters.add(key, 0.5)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    counters.write()
    for thread in threads:
        thread.join()
    counters.write()

    assert total(key) == 2005


def test_what_the_database_does_not_take_is_kept(key: str) -> None:
    counters.write()
    with connect(application_name="test", statement_timeout_seconds=30) as other, other.transaction():
        other.execute("LOCK TABLE deliveries_metrictotal")
        counters.add(key, 2)
        counters.write()  # gives up after its time-out
        counters.add(key, 1)
    counters.write()

    assert total(key) == 3


def test_a_connection_that_ended_is_replaced(key: str) -> None:
    counters.add(key)
    counters.write()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'webhooks-counters' AND datname = current_database()"
        )
    counters.add(key)
    counters.write()
    counters.write()

    assert total(key) == 2


def test_a_forked_child_counts_its_own(key: str) -> None:
    """What the parent had counted was written twice, and on one connection by two processes."""
    counters.add(key, 10)
    counters.write()
    counters.add(key, 10)

    child = os.fork()
    if child == 0:
        try:
            counters.add(key, 1)
            counters.write()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    counters.write()

    assert total(key) == 21


def test_processes_add_in_one_order(key: str) -> None:
    """Two that add to the same rows in different orders would wait for each other."""
    keys = [f"{key}-{number:02}" for number in range(20)]
    failures: list[psycopg.Error] = []

    def add(names: list[str]) -> None:
        with connect(application_name="test", statement_timeout_seconds=10) as own:
            for _ in range(50):
                try:
                    own.execute(counters.ADD, [names, [1.0] * len(names)])
                except psycopg.Error as error:
                    failures.append(error)

    threads = [threading.Thread(target=add, args=(names,)) for names in (keys, keys[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert {total(name) for name in keys} == {100.0}
    MetricTotal.objects.filter(key__startswith=key).delete()
