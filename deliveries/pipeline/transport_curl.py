"""The transport of the hot path: libcurl, thousands of requests in the air on one thread.

libcurl says which sockets it waits for and when it wants to be woken; an epoll of our own does the waiting, together
with the resolver's sockets and the caller's. (`perform` and `select` look at every transfer each time: two thousand
hanging ones make them fifty times slower.)

libcurl never looks a name up. Each transfer is told the address to connect to (`CONNECT_TO`), which is part of what
its connection pool is keyed on, beside host name and port; so a connection is used again only for the same name at the
same address, and nothing that one transfer was told is remembered for another. Certificate check, SNI and Host stay on
the name. The socket-open callback then judges the address that is really about to be connected to.
"""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import certifi
import pycurl

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
    OutgoingRequest,
    OwnTls,
)

IDLE_SECONDS = 60
"""A connection unused for longer is closed instead of used again; receivers give up on theirs after about a minute."""

FIRST_ADDRESS_SECONDS = 3.0
"""For connecting, while the name has another address to try."""

AFTER_HANDSHAKE_SECONDS = 1.0
"""A new connection that breaks so soon after the handshake was ended because of the handshake."""

EVENTS_PER_WAIT = 512
"""Sockets looked at in one go. More only lets the first answers wait for the last."""

SHORT_HEADER_BYTES = MAX_HEADER_BYTES // MAX_HEADERS
"""As long as all lines are no longer than this, counting them is enough."""

SMALL_BODY_BYTES = 8 * 1024
"""A spare handle may keep the last body up to this size; larger ones are let go at once."""

SEND_BUFFER_BYTES = 16 * 1024
"""As small as libcurl lets it be: the default, 64 KiB for each request in the air, is memory that is never used."""

EXPECT_BYTES = 1024 * 1024
"""From this size on libcurl asks for permission first (`Expect: 100-continue`), which receivers rarely answer."""

# Headers that libcurl would add of its own accord. A line without a value suppresses its own and hides none of ours.
_SUPPRESSED = ["Accept:", "Content-Type:"]
_SUPPRESSED_FOR_LARGE = [*_SUPPRESSED, "Expect:"]

# Numbers of libcurl that pycurl has no name for, or one that misleads: an option, and errors.
_SUPPRESS_CONNECT_HEADERS = 265
_E_WEIRD_SERVER_REPLY = 8
_E_TOO_LARGE = 100

_PROTOCOL_ERRORS = frozenset({pycurl.E_UNSUPPORTED_PROTOCOL, _E_WEIRD_SERVER_REPLY})
_PLATFORM_ERRORS = frozenset({pycurl.E_OUT_OF_MEMORY, pycurl.E_FAILED_INIT, pycurl.E_SSL_CACERT_BADFILE})
_NO_PROXY = frozenset({pycurl.E_COULDNT_CONNECT, pycurl.E_COULDNT_RESOLVE_PROXY})
_BREAKS = frozenset({pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR})
_TLS_ERRORS = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
        pycurl.E_SSL_PINNEDPUBKEYNOTMATCH,
        pycurl.E_USE_SSL_FAILED,
        pycurl.E_SSL_SHUTDOWN_FAILED,
    }
)


class CurlTransport:
    def __init__(
        self,
        *,
        guard: AddressGuard,
        dns_servers: Sequence[str],
        verify_ca: str | None,
        max_connections: int,
        proxy: Proxy | None = None,
    ) -> None:
        self._guard = guard
        self._proxy = proxy
        self._verify_ca = verify_ca or certifi.where()
        self._resolver = Resolver(servers=dns_servers)
        self._router = Router(guard=guard, resolver=self._resolver)
        self._epoll = select.epoll()
        self._epoll.register(self._resolver.fileno(), select.EPOLLIN)
        self._watched: set[int] = set()
        self._wanted: set[int] = set()
        self._registered: dict[int, int] = {}
        self._curl_due_at: float | None = None
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, max_connections)
        self._max_spare = max_connections
        self._spare: list[_Transfer] = []
        # Both in the order of starting: the first is the oldest.
        self._sending: dict[pycurl.Curl, _Transfer] = {}
        self._resolving: dict[_Resolving, None] = {}
        self._answers: list[Answer] = []

    def start(self, request: OutgoingRequest) -> None:
        now = time.monotonic()
        route = self._router.known(request.destination, now)
        if route is None:
            resolving = _Resolving(request, time.time())
            self._resolving[resolving] = None
            self._router.ask(request.destination, resolving, now)
        else:
            self._begin(request, route, time.time(), None)

    def poll(self, timeout: float) -> list[Answer]:
        now = time.monotonic()
        deadline = now + timeout
        while True:
            is_woken = self._turn(0.0 if self._answers else deadline - now)
            now = time.monotonic()
            if self._answers or is_woken or now >= deadline:
                answers, self._answers = self._answers, []
                return answers

    def watch(self, fd: int) -> None:
        self._registered.pop(fd, None)
        self._watched.add(fd)
        self._epoll.register(fd, select.EPOLLIN)

    @property
    def in_flight(self) -> int:
        return len(self._sending) + len(self._resolving) + len(self._answers)

    def oldest_started(self) -> float | None:
        sending = next(iter(self._sending.values()), None)
        resolving = next(iter(self._resolving), None)
        return min((oldest.started_at for oldest in (sending, resolving) if oldest is not None), default=None)

    def abort_all(self) -> list[Any]:
        tags = [resolving.request.tag for resolving in self._resolving]
        tags += [answer.tag for answer in self._answers]
        self._router.forget_all()
        self._resolving.clear()
        self._answers.clear()
        for curl, transfer in self._sending.items():
            tags.append(transfer.request.tag)
            self._multi.remove_handle(curl)
            curl.close()
        self._sending.clear()
        return tags

    def close(self) -> None:
        self.abort_all()
        for transfer in self._spare:
            transfer.curl.close()
        self._spare.clear()
        self._multi.close()
        self._resolver.close()
        self._epoll.close()

    # One turn of the loop

    def _turn(self, seconds: float) -> bool:
        """Wait no longer than that for one round of events. True: a watched descriptor is readable."""
        now = time.monotonic()
        if self._curl_due_at is not None and self._curl_due_at <= now:
            self._let_curl_look_at_the_clock()
            # What was just begun may have ended at once, and wants no waiting.
            self._collect()
            now = time.monotonic()
        wait = 0.0 if self._answers else seconds
        if self._curl_due_at is not None:
            wait = min(wait, self._curl_due_at - now)
        if self._resolver.is_busy:
            resolver_wait = self._resolver.due_in(now)
            if resolver_wait is not None:
                wait = min(wait, resolver_wait)

        is_woken = has_resolver_news = False
        socket_action = self._multi.socket_action
        for fd, events in self._epoll.poll(max(0.0, wait), EVENTS_PER_WAIT):
            if fd in self._wanted:
                # Errors and hang-ups are for libcurl to find when it reads.
                readable = pycurl.CSELECT_IN if events & ~select.EPOLLOUT else 0
                socket_action(fd, readable | (pycurl.CSELECT_OUT if events & select.EPOLLOUT else 0))
            elif fd in self._watched:
                is_woken = True
            elif self._registered.pop(fd, None) is not None:
                # Already gone if libcurl has closed it a moment ago, in this very round.
                with contextlib.suppress(OSError):
                    self._epoll.unregister(fd)
            else:
                has_resolver_news = True
        if has_resolver_news or self._resolver.is_busy:
            self._take_routes()
        self._collect()
        return is_woken

    def _let_curl_look_at_the_clock(self) -> None:
        self._curl_due_at = None
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _take_routes(self) -> None:
        for resolving, route, seconds in self._router.advance(time.monotonic()):
            if self._resolving.pop(resolving, _ABSENT) is not _ABSENT:
                self._begin(resolving.request, route, resolving.started_at, seconds)

    def _collect(self) -> None:
        while True:
            queued, succeeded, failed = self._multi.info_read(EVENTS_PER_WAIT)
            for curl in succeeded:
                self._end(self._sending[curl], None)
            for curl, number, message in failed:
                self._end(self._sending[curl], number, message)
            if not queued:
                break

    # A socket that libcurl has no use for at the moment stays registered: between two requests on one connection that
    # saves leaving and entering the epoll again. If something happens to it meanwhile, it is taken out then.

    def _on_socket(self, event: int, fd: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        if event == pycurl.POLL_REMOVE:
            self._wanted.discard(fd)
            return
        self._wanted.add(fd)
        events = _EPOLL_EVENTS[event]
        registered = self._registered.get(fd)
        if registered != events:
            if registered is None:
                self._epoll.register(fd, events)
            else:
                self._epoll.modify(fd, events)
            self._registered[fd] = events

    def _on_new_number(self, fd: int) -> None:
        # The kernel has forgotten the socket that had this number before; so must we.
        self._registered.pop(fd, None)

    def _on_timer(self, milliseconds: int) -> None:
        # libcurl must not be called from here, so even "at once" is only noted.
        self._curl_due_at = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    # A request, from its route to its answer

    def _begin(
        self, request: OutgoingRequest, route: Route, started_at: float, dns_seconds: float | None
    ) -> None:
        if route.failure is not None:
            self._answers.append(route.refusal(request, started_at, dns_seconds))
            return
        if request.destination.tls is not None:
            transfer = _Transfer(
                self._guard,
                self._verify_ca,
                self._on_new_number,
                own_tls=request.destination.tls,
                proxy=self._proxy,
            )
        elif self._spare:
            transfer = self._spare.pop()
        else:
            transfer = _Transfer(self._guard, self._verify_ca, self._on_new_number, proxy=self._proxy)
        transfer.begin(request, route, started_at, dns_seconds)
        self._send(transfer)

    def _send(self, transfer: "_Transfer") -> None:
        try:
            transfer.prepare()
        except (pycurl.error, UnicodeError, ValueError, TypeError):
            # `validation` lets nothing through that cannot be sent. If something is, it is that request's end alone.
            self._answers.append(transfer.answer(pycurl.E_URL_MALFORMAT))
            transfer.curl.close()
            return
        self._sending[transfer.curl] = transfer
        self._multi.add_handle(transfer.curl)

    def _end(self, transfer: "_Transfer", number: int | None, message: str = "") -> None:
        del self._sending[transfer.curl]
        self._multi.remove_handle(transfer.curl)
        if number is not None and transfer.may_try_next_address(number):
            self._router.put_last(transfer.request.destination, transfer.address)
            transfer.turn_to_next_address()
            self._send(transfer)
            return
        self._answers.append(transfer.answer(number, message))
        if len(self._spare) < self._max_spare and not transfer.has_own_tls:
            transfer.let_go()
            self._spare.append(transfer)
        else:
            transfer.curl.close()


_ABSENT = object()

_EPOLL_EVENTS = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


class _Resolving:
    """A request whose host is being looked up."""

    __slots__ = ("request", "started_at")

    def __init__(self, request: OutgoingRequest, started_at: float) -> None:
        self.request = request
        self.started_at = started_at


class _Transfer:
    """One easy handle and the request that it carries at the moment.

    Handles are used again, and each remembers what it was told last: only what differs is set.
    """

    __slots__ = (
        "_address_set",
        "_addresses",
        "_began_at",
        "_body",
        "_body_bytes",
        "_connect_timeout_set",
        "_dns_seconds",
        "_guard",
        "_headers",
        "_is_header_too_large",
        "_is_new_connection",
        "_is_out_of_resources",
        "_is_truncated",
        "_method_set",
        "_on_new_number",
        "_opened",
        "_proxy",
        "_refusal",
        "_timeout_set",
        "_url_set",
        "address",
        "curl",
        "has_own_tls",
        "request",
        "started_at",
    )

    def __init__(
        self,
        guard: AddressGuard,
        verify_ca: str,
        on_new_number: Callable[[int], None],
        *,
        own_tls: OwnTls | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._guard = guard
        self._proxy = proxy
        self.has_own_tls = own_tls is not None
        self._on_new_number = on_new_number
        self._opened: socket.socket | None = None
        self._url_set = ""
        self._address_set = ""
        self._method_set = ""
        self._timeout_set = -1
        self._connect_timeout_set = -1
        self.curl = curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.UPLOAD_BUFFERSIZE, SEND_BUFFER_BYTES)
        if proxy is None:
            curl.setopt(pycurl.PROXY, "")
        else:
            _set_proxy(curl, proxy)
        curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.REDIR_PROTOCOLS, 0)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.HTTP09_ALLOWED, 0)
        curl.setopt(pycurl.PATH_AS_IS, 1)
        curl.setopt(pycurl.USERAGENT, "")
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        curl.setopt(pycurl.CAINFO, verify_ca)
        if own_tls is not None:
            _set_own_tls(curl, own_tls)
        curl.setopt(pycurl.MAXAGE_CONN, IDLE_SECONDS)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._on_open_socket)
        curl.setopt(pycurl.SOCKOPTFUNCTION, self._on_socket_made)
        curl.setopt(pycurl.HEADERFUNCTION, self._on_header)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)

    def begin(
        self, request: OutgoingRequest, route: Route, started_at: float, dns_seconds: float | None
    ) -> None:
        self.request = request
        self.started_at = started_at
        self._addresses = route.addresses
        self.address = route.addresses[0]
        self._began_at = time.monotonic()
        self._dns_seconds = dns_seconds

    def may_try_next_address(self, number: int) -> bool:
        """Nothing was sent yet, there is another address, and time left for it."""
        return (
            len(self._addresses) > 1
            and self._proxy is None
            and number in (pycurl.E_COULDNT_CONNECT, pycurl.E_OPERATION_TIMEDOUT)
            and not self._is_out_of_resources
            and self.curl.getinfo(pycurl.CONNECT_TIME) == 0.0
            and self._seconds_left() > 0.0
        )

    def turn_to_next_address(self) -> None:
        self._addresses = self._addresses[1:]
        self.address = self._addresses[0]

    def prepare(self) -> None:
        """Tell the handle what to send, where, and how long it may take."""
        self._headers: list[bytes] = []
        self._is_header_too_large = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._is_truncated = False
        self._refusal: str | None = None
        self._is_out_of_resources = False
        self._is_new_connection = False

        request = self.request
        destination = request.destination
        setopt = self.curl.setopt

        url = destination.url
        if request.query:
            url = f"{url}{'&' if '?' in url else '?'}{request.query}"
        if url != self._url_set:
            setopt(pycurl.URL, url)
            self._url_set = url
        if self.address != self._address_set:
            setopt(
                pycurl.CONNECT_TO, [f"::[{self.address}]:" if ":" in self.address else f"::{self.address}:"]
            )
            self._address_set = self.address

        body = request.body
        if request.method != self._method_set:
            self._set_method(request.method)
        if request.method != "GET":
            setopt(pycurl.POSTFIELDS, body)
        setopt(
            pycurl.HTTPHEADER,
            _sendable(request.headers) + (_SUPPRESSED if len(body) < EXPECT_BYTES else _SUPPRESSED_FOR_LARGE),
        )

        seconds = destination.timeout_seconds
        connect_seconds = CONNECT_SECONDS
        if len(self._addresses) > 1:
            seconds = self._seconds_left()
            connect_seconds = min(FIRST_ADDRESS_SECONDS, seconds / 2)
        timeout = max(1, int(seconds * 1000))
        if timeout != self._timeout_set:
            setopt(pycurl.TIMEOUT_MS, timeout)
            self._timeout_set = timeout
        connect_timeout = max(1, int(min(seconds, connect_seconds) * 1000))
        if connect_timeout != self._connect_timeout_set:
            setopt(pycurl.CONNECTTIMEOUT_MS, connect_timeout)
            self._connect_timeout_set = connect_timeout

    def answer(self, number: int | None, message: str = "") -> Answer:
        getinfo = self.curl.getinfo
        failure = None
        if number is not None or not _ends_with_empty_line(self._headers):
            failure = self._failure(number, message)
        # Below 200 it only announces another one.
        status_code = getinfo(pycurl.RESPONSE_CODE)
        total = getinfo(pycurl.TOTAL_TIME)
        is_new_connection = self._is_new_connection
        connected = getinfo(pycurl.CONNECT_TIME) if is_new_connection else 0.0
        secured = getinfo(pycurl.APPCONNECT_TIME) if is_new_connection else 0.0
        first_byte = getinfo(pycurl.STARTTRANSFER_TIME) if self._headers else 0.0
        dns_seconds = self._dns_seconds
        return Answer(
            tag=self.request.tag,
            failure=None if failure is None else failure.outcome,
            detail="" if failure is None else failure.detail,
            is_platform_fault=failure is not None and failure.is_platform_fault,
            status_code=status_code if status_code >= 200 else None,
            response_headers=b"".join(self._headers),
            response_body=b"".join(self._body),
            is_truncated=self._is_truncated,
            remote_ip=None if self._refusal is not None else self.address,
            started_at=self.started_at,
            duration_ms=(total + (dns_seconds or 0.0)) * 1000,
            dns_ms=None if dns_seconds is None else dns_seconds * 1000,
            connect_ms=connected * 1000 if connected else None,
            tls_ms=(secured - connected) * 1000 if secured else None,
            first_byte_ms=(first_byte - getinfo(pycurl.PRETRANSFER_TIME)) * 1000 if first_byte else None,
            is_new_connection=is_new_connection,
        )

    def let_go(self) -> None:
        """Keep nothing large alive until the handle is used again."""
        if len(self.request.body) > SMALL_BODY_BYTES:
            self.curl.setopt(pycurl.POSTFIELDS, b"")
        # There still, if it could not be duplicated.
        self._close_opened()
        del self.request
        self._headers = []
        self._body = []

    def _close_opened(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _seconds_left(self) -> float:
        return self.request.destination.timeout_seconds - (time.monotonic() - self._began_at)

    def _set_method(self, method: str) -> None:
        match method:
            case "GET":
                self.curl.setopt(pycurl.HTTPGET, 1)
                self.curl.unsetopt(pycurl.CUSTOMREQUEST)
            case "POST":
                self.curl.setopt(pycurl.POST, 1)
                self.curl.unsetopt(pycurl.CUSTOMREQUEST)
            case _:
                self.curl.setopt(pycurl.POST, 1)
                self.curl.setopt(pycurl.CUSTOMREQUEST, method)
        self._method_set = method

    def _failure(self, number: int | None, message: str) -> Failure | None:
        """What libcurl's error means. None: nothing bad, the answer was cut by us."""
        if self._is_out_of_resources or number in _PLATFORM_ERRORS:
            return failures.OUT_OF_RESOURCES
        if self._refusal is not None:
            return Failure(Outcome.ADDRESS_BLOCKED, self._refusal)
        if self._proxy is not None and (of_proxy := self._failure_of_proxy(number)) is not None:
            return of_proxy
        if self._is_header_too_large or number == _E_TOO_LARGE:
            return failures.HEADERS_TOO_LARGE
        if self._is_truncated:
            return None
        if number is None or number == pycurl.E_PARTIAL_FILE:
            # None: libcurl takes headers that break off for headers that end.
            return failures.CLOSED_MIDWAY
        if number == pycurl.E_OPERATION_TIMEDOUT:
            return self._time_out()
        if not self._headers and (of_ours := self._failure_of_our_certificate(number, message)):
            return of_ours
        if number in _TLS_ERRORS:
            other = (
                failures.WRONG_HOST if number == pycurl.E_PEER_FAILED_VERIFICATION else failures.BAD_HANDSHAKE
            )
            return failures.certificate_fault(self.curl.getinfo(pycurl.SSL_VERIFYRESULT)) or other
        if number in _PROTOCOL_ERRORS:
            return failures.NOT_HTTP
        if number == pycurl.E_URL_MALFORMAT:
            return failures.BROKEN_INSIDE
        os_errno = self.curl.getinfo(pycurl.OS_ERRNO)
        if number == pycurl.E_COULDNT_CONNECT:
            return failures.connect_failure(os_errno)
        if number == pycurl.E_GOT_NOTHING:
            return failures.CLOSED_EMPTY
        if number == pycurl.E_SEND_ERROR or (number == pycurl.E_RECV_ERROR and os_errno):
            return failures.RESET
        return failures.UNINTELLIGIBLE

    def _failure_of_proxy(self, number: int | None) -> Failure | None:
        """None: the tunnel stood, and what went wrong is between us and the receiver."""
        code = self.curl.getinfo(pycurl.HTTP_CONNECTCODE)
        if code and not 200 <= code < 300:
            return proxies.refused(code)
        if number in _NO_PROXY:
            return failures.PROXY_UNREACHABLE
        if code or not self._is_new_connection:
            return None
        if number == pycurl.E_OPERATION_TIMEDOUT:
            # Once it took the connection, it may as well wait for the receiver.
            return None if self.curl.getinfo(pycurl.CONNECT_TIME) else failures.PROXY_UNREACHABLE
        return failures.PROXY_BROKE_OFF if number in _BREAKS else None

    def _failure_of_our_certificate(self, number: int | None, message: str) -> Failure | None:
        own_tls = self.request.destination.tls
        has_one = own_tls is not None and own_tls.certificate is not None
        if has_one and self._is_new_connection and number in _BREAKS:
            secured = self.curl.getinfo(pycurl.APPCONNECT_TIME)
            if secured and self.curl.getinfo(pycurl.TOTAL_TIME) - secured < AFTER_HANDSHAKE_SECONDS:
                return failures.of_our_certificate(message, has_one=True) or failures.PROBABLY_REFUSED_OURS
        return failures.of_our_certificate(message, has_one=has_one)

    def _time_out(self) -> Failure:
        is_secure = self.request.destination.scheme == "https"
        phase = pycurl.APPCONNECT_TIME if is_secure else pycurl.CONNECT_TIME
        if self._is_new_connection and self.curl.getinfo(phase) == 0.0:
            return failures.LATE_CONNECTION
        return failures.LATE_REST if self._headers else failures.LATE_ANSWER

    # Called by libcurl

    def _on_open_socket(
        self, _purpose: int, address: tuple[int, int, int, tuple[Any, ...]]
    ) -> socket.socket | int:
        family, kind, protocol, (host, port, *_) = address
        if self._proxy is None:
            self._refusal = self._guard.refusal(host, port)
            if self._refusal is not None:
                return int(pycurl.SOCKET_BAD)
        elif host not in self._proxy.addresses or port != self._proxy.port:
            # Everything goes to the proxy, which the settings name; so nothing else is connected to.
            return int(pycurl.SOCKET_BAD)
        try:
            self._opened = socket.socket(family, kind, protocol)
        except OSError as error:
            self._is_out_of_resources = failures.is_exhausted(error.errno)
            return int(pycurl.SOCKET_BAD)
        return self._opened

    def _on_socket_made(self, fd: int, _purpose: int) -> int:
        # pycurl has made a duplicate of the socket that it was given, and wants no more of ours.
        self._close_opened()
        self._is_new_connection = True
        self._on_new_number(fd)
        return int(pycurl.SOCKOPT_OK)

    def _on_header(self, line: bytes) -> int | None:
        headers = self._headers
        headers.append(line)
        if len(line) <= SHORT_HEADER_BYTES and len(headers) <= MAX_HEADERS:
            return None
        if len(headers) <= MAX_HEADERS and sum(map(len, headers)) <= MAX_HEADER_BYTES:
            return None
        headers.pop()
        self._is_header_too_large = True
        return -1

    def _on_body(self, chunk: bytes) -> int | None:
        self._body_bytes += len(chunk)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(chunk)
            return None
        self._body.append(chunk[: MAX_BODY_BYTES - self._body_bytes])
        self._is_truncated = True
        return -1


def _set_proxy(curl: pycurl.Curl, proxy: Proxy) -> None:
    address = proxy.address or proxy.host
    curl.setopt(pycurl.PROXY, f"http://[{address}]" if ":" in address else f"http://{address}")
    curl.setopt(pycurl.PROXYPORT, proxy.port)
    curl.setopt(pycurl.NOPROXY, "")
    # For http, too: the proxy is asked for the address that was judged, and sees nothing of the request.
    curl.setopt(pycurl.HTTPPROXYTUNNEL, 1)
    curl.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
    if proxy.user is not None:
        curl.setopt(pycurl.PROXYUSERNAME, proxy.user)
        curl.setopt(pycurl.PROXYPASSWORD, proxy.password)


def _set_own_tls(curl: pycurl.Curl, own: OwnTls) -> None:
    # libcurl uses a connection again only where these are the same to the byte. The name, outside of what PEM reads,
    # is what two endpoints with the same certificates do not have in common.
    mark = f"{own.name}\n"
    if own.ca_certificates is not None:
        curl.unsetopt(pycurl.CAINFO)
        curl.setopt(pycurl.CAINFO_BLOB, (mark + own.ca_certificates).encode())
    if own.certificate is not None and own.private_key is not None:
        curl.setopt(pycurl.SSLCERTTYPE, "PEM")
        curl.setopt(pycurl.SSLKEYTYPE, "PEM")
        curl.setopt(pycurl.SSLCERT_BLOB, (mark + own.certificate).encode())
        curl.setopt(pycurl.SSLKEY_BLOB, own.private_key.encode())
    curl.setopt(pycurl.SSL_SESSIONID_CACHE, 0)


def _other_tls_fault(number: int) -> str:
    if number == pycurl.E_PEER_FAILED_VERIFICATION:
        return "The certificate is not valid for this host name."
    return "The TLS handshake failed."


def _ends_with_empty_line(headers: list[bytes]) -> bool:
    # Trailers of a chunked body may come after it.
    return bool(headers) and (headers[-1] == b"\r\n" or b"\r\n" in headers or b"\n" in headers)


def _sendable(headers: list[str]) -> list[Any]:
    """The lines in the form in which libcurl sends each of them as it is."""
    # Tests of the whole text, several times faster than of each line. The bar only marks the ends: a value that has
    # one in the wrong place takes the long way in vain.
    text = "|".join(headers) + "|"
    if text.isascii() and text.isprintable() and ":|" not in text and ": |" not in text:
        return headers
    lines = []
    for line in headers:
        name, _, value = line.partition(":")
        value = value.strip()
        # Line breaks would begin another header. `validation` refuses them; what slips through must not be sent.
        text = f"{name}: {value}" if value else f"{name};"
        lines.append("".join(each for each in text if each >= " " or each == "\t").encode())
    return lines
