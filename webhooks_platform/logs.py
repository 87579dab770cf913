"""How log lines look: one JSON object each, or plain lines for people. Python's own logging, rendered by structlog.

Lines carry ids (request, tenant, key, task, and what the caller adds) in the form that the API shows. What a line may
not hold is taken out here once more: keys, secrets, tokens in paths, and the rows that the database quotes in errors.
"""

import logging
import re
from collections.abc import MutableMapping
from typing import Any
from uuid import UUID

import structlog
from structlog.typing import Processor

from tenants import ids, log_context

Line = MutableMapping[str, Any]

PREFIXES = {
    "tenant_id": ids.TENANT,
    "key_id": ids.API_KEY,
    "event_id": ids.EVENT,
    "endpoint_id": ids.ENDPOINT,
    "subscription_id": ids.SUBSCRIPTION,
    "delivery_id": ids.DELIVERY,
    "attempt_id": ids.ATTEMPT,
    "job_id": ids.JOB,
}

SECRETS = re.compile(
    r"\b(whk_|whsec_|whsk_)[A-Za-z0-9_+/=-]+"
    r"|(/in/|/enter/|/invitation/|/reset/usr_[0-9a-z]{26}/)[^\s/?'\"]+"
    r"|(Bearer )\S+"
)
"""Keys and secrets, and paths whose last part opens something: sources, links, invitations, new passwords."""

QUOTED_ROWS = re.compile(
    r"^\s*(DETAIL|CONTEXT|HINT|LINE \d+): .*?(?=^\s*(?:DETAIL|CONTEXT|HINT|LINE \d+): |^Traceback |^The above |^During |\Z)",
    re.MULTILINE | re.DOTALL,
)
"""PostgreSQL quotes the row that it refuses: somebody's data."""


def logging_settings(*, form: str, level: str) -> dict[str, Any]:
    """For Django's LOGGING. `form`: json, or console for people."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": PROCESSORS,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending(form)],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Django's own handlers would say everything twice.
            "django": {"handlers": [], "level": level, "propagate": True},
            "django.server": {"handlers": [], "level": level, "propagate": True},
            # Unknown paths and refused methods are no news; what breaks is logged with its trace as an error.
            "django.request": {"level": "ERROR"},
            # A line for each task, and the sweeps run every second. `--loglevel` of its commands sets another.
            "celery": {"level": "WARNING"},
            # A worker that ends gives back the message that it has just been given.
            "kombu.transport.virtual.base": {"level": "ERROR"},
        },
    }


def ending(form: str) -> list[Processor]:
    if form == "console":
        return [
            structlog.dev.ConsoleRenderer(
                colors=False, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    return [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer(default=str)]


def add_context(logger: Any, name: str, line: Line) -> Line:  # noqa: ARG001 - a processor's signature
    """What is known of the request or task that this thread works for."""
    for key, value in (
        ("request_id", log_context.request_id.get()),
        ("tenant_id", log_context.tenant_id.get()),
        ("key_id", log_context.key_id.get()),
        ("task", log_context.task.get()),
    ):
        if value:
            line.setdefault(key, value)
    return line


def show_ids(logger: Any, name: str, line: Line) -> Line:  # noqa: ARG001
    """As the API shows them, so that one can look for them there."""
    for key, prefix in PREFIXES.items():
        value = line.get(key)
        try:
            if isinstance(value, UUID):
                line[key] = ids.to_text(prefix, value)
            elif isinstance(value, bytes):
                line[key] = ids.to_text(prefix, UUID(bytes=value))
            elif isinstance(value, str) and not value.startswith(prefix):
                line[key] = ids.to_text(prefix, UUID(value))
        except ValueError:
            continue
    return line


def drop_objects(logger: Any, name: str, line: Line) -> Line:  # noqa: ARG001
    """Django puts the request, or a socket, beside its lines; only their words are for logs."""
    for key in ("request", "server_time"):
        line.pop(key, None)
    return line


def hide_secrets(logger: Any, name: str, line: Line) -> Line:  # noqa: ARG001
    for key, value in line.items():
        if isinstance(value, str):
            line[key] = SECRETS.sub(lambda found: f"{found[1] or found[2] or found[3]}***", value)
    if "exception" in line:
        line["exception"] = QUOTED_ROWS.sub("(what the database quotes is not shown)\n", line["exception"])
    return line


PROCESSORS: list[Processor] = [
    structlog.stdlib.ExtraAdder(),
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    drop_objects,
    add_context,
    show_ids,
    structlog.processors.StackInfoRenderer(),
    # Traces in plain words: the richer forms show the values of variables.
    structlog.processors.format_exc_info,
    hide_secrets,
]

LEVELS = tuple(logging.getLevelNamesMapping())
