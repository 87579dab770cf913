"""How many webhooks led to this one: `webhook-hops`, so that those which go in circles end."""

from typing import Final

MAX_HOPS: Final = 5
"""A publish made by a receiver of a receiver of … is refused from here on: it goes in circles."""

LAST_HOP: Final = f"webhook-hops: {MAX_HOPS}"
"""The line of a request that is no webhook, such as one for a token: whatever publishes because of it is refused."""


def hops_of(header: str) -> int:
    """From `webhook-hops`. A number of many digits counts as the most; what is no number counts as none."""
    if not (header.isascii() and header.isdigit()):
        return 0
    digits = header.lstrip("0")
    return int(digits or "0") if len(digits) < 4 else MAX_HOPS
