"""Jobs wait for the database in turns, on one thread, and nobody waits for anybody else's answer."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection as django_connection

from deliveries.pipeline.clerk import Clerk
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.hub import Hub, Job, JobConnection, outside
from tests.support.running import until

pytestmark = pytest.mark.usefixtures("database")

Connection = psycopg.Connection[Row]


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def open_clerk(hub: Hub) -> Iterator[Callable[[str], Clerk]]:
    clerks: list[Clerk] = []

    def made(name: str) -> Clerk:
        clerks.append(Clerk(name, hub=hub, statement_timeout_seconds=10))
        return clerks[-1]

    yield made
    for clerk in clerks:
        clerk.stop()


def went_on(hub: Hub, *clerks: Clerk) -> Callable[[], bool]:
    """A turn of the loop; whether everything is done."""

    def turn() -> bool:
        hub.go_on(0.01)
        for clerk in clerks:
            clerk.collect()
        return not any(clerk.is_busy for clerk in clerks)

    return turn


def sleeps(seconds: float) -> Callable[[Connection, bool], Any]:
    return lambda own, _: own.execute("SELECT pg_sleep(%s), pg_backend_pid()", [seconds]).fetchone()


def test_two_jobs_and_the_loop_go_on_while_the_database_is_slow(
    hub: Hub, open_clerk: Callable[[str], Clerk]
) -> None:
    slow, quick = open_clerk("slow"), open_clerk("quick")
    done: list[str] = []
    turns = 0
    began = time.monotonic()
    slow.give(sleeps(0.5), lambda _: done.append("slow"))
    quick.give(sleeps(0.1), lambda _: done.append("quick"))
    given = time.monotonic() - began
    turn = went_on(hub, slow, quick)
    while not turn():
        turns += 1

    assert done == ["quick", "slow"]
    assert given < 0.1
    assert turns > 10
    assert time.monotonic() - began < 0.9, "one after the other"


def test_a_job_that_copies_more_than_a_socket_takes_leaves_the_loop_its_thread(
    hub: Hub, open_clerk: Callable[[str], Clerk]
) -> None:
    clerk = open_clerk("records")
    done: list[object] = []
    rows = 200_000

    def copies(own: Connection, _: bool) -> object:
        with own.transaction(), own.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE copied (words text) ON COMMIT DROP")
            with cursor.copy("COPY copied FROM STDIN") as copy:
                copy.write(b"so many words that no buffer between the two holds them\n" * rows)
            return cursor.execute("SELECT count(*) FROM copied").fetchone()

    clerk.give(copies, done.append)
    turn, turns = went_on(hub, clerk), 0
    while not turn():
        turns += 1

    assert done == [(rows,)]
    assert turns > 3


def test_a_job_tells_the_loop_before_it_has_ended(hub: Hub, open_clerk: Callable[[str], Clerk]) -> None:
    clerk = open_clerk("lanes")
    heard: list[str] = []

    def tells(own: Connection, _: bool) -> None:
        own.execute("SELECT 1")
        clerk.tell(heard.append, "told")
        own.execute("SELECT pg_sleep(0.2)")

    clerk.give(tells, lambda _: heard.append("ended"))
    turn = went_on(hub, clerk)
    until(lambda: turn() or heard)

    assert heard == ["told"]
    assert clerk.is_busy
    until(turn)
    assert heard == ["told", "ended"]


def test_what_waits_for_something_else_does_it_in_a_thread(
    hub: Hub, open_clerk: Callable[[str], Clerk]
) -> None:
    clerk = open_clerk("records")
    threads: list[object] = []

    def works(_: Connection, __: bool) -> str:
        outside(lambda: time.sleep(0.2))
        threads.append(outside(threading.current_thread))
        threads.append(threading.current_thread())
        with pytest.raises(ValueError, match="as it is"):
            outside(lambda: int("as it is"))
        return "went on"

    done: list[str] = []
    clerk.give(works, done.append)
    turn, turns = went_on(hub, clerk), 0
    while not turn():
        turns += 1

    assert done == ["went on"]
    assert threads[0] is not threads[1]
    assert threads[1] is threading.current_thread() is outside(threading.current_thread)
    assert turns > 10


def test_a_job_whose_connection_is_ended_is_done_again_on_another_one(
    hub: Hub, open_clerk: Callable[[str], Clerk]
) -> None:
    clerk = open_clerk("records")
    processes: list[int] = []
    repeats: list[bool] = []

    def works(own: Connection, is_repeat: bool) -> None:
        repeats.append(is_repeat)
        processes.append(own.info.backend_pid)
        own.execute("SELECT pg_sleep(%s)", [0 if is_repeat else 10])

    clerk.give(works, lambda _: None)
    turn = went_on(hub, clerk)
    until(lambda: turn() or processes)
    with django_connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [processes[0]])
    until(turn)

    assert repeats == [False, True]
    assert processes[0] != processes[1]
    assert clerk.losses == 1


def test_the_loop_hears_of_what_is_wrong_with_a_job(hub: Hub, open_clerk: Callable[[str], Clerk]) -> None:
    clerk = open_clerk("lanes")

    clerk.give(lambda own, _: own.execute("SELECT 1/0"), lambda _: None)

    with pytest.raises(psycopg.errors.DivisionByZero):
        until(went_on(hub, clerk))


def test_who_stops_does_not_wait_for_ever(hub: Hub, open_clerk: Callable[[str], Clerk]) -> None:
    clerk = open_clerk("records")
    done: list[object] = []
    clerk.give(lambda own, _: own.execute("SELECT 1"), done.append)
    clerk.stop()
    clerk.collect()
    assert len(done) == 1, "what could be finished was given up"

    clerk = open_clerk("records")
    clerk.give(sleeps(30), done.append)
    began = time.monotonic()
    clerk.stop(timeout=0.5)

    assert 0.4 < time.monotonic() - began < 5
    assert len(done) == 1


def test_outside_of_jobs_such_a_connection_waits_like_any_other(hub: Hub) -> None:
    with connect(application_name="test", statement_timeout_seconds=10, kind=JobConnection) as own:
        assert own.execute("SELECT 42").fetchone() == (42,)


def test_what_had_nothing_to_wait_for_is_news_at_once(hub: Hub, open_clerk: Callable[[str], Clerk]) -> None:
    clerk = open_clerk("lanes")
    clerk.give(lambda own, _: own.execute("SELECT 1"), lambda _: None)
    until(went_on(hub, clerk))
    done: list[object] = []
    news = [clerk.has_news]

    clerk.give(lambda _, __: "at once", done.append)
    news.append(clerk.has_news)
    clerk.collect()
    news.append(clerk.has_news)

    assert done == ["at once"]
    assert news == [False, True, False]


def test_a_descriptor_of_the_same_number_is_another_one(hub: Hub) -> None:
    """Numbers are given again as soon as one is closed, and the system forgets what was asked about it."""
    seen: list[object] = []

    def works() -> None:
        seen.append(outside(lambda: "first"))
        seen.append(outside(lambda: "second"))

    job = Job(hub, works)
    job.switch()
    turns = 0
    while not job.dead and turns < 1_000:
        hub.go_on(0.01)
        turns += 1

    assert seen == ["first", "second"]
