"""Counts of what this process did, for `/metrics` and for each tenant's usage: gathered in memory, added to two small
tables every few seconds.

Called by the steps of the pipeline, once for a batch or a request, never for a single delivery. All processes on all
machines add to the same rows, so whoever is scraped knows the sum. A process that is killed takes its last few seconds
with it: these are figures to watch, not records.
"""

import logging
import os
import threading
from bisect import bisect_right
from collections.abc import Mapping
from multiprocessing.util import Finalize
from uuid import UUID

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
    21_600.0,
    86_400.0,
    345_600.0,
)
"""Upper ends of the buckets of every histogram, in seconds. The last ones are for retries: by default over 3.5 days."""

MOST_KEYS = 1_000
"""Different counts in memory. Labels are words of the code, so this is never reached; no bug may fill the table."""

# In key order, as every statement that touches several rows.
ADD = """
INSERT INTO deliveries_metrictotal AS total (key, value)
SELECT key, value FROM unnest(%s::text[], %s::float8[]) AS u(key, value) ORDER BY key
ON CONFLICT (key) DO UPDATE SET value = total.value + EXCLUDED.value
"""


MOST_TENANTS = 100_000
"""Tenants and kinds in memory; beyond it usage is not counted, until the database is back."""

USED = ("events", "attempts", "succeeded", "failed")
"""What is counted for each tenant and day: events taken, requests made, deliveries by how they ended."""

Usage = Mapping[tuple[bytes, str], int]
"""By tenant and one of USED."""

ADD_USAGE = """
INSERT INTO deliveries_usage AS total (tenant_id, day, events, attempts, succeeded, failed)
SELECT tenant_id, (now() AT TIME ZONE 'UTC')::date, events, attempts, succeeded, failed
FROM unnest(%s::uuid[], %s::int8[], %s::int8[], %s::int8[], %s::int8[])
     AS u(tenant_id, events, attempts, succeeded, failed)
ORDER BY tenant_id
ON CONFLICT (tenant_id, day) DO UPDATE
SET events = total.events + EXCLUDED.events, attempts = total.attempts + EXCLUDED.attempts,
    succeeded = total.succeeded + EXCLUDED.succeeded, failed = total.failed + EXCLUDED.failed
"""


class _Counters:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: dict[str, float] = {}
        self._used: dict[tuple[bytes, str], int] = {}
        self._thread: threading.Thread | None = None
        self._connection: psycopg.Connection[Row] | None = None

    def add_all(self, counts: Mapping[str, float]) -> None:
        with self._lock:
            for key, value in counts.items():
                if key in self._waiting or len(self._waiting) < MOST_KEYS:
                    self._waiting[key] = self._waiting.get(key, 0) + value
            self._start()

    def add_usage(self, usage: Usage) -> None:
        with self._lock:
            for key, count in usage.items():
                if key in self._used or len(self._used) < MOST_TENANTS:
                    self._used[key] = self._used.get(key, 0) + count
            self._start()

    def _start(self) -> None:
        """Inside the lock. Who counts has done its work, so nothing here is raised."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="counters", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                logger.exception("no thread is to be had, counts wait for the next try")
            else:
                self._thread = thread

    def write(self) -> bool:
        """Add what was gathered to the table. If that fails, it is kept for the next time."""
        with self._writing:
            with self._lock:
                taken, self._waiting = self._waiting, {}
                used, self._used = self._used, {}
            if not taken and not used:
                return False
            try:
                if self._connection is None:
                    self._connection = connect(
                        application_name="webhooks-counters", statement_timeout_seconds=3
                    )
                with self._connection.transaction():
                    self._connection.execute(ADD, [list(taken), [float(value) for value in taken.values()]])
                    if used:
                        self._connection.execute(ADD_USAGE, _columns(used))
            except psycopg.Error as error:
                level = logging.DEBUG if isinstance(error, psycopg.OperationalError) else logging.WARNING
                logger.log(level, "counts not written yet", extra={"error": type(error).__name__})
                self._close()
                self.add_all(taken)
                self.add_usage(used)
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


def _columns(used: Usage) -> list[list[UUID] | list[int]]:
    tenants = sorted({tenant_id for tenant_id, _ in used})
    counts = [[used.get((tenant_id, kind), 0) for tenant_id in tenants] for kind in USED]
    return [[UUID(bytes=tenant_id) for tenant_id in tenants], *counts]


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


def add_usage(usage: Usage) -> None:
    """Of tenants, once for a batch or a group."""
    _counters.add_usage(usage)


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


# Not atexit: workers of the web server end without it.
Finalize(None, write, exitpriority=0)
