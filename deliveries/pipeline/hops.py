"""How many webhooks led to this one: `webhook-hops`, so that those which go in circles end."""

from typing import Final

MAX_HOPS: Final = 5
"""A publish made by a receiver of a receiver of … is refused from here on: it goes in circles."""

LAST_HOP: Final = f"webhook-hops: {MAX_HOPS}"
"""The line of a request that is no webhook, such as one for a token: whatever publishes because of it is refused."""


def hops_of(header: str) -> int:
    """From `webhook-hops`. What is no small number counts as none."""
    return int(header) if header.isascii() and header.isdigit() and len(header) < 4 else 0
