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
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import certifi
import pycurl

from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.curl_transfer import Transfer
from deliveries.pipeline.proxy import Proxy
from deliveries.pipeline.resolver import Resolver
from deliveries.pipeline.routes import Route, Router
from deliveries.pipeline.transport import Answer, OutgoingRequest, always

EVENTS_PER_WAIT = 512
"""Sockets looked at in one go. More only lets the first answers wait for the last."""

EVENTS_PER_LOOK = 8
"""After so many on the socket of one request, it is looked at how much came; most answers take two."""

MOST_BETWEEN_LOOKS = 1024 * 1024
"""Bytes. Headers and body end far below it, but libcurl goes through what stands between chunks without an end."""

_BYTES_RECEIVED = struct.Struct("128xQ")
"""In Linux' `tcp_info`."""


class CurlTransport:
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
        self.most_in_flight = max_in_flight
        self._guard = guard
        self._proxy = proxy
        self._verify_ca = verify_ca or certifi.where()
        self._resolver = Resolver(servers=dns_servers)
        self._router = Router(guard=guard, resolver=self._resolver)
        self._epoll = select.epoll()
        self._epoll.register(self._resolver.fileno(), select.EPOLLIN)
        self._watched: set[int] = set()
        # How often something has happened to each.
        self._wanted: dict[int, int] = {}
        self._received: dict[int, int] = {}
        self._registered: dict[int, int] = {}
        self._curl_due_at: float | None = None
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, max_connections)
        self._max_spare = max_connections
        self._spare: list[Transfer] = []
        # Both in the order of starting: the first is the oldest.
        self._sending: dict[pycurl.Curl, Transfer] = {}
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

    def poll(self, timeout: float, *, may_go_on: Callable[[], bool] = always) -> list[Answer]:
        now = time.monotonic()
        deadline = now + timeout
        while True:
            is_woken = self._turn(0.0 if self._answers else deadline - now, may_go_on)
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

    def _turn(self, seconds: float, may_go_on: Callable[[], bool]) -> bool:
        """Wait no longer than that for one round of events. True: a watched descriptor is readable, or it is over."""
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
        wanted = self._wanted
        ready = self._epoll.poll(max(0.0, wait), EVENTS_PER_WAIT)
        if not may_go_on():
            # A socket that became ready during the wait would carry a request out.
            return True
        for fd, events in ready:
            count = wanted.get(fd)
            if count is not None:
                wanted[fd] = count + 1
                if count % EVENTS_PER_LOOK == EVENTS_PER_LOOK - 1:
                    self._look_at(fd, is_first=count < EVENTS_PER_LOOK)
                # Errors and hang-ups are for libcurl to find when it reads.
                readable = pycurl.CSELECT_IN if events & ~select.EPOLLOUT else 0
                socket_action(fd, readable | (pycurl.CSELECT_OUT if events & select.EPOLLOUT else 0))
            elif fd in self._watched:
                is_woken = True
            elif fd in self._registered:
                self._happened_unasked(fd, events)
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
    # saves leaving and entering the epoll again.

    def _on_socket(self, event: int, fd: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        if event == pycurl.POLL_REMOVE:
            self._wanted.pop(fd, None)
            return
        self._wanted.setdefault(fd, 0)
        events = _EPOLL_EVENTS[event]
        registered = self._registered.get(fd)
        if registered != events:
            if registered is None:
                self._epoll.register(fd, events)
            else:
                self._epoll.modify(fd, events)
            self._registered[fd] = events

    def _happened_unasked(self, fd: int, events: int) -> None:
        """Something came that is no answer, or the end: this connection is used no more.

        libcurl, which looks for that once a second at most, would take it for the answer to the next request on it,
        whosever that is.
        """
        del self._registered[fd]
        # Already gone if libcurl has closed it a moment ago, in this very round.
        with contextlib.suppress(OSError):
            if events & ~select.EPOLLOUT:
                self._epoll.unregister(fd)
                with _borrowed(fd) as connection:
                    connection.shutdown(socket.SHUT_RDWR)
            else:
                # Its answer was there as soon as libcurl had sent the request: nothing was waited for but to send.
                self._epoll.modify(fd, select.EPOLLIN)
                self._registered[fd] = select.EPOLLIN

    def _look_at(self, fd: int, *, is_first: bool) -> None:
        """End it, if more comes than an answer may have."""
        with _borrowed(fd) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size)
            # Shorter where the system is no Linux, or does as if it were.
            received = _BYTES_RECEIVED.unpack(info)[0] if len(info) == _BYTES_RECEIVED.size else 0
            before = received if is_first else self._received.get(fd, received)
            self._received[fd] = received
            if received - before > MOST_BETWEEN_LOOKS:
                connection.shutdown(socket.SHUT_RDWR)

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
            transfer = Transfer(
                self._guard,
                self._verify_ca,
                self._on_new_number,
                own_tls=request.destination.tls,
                proxy=self._proxy,
            )
        elif self._spare:
            transfer = self._spare.pop()
        else:
            transfer = Transfer(self._guard, self._verify_ca, self._on_new_number, proxy=self._proxy)
        transfer.begin(request, route, started_at, dns_seconds)
        self._send(transfer)

    def _send(self, transfer: Transfer) -> None:
        try:
            transfer.prepare()
        except (pycurl.error, UnicodeError, ValueError, TypeError):
            # `validation` lets nothing through that cannot be sent. If something is, it is that request's end alone.
            self._answers.append(transfer.answer(pycurl.E_URL_MALFORMAT))
            transfer.curl.close()
            return
        self._sending[transfer.curl] = transfer
        self._multi.add_handle(transfer.curl)

    def _end(self, transfer: Transfer, number: int | None, message: str = "") -> None:
        del self._sending[transfer.curl]
        self._multi.remove_handle(transfer.curl)
        if number is not None and transfer.may_try_next_address(number):
            self._router.put_last(transfer.request.destination, transfer.address)
            transfer.turn_to_next_address()
            self._send(transfer)
            return
        if number is not None and transfer.may_try_anew(number):
            transfer.insist_on_new_connection()
            self._send(transfer)
            return
        self._answers.append(transfer.answer(number, message))
        is_like_others = not (transfer.has_own_tls or transfer.wants_new_connection)
        if is_like_others and len(self._spare) < self._max_spare:
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


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """libcurl's, which goes on with it: of one that is shut down it finds out when it reads or sends, and takes another."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fd)
    try:
        with contextlib.suppress(OSError):
            yield connection
    finally:
        connection.detach()


class _Resolving:
    """A request whose host is being looked up."""

    __slots__ = ("request", "started_at")

    def __init__(self, request: OutgoingRequest, started_at: float) -> None:
        self.request = request
        self.started_at = started_at
