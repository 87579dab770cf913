"""What came to a source: looking at it, mapping it again, erasing it, forgetting it after its days.

Called by the API, the portal and an hourly task.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from deliveries.inbound import bodies
from deliveries.inbound.mapping import MappingFailed, map_request
from deliveries.inbound.requests import InboundRequest, Reason, Refused, Verdict
from deliveries.inbound.verification import Verification
from deliveries.models import IncomingRequest, Source
from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import Accepted, Idempotency, NewEvent, Refusal
from deliveries.services.erasing import ERASED
from deliveries.services.receiving import FINGERPRINT, dedup_key, words_of
from deliveries.texts import header_map
from tenants import access, ids
from tenants.services import audit
from tenants.services.audit import Actor

MOST_AT_ONCE: Final = 500
"""Requests that one call runs again."""


class NotAgain(Exception):
    """Only what was not mapped can be run again."""


class PayloadErased(Exception):
    """There is nothing left to map."""


def requests_of(source: Source) -> "QuerySet[IncomingRequest]":
    rows: QuerySet[IncomingRequest] = IncomingRequest.objects.for_tenant(source.tenant_id)
    return rows.filter(source_id=source.id)


def get_request(*, source: Source, reference: str) -> IncomingRequest:
    """Raises access.NotFound."""
    return access.find(requests_of(source), ids.INCOMING, reference)


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
            credential_header=Verification(**source.verification).credential_header,
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
    key = dedup_key(source.id, incoming.dedup_id) if incoming.dedup_id else f"\x02{incoming.id.hex}:again"
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
        return _unmapped(incoming, Reason.EVENT_REFUSED, words_of(mapped, result))
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


FORGOTTEN_AT_ONCE: Final = 5_000
"""Requests deleted by one statement."""

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
            cursor.execute(FORGET, [before, FORGOTTEN_AT_ONCE])
            if cursor.rowcount == 0:
                return gone
            gone += cursor.rowcount
