"""Where a request may be sent: the addresses of its host that the guard lets through.

The first half of both transports. A destination goes in; a route comes out, at once if the host spells an address or
was looked up lately, else from `advance` when the resolver has it.
"""

from dataclasses import dataclass
from typing import Any

from deliveries.pipeline.address_guard import AddressGuard, literal_host
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.resolver import Lookup, Resolver
from deliveries.pipeline.transport import Answer, Destination, OutgoingRequest

MAX_ROUTES = 20_000
"""Kept judgements, as many as the resolver keeps names."""

LITERAL_SECONDS = 3600.0
"""How long the judgement of a spelled-out address is kept. It depends on nothing that changes."""


@dataclass(slots=True, eq=False)
class Route:
    """`addresses`, the best first; or none, and then why."""

    addresses: tuple[str, ...]
    failure: Outcome | None
    detail: str
    is_platform_fault: bool
    expires_at: float

    def refusal(self, request: OutgoingRequest, started_at: float, dns_seconds: float | None) -> Answer:
        """The answer to a request that this route leads nowhere."""
        dns_ms = None if dns_seconds is None else dns_seconds * 1000
        return Answer(
            tag=request.tag,
            failure=self.failure,
            detail=self.detail,
            is_platform_fault=self.is_platform_fault,
            status_code=None,
            response_headers=b"",
            response_body=b"",
            is_truncated=False,
            remote_ip=None,
            started_at=started_at,
            duration_ms=dns_ms or 0.0,
            dns_ms=dns_ms,
            connect_ms=None,
            tls_ms=None,
            first_byte_ms=None,
            is_new_connection=False,
        )


@dataclass(slots=True, eq=False)
class _Asked:
    destination: Destination
    token: Any


class Router:
    """Belongs to one transport. Every `now` is time.monotonic()."""

    def __init__(self, *, guard: AddressGuard, resolver: Resolver) -> None:
        self._guard = guard
        self._resolver = resolver
        self._routes: dict[tuple[str, int], Route] = {}

    def known(self, destination: Destination, now: float) -> Route | None:
        """The route, if it takes no look-up."""
        route = self._routes.get((destination.host, destination.port))
        if route is not None and route.expires_at > now:
            return route
        address = literal_host(destination.host)
        if address is not None:
            return self._keep(destination, Lookup((address,), "", False, False, now + LITERAL_SECONDS, 0.0))
        lookup = self._resolver.cached(destination.host, now)
        return None if lookup is None else self._keep(destination, lookup)

    def ask(self, destination: Destination, token: Any, now: float) -> None:
        """Look the host up; `advance` returns the token with its route."""
        self._resolver.ask(
            host=destination.host,
            tenant_id=destination.tenant_id,
            seconds=destination.timeout_seconds,
            token=_Asked(destination, token),
            now=now,
        )

    def advance(self, now: float) -> list[tuple[Any, Route, float]]:
        """Tokens whose host was looked up: route, and seconds that the look-up took."""
        return [
            (asked.token, self._keep(asked.destination, lookup), lookup.seconds)
            for asked, lookup in self._resolver.advance(now)
        ]

    def put_last(self, destination: Destination, address: str) -> None:
        """This address could not be connected to: try it after the others while the route is kept."""
        route = self._routes.get((destination.host, destination.port))
        if route is not None and address in route.addresses:
            route.addresses = (*(other for other in route.addresses if other != address), address)

    def forget_all(self) -> list[Any]:
        """The tokens that still wait; they come back no more."""
        return [asked.token for asked in self._resolver.forget_all()]

    def _keep(self, destination: Destination, lookup: Lookup) -> Route:
        route = self._judge(destination, lookup)
        key = (destination.host, destination.port)
        self._routes.pop(key, None)
        self._routes[key] = route
        if len(self._routes) > MAX_ROUTES:
            del self._routes[next(iter(self._routes))]
        return route

    def _judge(self, destination: Destination, lookup: Lookup) -> Route:
        if not lookup.addresses:
            return Route((), Outcome.DNS_FAILED, lookup.detail, lookup.is_platform_fault, lookup.expires_at)
        allowed = []
        refusals = []
        for address in lookup.addresses:
            refusal = self._guard.refusal(address, destination.port)
            if refusal is None:
                allowed.append(address)
            else:
                refusals.append(refusal)
        # A name with a public and a private address is a mistake more often than an attack: the public one serves.
        if allowed:
            return Route(tuple(allowed), None, "", False, lookup.expires_at)
        return Route((), Outcome.ADDRESS_BLOCKED, refusals[0], False, lookup.expires_at)
