"""What webhooks mean to us. Yours."""

from typing import Any


def act(event: dict[str, Any]) -> None:
    """What it writes to the database is written once: it is one transaction with the mark."""
    print("acting on", event["type"], flush=True)
