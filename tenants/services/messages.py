"""A word to a worker that there is something to send. A hint: what must not be lost is found by a sweep."""

import logging
from collections.abc import Callable
from typing import Final

from celery import current_app

logger = logging.getLogger(__name__)

after_loss: Final[list[Callable[[], None]]] = []
"""Called when the broker did not take a message. Whoever counts those belongs to another app, which adds itself here."""


def announce(task: str, *arguments: str) -> None:
    """Never fails."""
    try:
        current_app.send_task(task, list(arguments), queue="celery", retry=False)
    except Exception as error:  # noqa: BLE001 - whatever the broker's client raises
        logger.warning("task not announced", extra={"task": task, "error": type(error).__name__})
        for listener in after_loss:
            listener()
