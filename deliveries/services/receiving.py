"""What happens to a request that comes to a source, in this order (`receive`):

    question   some providers ask first whether somebody is here
    verify     is it from whom it should be?
    read       the payload
    map        to an event's type and data
    publish    event, deliveries, the provider's id and the request itself: one transaction, shared with other publishers
    keep       what made no event, alone

The sender is answered after the commit. Called by the view of `/in/<token>`; `run_again` by the API and the portal.
"""

import ipaddress
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, assert_never
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from deliveries.inbound import bodies, handshakes, verification
from deliveries.inbound.bodies import Payload
from deliveries.inbound.mapping import Mapped, MappingFailed, found_at, map_request
from deliveries.inbound.requests import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    MAX_QUERY_BYTES,
    STATUSES,
    InboundRequest,
    Reason,
    Refused,
    Verdict,
)
from deliveries.inbound.verification import Verification
from deliveries.models import Event, IncomingRequest, Source
from deliveries.pipeline import counters, ingest
from deliveries.pipeline.ingest import Accepted, Idempotency, NewEvent, Origin, Refusal
from deliveries.pipeline.publication import MAX_HOPS
from deliveries.services import traces
from deliveries.services.erasing import ERASED
from deliveries.services.sources import hash_of, secrets_of
from deliveries.texts import header_map
from deliveries.validation import mask_headers
from tenants import access, ids, log_context
from tenants.encryption import DecryptionFailed
from tenants.services import audit
from tenants.services.audit import Actor

logger = logging.getLogger(__name__)

IN_PROGRESS_TRIES: Final = 5
IN_PROGRESS_SECONDS: Final = 0.05
"""A provider that sends the same again while the first is being committed waits for it, for a moment."""

FINGERPRINT: Final = b"incoming request".ljust(32)
"""The provider's id alone says whether two requests are the same."""

MOST_AT_ONCE: Final = 500
"""Requests that one call runs again."""


class SourceDisabled(Exception):
    """Its URL is known, and takes nothing."""


class TooManyRequests(Exception):
    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__("Too many requests to this source.")


class NotAgain(Exception):
    """Only what was not mapped can be run again."""


class PayloadErased(Exception):
    """There is nothing left to map."""


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


# --- the door ---------------------------------------------------------------------------------------------------------

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
        cursor.execute(LOOK, [hash_of(token)])
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
    wait = access.count_incoming(source_id, limit=door.rate_limit)
    if wait is not None:
        raise TooManyRequests(wait)
    return door


@lru_cache(maxsize=2_000)
def _settings(source_id: UUID, version: int) -> Settings:  # noqa: ARG001 - another version is another entry
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


# --- a request --------------------------------------------------------------------------------------------------------


def receive(*, door: Door, request: InboundRequest, hops: int) -> Answer:
    """The answer, after whatever there is to keep is committed. Raises ingest.DatabaseUnavailable."""
    source = _settings(door.source_id, door.version)
    visit = Visit(door, source, request, hops, datetime.now(UTC))
    try:
        return _receive(visit)
    except Refused as refused:
        return visit.refuse(refused)


def _receive(visit: "Visit") -> Answer:
    """Raises Refused."""
    source, request = visit.source, visit.request
    verification.check_address(request, source.networks)
    _check_bounds(visit)
    if source.is_inspector:
        return _inspect(visit)
    if handshakes.is_question(source.handshake, request):
        challenge = handshakes.answer_of_question(request, source.verify_token)
        return visit.keep(Verdict.HANDSHAKE, Answer(200, challenge))
    if visit.door.is_suspended:
        raise Refused(Reason.TENANT_SUSPENDED, "This tenant is suspended: it takes no requests.")
    verification.verify(source.verification, source.secrets, request, now=visit.at.timestamp())
    payload = bodies.read(request)
    challenge_of_body = handshakes.answer_of_body(source.handshake, payload.value)
    if challenge_of_body is not None:
        return visit.keep(Verdict.HANDSHAKE, Answer(200, challenge_of_body))
    visit.dedup_id = _dedup_id(source, request, payload)
    try:
        mapped = map_request(
            event_type=source.event_type, data=source.data, request=request, payload=payload, now=visit.at
        )
    except MappingFailed as failed:
        return visit.keep(Verdict.UNMAPPED, source.answer, reason=Reason.MAPPING_FAILED, detail=str(failed))
    if mapped is None:
        return visit.keep(Verdict.IGNORED, source.answer)
    return _publish(visit, mapped)


def _check_bounds(visit: "Visit") -> None:
    request = visit.request
    if len(request.body) > MAX_BODY_BYTES:
        raise Refused(Reason.TOO_LARGE, f"A body may have at most {MAX_BODY_BYTES} bytes.")
    if len(request.query) > MAX_QUERY_BYTES:
        raise Refused(Reason.TOO_LARGE, f"A query string may have at most {MAX_QUERY_BYTES} bytes.")
    if visit.hops >= MAX_HOPS:
        raise Refused(
            Reason.LOOP_DETECTED, f"This came through {visit.hops} webhooks that lead to one another."
        )


def _inspect(visit: "Visit") -> Answer:
    """Nothing is refused: what the verification says is what there is to see."""
    source = visit.source
    try:
        if source.secrets:
            verification.verify(source.verification, source.secrets, visit.request, now=visit.at.timestamp())
    except Refused as refused:
        return visit.keep(Verdict.INSPECTED, source.answer, reason=refused.reason, detail=refused.detail)
    return visit.keep(Verdict.INSPECTED, source.answer)


def _dedup_id(source: Settings, request: InboundRequest, payload: Payload) -> str:
    """The provider's id, or nothing."""
    if source.dedup_header:
        found = request.headers.get(source.dedup_header)
    elif source.dedup_path:
        found = found_at(payload.value, source.dedup_path)
    else:
        found = None
    return "" if found is None else found.replace("\x00", "")[:255]


def _publish(visit: "Visit", mapped: Mapped) -> Answer:
    """Raises Refused, ingest.DatabaseUnavailable."""
    event = visit.event(mapped)
    for _ in range(IN_PROGRESS_TRIES):
        result = traces.publish([event], traceparent=visit.request.headers.get("traceparent"))[0]
        if not isinstance(result, Accepted) and result.reason is Refusal.IDEMPOTENCY_IN_PROGRESS:
            time.sleep(IN_PROGRESS_SECONDS)
            continue
        break
    if isinstance(result, Accepted):
        if result.is_replayed:
            return visit.keep_duplicate(result)
        counters.add(f"incoming:{Verdict.ACCEPTED.value}")
        return visit.source.answer
    match result.reason:
        case Refusal.TENANT_SUSPENDED | Refusal.TENANT_NOT_FOUND:
            raise Refused(Reason.TENANT_SUSPENDED, "This tenant is suspended: it takes no requests.")
        case Refusal.TENANT_RATE_LIMITED:
            raise Refused(Reason.TENANT_RATE_LIMITED, "The tenant's events per second are used up.")
        case Refusal.IDEMPOTENCY_IN_PROGRESS | Refusal.INTERNAL_ERROR:
            # Not kept: the provider sends it again.
            raise ingest.DatabaseUnavailable
        case (
            Refusal.UNKNOWN_EVENT_TYPE
            | Refusal.EVENT_TYPE_ARCHIVED
            | Refusal.SCHEMA_VIOLATION
            | Refusal.PAYLOAD_TOO_LARGE
            | Refusal.DELIVER_AT_TOO_FAR
            | Refusal.IDEMPOTENCY_KEY_REUSED
        ):
            detail = _words(mapped, result)
            return visit.keep(
                Verdict.UNMAPPED, visit.source.answer, reason=Reason.EVENT_REFUSED, detail=detail
            )
        case _:
            assert_never(result.reason)


def _words(mapped: Mapped, refused: ingest.Refused) -> str:
    told = "; ".join(f"{field}: {message}" for field, message in refused.errors[:5])
    if refused.reason is Refusal.PAYLOAD_TOO_LARGE:
        told = f"data may have at most {refused.limit:.0f} bytes."
    return f"The event {mapped.event_type} was refused ({refused.reason.value}). {told}".strip()


class Visit:
    """One request on its way through."""

    def __init__(
        self, door: Door, source: Settings, request: InboundRequest, hops: int, at: datetime
    ) -> None:
        self.door = door
        self.source = source
        self.request = request
        self.hops = hops
        self.at = at
        self.id = ids.new_id()
        self.dedup_id = ""

    def event(self, mapped: Mapped) -> NewEvent:
        request, source = self.request, self.source
        idempotency = None
        if self.dedup_id:
            idempotency = Idempotency(
                _dedup_key(source.id, self.dedup_id), FINGERPRINT, seconds=source.dedup_seconds
            )
        return NewEvent(
            tenant_id=self.door.tenant_id.bytes,
            type=mapped.event_type,
            data=mapped.data,
            hops=self.hops,
            idempotency=idempotency,
            origin=Origin(
                id=self.id.bytes,
                source_id=source.id.bytes,
                method=request.method,
                query=request.query.encode("utf-8", "surrogateescape"),
                headers=header_block(request),
                content_type=request.content_type[:128],
                body=request.body,
                remote_ip=_ip(request.remote_ip),
                dedup_id=self.dedup_id,
                status_code=source.answer.status,
                answer=msgspec.json.encode(source.answer),
            ),
        )

    def refuse(self, refused: Refused) -> Answer:
        status = STATUSES[refused.reason]
        headers: tuple[tuple[str, str], ...] = ()
        if refused.reason is Reason.CREDENTIALS_WRONG:
            scheme = "Basic" if self.source.verification.scheme == "basic" else "Bearer"
            headers = (("WWW-Authenticate", scheme),)
        elif status == 429:
            headers = (("Retry-After", "1"),)
        answer = Answer(status, refused.detail, headers)
        return self.keep(Verdict.REFUSED, answer, reason=refused.reason, detail=refused.detail)

    def keep_duplicate(self, first: Accepted) -> Answer:
        """The first one's answer. If its payload was erased, this copy of it is not kept either."""
        try:
            answer = msgspec.json.decode(first.reply, type=Answer)
        except msgspec.DecodeError:
            # Of a first one whose payload was erased since.
            answer = self.source.answer
        event_id = UUID(bytes=first.event_id)
        is_erased = (
            Event.objects.for_tenant(self.door.tenant_id)
            .filter(id=event_id, data_erased_at__isnull=False)
            .exists()
        )
        if is_erased:
            self.request = replace(self.request, body=b"", query="", headers={})
        return self.keep(Verdict.DUPLICATE, answer, event_id=event_id)

    def keep(
        self,
        verdict: Verdict,
        answer: Answer,
        *,
        reason: Reason | None = None,
        detail: str = "",
        event_id: UUID | None = None,
    ) -> Answer:
        request = self.request
        is_too_large = reason is Reason.TOO_LARGE
        IncomingRequest.objects.for_tenant(self.door.tenant_id).bulk_create(
            [
                IncomingRequest(
                    id=self.id,
                    tenant_id=self.door.tenant_id,
                    source_id=self.source.id,
                    verdict=verdict.value,
                    reason="" if reason is None else reason.value,
                    detail=detail[:500],
                    method=request.method,
                    query=request.query.encode("utf-8", "surrogateescape")[:MAX_QUERY_BYTES],
                    headers=header_block(request),
                    content_type=request.content_type[:128],
                    body=b"" if is_too_large else request.body,
                    size=len(request.body),
                    remote_ip=_ip(request.remote_ip),
                    dedup_id=self.dedup_id,
                    hops=self.hops,
                    event_id=event_id,
                    status_code=answer.status,
                    created_at=self.at,
                )
            ]
        )
        counters.add(f"incoming:{verdict.value}")
        return answer


def _dedup_key(source_id: UUID, dedup_id: str) -> str:
    """In the tenant's space of idempotency keys. No client can send a control character, so it is nobody else's."""
    return f"\x02{source_id.hex}:{hash_of(dedup_id).hex()}"


def _ip(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def header_block(request: InboundRequest) -> bytes:
    """As it is kept: values that may be credentials masked."""
    lines = "\n".join(f"{name}: {value}" for name, value in mask_headers(request.headers).items())
    return lines.encode("utf-8", "surrogateescape")[:MAX_HEADER_BYTES]


# --- looking, and running again ---------------------------------------------------------------------------------------


def requests_of(source: Source) -> "QuerySet[IncomingRequest]":
    rows: QuerySet[IncomingRequest] = IncomingRequest.objects.for_tenant(source.tenant_id)
    return rows.filter(source_id=source.id)


def get_request(*, source: Source, reference: str) -> IncomingRequest:
    """Raises access.NotFound."""
    try:
        found = requests_of(source).filter(id=ids.from_text(ids.INCOMING, reference)).first()
    except ids.InvalidId:
        raise access.NotFound from None
    if found is None:
        raise access.NotFound
    return found


def run_again(*, actor: Actor, source: Source, incoming: IncomingRequest) -> IncomingRequest:
    """Map it by the source as it now is, and publish. Twice makes one event. Raises NotAgain, PayloadErased."""
    if incoming.verdict != Verdict.UNMAPPED:
        raise NotAgain
    if incoming.erased_at is not None:
        raise PayloadErased
    changed = _again(source, incoming)
    changed.save(update_fields=["verdict", "reason", "detail", "event_id"])
    audit.record(
        actor=actor,
        tenant=source.tenant_id,
        action="source.request_run_again",
        target=ids.to_text(ids.INCOMING, incoming.id),
        after={"verdict": changed.verdict},
    )
    return changed


def run_all_again(*, actor: Actor, source: Source) -> tuple[int, int]:
    """Those that were not mapped, the oldest first: how many are mapped now, and how many still are not."""
    waiting = list(
        requests_of(source)
        .filter(verdict=Verdict.UNMAPPED, erased_at__isnull=True)
        .order_by("id")[:MOST_AT_ONCE]
    )
    mapped = 0
    for each in waiting:
        mapped += run_again(actor=actor, source=source, incoming=each).verdict != Verdict.UNMAPPED
    return mapped, len(waiting) - mapped


def _again(source: Source, incoming: IncomingRequest) -> IncomingRequest:
    """With its new verdict, not yet saved. Raises ingest.DatabaseUnavailable."""
    request = request_of(incoming)
    try:
        payload = bodies.read(request)
        mapped = map_request(
            event_type=source.event_type,
            data=source.data,
            request=request,
            payload=payload,
            now=incoming.created_at,
        )
    except MappingFailed as failed:
        return _unmapped(incoming, Reason.MAPPING_FAILED, str(failed))
    except Refused as refused:
        return _unmapped(incoming, refused.reason, refused.detail)
    if mapped is None:
        incoming.verdict, incoming.reason, incoming.detail = Verdict.IGNORED.value, "", ""
        return incoming
    key = _dedup_key(source.id, incoming.dedup_id) if incoming.dedup_id else f"\x02{incoming.id.hex}:again"
    result = ingest.publish(
        [
            NewEvent(
                tenant_id=source.tenant_id.bytes,
                type=mapped.event_type,
                data=mapped.data,
                occurred_at=incoming.created_at,
                hops=incoming.hops,
                idempotency=Idempotency(key, FINGERPRINT, seconds=source.dedup_seconds),
            )
        ]
    )[0]
    if not isinstance(result, Accepted):
        if result.reason in {Refusal.IDEMPOTENCY_IN_PROGRESS, Refusal.INTERNAL_ERROR}:
            raise ingest.DatabaseUnavailable
        return _unmapped(incoming, Reason.EVENT_REFUSED, _words(mapped, result))
    verdict = Verdict.DUPLICATE if result.is_replayed and incoming.dedup_id else Verdict.ACCEPTED
    incoming.verdict, incoming.reason, incoming.detail = verdict.value, "", ""
    incoming.event_id = UUID(bytes=result.event_id)
    return incoming


def _unmapped(incoming: IncomingRequest, reason: Reason, detail: str) -> IncomingRequest:
    incoming.reason, incoming.detail = reason.value, detail[:500]
    return incoming


def request_of(incoming: IncomingRequest) -> InboundRequest:
    """As it came, less what was masked."""
    return InboundRequest(
        method=incoming.method,
        url="",
        query=bytes(incoming.query).decode("utf-8", "surrogateescape"),
        headers=header_map(incoming.headers),
        content_type=incoming.content_type,
        body=bytes(incoming.body),
        remote_ip=incoming.remote_ip or "",
    )


def erase_request(*, actor: Actor, source: Source, incoming: IncomingRequest) -> None:
    """What came of it stays; erasing again changes nothing."""
    with transaction.atomic():
        rows = requests_of(source).filter(id=incoming.id, erased_at__isnull=True)
        if rows.update(**ERASED, erased_at=Now()):
            audit.record(
                actor=actor,
                tenant=source.tenant_id,
                action="source.request_erased",
                target=ids.to_text(ids.INCOMING, incoming.id),
            )


# --- how long requests are kept ---------------------------------------------------------------------------------------

KEPT_BATCH: Final = 5_000

FORGET = """
DELETE FROM deliveries_incomingrequest WHERE id = ANY(ARRAY(
    SELECT id FROM deliveries_incomingrequest WHERE id < %s ORDER BY id LIMIT %s
))
"""


def forget_requests(*, now: datetime) -> int:
    """Those that are past their days, in batches: an old snapshot slows the queue tables, so none lasts long."""
    before = ids.floor_of(now - timedelta(days=settings.WEBHOOKS_INBOUND_RETENTION_DAYS))
    gone = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(FORGET, [before, KEPT_BATCH])
            if cursor.rowcount == 0:
                return gone
            gone += cursor.rowcount
