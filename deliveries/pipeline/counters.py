"""Counts of what this process did, for `/metrics`: gathered in memory, added to one small table every few seconds.

Called by the steps of the pipeline, once for a batch or a request, never for a single delivery. All processes on all
machines add to the same rows, so whoever is scraped knows the sum. A process that is killed takes its last few seconds
with it: these are figures to watch, not records.
"""

import atexit
import logging
import os
import threading
from bisect import bisect_right
from collections.abc import Mapping

import psycopg

from deliveries.pipeline.database import Row, connect

logger = logging.getLogger(__name__)

WRITE_SECONDS = 5.0
"""How far `/metrics` may lag behind."""

IDLE_WRITES = 12
"""Without anything to write for so many times, the connection is given back."""

BOUNDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
)
"""Upper ends of the buckets of every histogram, in seconds."""

MOST_KEYS = 1_000
"""Different counts in memory. Labels are words of the code, so this is never reached; no bug may fill the table."""

# In key order, as every statement that touches several rows.
ADD = """
INSERT INTO deliveries_metrictotal AS total (key, value)
SELECT key, value FROM unnest(%s::text[], %s::float8[]) AS u(key, value) ORDER BY key
ON CONFLICT (key) DO UPDATE SET value = total.value + EXCLUDED.value
"""


class _Counters:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._connection: psycopg.Connection[Row] | None = None

    def add_all(self, counts: Mapping[str, float]) -> None:
        with self._lock:
            for key, value in counts.items():
                if key in self._waiting or len(self._waiting) < MOST_KEYS:
                    self._waiting[key] = self._waiting.get(key, 0) + value
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="counters", daemon=True)
                self._thread.start()

    def write(self) -> bool:
        """Add what was gathered to the table. If that fails, it is kept for the next time."""
        with self._writing:
            with self._lock:
                taken, self._waiting = self._waiting, {}
            if not taken:
                return False
            try:
                if self._connection is None:
                    self._connection = connect(
                        application_name="webhooks-counters", statement_timeout_seconds=3
                    )
                self._connection.execute(ADD, [list(taken), [float(value) for value in taken.values()]])
            except psycopg.Error as error:
                level = logging.DEBUG if isinstance(error, psycopg.OperationalError) else logging.WARNING
                logger.log(level, "counts not written yet", extra={"error": type(error).__name__})
                self._close()
                self.add_all(taken)
            return True

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _run(self) -> None:
        idle = 0
        pause = threading.Event()
        while not pause.wait(WRITE_SECONDS):
            try:
                idle = 0 if self.write() else idle + 1
            except Exception:  # the thread goes on
                logger.exception("counts could not be written")
            if idle == IDLE_WRITES:
                with self._writing:
                    self._close()


_counters = _Counters()


def _begin_anew() -> None:
    """In the child of a fork: what was counted before is the parent's, as are its thread and connection."""
    global _counters  # noqa: PLW0603 - one per process
    inherited.append(_counters)
    _counters = _Counters()


inherited: list[_Counters] = []
"""Kept, so that the parent's connection is not closed from here."""

os.register_at_fork(after_in_child=_begin_anew)


def add(key: str, count: float = 1) -> None:
    """Count under `name` or `name:label`; the labels are words of the code. `webhooks_platform/metrics.py` lists them."""
    _counters.add_all({key: count})


def add_all(counts: Mapping[str, float]) -> None:
    _counters.add_all(counts)


def observe(name: str, values: list[float], *, per_second: float = 1.0) -> None:
    """Add to a histogram. `per_second`: how many of the values' unit make a second. Sorts the list in place."""
    add_all(histogram(name, values, per_second=per_second))


def histogram(name: str, values: list[float], *, per_second: float = 1.0) -> dict[str, float]:
    """Sorted, a batch costs a few look-ups a bucket instead of one a value."""
    if not values:
        return {}
    values.sort()
    counts: dict[str, float] = {f"{name}:sum": max(0.0, sum(values) / per_second)}
    below = 0
    for bound in BOUNDS:
        position = bisect_right(values, bound * per_second, below)
        if position > below:
            counts[f"{name}:{bound}"] = position - below
            below = position
        if below == len(values):
            return counts
    counts[f"{name}:+Inf"] = len(values) - below
    return counts


def write() -> None:
    """Now: this process is about to end."""
    _counters.write()


atexit.register(write)
