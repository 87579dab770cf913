"""Does jobs one after the other on a database connection of its own, while the loop goes on.

Called by `dispatch`. A job has the loop's thread until it waits for the database (see `hub`). When the database goes away
the clerk connects again and repeats the job: every job is safe to repeat. What came of it is collected by the loop.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg

from deliveries.pipeline import counters
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.hub import Hub, Job, JobConnection, outside

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.25

Work = Callable[[psycopg.Connection[Row], bool], Any]
"""Gets the connection and whether this is a repetition after a lost one."""


class Clerk:
    def __init__(self, name: str, *, hub: Hub, statement_timeout_seconds: int, options: str = "") -> None:
        self.name = name
        self.is_busy = False
        self.losses = 0
        """How often the connection was lost."""
        self.failure: BaseException | None = None
        """What ended a job, if it was no lost connection."""
        self._hub = hub
        self._timeout = statement_timeout_seconds
        self._options = options
        """Of its connection (see `database.connect`)."""
        self._job: Job | None = None
        self._done: deque[tuple[Callable[[Any], None], Any, bool]] = deque()
        self._is_stopping = False
        self._connection: psycopg.Connection[Row] | None = None

    def give(self, work: Work, then: Callable[[Any], None]) -> None:
        """Begin the job, which goes on in `Hub.go_on`; `then` gets its result in the loop, at the next `collect`."""
        self.is_busy = True
        self._job = Job(self._hub, partial(self._run, work, then))
        self._job.switch()

    def tell(self, then: Callable[[Any], None], result: Any) -> None:
        """Called by a job: hand over what there is already, and go on."""
        self._done.append((then, result, False))

    @property
    def has_news(self) -> bool:
        """Whether `collect` has something to do."""
        return bool(self._done) or self.failure is not None

    def collect(self) -> None:
        """Called by the loop: hand over what was finished or told. Raises what ended a job."""
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
        until = time.monotonic() + timeout
        while self._job is not None and not self._job.dead and time.monotonic() < until:
            self._hub.go_on(0.1)
        if self._connection is not None:
            self._connection.close()

    def _run(self, work: Work, then: Callable[[Any], None]) -> None:
        try:
            result = self._do(work)
        except BaseException as error:  # noqa: BLE001 - the loop must hear of it, whatever it is
            self.failure = error
        else:
            if result is not _GIVEN_UP:
                self._done.append((then, result, True))

    def _do(self, work: Work) -> Any:
        is_repeat = False
        while True:
            try:
                if self._connection is None:
                    self._connection = outside(self._connect)
                return work(self._connection, is_repeat)
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
                outside(partial(time.sleep, RECONNECT_SECONDS))

    def _connect(self) -> psycopg.Connection[Row]:
        return connect(
            application_name=f"webhooks-{self.name}",
            statement_timeout_seconds=self._timeout,
            options=self._options,
            kind=JobConnection,
        )


_GIVEN_UP = object()
