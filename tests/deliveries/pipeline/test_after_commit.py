"""What is committed is answered so, whatever fails behind it: that is logged, counted, and left to the sweeps."""

import threading
from collections.abc import Iterator

import pytest
from django.db import connection

from deliveries.models import MetricTotal
from deliveries.pipeline import counters, ingest
from deliveries.pipeline import wake as waking
from deliveries.pipeline.ingest import Accepted
from deliveries.pipeline.wake import nudge, wake
from tests.support.builders import deliveries_of, lane_of, make_endpoint, make_tenant, new_event

pytestmark = pytest.mark.usefixtures("quiet_lanes", "quiet_nudger")

URL = "http://127.0.0.1:9/"


def total(key: str) -> float:
    counters.write()
    return sum(MetricTotal.objects.filter(key=key).values_list("value", flat=True))


@pytest.fixture
def lanes_refuse(database: None) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
            "CREATE TRIGGER refuse BEFORE UPDATE ON deliveries_lane EXECUTE FUNCTION refuse()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION refuse CASCADE")


@pytest.fixture
def exhausted(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is set no thread can be had, in a process that has started none of its own yet."""
    start, is_exhausted = threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if is_exhausted.is_set() and thread.name in ("nudger", "counters"):
            raise RuntimeError("can't start new thread")
        start(thread)

    counters.write()
    monkeypatch.setattr(counters, "_counters", counters._Counters())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    is_exhausted.set()
    yield is_exhausted
    counters.write()
    counters._counters._close()


def test_a_lane_that_cannot_be_woken_changes_no_answer(
    lanes_refuse: None, caplog: pytest.LogCaptureFixture
) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    before = total("wake_errors:publish"), total("wake_errors:service")

    (result,) = ingest.publish([new_event(tenant)])
    wake([(endpoint.id, None)])

    assert isinstance(result, Accepted)
    assert len(deliveries_of(tenant)) == 1
    assert (total("wake_errors:publish"), total("wake_errors:service")) == (before[0] + 1, before[1] + 1)
    assert [each.getMessage() for each in caplog.records] == [
        "waking lanes failed, the repair sweep will"
    ] * 2


def test_without_a_thread_to_be_had_publishers_hear_what_was_committed(
    exhausted: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    before = total("wake_errors:nudge")

    results = ingest.publish([new_event(tenant) for _ in range(3)])

    assert [isinstance(result, Accepted) for result in results] == [True] * 3
    assert lane_of(endpoint).is_ready
    assert {each.getMessage() for each in caplog.records} == {
        "a dispatcher could not be asked for",
        "no thread is to be had, counts wait for the next try",
    }
    assert total("wake_errors:nudge") == before + 1


def test_threads_that_could_not_be_had_are_started_at_the_next_occasion(exhausted: threading.Event) -> None:
    nudge()
    counters.add("wake_errors:nudge")
    exhausted.clear()

    nudge()
    counters.add("wake_errors:nudge")

    assert [
        each is not None and each.is_alive() for each in (waking._nudger._thread, counters._counters._thread)
    ] == [True, True]
