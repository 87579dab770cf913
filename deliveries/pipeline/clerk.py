"""A thread with a database connection of its own that does jobs one after the other, for the loop to go on meanwhile.

Called by `dispatch`. When the database goes away the clerk connects again and repeats the job: every job is safe to
repeat. What came of a job is collected by the loop, which an eventfd wakes.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import psycopg

from deliveries.pipeline import counters
from deliveries.pipeline.database import Row, connect

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.25

Job = Callable[[psycopg.Connection[Row], bool], Any]
"""Gets the connection and whether this is a repetition after a lost one."""


class Clerk:
    def __init__(self, name: str, *, wake_fd: int, statement_timeout_seconds: int, options: str = "") -> None:
        self.name = name
        self.is_busy = False
        self.losses = 0
        """How often the connection was lost."""
        self.failure: BaseException | None = None
        """What ended the thread, if it was not `stop`."""
        self._wake_fd = wake_fd
        self._timeout = statement_timeout_seconds
        self._options = options
        """Of its connection (see `database.connect`)."""
        self._jobs: SimpleQueue[tuple[Job, Callable[[Any], None]] | None] = SimpleQueue()
        self._done: deque[tuple[Callable[[Any], None], Any, bool]] = deque()
        self._is_stopping = False
        self._connection: psycopg.Connection[Row] | None = None
        self._thread = threading.Thread(target=self._run, name=f"clerk-{name}", daemon=True)
        self._thread.start()

    def give(self, job: Job, then: Callable[[Any], None]) -> None:
        """Do the job in the thread; `then` gets its result in the loop, at the next `collect`."""
        self.is_busy = True
        self._jobs.put((job, then))

    def tell(self, then: Callable[[Any], None], result: Any) -> None:
        """Called by a job: hand over what there is already, and go on."""
        self._done.append((then, result, False))
        os.eventfd_write(self._wake_fd, 1)

    def collect(self) -> None:
        """Called by the loop: hand over what was finished or told. Raises what ended the thread."""
        while self._done:
            then, result, is_over = self._done.popleft()
            if is_over:
                self.is_busy = False
            then(result)
        if self.failure is not None:
            raise self.failure

    def stop(self, *, timeout: float = 10.0) -> None:
        """Give up whatever cannot be finished in time."""
        self._is_stopping = True
        self._jobs.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while (entry := self._jobs.get()) is not None:
                job, then = entry
                result = self._do(job)
                if self._is_stopping and result is _GIVEN_UP:
                    return
                self._done.append((then, result, True))
                os.eventfd_write(self._wake_fd, 1)
        except BaseException as error:  # noqa: BLE001 - the loop must hear of it, whatever it is
            self.failure = error
            os.eventfd_write(self._wake_fd, 1)
        finally:
            if self._connection is not None:
                self._connection.close()

    def _do(self, job: Job) -> Any:
        is_repeat = False
        while True:
            try:
                if self._connection is None:
                    self._connection = connect(
                        application_name=f"webhooks-{self.name}",
                        statement_timeout_seconds=self._timeout,
                        options=self._options,
                    )
                return job(self._connection, is_repeat)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                if not is_repeat:
                    logger.warning("database lost", extra={"clerk": self.name, "error": type(error).__name__})
                is_repeat = True
                self.losses += 1
                counters.add(f"database_errors:{self.name}")
                if self._connection is not None:
                    self._connection.close()
                self._connection = None
                if self._is_stopping:
                    return _GIVEN_UP
                time.sleep(RECONNECT_SECONDS)


_GIVEN_UP = object()
