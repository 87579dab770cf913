"""The second transport, on `requests` and urllib3: for platforms without libcurl, and for `requests` adapters.

Each request has a thread of a bounded pool to itself. Three things that these libraries do not do are done here:

- The address is ours. The connection class connects to the address that was judged, while host name, SNI, certificate
  check and pool stay on the name; pools are kept per name *and* address.
- The time-out covers everything. Theirs is per read, and a receiver that drips holds them for ever: so one thread
  watches the deadlines, and shuts the sockets down (a duplicate of each, which nobody else can close under it).
- Headers are counted while they are read, and kept as they came.
"""

import contextlib
import heapq
import http.client
import itertools
import logging
import os
import re
import select
import socket
import ssl
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import SKIP_HEADER
from urllib3.util.ssl_ import create_urllib3_context

from deliveries.pipeline import failures
from deliveries.pipeline import proxy as proxies
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.failures import Failure
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.proxy import Proxy
from deliveries.pipeline.resolver import Resolver
from deliveries.pipeline.routes import Route, Router
from deliveries.pipeline.transport import (
    CONNECT_SECONDS,
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    Answer,
    Destination,
    OutgoingRequest,
    OwnTls,
)

logger = logging.getLogger(__name__)

MAX_THREADS = 256
"""Requests really in the air at once; what is started beyond waits, and its time-out with it."""

CONNECTIONS_PER_POOL = 4
"""Kept for one name at one address. More may be in use; they are closed afterwards."""

IDLE_SECONDS = 60.0
"""A connection unused for longer is closed instead of used again."""

AFTER_HANDSHAKE_SECONDS = 1.0
"""A new connection that breaks so soon after the handshake was ended because of the handshake."""

FIRST_ADDRESS_SECONDS = 3.0
"""For connecting, while the name has another address to try."""

STALE_TRIES = CONNECTIONS_PER_POOL + 1
"""Kept connections may all have been closed by the receiver at the moment of their use; then a new one is made."""

_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
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
        self._proxy = proxy
        # They log URLs and headers of customers, and each connection beyond the pool's size.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        self._guard = guard
        self._resolver = Resolver(servers=dns_servers)
        self._router = Router(guard=guard, resolver=self._resolver)
        self._adapter = _Adapter(
            _Pools(verify_ca or certifi.where(), max(1, max_connections // CONNECTIONS_PER_POOL))
        )
        self._watchdog = _Watchdog()
        self._threads = ThreadPoolExecutor(min(max_in_flight, MAX_THREADS), thread_name_prefix="transport")
        self._done: deque[_Exchange] = deque()
        self._done_event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._done_event, select.EPOLLIN)
        self._epoll.register(self._resolver.fileno(), select.EPOLLIN)
        self._watched: set[int] = set()
        # Both in the order of starting: the first is the oldest.
        self._sending: dict[_Exchange, None] = {}
        self._resolving: dict[_Exchange, None] = {}
        self._answers: list[Answer] = []
        self._is_closed = False

    def start(self, request: OutgoingRequest) -> None:
        now = time.monotonic()
        exchange = _Exchange(request, self._guard, self._proxy)
        route = self._router.known(request.destination, now)
        if route is None:
            self._resolving[exchange] = None
            self._router.ask(request.destination, exchange, now)
        else:
            self._begin(exchange, route, None)

    def poll(self, timeout: float) -> list[Answer]:
        deadline = time.monotonic() + timeout
        while True:
            is_woken = self._turn(0.0 if self._answers else deadline - time.monotonic())
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

    def _turn(self, seconds: float) -> bool:
        """Wait no longer than that for one round of events. True: a watched descriptor is readable."""
        wait = seconds
        if self._resolver.is_busy:
            resolver_wait = self._resolver.due_in(time.monotonic())
            if resolver_wait is not None:
                wait = min(wait, resolver_wait)
        is_woken = has_resolver_news = False
        for fd, _ in self._epoll.poll(max(0.0, wait)):
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

    def _begin(self, exchange: "_Exchange", route: Route, dns_seconds: float | None) -> None:
        if route.failure is not None:
            self._answers.append(route.refusal(exchange.request, exchange.started_at, dns_seconds))
            return
        exchange.addresses = route.addresses
        exchange.dns_seconds = dns_seconds
        self._sending[exchange] = None
        self._threads.submit(self._carry_out, exchange)

    # On a thread of the pool

    def _carry_out(self, exchange: "_Exchange") -> None:
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

    def _try_addresses(self, exchange: "_Exchange") -> None:
        *others, last = exchange.addresses
        for address in others:
            exchange.connect_limit = min(FIRST_ADDRESS_SECONDS, exchange.seconds_left() / 2)
            self._try_address(exchange, address)
            if exchange.failure is None or exchange.has_connected or exchange.is_over:
                return
            exchange.failed_addresses.append(address)
        exchange.connect_limit = CONNECT_SECONDS
        self._try_address(exchange, last)

    def _try_address(self, exchange: "_Exchange", address: str) -> None:
        exchange.address = address
        _current.exchange = exchange
        for _ in range(STALE_TRIES):
            exchange.begin_try()
            try:
                self._send_and_read(exchange)
            except _ERRORS as error:
                if exchange.is_stale:
                    continue
                exchange.fail(error)
            return

    def _send_and_read(self, exchange: "_Exchange") -> None:
        left = max(0.001, exchange.seconds_left())
        response = self._adapter.send(
            _prepared(exchange.request), stream=True, timeout=(min(left, exchange.connect_limit), left)
        )
        try:
            exchange.read_body(response.raw)
        finally:
            # Gives the connection back if the body has ended, else closes it.
            if exchange.is_body_whole:
                response.raw.release_conn()
            else:
                response.raw.close()


class _Exchange:
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
        self.is_at_end = False
        self.body: list[bytes] = []
        self.is_truncated = False
        self.is_body_whole = False
        self.is_new_connection = False
        self.is_secure_now = False
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

    exchange: _Exchange


_current = _Current()


class _Watchdog:
    """One thread that ends exchanges at their deadline."""

    def __init__(self) -> None:
        self._deadlines: list[tuple[float, int, _Exchange]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="transport-watchdog", daemon=True)
        self._thread.start()

    def watch(self, exchange: _Exchange) -> None:
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


class _Reader:
    """The receiver's bytes, as http.client reads them: keeps the head, and stops it past the caps."""

    def __init__(self, file: Any, exchange: _Exchange) -> None:
        self._file = file
        self._exchange = exchange

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        exchange = self._exchange
        if not exchange.is_reading_head:
            exchange.is_at_end = exchange.is_at_end or not line
            return line
        if exchange.first_byte_at is None and line:
            exchange.first_byte_at = time.monotonic()
        if not line.endswith(b"\n") and (exchange.head or line) and len(line) <= MAX_HEADER_BYTES:
            # http.client would take headers that break off for headers that end.
            exchange.failure = failures.CLOSED_MIDWAY if exchange.head else failures.NOT_HTTP
            raise ConnectionResetError
        exchange.head_bytes += len(line)
        if exchange.head_bytes > MAX_HEADER_BYTES or len(exchange.head) >= MAX_HEADERS:
            exchange.failure = failures.HEADERS_TOO_LARGE
            raise ConnectionResetError
        if line:
            exchange.head.append(line)
        return line

    def read1(self, size: int = -1) -> bytes:
        data: bytes = self._file.read1(size)
        self._exchange.is_at_end = self._exchange.is_at_end or not data
        return data


class _Response(http.client.HTTPResponse):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fp: Any = _Reader(self.fp, _current.exchange)

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]  # the one place where it is known early
        _current.exchange.status_code = status
        return version, status, reason

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200:
            if self.status == 101:
                # To another protocol, which nobody asked for.
                raise http.client.HTTPException
            # It only announces the answer (103 Early Hints). http.client skips 100 alone.
            self.headers = self.msg = None  # type: ignore[assignment]  # how http.client says: not begun
            super().begin()
        exchange = _current.exchange
        exchange.is_reading_head = False
        length = self.headers.get("content-length")
        if b"\0" in b"".join(exchange.head) or not (length is None or length.strip().isdecimal()):
            raise http.client.HTTPException


class _Connection(HTTPConnection):
    """Connects to the exchange's address, whatever its own host name would resolve to."""

    response_class = _Response
    last_used_at = 0.0

    @property
    def is_connected(self) -> bool:
        return super().is_connected and time.monotonic() - self.last_used_at < IDLE_SECONDS

    def _new_conn(self) -> socket.socket:
        exchange = _current.exchange
        exchange.is_new_connection = True
        address = exchange.address
        assert address is not None
        refusal = exchange.guard.refusal(address, self.port)
        if refusal is not None:
            exchange.failure = Failure(Outcome.ADDRESS_BLOCKED, refusal)
            raise ConnectionRefusedError
        began_at = time.monotonic()
        proxy = exchange.proxy
        target, port = address, self.port
        if proxy is not None:
            if proxy.address is None:
                exchange.failure = failures.PROXY_UNREACHABLE
                raise ConnectionRefusedError
            address, port = proxy.address, proxy.port
        connection = None
        try:
            connection = socket.socket(
                socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM
            )
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(max(0.001, min(exchange.connect_limit, exchange.seconds_left())))
            connection.connect((address, port))
            exchange.hold(connection.fileno())
        except OSError as error:
            if connection is not None:
                connection.close()
            is_late = isinstance(error, TimeoutError) or exchange.is_late
            exchange.failure = failures.LATE_CONNECTION if is_late else failures.connect_failure(error.errno)
            if proxy is not None and not failures.is_exhausted(error.errno):
                exchange.failure = failures.PROXY_UNREACHABLE
            raise
        if proxy is not None:
            _make_tunnel(connection, exchange, proxy.connect_request(target, self.port))
        exchange.has_connected = True
        exchange.connect_seconds = time.monotonic() - began_at
        return connection

    def request(self, method: str, url: str, *args: Any, **options: Any) -> None:
        exchange = _current.exchange
        if self.sock is not None:
            # Kept from an earlier request, or made ready just now for TLS.
            exchange.has_connected = True
            exchange.hold(self.sock.fileno())
        # As it was given: urllib3 has written its percent signs anew.
        parts = urlsplit(_full_url(exchange.request))
        url = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        super().request(method, url, *args, **options)
        exchange.sent_at = time.monotonic()

    def getresponse(self) -> Any:
        exchange = _current.exchange
        try:
            response = super().getresponse()
        except http.client.RemoteDisconnected:
            exchange.failure = exchange.failure or exchange.of_our_certificate([]) or failures.CLOSED_EMPTY
            raise
        except http.client.HTTPException:
            exchange.failure = exchange.failure or failures.NOT_HTTP
            raise
        self.last_used_at = time.monotonic()
        return response


def _make_tunnel(connection: socket.socket, exchange: _Exchange, asking: bytes) -> None:
    """Ask the proxy for one. The watchdog ends this, too."""
    head = b""
    try:
        connection.settimeout(max(0.001, exchange.seconds_left()))
        connection.sendall(asking)
        # Byte by byte, so that nothing of what follows is taken.
        while not head.endswith(b"\r\n\r\n") and len(head) < MAX_HEADER_BYTES:
            byte = connection.recv(1)
            if not byte:
                break
            head += byte
    except OSError as error:
        connection.close()
        is_late = isinstance(error, TimeoutError) or exchange.is_late
        # It may as well wait for the receiver.
        exchange.failure = failures.LATE_CONNECTION if is_late else failures.PROXY_BROKE_OFF
        raise
    found = re.match(rb"HTTP/1\.[01] ([0-9]{3})", head)
    if found is None or not head.endswith(b"\r\n\r\n"):
        connection.close()
        exchange.failure = failures.LATE_CONNECTION if exchange.is_late else failures.PROXY_BROKE_OFF
        raise ConnectionResetError
    status_code = int(found[1])
    if not 200 <= status_code < 300:
        connection.close()
        exchange.failure = proxies.refused(status_code)
        raise ConnectionRefusedError


class _TlsConnection(_Connection, HTTPSConnection):
    def connect(self) -> None:
        exchange = _current.exchange
        try:
            super().connect()
        except ssl.SSLCertVerificationError as error:
            exchange.failure = failures.certificate_fault(error.verify_code) or failures.BAD_HANDSHAKE
            raise
        except (ssl.SSLError, OSError) as error:
            if exchange.failure is None:
                is_late = isinstance(error, TimeoutError) or exchange.is_late
                exchange.failure = (
                    failures.LATE_CONNECTION
                    if is_late
                    else exchange.of_our_certificate([error]) or failures.BAD_HANDSHAKE
                )
            raise
        connected_at = exchange.began_at + (exchange.connect_seconds or 0.0)
        exchange.tls_seconds = time.monotonic() - connected_at


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Pools:
    """One pool for each name at each address; those unused for longest go."""

    def __init__(self, verify_ca: str, max_pools: int) -> None:
        self._tls = _tls_context()
        self._tls.load_verify_locations(verify_ca)
        self._max_pools = max_pools
        self._verify_ca = verify_ca
        self._pools: OrderedDict[tuple[str, str, int, str | None, str | None], urllib3.HTTPConnectionPool] = (
            OrderedDict()
        )
        self._lock = threading.Lock()

    def get(self, exchange: _Exchange) -> urllib3.HTTPConnectionPool:
        destination = exchange.request.destination
        own = destination.tls
        key = (
            destination.scheme,
            destination.host,
            destination.port,
            exchange.address,
            None if own is None else own.name,
        )
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = self._make(destination)
            self._pools.move_to_end(key)
            surplus = self._pools.popitem(last=False)[1] if len(self._pools) > self._max_pools else None
        if surplus is not None:
            surplus.close()
        return pool

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _make(self, destination: Destination) -> urllib3.HTTPConnectionPool:
        host, port = destination.host, destination.port
        if destination.scheme == "https":
            context = self._tls if destination.tls is None else self._own_context(destination.tls)
            return _TlsPool(host, port, maxsize=CONNECTIONS_PER_POOL, ssl_context=context)
        return _Pool(host, port, maxsize=CONNECTIONS_PER_POOL)

    def _own_context(self, own: OwnTls) -> ssl.SSLContext:
        context = _tls_context()
        if own.ca_certificates is None:
            context.load_verify_locations(self._verify_ca)
        else:
            context.load_verify_locations(cadata=own.ca_certificates)
        if own.certificate is not None and own.private_key is not None:
            # Python's module reads keys from files alone. This one is memory, and gone at the end of the block.
            memory = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
            with os.fdopen(memory, "wb") as file:
                file.write(own.private_key.encode() + own.certificate.encode())
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return context


def _tls_context() -> ssl.SSLContext:
    return create_urllib3_context(ssl_minimum_version=ssl.TLSVersion.TLSv1_2, cert_reqs=ssl.CERT_REQUIRED)


class _Adapter(requests.adapters.HTTPAdapter):
    """Takes the connection from our pools, which know address and trust already."""

    def __init__(self, pools: _Pools) -> None:
        super().__init__(max_retries=False)
        self._pools = pools

    def get_connection_with_tls_context(self, *_args: Any, **_options: Any) -> Any:
        return self._pools.get(_current.exchange)

    def cert_verify(self, *_args: Any, **_options: Any) -> None:
        """Nothing: certificates are checked by the context of the pool, against the host name."""

    def close(self) -> None:
        super().close()
        self._pools.close()


def _prepared(request: OutgoingRequest) -> requests.PreparedRequest:
    """As `requests` wants it, without its preparing: that would add headers and rewrite the URL."""
    headers = urllib3.HTTPHeaderDict()
    for line in request.headers:
        name, _, value = line.partition(":")
        # Line breaks would begin another header. `validation` refuses them; what slips through must not be sent.
        text = "".join(each for each in value.strip() if each >= " " or each == "\t")
        # http.client writes Latin-1; this makes the bytes those of UTF-8.
        headers.add(name, text.encode().decode("latin-1"))
    for name in ("user-agent", "accept-encoding"):
        if name not in headers:
            headers[name] = SKIP_HEADER
    prepared = requests.PreparedRequest()
    prepared.method = request.method
    prepared.url = _full_url(request)
    prepared.body = None
    if request.method != "GET":
        prepared.body = request.body
        headers["content-length"] = str(len(request.body))
    prepared.headers = headers  # type: ignore[assignment]  # the one mapping that can hold a name twice
    return prepared


def _full_url(request: OutgoingRequest) -> str:
    url = request.destination.url
    if not request.query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{request.query}"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _chain(error: BaseException | None) -> Any:
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
