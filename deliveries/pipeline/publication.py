"""What goes into `ingest` and what comes out: events as their publishers want them, accepted or refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from deliveries.pipeline.fan_out import Target


class Refusal(StrEnum):
    TENANT_NOT_FOUND = "not_found"
    TENANT_SUSPENDED = "tenant_suspended"
    TENANT_RATE_LIMITED = "tenant_rate_limited"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    EVENT_TYPE_ARCHIVED = "event_type_archived"
    SCHEMA_VIOLATION = "schema_violation"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    DELIVER_AT_TOO_FAR = "deliver_at_too_far"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    IDEMPOTENCY_IN_PROGRESS = "idempotency_in_progress"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Idempotency:
    key: str
    fingerprint: bytes
    seconds: int = 86_400
    """How long an earlier one counts; at most a day."""


@dataclass(eq=False, slots=True)
class Batch:
    """The events of one request that has an Idempotency-Key of its own: answered once, all together.

    Each of them refers to it, and `ingest` says in it what became of the request.
    """

    tenant_id: bytes
    key: str
    fingerprint: bytes
    answer: "Callable[[Sequence[Result]], bytes]"
    """Makes the reply, of the results of its events in their order. It is kept in their transaction."""
    reply: bytes = b""
    is_replayed: bool = False
    """The reply is that of an earlier request, and nothing was made now."""
    refused: "Refused | None" = None
    """Its key is another request's, or that of one that is under way. Then nothing was made, either."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The incoming request that an event was made of. It is kept in the event's transaction."""

    id: bytes
    source_id: bytes
    method: str
    query: bytes
    headers: bytes
    content_type: str
    body: bytes
    remote_ip: str | None
    dedup_id: str
    status_code: int
    answer: bytes
    """Kept in place of the publisher's reply, for those that come again."""


@dataclass(slots=True)
class NewEvent:
    """An event as its publisher wants it. Shape is checked by the caller, content here."""

    tenant_id: bytes
    type: str
    data: bytes
    occurred_at: datetime | None = None
    channels: list[str] | None = None
    ordering_key: str | None = None
    deliver_at: datetime | None = None
    idempotency: Idempotency | None = None
    batch: Batch | None = None
    hops: int = 0
    only_endpoint: bytes | None = None
    """A test: to this endpoint alone, whatever its subscriptions and the catalogue say."""
    is_fifo: bool = False
    """Of `only_endpoint`."""
    is_operational: bool = False
    """The platform's own, in no catalogue: no rule of the tenant's holds it up, its suspension neither."""
    origin: Origin | None = None
    traceparent: str | None = None
    """The span of its publish. None: traces are off, or not for this one."""


@dataclass(slots=True)
class Accepted:
    event_id: bytes
    """Empty if its whole batch is replayed."""
    reply: bytes
    """The JSON that the publisher gets, also on a replay of its idempotency key."""
    is_replayed: bool = False
    delivery_ids: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Refused:
    reason: Refusal
    errors: list[tuple[str, str]] = field(default_factory=list)
    """(field, message)"""
    limit: float | None = None


Result = Accepted | Refused


@dataclass(slots=True)
class Prepared:
    """A valid event with its ids and targets, waiting to be written."""

    position: int
    event: NewEvent
    event_id: bytes
    settings_version: int
    targets: list[Target]
    warning: str | None
    delivery_ids: list[bytes]
    reply: bytes = b""
