"""A word to a worker that there is something to send. A hint: what must not be lost is found by a sweep."""

import logging

from celery import current_app

logger = logging.getLogger(__name__)


def announce(task: str, *arguments: str) -> None:
    """Never fails."""
    try:
        current_app.send_task(task, list(arguments), queue="celery", retry=False)
    except Exception as error:  # noqa: BLE001 - whatever the broker's client raises
        logger.warning("task not announced", extra={"task": task, "error": type(error).__name__})
