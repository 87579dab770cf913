"""A dispatcher in a thread of the test, and the endpoint that it calls: the engine without Celery around it."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection
from standardwebhooks import Webhook, WebhookVerificationError

from deliveries.pipeline import lanes
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.dispatch import Dispatcher, Ending
from deliveries.pipeline.transport import Transport, open_transport
from tests.support.builders import SECRET

# --- the endpoint -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    path: str
    method: str
    headers: dict[str, str]
    body: bytes
    at: float
    """time.monotonic() of its last byte."""

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: tuple[str, ...] = ()
    body: bytes = b"ok"
    seconds: float = 0.0
    """Until it is sent."""
    waits: bool = False
    """Sent when the test says `release`."""


class Webhooks:
    """Receives on 127.0.0.1, in a thread, and remembers. The end fails if `standardwebhooks` refused a request.

    `replies` says by path what to answer; other paths get 200. A rule may be a function of the request. `secret` is None
    where the library cannot verify: endpoints have secrets of their own, or sign by Ed25519.
    """

    def __init__(self, *, secret: str | None = SECRET, **replies: Reply | Callable[[Request], Reply]) -> None:
        self.replies = {f"/{name}": reply for name, reply in replies.items()}
        self.secret = secret
        self.requests: list[Request] = []
        self.unverified: list[str] = []
        """What `standardwebhooks` said of requests that it refused; raised at the end."""
        self.open: dict[tuple[str, str], int] = {}
        """Requests not yet answered, by path and webhook id."""
        self.together: list[tuple[str, str]] = []
        """Those of the same id that were open at the same time. Must stay empty."""
        self.most_open = 0
        self.failures: list[Exception] = []
        """Of the test's own rules; raised at the end."""

    def __enter__(self) -> Self:
        started: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        self.port = started.result(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        if self.failures:
            raise self.failures[0]
        # What failed before says more.
        if kind is None and self.unverified:
            raise AssertionError(f"Requests that do not verify: {self.unverified}")

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def to(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def release(self) -> None:
        """Send every answer that waits, now and from now on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def wait_for(self, count: int, path: str | None = None, *, seconds: float = 15) -> list[Request]:
        """Until so many requests came."""
        until(lambda: len(self.requests if path is None else self.to(path)) >= count, seconds=seconds)
        return list(self.requests) if path is None else self.to(path)

    async def _serve(self, started: Future[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._released = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._connection(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=4096)
        started.set_result(server.sockets[0].getsockname()[1])
        await self._over.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    first, *lines = head.strip().split("\r\n")
                    headers = {
                        name.lower(): value.strip()
                        for name, _, value in (line.partition(":") for line in lines)
                    }
                    body = await reader.readexactly(int(headers.get("content-length", 0)))
                    method, path, _ = first.split(" ", 2)
                    await self._answer(Request(path, method, headers, body, time.monotonic()), writer)
        finally:
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self._verify(request)
        key = (request.path, request.id)
        if self.open.get(key):
            self.together.append(key)
        self.open[key] = self.open.get(key, 0) + 1
        self.most_open = max(self.most_open, sum(self.open.values()))
        rule = self.replies.get(request.path, Reply())
        self.requests.append(request)
        try:
            reply = rule if isinstance(rule, Reply) else rule(request)
        except Exception as error:
            self.failures.append(error)
            raise
        try:
            if reply.seconds:
                await asyncio.sleep(reply.seconds)
            if reply.waits:
                await self._released.wait()
        finally:
            self.open[key] -= 1
            if not self.open[key]:
                del self.open[key]
        lines = [f"HTTP/1.1 {reply.status} X", f"content-length: {len(reply.body)}", *reply.headers]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + reply.body)
        await writer.drain()

    def _verify(self, request: Request) -> None:
        if self.secret is None:
            return
        signed = request.path.partition("?")[2].encode() if request.method == "GET" else request.body
        try:
            Webhook(self.secret).verify(signed, request.headers, json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            self.unverified.append(f"{request.method} {request.path}: {error}")


# --- the dispatcher ---------------------------------------------------------------------------------------------------


def transport(name: str, capacity: int, *, proxy: str | None = None) -> Transport:
    return open_transport(
        name,
        guard=AddressGuard(settings.WEBHOOKS_ALLOWED_NETWORKS, settings.WEBHOOKS_OWN_PORTS),
        max_in_flight=capacity,
        max_connections=2 * capacity,
        proxy=proxy,
    )


def make_dispatcher(
    *,
    name: str = "curl",
    capacity: int = 64,
    dry_seconds: float = 0.15,
    on_gone: Callable[[UUID], None] = lambda _: None,
    proxy: str | None = None,
    **more: Any,
) -> Dispatcher:
    return Dispatcher(
        open_transport=lambda most: transport(name, most, proxy=proxy),
        capacity=capacity,
        on_gone=on_gone,
        user_agent="Webhooks-Platform/test",
        dry_seconds=dry_seconds,
        **more,
    )


def run_until_dry(**options: Any) -> None:
    """In this thread, until nothing is due any more."""
    is_ready = True
    while is_ready:
        assert make_dispatcher(**options).run() is Ending.DRY
        with connection.cursor() as cursor:
            # On a slow machine a run may be over before its connections are open.
            is_ready = lanes.is_any_ready(cursor)


@dataclass
class Running:
    dispatcher: Dispatcher
    ending: Future[Ending] = field(default_factory=Future)

    def join(self, *, seconds: float = 20) -> Ending:
        """Until it ended by itself."""
        return self.ending.result(seconds)


@contextmanager
def running(**options: Any) -> Iterator[Running]:
    """A dispatcher in a thread of its own; it is asked to drain at the end, and has to."""
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    dispatcher = make_dispatcher(
        **({"stop_fd": read_end, "dry_seconds": 60.0, "drain_seconds": 5.0} | options)
    )
    one = Running(dispatcher)

    def run() -> None:
        try:
            one.ending.set_result(dispatcher.run())
        except BaseException as error:  # noqa: BLE001 - the test raises it
            one.ending.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        os.write(write_end, b"stop")
        thread.join(20)
        os.close(read_end)
        os.close(write_end)
    one.ending.result(0)


def until(condition: Callable[[], object], *, seconds: float = 15) -> None:
    """Wait for something that happens elsewhere."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain")
        time.sleep(0.01)
