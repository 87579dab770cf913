"""The egress proxy, if the settings name one: everything that leaves goes through it. Used by both transports.

We resolve and judge each name ourselves, and ask the proxy to connect to the *address*; TLS is between us and the
receiver, on its name. What the proxy does wrong is never charged to an endpoint.
"""

import base64
import socket
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

from deliveries.pipeline.failures import PROXY_COULD_NOT_REACH, Failure
from deliveries.pipeline.outcome import Outcome

_TARGET_FAILED = frozenset({502, 503, 504})
"""What proxies answer when it is the receiver that they cannot reach. That is the endpoint's affair."""


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    host: str
    port: int
    user: str | None
    password: str
    addresses: tuple[str, ...]
    """Of the host, looked up when the transport was opened."""

    @classmethod
    def of(cls, url: str) -> Self:
        """`http://[user:password@]host:port`, as the settings have checked it."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        port = parts.port or 3128
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except OSError:
            found = []
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        user = None if parts.username is None else unquote(parts.username)
        return cls(parts.hostname, port, user, unquote(parts.password or ""), addresses)

    @property
    def address(self) -> str | None:
        return self.addresses[0] if self.addresses else None

    def connect_request(self, address: str, port: int) -> bytes:
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.user is not None:
            pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {pair}")
        return "\r\n".join([*lines, "", ""]).encode()


def refused(status_code: int) -> Failure:
    """What the proxy's answer to a CONNECT means, if it is not 2xx."""
    if status_code in _TARGET_FAILED:
        return PROXY_COULD_NOT_REACH
    return Failure(
        Outcome.PROXY_FAILED, f"The platform's egress proxy answered {status_code}.", is_platform_fault=True
    )
