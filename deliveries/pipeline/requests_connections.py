"""The connections of `transport_requests`: urllib3's, to the address that was judged, with heads counted as they are read.

urllib3 makes and calls these classes itself. What they work for at the moment is `current.exchange`.
"""

import http.client
import os
import re
import socket
import ssl
import threading
import time
from collections import OrderedDict
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import SKIP_HEADER
from urllib3.util.ssl_ import create_urllib3_context

from deliveries.pipeline import failures
from deliveries.pipeline import proxy as proxies
from deliveries.pipeline.failures import Failure
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.requests_exchange import Exchange, current
from deliveries.pipeline.resolver import has_family_of
from deliveries.pipeline.transport import (
    IDLE_SECONDS,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    Destination,
    OutgoingRequest,
    OwnTls,
)

CONNECTIONS_PER_POOL = 4
"""Kept for one name at one address. More may be in use; they are closed afterwards."""


class _Reader:
    """The receiver's bytes, as http.client reads them: keeps the head, and stops it past the caps."""

    def __init__(self, file: Any, exchange: Exchange) -> None:
        self._file = file
        self._exchange = exchange

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        exchange = self._exchange
        if not exchange.is_reading_head:
            # Sizes of chunks, and trailers, which may come without an end.
            exchange.is_at_end = exchange.is_at_end or not line
            exchange.line_bytes += len(line)
            if exchange.line_bytes > MAX_HEADER_BYTES:
                exchange.failure = failures.HEADERS_TOO_LARGE
                raise ConnectionResetError
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
        self.fp: Any = _Reader(self.fp, current.exchange)

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]  # the one place where it is known early
        current.exchange.status_code = status
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
        exchange = current.exchange
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
        exchange = current.exchange
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
            exchange.failure = (
                failures.LATE_CONNECTION
                if is_late
                else failures.connect_failure(error.errno, has_family=partial(has_family_of, address))
            )
            if proxy is not None and not failures.is_exhausted(error.errno):
                exchange.failure = failures.PROXY_UNREACHABLE
            raise
        if proxy is not None:
            _make_tunnel(connection, exchange, proxy.connect_request(target, self.port))
        exchange.has_connected = True
        exchange.connect_seconds = time.monotonic() - began_at
        return connection

    def request(self, method: str, url: str, *args: Any, **options: Any) -> None:
        exchange = current.exchange
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
        exchange = current.exchange
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


def _make_tunnel(connection: socket.socket, exchange: Exchange, asking: bytes) -> None:
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
        exchange = current.exchange
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


class Pools:
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

    def get(self, exchange: Exchange) -> urllib3.HTTPConnectionPool:
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
                try:
                    pool = self._pools[key] = self._make(destination)
                except ssl.SSLError:
                    exchange.failure = failures.UNUSABLE_OWN
                    raise
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


class Adapter(requests.adapters.HTTPAdapter):
    """Takes the connection from our pools, which know address and trust already."""

    def __init__(self, pools: Pools) -> None:
        super().__init__(max_retries=False)
        self._pools = pools

    def get_connection_with_tls_context(self, *_args: Any, **_options: Any) -> Any:
        return self._pools.get(current.exchange)

    def cert_verify(self, *_args: Any, **_options: Any) -> None:
        """Nothing: certificates are checked by the context of the pool, against the host name."""

    def close(self) -> None:
        super().close()
        self._pools.close()


def prepare(request: OutgoingRequest) -> requests.PreparedRequest:
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
