"""What happens to a request that comes to a source, in this order (`receive`):

    question   some providers ask first whether somebody is here
    verify     is it from whom it should be?
    read       the payload
    map        to an event's type and data
    publish    event, deliveries, the provider's id and the request itself: one transaction, shared with other publishers
    keep       what made no event, alone

The sender is answered after the commit. Called by the view of `/in/<token>`, which found the door (`doors`); what came is
looked at and mapped again by `arrivals`.
"""

import ipaddress
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, assert_never
from uuid import UUID

import msgspec

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
from deliveries.models import Event, IncomingRequest
from deliveries.pipeline import counters, ingest
from deliveries.pipeline.hops import MAX_HOPS
from deliveries.pipeline.ingest import Accepted, Idempotency, NewEvent, Origin, Refusal
from deliveries.services import traces
from deliveries.services.doors import Answer, Door, Settings, settings_of
from deliveries.validation import MASK, mask_headers
from tenants import access, ids

IN_PROGRESS_TRIES: Final = 5
IN_PROGRESS_SECONDS: Final = 0.05
"""A provider that sends the same again while the first is being committed waits for it, for a moment."""

FINGERPRINT: Final = b"incoming request".ljust(32)
"""The provider's id alone says whether two requests are the same."""


def receive(*, door: Door, request: InboundRequest, hops: int) -> Answer:
    """The answer, after whatever there is to keep is committed. Raises ingest.DatabaseUnavailable."""
    source = settings_of(door.source_id, door.version)
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
            event_type=source.event_type,
            data=source.data,
            request=request,
            credential_header=source.verification.credential_header,
            payload=payload,
            now=visit.at,
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
            detail = words_of(mapped, result)
            return visit.keep(
                Verdict.UNMAPPED, visit.source.answer, reason=Reason.EVENT_REFUSED, detail=detail
            )
        case _:
            assert_never(result.reason)


def words_of(mapped: Mapped, refused: ingest.Refused) -> str:
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
                dedup_key(source.id, self.dedup_id), FINGERPRINT, seconds=source.dedup_seconds
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
                headers=header_block(request, source.verification.credential_header),
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
                    headers=header_block(request, self.source.verification.credential_header),
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


def dedup_key(source_id: UUID, dedup_id: str) -> str:
    """In the tenant's space of idempotency keys. No client can send a control character, so it is nobody else's."""
    return f"\x02{source_id.hex}:{access.hash_of(dedup_id).hex()}"


def _ip(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def header_block(request: InboundRequest, credential_header: str) -> bytes:
    """As it is kept: values that may be credentials masked."""
    masked = mask_headers(request.headers)
    if credential_header in masked:
        masked[credential_header] = MASK
    lines = "\n".join(f"{name}: {value}" for name, value in masked.items())
    return lines.encode("utf-8", "surrogateescape")[:MAX_HEADER_BYTES]
