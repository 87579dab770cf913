"""The small interface behind which requests leave: what goes in, what comes back, and which implementation to open.

Called by `dispatch`, and by everything else that sends a request to an address which a customer chose. There are two
implementations, `transport_curl` (default) and `transport_requests`; one contract suite runs against both.

What both promise, whatever the other side does:

- Nothing is connected to that the address guard refuses, whatever the name resolves to by then.
- No redirects, no proxies or passwords from the environment, no cookies; TLS is verified against the host name.
- Every request ends within its time-out; bodies are cut and headers refused past their caps.
- A connection is used again only for the same host name, port and address; one with certificates of an endpoint's own
  for that endpoint alone.
- Explanations are words of our own, never the receiver's or a library's.

A transport belongs to one thread. It is made after forking, not before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.proxy import Proxy

MAX_BODY_BYTES = 16 * 1024
"""Of an answer's body, what is kept. The rest is not read: the connection is closed instead."""

MAX_HEADER_BYTES = 64 * 1024
"""Of an answer's status line and headers together. Past it the answer is a protocol error."""

MAX_HEADERS = 100
"""Header lines in one answer, for the same reason. Python's own HTTP client stops at about as many."""

CONNECT_SECONDS = 10.0
"""For TCP and TLS together, at most: a host that does not react in this time will not in thirty seconds either."""

FIRST_ADDRESS_SECONDS = 3.0
"""For connecting, while the name has another address to try."""

AFTER_HANDSHAKE_SECONDS = 1.0
"""A new connection that breaks so soon after the handshake was ended because of the handshake."""

IDLE_SECONDS = 60
"""A connection unused for longer is closed instead of used again; receivers give up on theirs after about a minute."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OwnTls:
    """Certificates of one endpoint's own, in PEM. Its connections are shared with no other endpoint."""

    name: str
    """Of these and no others: endpoint and settings version."""
    certificate: str | None
    private_key: str | None
    ca_certificates: str | None
    """Trusted instead of the usual ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Destination:
    """Where requests of one endpoint go. Built once per settings version and used for every request."""

    url: str
    """http or https, host in its ASCII form, no userinfo, no fragment."""
    scheme: str
    host: str
    port: int
    tenant_id: UUID
    timeout_seconds: float
    """From connecting to the last byte read. Looking up the name has a deadline of its own, never a longer one."""
    tls: OwnTls | None = None


@dataclass(slots=True, eq=False)
class OutgoingRequest:
    destination: Destination
    method: str
    """POST, PUT or GET."""
    query: str | None
    """For GET: appended to the URL as it is."""
    headers: list[str]
    """Complete `name: value` lines in order. Nothing is added to them but Host and Content-Length."""
    body: bytes
    tag: Any
    """Comes back on the answer."""


@dataclass(slots=True, eq=False)
class Answer:
    tag: Any
    failure: Outcome | None
    """None: an HTTP answer came, whole or cut at the cap. Its status is the caller's to judge."""
    detail: str
    """What went wrong, for the customer; empty if nothing did."""
    is_platform_fault: bool
    """Out of descriptors, ports or memory: never charged to the endpoint."""
    status_code: int | None
    """Kept on a failure too, if one had come by then."""
    response_headers: bytes
    """Status line and headers as received, at most the cap."""
    response_body: bytes
    is_truncated: bool
    remote_ip: str | None
    """The address connected to, or tried. None: the name has none, or it was refused."""
    started_at: float
    """time.time(), when the request was handed over."""
    duration_ms: float
    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: float | None
    """How long each phase took, not when it ended. None: it did not take place, as on a connection used again."""
    is_new_connection: bool


def always() -> bool:
    return True


class Transport(Protocol):
    most_in_flight: int
    """Requests that it can really have in the air at once. What is started beyond that may wait inside."""

    def start(self, request: OutgoingRequest) -> None:
        """Send it. Never blocks, never raises for what a customer chose: refusals come back as answers."""

    def poll(self, timeout: float, *, may_go_on: Callable[[], bool] = always) -> list[Answer]:
        """Let things happen until something is answered, a watched descriptor is readable, or the time is over.

        `may_go_on` is asked after each wait: if not, what became possible meanwhile is left undone.
        """

    def watch(self, fd: int) -> None:
        """Let `poll` return early while this descriptor is readable. The caller reads it empty."""

    @property
    def in_flight(self) -> int:
        """Requests started and not yet answered, those that wait for a name included."""

    def oldest_started(self) -> float | None:
        """time.time() when the oldest request in flight was started."""

    def abort_all(self) -> list[Any]:
        """Drop everything in flight. Returns the tags; nothing of them is reported later."""

    def close(self) -> None: ...


def open_transport(
    name: str,
    *,
    guard: AddressGuard,
    max_in_flight: int,
    dns_servers: Sequence[str] = (),
    verify_ca: str | None = None,
    max_connections: int | None = None,
    proxy: str | None = None,
) -> Transport:
    """Open the transport called `curl` or `requests`.

    `dns_servers` are "ip:port" and replace the system's. `verify_ca` is a file of certificates to trust instead of the
    usual public ones. `max_connections` bounds those in use and those kept for the next request together (default: four
    times `max_in_flight`); the caller sees to it that the process may have as many descriptors. `proxy` is the URL of an
    egress proxy that everything goes through.
    """
    connections = max_connections or 4 * max_in_flight
    through = Proxy.of(proxy) if proxy else None
    # Imported here: a platform without libcurl must be able to run on the other one.
    match name:
        case "curl":
            from deliveries.pipeline.transport_curl import CurlTransport  # noqa: PLC0415 - see above

            return CurlTransport(
                guard=guard,
                max_in_flight=max_in_flight,
                dns_servers=dns_servers,
                verify_ca=verify_ca,
                max_connections=connections,
                proxy=through,
            )
        case "requests":
            from deliveries.pipeline.transport_requests import RequestsTransport  # noqa: PLC0415 - see above

            return RequestsTransport(
                guard=guard,
                max_in_flight=max_in_flight,
                dns_servers=dns_servers,
                verify_ca=verify_ca,
                max_connections=connections,
                proxy=through,
            )
        case _:
            raise ValueError(f"No transport is called {name!r}; there are 'curl' and 'requests'.")
