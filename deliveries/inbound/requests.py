"""A request as it came in, and what may become of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_BODY_BYTES: Final = 1024 * 1024
"""Of one request. What is larger is refused before it is read."""

MAX_QUERY_BYTES: Final = 8 * 1024
MAX_HEADER_BYTES: Final = 32 * 1024
"""Of what is kept. Web servers allow about as much."""


@dataclass(frozen=True, slots=True)
class InboundRequest:
    method: str
    url: str
    """Whole, as the sender knows it: some sign it."""
    query: str
    """As on the wire, without `?`."""
    headers: Mapping[str, str]
    """Names in lower case."""
    content_type: str
    body: bytes
    remote_ip: str

    @property
    def is_query(self) -> bool:
        """Whether the query string is the payload: that of a GET, and of what has no body and no type of one."""
        return self.method == "GET" or not (self.body or self.content_type)

    @property
    def payload(self) -> bytes:
        """What a signature covers: exactly what is read."""
        return self.query.encode("utf-8", "surrogateescape") if self.is_query else self.body


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    """It made an event."""
    DUPLICATE = "duplicate"
    """The provider sent it before: the first one's event and answer."""
    HANDSHAKE = "handshake"
    """A provider's question whether somebody is here."""
    IGNORED = "ignored"
    """The mapping wants no event of it."""
    UNMAPPED = "unmapped"
    """Genuine and kept, but the mapping made no event that could be published. It can be run again."""
    REFUSED = "refused"
    INSPECTED = "inspected"
    """Came to an inspector, which makes no events."""


class Reason(StrEnum):
    """Why a request was refused, or made no event."""

    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_WRONG = "signature_wrong"
    TIMESTAMP_MISSING = "timestamp_missing"
    TIMESTAMP_OLD = "timestamp_old"
    CREDENTIALS_WRONG = "credentials_wrong"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    TOO_LARGE = "too_large"
    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"
    MALFORMED_BODY = "malformed_body"
    CHALLENGE_REFUSED = "challenge_refused"
    LOOP_DETECTED = "loop_detected"
    TENANT_SUSPENDED = "tenant_suspended"
    TENANT_RATE_LIMITED = "tenant_rate_limited"
    MAPPING_FAILED = "mapping_failed"
    EVENT_REFUSED = "event_refused"


STATUSES: Final[Mapping[Reason, int]] = {
    Reason.SIGNATURE_MISSING: 401,
    Reason.SIGNATURE_WRONG: 401,
    Reason.TIMESTAMP_MISSING: 401,
    Reason.TIMESTAMP_OLD: 401,
    Reason.CREDENTIALS_WRONG: 401,
    Reason.ADDRESS_NOT_ALLOWED: 403,
    Reason.TOO_LARGE: 413,
    Reason.UNSUPPORTED_CONTENT_TYPE: 415,
    Reason.MALFORMED_BODY: 400,
    Reason.CHALLENGE_REFUSED: 403,
    Reason.LOOP_DETECTED: 508,
    Reason.TENANT_SUSPENDED: 403,
    Reason.TENANT_RATE_LIMITED: 429,
}
"""What the sender of a refused request is answered. The other reasons are of requests that are kept for later."""


class Refused(Exception):
    """The sender is told the reason's status and these words, which repeat nothing of what came."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)
