"""The dispatcher's lease on life: a thread that renews it, and the deadline after which nothing new may start.

Called by `dispatch`.
"""

import logging
import threading
import time
from uuid import UUID

import psycopg

from deliveries.pipeline import counters, lanes, lease
from deliveries.pipeline.database import Row, connect
from tenants.clock import MOST_OFF_SECONDS

logger = logging.getLogger(__name__)

Connection = psycopg.Connection[Row]


class ClockOff(RuntimeError):
    """This machine's clock is more than a minute from the database's."""


class Heart(threading.Thread):
    """Renews the lease. `deadline` is on CLOCK_BOOTTIME, counted from before the renewal was sent."""

    def __init__(self, *, me: UUID, process: str, at_most: int = 1_000) -> None:
        super().__init__(name="heart", daemon=True)
        self.me = me
        self.process = process
        self.has_room = True
        self.is_draining = False
        self.done = 0
        self.is_dead = False
        self.is_sending_stopped = False
        self.clock_offset = 0.0
        """The database's clock less ours, in seconds."""
        self.is_piling_up = False
        """Versions of lanes do."""
        self.deadline = 0.0
        self._ended = threading.Event()
        self._connection: Connection | None = None
        before = boottime()
        self.is_registered = lease.register(self._connected(), me=me, process=process, at_most=at_most)
        self.deadline = before + lease.DEADLINE_SECONDS
        if self.is_registered:
            self.beat()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(application_name="webhooks-heart", statement_timeout_seconds=3)
        return self._connection

    def beat(self) -> None:
        """One renewal. Raises psycopg.Error if the database is away."""
        connection = self._connected()
        before, asked_at = boottime(), time.time()
        is_alive, theirs, self.is_sending_stopped = lease.renew(
            connection,
            me=self.me,
            has_room=self.has_room,
            is_draining=self.is_draining,
            done=self.done,
        )
        if not is_alive:
            self.is_dead = True
            return
        # Read by the database somewhere between the question and the answer.
        self.clock_offset = theirs - (asked_at + time.time()) / 2
        self.deadline = before + lease.DEADLINE_SECONDS
        self.is_piling_up = lanes.are_piling_up(connection)

    @property
    def is_clock_off(self) -> bool:
        return abs(self.clock_offset) > MOST_OFF_SECONDS

    def run(self) -> None:
        pause = float(lease.RENEW_SECONDS)
        while not self._ended.wait(pause) and not self.is_dead:
            try:
                self.beat()
                pause = float(lease.RENEW_SECONDS)
            except psycopg.Error:
                counters.add("database_errors:heart")
                if self._connection is not None:
                    self._connection.close()
                self._connection = None
                pause = 0.5

    def stop(self) -> None:
        self._ended.set()
        if self.is_alive():
            self.join(5)

    def sign_off(self) -> bool:
        """After `stop`. Whether lanes are ready for another. What cannot be reached is taken over when the lease ends."""
        try:
            lease.sign_off(self._connected(), me=self.me)
            return lanes.is_any_ready(self._connected())
        except psycopg.Error:
            logger.warning("sign-off failed, the lease will run out")
            return False
        finally:
            if self._connection is not None:
                self._connection.close()


def boottime() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
