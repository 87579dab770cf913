"""Which address a request came from, and whether by TLS. What proxies say counts as far as trusted ones wrote it."""

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def remote_ip_of(request: HttpRequest) -> str:
    """The nearest address that is no proxy of ours; empty if there is none to be read (a Unix socket)."""
    address = _read(request.META.get("REMOTE_ADDR", ""))
    trusted = settings.WEBHOOKS_TRUSTED_PROXIES
    if address is None or not trusted or not _is_in(address, trusted):
        return str(address or "")
    for hop in reversed(request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")):
        found = _read(hop)
        if found is None:
            break
        address = found
        if not _is_in(found, trusted):
            break
    return str(address)


def came_by_tls_to_a_proxy(request: HttpRequest) -> bool:
    """Whether a trusted proxy says that it ended TLS. Of several, the outermost is who spoke with the client."""
    address = _read(request.META.get("REMOTE_ADDR", ""))
    if address is None or not _is_in(address, settings.WEBHOOKS_TRUSTED_PROXIES):
        return False
    said: str = request.META.get("HTTP_X_FORWARDED_PROTO", "")
    return said.partition(",")[0].strip().lower() == "https"


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _read(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _is_in(address: Address, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(address in network for network in networks)
