"""Waiting for the database on the loop's own thread: a job that waits leaves the thread to the loop, which goes on with
the job when its answer is there.

Jobs are greenlets: functions like any other, that `JobConnection` and `outside` leave in the middle and come back to.
Threads would do the same, but only one of them runs Python at a time: on two processors they hand that right to each
other thousands of times a second, which took a quarter of all (ADR 22).

A `clerk` starts jobs; the loop polls `Hub.fileno` and then calls `Hub.go_on`.
"""

import os
import select
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from greenlet import getcurrent, greenlet
from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait

T = TypeVar("T")


class Hub:
    """For the jobs of one loop; belongs to the thread that makes it, which alone may start jobs and go on with them."""

    def __init__(self) -> None:
        self._loop = getcurrent()
        self._waiting: dict[int, Job] = {}
        self._epoll = select.epoll()

    def fileno(self) -> int:
        """Readable when `go_on` has something to do."""
        return self._epoll.fileno()

    def go_on(self, seconds: float = 0.0) -> None:
        """Called by the loop: each job whose answer is there, until it waits again. Waits so long for the first."""
        for fd, events in self._epoll.poll(seconds):
            job = self._waiting.pop(fd, None)
            if job is not None:
                job.switch(events)

    def wait_for(self, job: "Job", fd: int, events: int) -> int:
        """Called in that job: until one of the events happens to the descriptor. Returns what did."""
        try:
            self._epoll.modify(fd, events | select.EPOLLONESHOT)
        except FileNotFoundError:
            # Nobody has waited for it yet, or for another one of that number, which was closed.
            self._epoll.register(fd, events | select.EPOLLONESHOT)
        self._waiting[fd] = job
        happened: int = self._loop.switch()
        return happened

    def close(self) -> None:
        """What still waits is given up: it ends where it stands."""
        self._waiting.clear()
        self._epoll.close()


class Job(greenlet):
    """Started by `switch`, which returns when it waits or has ended. `run` must let no exception out."""

    def __init__(self, hub: Hub, run: Callable[[], None]) -> None:
        super().__init__(run)
        self.hub = hub


class JobConnection(psycopg.Connection[tuple[Any, ...]]):
    """In a job it waits like that; elsewhere like any other."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        job = getcurrent()
        if not isinstance(job, Job):
            return super().wait(gen, interval, timeout)
        # The server ends what takes too long (`statement_timeout`), the system what hears nothing (`tcp_user_timeout`).
        try:
            wanted = next(gen)
            while True:
                # Of a closed connection this raises psycopg.OperationalError.
                happened = job.hub.wait_for(job, self.pgconn.socket, _EVENTS[wanted])
                wanted = gen.send(_ready(happened))
        except StopIteration as end:
            result: T = end.value
            return result


def outside(function: Callable[[], T]) -> T:
    """In a job: call what waits for anything else in a thread of its own. Elsewhere: call it."""
    job = getcurrent()
    if not isinstance(job, Job):
        return function()
    results: list[T] = []
    errors: list[BaseException] = []
    over = os.eventfd(0, os.EFD_CLOEXEC)

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - for the job to hear of, whatever it is
            errors.append(error)
        os.eventfd_write(over, 1)

    # No daemon would be waited for at the end of the process, however long it takes.
    thread = threading.Thread(target=run, name="outside", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        os.close(over)
        raise
    job.hub.wait_for(job, over, select.EPOLLIN)
    os.close(over)
    if errors:
        raise errors[0]
    return results[0]


_EVENTS = {
    Wait.R: select.EPOLLIN,
    Wait.W: select.EPOLLOUT,
    Wait.RW: select.EPOLLIN | select.EPOLLOUT,
}


def _ready(happened: int) -> Ready:
    if happened & select.EPOLLOUT:
        return Ready.RW if happened & ~select.EPOLLOUT else Ready.W
    # Errors and hang-ups are for libpq to find when it reads.
    return Ready.R
