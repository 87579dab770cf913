"""Which addresses a request may be sent to.

Tenants name the endpoints, so every address that a name resolves to, or that a URL spells out, is judged here before
anything connects to it: by the resolver's caller, and once more when the socket is opened. Pure: no look-ups, no
settings.

Only what is routable on the public internet is let through. `ipaddress.is_global` is not used: it follows the Python
version, and lets NAT64, 6to4 and several metadata addresses pass.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["AddressGuard", "literal_host"]

# The IANA special-purpose registry, multicast, the reserved block, and the metadata services that clouds keep on
# addresses which look public. (Metadata on 169.254.169.254 and 100.100.100.200 lies inside larger refused blocks.)
REFUSED_IPV4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "means this host"),
        ("10.0.0.0/8", "is a private address"),
        ("100.64.0.0/10", "is an address inside a provider's network"),
        ("127.0.0.0/8", "is a loopback address"),
        ("168.63.129.16/32", "is a cloud provider's internal service"),
        ("169.254.0.0/16", "is a link-local address"),
        ("172.16.0.0/12", "is a private address"),
        ("192.0.0.0/24", "is reserved for protocols"),
        ("192.0.2.0/24", "is an example for documentation"),
        ("192.88.99.0/24", "is a relay address"),
        ("192.168.0.0/16", "is a private address"),
        ("198.18.0.0/15", "is reserved for benchmarks"),
        ("198.51.100.0/24", "is an example for documentation"),
        ("203.0.113.0/24", "is an example for documentation"),
        ("224.0.0.0/4", "is a multicast address"),
        ("240.0.0.0/4", "is reserved"),
    )
)

# Inside 192.0.0.0/24 the registry marks these two as globally reachable (port control and TURN anycast).
ROUTABLE_IPV4 = frozenset({IPv4Address("192.0.0.9"), IPv4Address("192.0.0.10")})

# All that has been handed out for the public internet. Everything outside is refused, whatever it will mean one day.
PUBLIC_IPV6 = IPv6Network("2000::/3")

REFUSED_IPV6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("2001::/23", "is reserved for protocols"),
        ("2002::/16", "is a relay address"),
        ("2001:db8::/32", "is an example for documentation"),
        ("3fff::/20", "is an example for documentation"),
    )
)

# A range that is let through is for receivers of its owner's own. Below this port live system services, and the web.
FIRST_PORT_IN_ALLOWED_NETWORKS = 1024
WEB_PORTS = frozenset({80, 443})


Network = IPv4Network | IPv6Network


class AddressGuard:
    """Judges one address and port.

    `allowed_networks` are let through although they are not public (none by default): at 80, 443 and all ports from 1024
    on, or as a pair with one port at that alone, whichever it is. `blocked_ports` are the platform's (database,
    broker, web): refused inside allowed networks, which are where the platform's servers are.
    """

    __slots__ = ("_judge", "allowed", "blocked_ports")

    def __init__(
        self,
        allowed_networks: Iterable[Network | tuple[Network, int | None]] = (),
        blocked_ports: Iterable[int] = (),
    ) -> None:
        self.allowed = tuple(
            entry if isinstance(entry, tuple) else (entry, None) for entry in allowed_networks
        )
        self.blocked_ports = frozenset(blocked_ports)
        # The socket-open callback asks on every new connection, mostly for addresses it has just asked for.
        self._judge = lru_cache(maxsize=4096)(self._judge_uncached)

    def refusal(self, address: str, port: int) -> str | None:
        """Why this address and port must not be connected to, in words for the customer; None if they may."""
        return self._judge(address, port)

    def _judge_uncached(self, address: str, port: int) -> str | None:
        ip = _parsed(address)
        if ip is None:
            return f"{address} is not an address that can be delivered to."
        reason = _not_public(ip)
        if reason is None:
            return None
        ports = [allowed_port for network, allowed_port in self.allowed if ip in network]
        if not ports or not (None in ports or port in ports):
            return f"{ip} {reason}; only addresses on the public internet are delivered to."
        if port in self.blocked_ports:
            return f"Port {port} is one of the platform's own."
        if port < FIRST_PORT_IN_ALLOWED_NETWORKS and port not in WEB_PORTS and port not in ports:
            return f"{ip} {reason}; only its ports 80, 443 and from {FIRST_PORT_IN_ALLOWED_NETWORKS} on are delivered to."
        return None


def literal_host(host: str) -> str | None:
    """The address that a URL's host spells out, in its plain form; None when the host is a name.

    Understands what browsers, libc and libcurl understand: decimal, hexadecimal and octal numbers, fewer than four
    parts, brackets, IPv4 inside IPv6, full-width digits and dots, a dot at the end.
    """
    text = unicodedata.normalize("NFKC", host).replace("。", ".").strip().lower()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if ":" in text:
        # A zone (`%eth0`) names an interface of ours; the address without it is what is judged.
        ip = _parsed(text.partition("%")[0])
        return None if ip is None else str(ip)
    return _plain_ipv4(text.removesuffix("."))


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(address)
    except ValueError:
        return None
    if isinstance(ip, IPv6Address):
        if ip.scope_id is not None:
            return None
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
    return ip


def _not_public(ip: IPv4Address | IPv6Address) -> str | None:
    if isinstance(ip, IPv4Address):
        if ip in ROUTABLE_IPV4:
            return None
        return _first_reason(ip, REFUSED_IPV4)
    if ip not in PUBLIC_IPV6:
        return "is not a public address"
    return _first_reason(ip, REFUSED_IPV6)


def _first_reason(
    ip: IPv4Address | IPv6Address, table: Sequence[tuple[IPv4Network | IPv6Network, str]]
) -> str | None:
    for network, reason in table:
        if ip in network:
            return reason
    return None


_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.ASCII)
MAX_NUMBER_LENGTH = 64
"""Characters of one part. Longer ones are out of range anyhow, and int() takes quadratic time over them."""


def _plain_ipv4(text: str) -> str | None:
    parts = text.split(".")
    if not 1 <= len(parts) <= 4:
        return None
    numbers = [_number(part) for part in parts]
    *leading, last = numbers
    if last is None or last >= 256 ** (4 - len(leading)):
        return None
    value = last
    for index, number in enumerate(leading):
        if number is None or number > 255:
            return None
        value += number << (8 * (3 - index))
    return str(IPv4Address(value))


def _number(text: str) -> int | None:
    if len(text) > MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(text):
        return None
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    if len(text) > 1 and text.startswith("0"):
        return int(text, 8) if not set(text) & {"8", "9"} else None
    return int(text)
