"""One request on a thread of its own: what the thread finds out, and how it is ended from outside.

Used by `transport_requests` and its connections (`requests_connections`).
"""

import contextlib
import heapq
import http.client
import itertools
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import requests
import urllib3

from deliveries.pipeline import failures
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.failures import Failure
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.proxy import Proxy
from deliveries.pipeline.transport import (
    AFTER_HANDSHAKE_SECONDS,
    CONNECT_SECONDS,
    MAX_BODY_BYTES,
    Answer,
    OutgoingRequest,
)


class Exchange:
    """One request: what its thread finds out, and what the watchdog needs to end it."""

    def __init__(self, request: OutgoingRequest, guard: AddressGuard, proxy: Proxy | None) -> None:
        self.request = request
        self.guard = guard
        self.proxy = proxy
        self.started_at = time.time()
        self.addresses: tuple[str, ...] = ()
        self.failed_addresses: list[str] = []
        self.address: str | None = None
        self.dns_seconds: float | None = None
        self.connect_limit = CONNECT_SECONDS
        self.began_at = time.monotonic()
        self.ended_at = self.began_at
        self.is_late = False
        self.is_aborted = False
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self._is_finished = False
        self.begin_try()

    def begin_try(self) -> None:
        self.failure: Failure | None = None
        self.status_code: int | None = None
        self.head: list[bytes] = []
        self.head_bytes = 0
        self.is_reading_head = True
        self.line_bytes = 0
        self.is_at_end = False
        self.body: list[bytes] = []
        self.is_truncated = False
        self.is_body_whole = False
        self.is_new_connection = False
        self.has_connected = False
        self.connect_seconds: float | None = None
        self.tls_seconds: float | None = None
        self.sent_at: float | None = None
        self.first_byte_at: float | None = None

    @property
    def is_over(self) -> bool:
        """Its time is up, or nobody waits for it any more."""
        return self.is_late or self.is_aborted or self.seconds_left() <= 0

    @property
    def is_stale(self) -> bool:
        """A kept connection turned out to be closed before anything came: another may do better."""
        return self.has_connected and not self.is_new_connection and not self.head and not self.is_over

    def seconds_left(self) -> float:
        return self.request.destination.timeout_seconds - (time.monotonic() - self.began_at)

    def hold(self, fd: int) -> None:
        """Remember the connection in use, so that it can be shut down from outside."""
        with self._lock:
            self._let_go()
            self._handle = socket.socket(fileno=os.dup(fd))
            if self.is_late or self.is_aborted:
                self._shut_down()

    def expire(self) -> None:
        """Called by the watchdog at the deadline."""
        with self._lock:
            if not self._is_finished:
                self.is_late = True
                self._shut_down()

    def abort(self) -> None:
        with self._lock:
            self.is_aborted = True
            self._shut_down()

    def finish(self) -> None:
        with self._lock:
            self._is_finished = True
            self._let_go()
        self.ended_at = time.monotonic()

    def read_body(self, raw: Any) -> None:
        size = 0
        while chunk := raw.read1(MAX_BODY_BYTES + 1 - size):
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                self.body.append(chunk[: MAX_BODY_BYTES - size])
                self.is_truncated = True
                return
            self.body.append(chunk)
        if raw.length_remaining:
            raise http.client.IncompleteRead(b"")
        if self.is_over:
            # A body without a length ends where the connection does, also when we ended it.
            raise TimeoutError
        self.is_body_whole = True

    def fail(self, error: Exception) -> None:
        """Note what an error of the libraries means, unless whoever raised it has noted more."""
        if self.failure is not None and self.failure.outcome is not Outcome.CONNECTION_FAILED:
            return
        if self.is_late or isinstance(
            error, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError
        ):
            self.failure = self._time_out()
        elif self.failure is None:
            self.failure = self._read_failure(error)

    def answer(self) -> Answer:
        failure = self.failure
        first_byte = (
            None if self.first_byte_at is None or self.sent_at is None else self.first_byte_at - self.sent_at
        )
        was_blocked = failure is not None and failure.outcome is Outcome.ADDRESS_BLOCKED
        return Answer(
            tag=self.request.tag,
            failure=None if failure is None else failure.outcome,
            detail="" if failure is None else failure.detail,
            is_platform_fault=failure is not None and failure.is_platform_fault,
            status_code=self.status_code if self.status_code is None or self.status_code >= 200 else None,
            response_headers=b"".join(self.head),
            response_body=b"".join(self.body),
            is_truncated=self.is_truncated,
            remote_ip=None if was_blocked else self.address,
            started_at=self.started_at,
            duration_ms=(self.ended_at - self.began_at + (self.dns_seconds or 0.0)) * 1000,
            dns_ms=_milliseconds(self.dns_seconds),
            connect_ms=_milliseconds(self.connect_seconds),
            tls_ms=_milliseconds(self.tls_seconds),
            first_byte_ms=_milliseconds(first_byte),
            is_new_connection=self.is_new_connection,
        )

    def _time_out(self) -> Failure:
        if self.sent_at is None and not (self.has_connected and not self.is_new_connection):
            return failures.LATE_CONNECTION
        return failures.LATE_REST if self.head else failures.LATE_ANSWER

    def _read_failure(self, error: Exception) -> Failure:
        causes = list(_chain(error))
        if any(isinstance(cause, OSError) and failures.is_exhausted(cause.errno) for cause in causes):
            return failures.OUT_OF_RESOURCES
        if any(isinstance(cause, http.client.IncompleteRead) for cause in causes):
            # A chunk that is none, while there was more to read, is not the end of anything.
            is_cut = (
                self.is_at_end
                or "transfer-encoding: chunked" not in b"".join(self.head).decode("latin-1").lower()
            )
            return failures.CLOSED_MIDWAY if is_cut else failures.UNINTELLIGIBLE
        if not self.head and (of_ours := self.of_our_certificate(causes)):
            return of_ours
        if any(isinstance(cause, OSError) and cause.errno for cause in causes):
            return failures.RESET
        return failures.BROKEN_INSIDE if self.sent_at is None else failures.UNINTELLIGIBLE

    def of_our_certificate(self, causes: Sequence[BaseException]) -> Failure | None:
        """While no byte of an answer has come."""
        own = self.request.destination.tls
        has_one = own is not None and own.certificate is not None
        said = " ".join(str(cause) for cause in causes if isinstance(cause, ssl.SSLError))
        found = failures.of_our_certificate(said, has_one=has_one)
        if found is None and has_one and self.is_new_connection and self.tls_seconds is not None:
            secured_at = self.began_at + (self.connect_seconds or 0.0) + self.tls_seconds
            if time.monotonic() - secured_at < AFTER_HANDSHAKE_SECONDS:
                return failures.PROBABLY_REFUSED_OURS
        return found

    def _shut_down(self) -> None:
        if self._handle is not None:
            # An error says that it is not connected any more, which is what was wanted.
            with contextlib.suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)

    def _let_go(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


class _Current(threading.local):
    """The exchange that this thread carries out, for the connection class, which urllib3 makes and calls."""

    exchange: Exchange


current = _Current()


class Watchdog:
    """One thread that ends exchanges at their deadline."""

    def __init__(self) -> None:
        self._deadlines: list[tuple[float, int, Exchange]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="transport-watchdog", daemon=True)
        self._thread.start()

    def watch(self, exchange: Exchange) -> None:
        at = exchange.began_at + exchange.request.destination.timeout_seconds
        with self._changed:
            heapq.heappush(self._deadlines, (at, next(self._order), exchange))
            if self._deadlines[0][2] is exchange:
                self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                while self._deadlines and self._deadlines[0][0] <= now:
                    heapq.heappop(self._deadlines)[2].expire()
                self._changed.wait(self._deadlines[0][0] - now if self._deadlines else None)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was made of: libraries wrap them as causes and as arguments."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [
            each.__cause__,
            each.__context__,
            *(arg for arg in each.args if isinstance(arg, BaseException)),
        ]
