"""A file whose age says whether a worker's or beat's main loop still turns, for probes that look from outside.

Called by `hearts.py` and, while the broker is away, by the connections of `celery.py`. Written only if
WEBHOOKS_HEARTBEAT_FILE names one. Celery's own `inspect ping` goes by way of the broker, and a broker that is away is no
reason to restart anybody: dispatchers go on without it.
"""

import logging
import os
import sys
from pathlib import Path

from django.conf import settings

logger = logging.getLogger(__name__)

SECONDS = 5.0
"""Between two beats of a worker; beat makes one a round, which is at most as long. Probes allow a minute."""

_process: int | None = None
"""Whose heart it is. Children of the pool inherit this and must not beat for a main process that hangs."""


def begin() -> None:
    """In the main process of a worker or of beat. Ends it if the file cannot be written."""
    global _process  # noqa: PLW0603 - one per process
    _process = os.getpid()
    try:
        _touch()
    except OSError as error:
        sys.exit(
            f"WEBHOOKS_HEARTBEAT_FILE={settings.WEBHOOKS_HEARTBEAT_FILE!r} cannot be written ({error}). "
            "Set it to a path in a folder that this process may write to, such as /tmp/heartbeat."
        )


def beat() -> None:
    if _process != os.getpid():
        return
    try:
        _touch()
    except OSError as error:
        logger.warning("heartbeat file not written", extra={"error": str(error)})


def _touch() -> None:
    if settings.WEBHOOKS_HEARTBEAT_FILE:
        Path(settings.WEBHOOKS_HEARTBEAT_FILE).touch()
