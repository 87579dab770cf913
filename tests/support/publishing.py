"""Publishers for tests that break things meanwhile: every reply is kept, with its id, its time and what it said.

Threads of the test's own process, each with one keep-alive connection. The publisher of the bench is faster; this one
remembers *which* events were accepted.
"""

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from deliveries.bench.publisher import Target

NO_ANSWER = 0
"""In place of a status: the connection was closed or refused."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    at: float
    """time.monotonic() when it was asked for."""
    seconds: float
    event_id: str | None
    retry_after: str | None
    body: bytes


@dataclass(slots=True)
class Replies:
    all: list[Reply] = field(default_factory=list)

    @property
    def accepted(self) -> set[str]:
        return {reply.event_id for reply in self.all if reply.event_id is not None}

    @property
    def statuses(self) -> dict[int, int]:
        return dict(Counter(reply.status for reply in self.all))

    def p99_ms(self, *, since: float = 0.0, until: float = float("inf")) -> float:
        """Of the accepted ones that were sent in that time."""
        times = sorted(
            reply.seconds for reply in self.all if reply.status == 202 and since <= reply.at < until
        )
        assert len(times) >= 100, f"{len(times)} accepted say nothing about the slowest hundredth"
        return round(1000 * times[round(0.99 * (len(times) - 1))], 1)


class Publishers:
    """`with Publishers(port, targets, rate=200) as publishers: …`, then `publishers.replies`.

    `rate`: events a second together. Each event goes out at its own moment, unless all connections wait for answers.
    """

    def __init__(
        self, port: int, targets: list[Target], *, rate: float, connections: int = 8, payload: int = 256
    ) -> None:
        self.port = port
        self.targets = itertools.cycle(targets)
        self.rate = rate
        self.padding = "x" * payload
        self.replies = Replies()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._publish, name=f"publisher-{number}")
            for number in range(connections)
        ]

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop_asking(self) -> None:
        """No more from now on."""
        self._is_over.set()

    def stop(self) -> Replies:
        """What was sent is waited for."""
        self.stop_asking()
        for thread in self._threads:
            thread.join()
        return self.replies

    def _publish(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            while True:
                with self._lock:
                    number, target = next(self._numbers), next(self.targets)
                if self._is_over.wait(max(0.0, self.began + number / self.rate - time.monotonic())):
                    return
                reply = self._one(connection, target, number)
                with self._lock:
                    self.replies.all.append(reply)
                if reply.status == NO_ANSWER:
                    connection.close()
                    self._is_over.wait(0.05)
        finally:
            connection.close()

    def _one(self, connection: http.client.HTTPConnection, target: Target, number: int) -> Reply:
        path, key, event_type = target
        body = json.dumps({"type": event_type, "data": {"n": number, "pad": self.padding}})
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        at = time.monotonic()
        try:
            connection.request("POST", f"{path}/events", body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            with contextlib.suppress(OSError):
                connection.close()
            return Reply(NO_ANSWER, at, time.monotonic() - at, None, None, b"")
        seconds = time.monotonic() - at
        event_id = json.loads(answer)["id"] if response.status == 202 else None
        return Reply(
            response.status,
            at,
            seconds,
            event_id,
            response.headers.get("Retry-After"),
            b"" if event_id else answer[:500],
        )
