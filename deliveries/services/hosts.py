"""Endpoints by the host that they lead to, across tenants. Called by the admin.

One receiver that hundreds of tenants share may be down; an index of reversed hosts finds a host's endpoints, and those of
all hosts below a domain.
"""

import re
from typing import Final

from django.db.models import Q, QuerySet

from deliveries.models import Endpoint, ReversedHost

MOST_COUNTED: Final = 1_000
"""Endpoints of a host are counted so far; the number then means: at least."""

_HOST: Final = re.compile(r"[a-z]+://(\[[^]]*\]|[^/:?]*)")


def host_of(url: str) -> str:
    """As `ReversedHost` takes it from a URL."""
    found = _HOST.match(url)
    return found[1] if found else ""


def endpoints_of_host(host: str, *, with_subdomains: bool = False) -> "QuerySet[Endpoint]":
    """Those that were not deleted, of all tenants."""
    if "\x00" in host:
        # The database takes it in no text.
        return Endpoint.unscoped.none()
    backwards = host.lower()[::-1]
    rows: QuerySet[Endpoint] = Endpoint.unscoped.filter(deleted_at__isnull=True).alias(
        host=ReversedHost("url")
    )
    wanted = Q(host=backwards)
    if with_subdomains:
        wanted |= Q(host__startswith=f"{backwards}.")
    return rows.filter(wanted)


def count_of_host(host: str) -> tuple[int, int]:
    """(endpoints, tenants), as far as MOST_COUNTED."""
    rows = endpoints_of_host(host).values_list("tenant_id", flat=True)[:MOST_COUNTED]
    tenants = list(rows)
    return len(tenants), len(set(tenants))
