"""The second transport, on `requests` and urllib3: for platforms without libcurl, and for `requests` adapters.

Each request has a thread of a bounded pool to itself. Three things that these libraries do not do are done here:

- The address is ours. The connection class connects to the address that was judged, while host name, SNI, certificate
  check and pool stay on the name; pools are kept per name *and* address.
- The time-out covers everything. Theirs is per read, and a receiver that drips holds them for ever: so one thread
  watches the deadlines, and shuts the sockets down (a duplicate of each, which nobody else can close under it).
- Headers are counted while they are read, and kept as they came.
"""

import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import certifi
import requests
import urllib3

from deliveries.pipeline import failures
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.proxy import Proxy
from deliveries.pipeline.requests_connections import CONNECTIONS_PER_POOL, Adapter, Pools, prepare
from deliveries.pipeline.requests_exchange import Exchange, Watchdog, current
from deliveries.pipeline.resolver import Resolver
from deliveries.pipeline.routes import Route, Router
from deliveries.pipeline.transport import (
    CONNECT_SECONDS,
    FIRST_ADDRESS_SECONDS,
    Answer,
    OutgoingRequest,
    always,
)

logger = logging.getLogger(__name__)

MAX_THREADS = 256
"""Requests really in the air at once; what is started beyond waits, and its time-out with it. A dispatcher starts no
more: else those that hang, of one tenant, would have all threads, and every other tenant would wait for one."""

STALE_TRIES = CONNECTIONS_PER_POOL + 1
"""Kept connections may all have been closed by the receiver at the moment of their use; then a new one is made."""

_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    HTTPException,
    OSError,
    ValueError,
)


class RequestsTransport:
    def __init__(
        self,
        *,
        guard: AddressGuard,
        max_in_flight: int,
        dns_servers: Sequence[str],
        verify_ca: str | None,
        max_connections: int,
        proxy: Proxy | None = None,
    ) -> None:
        self.most_in_flight = min(max_in_flight, MAX_THREADS)
        self._proxy = proxy
        # They log URLs and headers of customers, and each connection beyond the pool's size.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        self._guard = guard
        self._resolver = Resolver(servers=dns_servers)
        self._router = Router(guard=guard, resolver=self._resolver)
        self._adapter = Adapter(
            Pools(verify_ca or certifi.where(), max(1, max_connections // CONNECTIONS_PER_POOL))
        )
        self._watchdog = Watchdog()
        self._threads = ThreadPoolExecutor(self.most_in_flight, thread_name_prefix="transport")
        self._done: deque[Exchange] = deque()
        self._done_event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._done_event, select.EPOLLIN)
        self._epoll.register(self._resolver.fileno(), select.EPOLLIN)
        self._watched: set[int] = set()
        # Both in the order of starting: the first is the oldest.
        self._sending: dict[Exchange, None] = {}
        self._resolving: dict[Exchange, None] = {}
        self._answers: list[Answer] = []
        self._is_closed = False

    def start(self, request: OutgoingRequest) -> None:
        now = time.monotonic()
        exchange = Exchange(request, self._guard, self._proxy)
        route = self._router.known(request.destination, now)
        if route is None:
            self._resolving[exchange] = None
            self._router.ask(request.destination, exchange, now)
        else:
            self._begin(exchange, route, None)

    def poll(self, timeout: float, *, may_go_on: Callable[[], bool] = always) -> list[Answer]:
        deadline = time.monotonic() + timeout
        while True:
            is_woken = self._turn(0.0 if self._answers else deadline - time.monotonic(), may_go_on)
            if self._answers or is_woken or time.monotonic() >= deadline:
                answers, self._answers = self._answers, []
                return answers

    def watch(self, fd: int) -> None:
        self._watched.add(fd)
        self._epoll.register(fd, select.EPOLLIN)

    @property
    def in_flight(self) -> int:
        return len(self._sending) + len(self._resolving) + len(self._answers)

    def oldest_started(self) -> float | None:
        oldest = (next(iter(exchanges), None) for exchanges in (self._sending, self._resolving))
        return min((exchange.started_at for exchange in oldest if exchange is not None), default=None)

    def abort_all(self) -> list[Any]:
        tags = [answer.tag for answer in self._answers]
        tags += [exchange.request.tag for exchange in (*self._sending, *self._resolving)]
        for exchange in self._sending:
            exchange.abort()
        self._router.forget_all()
        self._answers.clear()
        self._sending.clear()
        self._resolving.clear()
        return tags

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.abort_all()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._watchdog.close()
        self._adapter.close()
        self._resolver.close()
        self._epoll.close()
        os.close(self._done_event)

    def _turn(self, seconds: float, may_go_on: Callable[[], bool]) -> bool:
        """Wait no longer than that for one round of events. True: a watched descriptor is readable, or it is over."""
        wait = seconds
        if self._resolver.is_busy:
            resolver_wait = self._resolver.due_in(time.monotonic())
            if resolver_wait is not None:
                wait = min(wait, resolver_wait)
        is_woken = has_resolver_news = False
        ready = self._epoll.poll(max(0.0, wait))
        if not may_go_on():
            return True
        for fd, _ in ready:
            if fd == self._done_event:
                os.eventfd_read(fd)
            elif fd in self._watched:
                is_woken = True
            else:
                has_resolver_news = True
        if has_resolver_news or self._resolver.is_busy:
            for exchange, route, dns_seconds in self._router.advance(time.monotonic()):
                if exchange in self._resolving:
                    del self._resolving[exchange]
                    self._begin(exchange, route, dns_seconds)
        while self._done:
            exchange = self._done.popleft()
            if exchange in self._sending:
                del self._sending[exchange]
                for address in exchange.failed_addresses:
                    self._router.put_last(exchange.request.destination, address)
                self._answers.append(exchange.answer())
        return is_woken

    def _begin(self, exchange: Exchange, route: Route, dns_seconds: float | None) -> None:
        if route.failure is not None:
            self._answers.append(route.refusal(exchange.request, exchange.started_at, dns_seconds))
            return
        exchange.addresses = route.addresses
        exchange.dns_seconds = dns_seconds
        self._sending[exchange] = None
        self._threads.submit(self._carry_out, exchange)

    # On a thread of the pool

    def _carry_out(self, exchange: Exchange) -> None:
        try:
            if not exchange.is_aborted:
                exchange.began_at = time.monotonic()
                self._watchdog.watch(exchange)
                self._try_addresses(exchange)
        except Exception:
            # Whatever went wrong in here, the request gets its answer.
            logger.exception("A request could not be carried out")
            exchange.failure = failures.BROKEN_INSIDE
        finally:
            exchange.finish()
            self._done.append(exchange)
            os.eventfd_write(self._done_event, 1)

    def _try_addresses(self, exchange: Exchange) -> None:
        *others, last = exchange.addresses
        for address in others:
            exchange.connect_limit = min(FIRST_ADDRESS_SECONDS, exchange.seconds_left() / 2)
            self._try_address(exchange, address)
            if exchange.failure is None or exchange.has_connected or exchange.is_over:
                return
            exchange.failed_addresses.append(address)
        exchange.connect_limit = CONNECT_SECONDS
        self._try_address(exchange, last)

    def _try_address(self, exchange: Exchange, address: str) -> None:
        exchange.address = address
        current.exchange = exchange
        for _ in range(STALE_TRIES):
            exchange.begin_try()
            try:
                self._send_and_read(exchange)
            except _ERRORS as error:
                if exchange.is_stale:
                    continue
                exchange.fail(error)
            return

    def _send_and_read(self, exchange: Exchange) -> None:
        left = max(0.001, exchange.seconds_left())
        response = self._adapter.send(
            prepare(exchange.request), stream=True, timeout=(min(left, exchange.connect_limit), left)
        )
        try:
            exchange.read_body(response.raw)
        finally:
            # Gives the connection back if the body has ended, else closes it.
            if exchange.is_body_whole:
                response.raw.release_conn()
            else:
                response.raw.close()
