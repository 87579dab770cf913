"""Which source a token leads to, and the source, opened and compiled. Called by the view of `/in/<token>` and `receiving`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from django.conf import settings
from django.db import connection

from deliveries.inbound.verification import Verification
from deliveries.models import Source
from deliveries.services.sources import secrets_of
from tenants import access, counting, log_context
from tenants.encryption import DecryptionFailed

logger = logging.getLogger(__name__)


class SourceDisabled(Exception):
    """Its URL is known, and takes nothing."""


class TooManyRequests(Exception):
    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__("Too many requests to this source.")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Door:
    """What the token leads to: the one look-up of a request."""

    source_id: UUID
    tenant_id: UUID
    version: int
    is_suspended: bool
    rate_limit: int


@dataclass(frozen=True, slots=True)
class Settings:
    """A source, opened and compiled: once per version and process."""

    id: UUID
    is_inspector: bool
    verification: Verification
    secrets: tuple[str, ...]
    verify_token: str
    networks: tuple[str, ...]
    event_type: str
    data: str | None
    dedup_header: str
    dedup_path: str
    dedup_seconds: int
    handshake: str | None
    answer: Answer


LOOK = """
SELECT s.id, s.tenant_id, s.version, s.status = 'enabled' AND (s.expires_at IS NULL OR s.expires_at > now()),
       t.status <> 'active', s.rate_limit
FROM deliveries_sourcetoken k
JOIN deliveries_source s ON s.id = k.source_id AND s.deleted_at IS NULL
JOIN tenants_tenant t ON t.id = s.tenant_id AND t.deleted_at IS NULL
WHERE k.hash = %s AND (k.expires_at IS NULL OR k.expires_at > now())
"""


def find_door(token: str) -> Door:
    """Raises access.NotFound, SourceDisabled, TooManyRequests."""
    with connection.cursor() as cursor:
        cursor.execute(LOOK, [access.hash_of(token)])
        row = cursor.fetchone()
    if row is None:
        raise access.NotFound
    source_id, tenant_id, version, is_open, is_suspended, rate_limit = row
    log_context.tenant_id.set(tenant_id)
    if not is_open:
        raise SourceDisabled
    door = Door(
        source_id, tenant_id, version, is_suspended, rate_limit or settings.WEBHOOKS_INBOUND_RATE_LIMIT
    )
    wait = counting.count_incoming(source_id, limit=door.rate_limit)
    if wait is not None:
        raise TooManyRequests(wait)
    return door


@lru_cache(maxsize=2_000)
def settings_of(source_id: UUID, version: int) -> Settings:  # noqa: ARG001 - another version is another entry
    source: Source = Source.unscoped.get(id=source_id)
    secrets: Sequence[str]
    try:
        secrets, verify_token = secrets_of(source)
    except DecryptionFailed:
        # Nothing can be verified then, so nothing is let in.
        logger.exception("secrets of a source do not decrypt", extra={"source": str(source_id)})
        secrets, verify_token = [], ""
    return Settings(
        id=source.id,
        is_inspector=source.kind == Source.Kind.INSPECTOR,
        verification=Verification(**source.verification),
        secrets=tuple(secrets),
        verify_token=verify_token,
        networks=tuple(source.allowed_networks),
        event_type=source.event_type,
        data=source.data,
        dedup_header=source.dedup_header,
        dedup_path=source.dedup_path,
        dedup_seconds=source.dedup_seconds,
        handshake=source.handshake,
        answer=Answer(source.response_status, source.response_body),
    )
