"""A receiver that costs little: one process, one epoll loop, thousands of connections. Needs no Django.

Started by `children.Receiver`, for the bench and the tests. `python -m deliveries.bench.receiver '{"address": …}'`
prints one line with its port, then answers each line of JSON on its standard input with one line on its standard
output, and ends when its input does.

It counts, by path, how many different webhook-ids were answered with a success, and how many came again after that;
verifies the signature of every hundredth request; and measures latency from the `sent_ns` that the publisher puts in
the data. What it answers is decided by rules, by path or by group (the first segment of a path).
"""

import base64
import contextlib
import hashlib
import heapq
import hmac
import itertools
import json
import os
import random
import select
import socket
import ssl
import sys
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

VERIFY_EVERY = 100
"""Signatures are checked at every so many requests: each costs several times the rest of a request."""

READ_BYTES = 65_536
"""At once. Larger reads would be taken from the system and given back each time (malloc's threshold is 128 kB)."""

MOST_BYTES = 16 * 1024 * 1024
"""Of one request. Nothing that the platform sends comes near it."""

SIGNATURE_AGE_SECONDS = 300
"""How far a timestamp may be from now: what the Standard Webhooks libraries allow."""

SO_BINDTODEVICE = 25

_NO_IDS: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class Rule:
    """How requests are answered. Without one: at once, 200, `ok`."""

    seconds: float = 0.0
    """Wait so long before answering."""
    status: int = 200
    fail_rate: float = 0.0
    """Of all requests, this share is answered with `fail_status` instead."""
    fail_status: int = 500
    fail_first: int = 0
    """So many requests for each id fail before one succeeds."""
    body_bytes: int = 2
    headers: str = ""
    """More header lines, each with its line end."""
    closes: bool = False
    """Close the connection instead of answering."""
    good: bytes = b""
    bad: bytes = b""

    def prepare(self) -> None:
        # Hardly compressible, as real answers are not all one letter.
        body = base64.b64encode(random.Random(1).randbytes(self.body_bytes))[: self.body_bytes]  # noqa: S311
        self.good = _answer(self.status, self.headers, b"ok" if self.body_bytes == 2 else body)
        self.bad = _answer(self.fail_status, self.headers, b"failed")


def _answer(status: int, headers: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Bench\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass(slots=True, eq=False)
class Group:
    """All paths with the same first segment: latencies are kept together, in nanoseconds."""

    latencies: "array[int]" = field(default_factory=lambda: array("q"))
    requests: int = 0
    distinct: int = 0


@dataclass(slots=True, eq=False)
class Path:
    name: str
    group: Group
    rule: Rule
    secret: bytes | None = None
    requests: int = 0
    repeats: int = 0
    failures: int = 0
    """Answered with anything but a 2xx, or not at all."""
    ids: set[bytes] = field(default_factory=set)
    """Answered with a 2xx."""
    tries: dict[bytes, int] = field(default_factory=dict)
    """Under a rule with `fail_first`."""

    def succeeded(self, webhook_id: bytes) -> None:
        if webhook_id in self.ids:
            self.repeats += 1
        else:
            self.ids.add(webhook_id)
            self.group.distinct += 1


class Connection:
    __slots__ = ("fd", "held", "is_shaking", "needed", "out", "recv", "rest", "send", "socket")

    def __init__(self, accepted: socket.socket, *, is_shaking: bool) -> None:
        self.socket = accepted
        self.fd = accepted.fileno()
        self.recv = accepted.recv
        self.send = accepted.send
        self.rest = bytearray()
        """What came of a request that is not complete yet."""
        self.needed = 0
        """How long that will be; 0: not known yet."""
        self.out = b""
        """What could not be sent yet."""
        self.is_shaking = is_shaking
        """In the TLS handshake."""
        self.held = 0
        """Requests on it whose answers are to come."""


class Receiver:
    def __init__(self, *, address: str, port: int, certificate: str | None, verify_every: int) -> None:
        self.verify_every = verify_every
        self.epoll = select.epoll()
        self.listener = _listen(address, port)
        self.port: int = self.listener.getsockname()[1]
        self.tls: ssl.SSLContext | None = None
        if certificate is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certificate)
        self.connections: dict[int, Connection] = {}
        self.standard = Rule()
        self.standard.prepare()
        self.rules: dict[str, Rule] = {}
        self.secrets: dict[str, bytes] = {}
        self.paths: dict[bytes, Path] = {}
        self.groups: dict[str, Group] = {}
        self.held: list[tuple[float, int, Connection, Path, bytes, bytes]] = []
        """Answers to come: due, running number, connection, path, id, answer."""
        self.held_numbers = itertools.count()
        self.in_air = 0
        """Of those held, whose client still waits."""
        self.accepted = 0
        self.forget()

    def forget(self) -> None:
        """Count from zero. Rules, secrets and connections stay."""
        self.requests = self.verified = self.bad_signatures = self.broken = self.most_in_air = 0
        self.accepted = 0
        self.first_ns = self.last_ns = 0
        self.paths.clear()
        self.groups.clear()

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        commands = sys.stdin.fileno()
        os.set_blocking(commands, False)
        listening = self.listener.fileno()
        for fd in (commands, listening):
            self.epoll.register(fd, select.EPOLLIN)
        unread = b""
        while True:
            for fd, events in self.epoll.poll(self._pause(), 256):
                connection = self.connections.get(fd)
                if connection is not None:
                    if events & select.EPOLLOUT:
                        self._flush(connection)
                    if events & ~select.EPOLLOUT:
                        self._read(connection)
                elif fd == listening:
                    self._accept()
                elif fd == commands:
                    try:
                        data = os.read(commands, 1 << 20)
                    except BlockingIOError:
                        continue
                    if not data:
                        return
                    *lines, unread = (unread + data).split(b"\n")
                    for line in lines:
                        _say(self.obey(json.loads(line)))
            self._answer_held()

    def _pause(self) -> float:
        return max(0.0, self.held[0][0] - time.monotonic()) if self.held else -1

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self.listener.accept()
            except BlockingIOError:
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                accepted = self.tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            connection = Connection(accepted, is_shaking=self.tls is not None)
            self.accepted += 1
            self.connections[connection.fd] = connection
            self.epoll.register(connection.fd, select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        if self.connections.pop(connection.fd, None) is not None:
            self.epoll.unregister(connection.fd)
            connection.socket.close()
            self.in_air -= connection.held

    def _read(self, connection: Connection) -> None:
        try:
            if connection.is_shaking:
                assert isinstance(connection.socket, ssl.SSLSocket)
                connection.socket.do_handshake()
                connection.is_shaking = False
            data = connection.recv(READ_BYTES)
            while data:
                self._take(connection, data)
                if self.tls is None and len(data) < READ_BYTES:
                    return  # plain sockets are asked again by epoll
                data = connection.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            pass
        self._close(connection)

    def _take(self, connection: Connection, data: bytes) -> None:
        """Handle the requests that are complete, keep the rest."""
        if connection.rest:
            connection.rest += data
            if len(connection.rest) < connection.needed:
                return
            data = bytes(connection.rest)
            connection.rest = bytearray()
            connection.needed = 0
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                connection.rest += data
                return
            at = data.find(b"\r\nContent-Length: ", 0, end)
            if at < 0:
                at = data[:end].lower().find(b"\r\ncontent-length: ")
            length = 0 if at < 0 else int(data[at + 18 : data.find(b"\r", at + 18, end + 1)])
            whole = end + 4 + length
            if whole > MOST_BYTES:
                raise OSError("too large")
            if len(data) < whole:
                connection.rest += data
                connection.needed = whole
                return
            if len(data) == whole:
                self._handle(connection, data, end)
                return
            self._handle(connection, data[:whole], end)
            data = data[whole:]

    # --- one request --------------------------------------------------------------------------------------------------

    def _handle(self, connection: Connection, request: bytes, end: int) -> None:
        now = time.time_ns()
        start = request.find(b" ") + 1
        path = self.paths.get(request[start : request.find(b" ", start, end)])
        if path is None:
            path = self._new_path(request[start : request.find(b" ", start, end)])
        path.requests += 1
        path.group.requests += 1
        self.requests += 1
        self.last_ns = now
        if not self.first_ns:
            self.first_ns = now
        at = request.find(b"\r\nwebhook-id: ", 0, end) + 14
        webhook_id = request[at : request.find(b"\r", at, end + 1)] if at > 14 else b""
        at = request.find(b'"sent_ns":', end, end + 1024)
        if at > 0:
            path.group.latencies.append(now - int(request[at + 10 : at + 29]))
        if self.requests % self.verify_every == 0 and path.secret is not None:
            self._verify(path.secret, request, end)
        rule = path.rule
        if rule is self.standard:
            path.succeeded(webhook_id)
            self._send(connection, rule.good)
        else:
            self._answer_by_rule(connection, path, rule, webhook_id)

    def _answer_by_rule(self, connection: Connection, path: Path, rule: Rule, webhook_id: bytes) -> None:
        is_good = rule.status < 300 and not (rule.fail_rate and random.random() < rule.fail_rate)  # noqa: S311
        if is_good and rule.fail_first:
            tries = path.tries[webhook_id] = path.tries.get(webhook_id, 0) + 1
            is_good = tries > rule.fail_first
        answer = rule.good if is_good or rule.status >= 300 else rule.bad
        if rule.closes:
            is_good, answer = False, b""
        if not is_good:
            path.failures += 1
            webhook_id = b""
        if rule.seconds:
            due, number = time.monotonic() + rule.seconds, next(self.held_numbers)
            heapq.heappush(self.held, (due, number, connection, path, webhook_id, answer))
            connection.held += 1
            self.in_air += 1
            self.most_in_air = max(self.most_in_air, self.in_air)
        else:
            self._finish(connection, path, webhook_id, answer)

    def _answer_held(self) -> None:
        if not self.held:
            return
        now = time.monotonic()
        while self.held and self.held[0][0] <= now:
            _, _, connection, path, webhook_id, answer = heapq.heappop(self.held)
            if self.connections.get(connection.fd) is connection:
                connection.held -= 1
                self.in_air -= 1
                self._finish(connection, path, webhook_id, answer)

    def _finish(self, connection: Connection, path: Path, webhook_id: bytes, answer: bytes) -> None:
        if webhook_id:
            path.succeeded(webhook_id)
        if not answer:
            self._close(connection)
            return
        with contextlib.suppress(OSError):
            self._send(connection, answer)
            return
        self._close(connection)

    def _send(self, connection: Connection, answer: bytes) -> None:
        try:
            sent = 0 if connection.out else connection.send(answer)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        if sent < len(answer):
            connection.out += answer[sent:]
            self.epoll.modify(connection.fd, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, connection: Connection) -> None:
        try:
            sent = connection.send(connection.out) if connection.out else 0
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self._close(connection)
            return
        connection.out = connection.out[sent:]
        if not connection.out:
            self.epoll.modify(connection.fd, select.EPOLLIN)

    def _verify(self, secret: bytes, request: bytes, end: int) -> None:
        """As a customer does it: id, timestamp and body, each of the signatures."""
        head = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in request[:end].split(b"\r\n")[1:])
        }
        timestamp = head.get(b"webhook-timestamp", b"0")
        signed = b".".join([head.get(b"webhook-id", b""), timestamp, request[end + 4 :]])
        right = b"v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256))
        given = head.get(b"webhook-signature", b"").split(b" ")
        is_fresh = timestamp.isdigit() and abs(time.time() - int(timestamp)) <= SIGNATURE_AGE_SECONDS
        if is_fresh and any(hmac.compare_digest(right, each) for each in given):
            self.verified += 1
        else:
            self.bad_signatures += 1

    def _new_path(self, raw: bytes) -> Path:
        name = raw.decode("latin-1")
        group = name.split("/")[1] if name.startswith("/") else ""
        path = Path(
            name=name,
            group=self.groups.setdefault(group, Group()),
            rule=self.rules.get(name) or self.rules.get(f"/{group}") or self.standard,
            secret=self.secrets.get(name),
        )
        self.paths[raw] = path
        return path

    # --- what it is told and asked ------------------------------------------------------------------------------------

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        match command.pop("do"):
            case "secrets":
                self._keep_secrets(command["secrets"])
            case "rule":
                self._set_rule(**command)
            case "forget":
                self.forget()
            case "count":
                return self.count(command.get("group"))
            case "latency":
                group = self.groups.get(command["group"], Group())
                return _distribution([group.latencies[-command["last"] :]])
            case "report":
                return self.report(command.get("group"))
            case "ids":
                path = self.paths.get(command["path"].encode())
                return {"ids": sorted(each.decode() for each in (path.ids if path else _NO_IDS))}
            case "close":
                for connection in list(self.connections.values()):
                    self._close(connection)
            case unknown:
                raise ValueError(unknown)
        return {}

    def _keep_secrets(self, secrets: dict[str, str]) -> None:
        for name, text in secrets.items():
            self.secrets[name] = base64.b64decode(text.removeprefix("whsec_"))
        for path in self.paths.values():
            path.secret = self.secrets.get(path.name)

    def _set_rule(self, path: str, **values: Any) -> None:
        """`path` is a whole path, or `/group` for all of a group; without values: back to the standard."""
        self.rules.pop(path, None)
        if values:
            rule = self.rules[path] = Rule(**values)
            rule.prepare()
        for known in self.paths.values():
            group = known.name.split("/")[1] if known.name.startswith("/") else ""
            known.rule = self.rules.get(known.name) or self.rules.get(f"/{group}") or self.standard

    def _groups_of(self, group: str | None) -> list[Group]:
        return list(self.groups.values()) if group is None else [self.groups.get(group, Group())]

    def count(self, group: str | None = None) -> dict[str, int]:
        """The few numbers that are asked for while something is waited for."""
        groups = self._groups_of(group)
        return {
            "requests": sum(each.requests for each in groups),
            "distinct": sum(each.distinct for each in groups),
            "in_air": self.in_air,
        }

    def report(self, group: str | None = None) -> dict[str, Any]:
        groups = self._groups_of(group)
        paths = [path for path in self.paths.values() if path.group in groups]
        return self.count(group) | {
            "repeats": sum(path.repeats for path in paths),
            "failures": sum(path.failures for path in paths),
            "paths": len(paths),
            "verified": self.verified,
            "bad_signatures": self.bad_signatures,
            "connections": self.accepted,
            "open_connections": len(self.connections),
            "most_in_air": self.most_in_air,
            "first_at": self.first_ns / 1e9,
            "last_at": self.last_ns / 1e9,
            "latency_ms": _distribution(each.latencies for each in groups),
            "cpu_seconds": time.process_time(),
        }


def _distribution(parts: Iterable["array[int]"]) -> dict[str, float]:
    latencies = sorted(value for part in parts for value in part)
    if not latencies:
        return {"count": 0}
    last = len(latencies) - 1

    def at(share: float) -> float:
        return round(latencies[round(share * last)] / 1e6, 3)

    return {"count": len(latencies), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)}


def _listen(address: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address == "127.0.0.0/8":
        # Every loopback address, and none of those that other machines can reach.
        listener.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"lo\0")
        address = "0.0.0.0"  # noqa: S104 - bound to the loopback device above
    listener.bind((address, port))
    listener.listen(4096)
    listener.setblocking(False)
    return listener


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    receiver = Receiver(
        address=options.get("address", "127.0.0.1"),
        port=options.get("port", 0),
        certificate=options.get("certificate"),
        verify_every=options.get("verify_every", VERIFY_EVERY),
    )
    _say({"port": receiver.port})
    receiver.run()


if __name__ == "__main__":
    main()
