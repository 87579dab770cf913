"""Publishes over HTTP on a number of keep-alive connections, and measures. One process, one epoll loop, no Django.

Started by `children.run_publisher`. The plan comes as one line of JSON on standard input (the fields of `Plan`), the
result goes out as one line: what was accepted, how fast, and how long each reply took. At a fixed rate every publish is
sent at its own moment, whether or not earlier ones were answered, as long as a connection is free.
"""

import contextlib
import itertools
import json
import operator
import re
import secrets
import select
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

_STATUS_AND_LENGTH = re.compile(
    rb"HTTP/1\.1 (\d+).*?\r\n(?:content-length: *(\d+)|transfer-encoding: *chunked)",
    re.DOTALL | re.IGNORECASE,
)
_DELIVERIES = re.compile(rb'"deliveries": ?(\d+)')

ANSWER_SECONDS = 30.0
"""Without any answer for so long, the run is given up."""

KEY = "Idempotency-Key: %b\r\n"

Target = tuple[str, str, str]
"""Path of the tenant below the server (`/api/v1/tenants/bench-1`), its key, and an event type."""


@dataclass(slots=True)
class Plan:
    port: int
    targets: list[Target]
    """Events go to these in turn."""
    events: int
    payload: int = 1024
    """Bytes of each event's data."""
    batch: int = 1
    """Events in a request; more than one: through `events/batch`, to the tenants in turn."""
    connections: int = 16
    rate: float | None = None
    """Events a second; None: as fast as answers come."""
    seconds: float | None = None
    """Stop after so long, whatever is left."""
    has_keys: bool = False
    """Whether each request carries an idempotency key of its own. Not for batches."""
    ordering_keys: int = 0
    """Events have so many in turn, `k0`, `k1`, …; 0: none."""
    first_key: int = 0
    deliver_after_seconds: int = 0
    is_incoming: bool = False
    """Targets are sources: a request is the data alone, and a 200 the answer."""
    host: str = "127.0.0.1"


class Connection:
    __slots__ = ("began", "events", "received", "socket")

    def __init__(self, plan: Plan) -> None:
        self.socket = socket.create_connection((plan.host, plan.port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.began = 0.0
        self.events = 0


class Publisher:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.heads: list[tuple[bytes, bytes]] = []
        """For each target: the request up to its length, and the beginning of an event."""
        self.tenants: list[tuple[bytes, Iterator[bytes]]] = []
        """For batches, for each tenant: the request up to its length, and beginnings of events, in turn for ever."""
        self.sent = self.answered = self.accepted = self.refused = self.lost = self.deliveries = 0
        self.statuses: dict[int, int] = {}
        self.first_refusal = ""
        self.latencies: array[float] = array("d")
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.free: deque[Connection] = deque()
        self.padding = _padding(plan.payload)
        """Of the data, so that it has the length that was asked for."""
        suffix = "" if plan.is_incoming else "/events" if plan.batch == 1 else "/events/batch"
        more = ""
        if plan.deliver_after_seconds:
            at = datetime.now(UTC) + timedelta(seconds=plan.deliver_after_seconds)
            more = f'"deliver_at":"{at.isoformat()}",'
        for path, key, event_type in plan.targets:
            text = (
                f"POST {path}{suffix} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Type: application/json\r\n{KEY if plan.has_keys else ''}Content-Length: "
            )
            opening = f'{{"type":"{event_type}",{more}'
            self.heads.append((text.encode(), opening.encode()))
        for head, targets in itertools.groupby(self.heads, key=operator.itemgetter(0)):
            self.tenants.append((head, itertools.cycle([opening for _, opening in targets])))

    def run(self) -> dict[str, Any]:
        for _ in range(self.plan.connections):
            self._connect()
        began = time.monotonic()
        last_answer = began
        while self.answered < self.sent or self.sent < self.plan.events:
            now = time.monotonic()
            if self.plan.seconds is not None and now - began > self.plan.seconds:
                self.plan.events = self.sent
            pause = self._send_due(began)
            for fd, _ in self.epoll.poll(pause):
                last_answer = time.monotonic()
                self._read(self.connections[fd])
            if now - last_answer > ANSWER_SECONDS and self.answered < self.sent:
                break
        seconds = time.monotonic() - began
        return {
            "accepted": self.accepted,
            "refused": self.refused,
            "unanswered": self.sent - self.accepted - self.refused,
            "deliveries": self.deliveries,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "first_refusal": self.first_refusal,
            "seconds": seconds,
            "events_per_second": self.accepted / seconds if seconds else 0.0,
            "latency_ms": _distribution(self.latencies),
            "cpu_seconds": time.process_time(),
        }

    def _connect(self) -> None:
        connection = Connection(self.plan)
        self.connections[connection.socket.fileno()] = connection
        self.epoll.register(connection.socket.fileno(), select.EPOLLIN)
        self.free.append(connection)

    def _send_due(self, began: float) -> float:
        """Send what may be sent now; how long to wait for answers at most."""
        plan = self.plan
        while self.free and self.sent < plan.events:
            if plan.rate is not None:
                wait = began + self.sent / plan.rate - time.monotonic()
                if wait > 0:
                    return wait
            self._send(self.free.popleft())
        return 1.0

    def _send(self, connection: Connection) -> None:
        plan = self.plan
        count = min(plan.batch, plan.events - self.sent)
        if plan.batch == 1:
            head, opening = self.heads[self.sent % len(self.heads)]
            body = self._data(self.sent) if plan.is_incoming else self._event(opening, self.sent)
            if plan.has_keys:
                head %= secrets.token_hex(16).encode()
        else:
            head, openings = self.tenants[self.sent // plan.batch % len(self.tenants)]
            events = [self._event(next(openings), self.sent + each) for each in range(count)]
            body = b'{"events":[' + b",".join(events) + b"]}"
        self.sent += count
        connection.events = count
        connection.began = time.monotonic()
        connection.socket.sendall(head + b"%d\r\n\r\n" % len(body) + body)

    def _event(self, opening: bytes, number: int) -> bytes:
        plan = self.plan
        line = b""
        if plan.ordering_keys:
            line = b'"ordering_key":"k%d",' % (plan.first_key + number % plan.ordering_keys)
        return b'%b%b"data":%b}' % (opening, line, self._data(number))

    def _data(self, number: int) -> bytes:
        return b'{"sent_ns":%d,"n":%-12d,"pad":"%s"}' % (time.time_ns(), number, self.padding)

    def _read(self, connection: Connection) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = connection.socket.recv(1 << 20)
        if not data:
            self._lose(connection)
            return
        connection.received += data
        answer = _whole(connection.received)
        if answer is None:
            return
        status, body = answer
        self._count(connection, status, body)
        connection.received = b""
        self.free.append(connection)

    def _count(self, connection: Connection, status: int, body: bytes) -> None:
        self.latencies.append(time.monotonic() - connection.began)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if self.plan.is_incoming:
            deliveries, good = [b"1"], int(status == 200)
        else:
            deliveries = _DELIVERIES.findall(body)
            good = len(deliveries) if status == 202 else 0
        self.answered += connection.events
        self.accepted += good
        self.refused += connection.events - good
        self.deliveries += sum(map(int, deliveries)) if good else 0
        if good < connection.events and not self.first_refusal:
            self.first_refusal = body[:500].decode(errors="replace")

    def _lose(self, connection: Connection) -> None:
        """Closed by the server. What was on the way counts as unanswered."""
        self.epoll.unregister(connection.socket.fileno())
        del self.connections[connection.socket.fileno()]
        connection.socket.close()
        if connection in self.free:
            self.free.remove(connection)
        else:
            self.answered += connection.events
        self._connect()


def _padding(payload: int) -> bytes:
    without = len(b'{"sent_ns":1790000000000000000,"n":000000000000,"pad":""}')
    return (b"0123456789abcdef" * (payload // 16 + 1))[: max(0, payload - without)]


def _whole(received: bytes) -> tuple[int, bytes] | None:
    """Status and body, if all of the answer is here."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = _STATUS_AND_LENGTH.match(received[: end + 2])
    if head is None:
        return int(received[9:12]), received[end + 4 :]
    status, length = int(head[1]), head[2]
    if length is None:
        return (status, received[end + 4 :]) if received.endswith(b"0\r\n\r\n") else None
    body = received[end + 4 :]
    return (status, body) if len(body) >= int(length) else None


def _distribution(values: "array[float]") -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    last = len(ordered) - 1
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {"count": len(ordered)} | {
        name: round(ordered[round(share * last)] * 1e3, 3) for name, share in shares.items()
    }


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    plan["targets"] = [tuple(target) for target in plan["targets"]]
    result = Publisher(Plan(**plan)).run()
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
