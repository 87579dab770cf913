"""Finds the addresses of host names, without blocking and without letting one tenant's names delay another's.

Used by `routes`, which judges what is found. libcurl's own resolver has a few threads for everybody: behind two hundred
names that hang, a healthy one times out. Here each tenant has a few look-ups in flight, and the rest of its names wait
in a queue of its own. Everything happens on the caller's thread, in `advance`, whenever the descriptor is readable.
Every `now` is time.monotonic().
"""

import errno
import heapq
import itertools
import select
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import pycares
from pycares import errno as ares

KEEP_SECONDS = 30.0
"""How long found addresses are used. After that a changed record takes effect, and is judged anew."""

KEEP_FAILURE_SECONDS = 5.0
"""How long a failure is repeated without asking again."""

LOOKUP_SECONDS = 5.0
"""One look-up takes no longer, from the moment it is begun; less if the request's own time-out is shorter."""

QUEUE_SECONDS = 20.0
"""No request waits longer for its turn in its tenant's queue: only a tenant with dozens of dead names gets there."""

LOOKUPS_PER_TENANT = 4
"""In flight at once."""

SILENT_LOOKUPS_PER_TENANT = 2
"""Of those, for names that got no answer the last time, so that a tenant's dead names leave room for its good ones."""

MAX_CACHED_NAMES = 20_000
"""Some 500 bytes each. Beyond it the names looked up longest ago go."""

MAX_ADDRESSES = 8
"""Of each family; a name with a thousand addresses is not worth judging a thousand."""

# From ares.h; pycares does not export it. Sorting would open a socket per address.
_ARES_AI_NOSORT = 1 << 7
_TRY_SECONDS = 1.5
_TRIES = 2


@dataclass(frozen=True, slots=True)
class Lookup:
    """What came of looking a name up: addresses (IPv4 first), or why there are none."""

    addresses: tuple[str, ...]
    detail: str
    is_silent: bool
    """Nobody answered in time."""
    is_platform_fault: bool
    """The look-up could not be made at all."""
    expires_at: float
    seconds: float


@dataclass(slots=True, eq=False)
class _Waiter:
    token: Any
    seconds: float
    is_done: bool = False


@dataclass(slots=True, eq=False)
class _Pending:
    """A name that somebody waits for: queued (`began` is None), or in flight on the account of `tenant_id`."""

    host: str
    waiters: list[_Waiter]
    is_silent: bool
    began: float | None = None
    tenant_id: UUID | None = None
    is_done: bool = False


@dataclass(slots=True, eq=False)
class _Tenant:
    in_flight: int = 0
    silent_in_flight: int = 0
    queue: deque[_Pending] = field(default_factory=deque)
    silent_queue: deque[_Pending] = field(default_factory=deque)


class Resolver:
    """Looks names up for tokens; each token comes back from `advance` exactly once, unless `forget_all` was called.

    `servers` ("ip:port") replace those of the system. /etc/hosts is honoured, search domains are not.
    """

    def __init__(self, *, servers: Sequence[str] = ()) -> None:
        self._epoll = select.epoll()
        self._channel = pycares.Channel(
            sock_state_cb=self._on_socket,
            servers=list(servers) or None,
            timeout=_TRY_SECONDS,
            tries=_TRIES,
            # Not `lookups`: pycares 5.2 hands c-ares memory that is freed by then, and some channels then look up
            # nothing. The system's default is the hosts file first, and name servers next.
            flags=pycares.ARES_FLAG_NOSEARCH,
        )
        self._descriptors: set[int] = set()
        self._cache: dict[str, Lookup] = {}
        self._pending: dict[str, _Pending] = {}
        self._tenants: dict[UUID, _Tenant] = {}
        self._answered: list[tuple[_Pending, tuple[str, ...], int | None]] = []
        self._results: list[tuple[Any, Lookup]] = []
        self._deadlines: list[tuple[float, int, _Pending, _Waiter | None, bool]] = []
        self._order = itertools.count()
        self._asking = 0
        self._is_closed = False

    def fileno(self) -> int:
        """Readable when `advance` has something to read."""
        return self._epoll.fileno()

    def cached(self, host: str, now: float) -> Lookup | None:
        found = self._cache.get(host)
        return found if found is not None and found.expires_at > now else None

    def ask(self, *, host: str, tenant_id: UUID, seconds: float, token: Any, now: float) -> None:
        """Look the name up, or join whoever is doing so. `seconds`: the most that this token waits for the look-up."""
        waiter = _Waiter(token, min(seconds, LOOKUP_SECONDS))
        pending = self._pending.get(host)
        if pending is None:
            last = self._cache.get(host)
            pending = _Pending(host, [], is_silent=last is not None and last.is_silent)
            self._pending[host] = pending
        pending.waiters.append(waiter)
        if pending.began is not None:
            self._set_deadline(now + waiter.seconds, pending, waiter)
            return
        # Queued by another tenant as well, it is begun by whichever has room first.
        self._set_deadline(now + QUEUE_SECONDS, pending, waiter, is_for_queue=True)
        tenant = self._tenants.setdefault(tenant_id, _Tenant())
        (tenant.silent_queue if pending.is_silent else tenant.queue).append(pending)
        self._begin_what_has_room(tenant_id, tenant, now)

    def advance(self, now: float) -> list[tuple[Any, Lookup]]:
        """Read what has come, give up on what is late, begin what has room. Returns what each token waited for."""
        for fd, events in self._epoll.poll(0):
            readable = fd if events & ~select.EPOLLOUT else pycares.ARES_SOCKET_BAD
            writable = fd if events & select.EPOLLOUT else pycares.ARES_SOCKET_BAD
            self._channel.process_fd(readable, writable)
        if self._asking:
            self._channel.process_fd(pycares.ARES_SOCKET_BAD, pycares.ARES_SOCKET_BAD)
        while self._answered:
            pending, addresses, status = self._answered.pop()
            if not pending.is_done:
                self._finish(pending, addresses, status, now)
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, pending, waiter, is_for_queue = heapq.heappop(self._deadlines)
            if pending.is_done or (is_for_queue and pending.began is not None):
                continue
            if waiter is None:
                self._finish(pending, (), ares.ARES_ETIMEOUT, now)
            elif not waiter.is_done:
                self._give_up(pending, waiter, now)
        results, self._results = self._results, []
        return results

    @property
    def is_busy(self) -> bool:
        """Whether `advance` has, or will have, anything to do: also when nobody waits for it any more."""
        return bool(self._deadlines or self._asking or self._answered or self._results)

    def due_in(self, now: float) -> float | None:
        """Seconds until `advance` must be called although the descriptor stayed quiet; None: not at all."""
        if self._answered or self._results:
            return 0.0
        wait = self._deadlines[0][0] - now if self._deadlines else None
        if self._asking:
            retry: float = self._channel.timeout(1.0)  # type: ignore[no-untyped-call]  # pycares' own gap
            wait = retry if wait is None else min(wait, retry)
        return None if wait is None else max(0.0, wait)

    def forget_all(self) -> list[Any]:
        """Nobody waits any more. Returns the tokens that did."""
        tokens = [
            waiter.token
            for pending in self._pending.values()
            for waiter in pending.waiters
            if not waiter.is_done
        ]
        tokens += [token for token, _ in self._results]
        for pending in self._pending.values():
            pending.waiters.clear()
        self._results.clear()
        return tokens

    def close(self) -> None:
        # c-ares lets go of its sockets later, on a thread of its own.
        self._is_closed = True
        self._channel.close()
        self._epoll.close()

    # In the order in which they happen to a name

    def _begin_what_has_room(self, tenant_id: UUID, tenant: _Tenant, now: float) -> None:
        while tenant.in_flight < LOOKUPS_PER_TENANT:
            if tenant.queue:
                pending = tenant.queue.popleft()
            elif tenant.silent_queue and tenant.silent_in_flight < SILENT_LOOKUPS_PER_TENANT:
                pending = tenant.silent_queue.popleft()
            else:
                break
            if pending.is_done or pending.began is not None:
                continue
            if all(waiter.is_done for waiter in pending.waiters):
                pending.is_done = True
                self._pending.pop(pending.host, None)
                continue
            self._begin(pending, tenant_id, tenant, now)
        if not (tenant.in_flight or tenant.queue or tenant.silent_queue):
            self._tenants.pop(tenant_id, None)

    def _begin(self, pending: _Pending, tenant_id: UUID, tenant: _Tenant, now: float) -> None:
        pending.began = now
        pending.tenant_id = tenant_id
        tenant.in_flight += 1
        tenant.silent_in_flight += pending.is_silent
        self._set_deadline(now + LOOKUP_SECONDS, pending, None)
        for waiter in pending.waiters:
            self._set_deadline(now + waiter.seconds, pending, waiter)
        self._asking += 1

        def on_answer(result: Any, status: int | None) -> None:
            # Called from inside c-ares, at times before getaddrinfo has returned: only noted here.
            self._asking -= 1
            self._answered.append((pending, () if result is None else _addresses(result), status))

        try:
            self._channel.getaddrinfo(pending.host, None, flags=_ARES_AI_NOSORT, callback=on_answer)
        except (UnicodeError, ValueError, TypeError):
            self._asking -= 1
            self._answered.append((pending, (), ares.ARES_EBADNAME))

    def _set_deadline(
        self, at: float, pending: _Pending, waiter: _Waiter | None, *, is_for_queue: bool = False
    ) -> None:
        heapq.heappush(self._deadlines, (at, next(self._order), pending, waiter, is_for_queue))

    def _give_up(self, pending: _Pending, waiter: _Waiter, now: float) -> None:
        if pending.began is None:
            detail = (
                "The name had to wait too long behind other names of yours that no name server answers for."
            )
        else:
            detail = "No name server answered in time."
        waiter.is_done = True
        seconds = now - pending.began if pending.began is not None else 0.0
        self._results.append((waiter.token, Lookup((), detail, True, False, now, seconds)))

    def _finish(self, pending: _Pending, addresses: tuple[str, ...], status: int | None, now: float) -> None:
        pending.is_done = True
        self._pending.pop(pending.host, None)
        seconds = now - pending.began if pending.began is not None else 0.0
        lookup = _lookup(addresses, status, self._cache.pop(pending.host, None), now, seconds)
        self._cache[pending.host] = lookup
        if len(self._cache) > MAX_CACHED_NAMES:
            del self._cache[next(iter(self._cache))]
        for waiter in pending.waiters:
            if not waiter.is_done:
                waiter.is_done = True
                self._results.append((waiter.token, lookup))
        if pending.tenant_id is not None:
            tenant = self._tenants[pending.tenant_id]
            tenant.in_flight -= 1
            tenant.silent_in_flight -= pending.is_silent
            self._begin_what_has_room(pending.tenant_id, tenant, now)

    def _on_socket(self, fd: int, readable: bool, writable: bool) -> None:
        if self._is_closed:
            return
        events = (select.EPOLLIN if readable else 0) | (select.EPOLLOUT if writable else 0)
        if not events:
            if fd in self._descriptors:
                self._descriptors.discard(fd)
                self._epoll.unregister(fd)
        elif fd in self._descriptors:
            self._epoll.modify(fd, events)
        else:
            self._descriptors.add(fd)
            self._epoll.register(fd, events)


def _addresses(result: Any) -> tuple[str, ...]:
    # IPv4 first: where there is no IPv6 (most servers), trying it first would cost each new connection a failure.
    families: dict[int, dict[str, None]] = {4: {}, 6: {}}
    for node in result.nodes:
        text = node.addr[0].decode("ascii") if isinstance(node.addr[0], bytes) else node.addr[0]
        families[ip_address(text).version][text] = None
    return (*list(families[4])[:MAX_ADDRESSES], *list(families[6])[:MAX_ADDRESSES])


def _lookup(
    addresses: tuple[str, ...], status: int | None, before: Lookup | None, now: float, seconds: float
) -> Lookup:
    if addresses:
        if before is not None:
            # Name servers rotate their answers. The address in use stays first, and its connections stay useful.
            stay = [address for address in before.addresses if address in addresses]
            addresses = (*stay, *(address for address in addresses if address not in stay))
        return Lookup(addresses, "", False, False, now + KEEP_SECONDS, seconds)
    is_silent = is_platform_fault = False
    match status:
        case ares.ARES_ENOTFOUND | ares.ARES_ENONAME:
            detail = "The name does not exist."
        case None | ares.ARES_ENODATA:
            detail = "The name has no address."
        case ares.ARES_ETIMEOUT:
            detail, is_silent = "No name server answered in time.", True
        case ares.ARES_EBADNAME:
            detail = "The name is not a valid host name."
        case ares.ARES_ENOMEM | ares.ARES_EFILE | ares.ARES_ENOTINITIALIZED | ares.ARES_ECONNREFUSED:
            detail, is_platform_fault = "The platform could not ask its name servers.", True
        case _:
            detail = "The name servers could not give an answer."
    return Lookup((), detail, is_silent, is_platform_fault, now + KEEP_FAILURE_SECONDS, seconds)


def has_family_of(address: str) -> bool:
    """Whether this machine has an address of that kind to connect from; most containers have none of IPv6.

    To connect by UDP sends nothing, and takes no port from TCP.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True
