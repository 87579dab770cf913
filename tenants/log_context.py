"""Whose request a log line belongs to. Set where it becomes known, read by `webhooks_platform/logs.py`."""

from contextvars import ContextVar
from uuid import UUID

request_id: ContextVar[str] = ContextVar("request_id", default="")
tenant_id: ContextVar[UUID | None] = ContextVar("tenant_id", default=None)
key_id: ContextVar[UUID | None] = ContextVar("key_id", default=None)
"""The API key's id; the key itself is in no log."""
task: ContextVar[str] = ContextVar("task", default="")
"""Of Celery: its name."""


def begin_request(name: str) -> None:
    """A thread serves one request after the other."""
    request_id.set(name)
    tenant_id.set(None)
    key_id.set(None)
