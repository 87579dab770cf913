"""Publishing over HTTP: the hot path, so plain Django views on the raw body instead of REST framework's.

Who may publish is decided by `tenants.access`, the shape of the body by `json_bytes`, everything else by `ingest`.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar, assert_never
from uuid import UUID

import msgspec
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from deliveries.pipeline import counters
from deliveries.pipeline.hops import MAX_HOPS, hops_of
from deliveries.pipeline.ingest import (
    TENANT_REFUSALS,
    Accepted,
    Batch,
    Idempotency,
    NewEvent,
    Refusal,
    Refused,
)
from deliveries.pipeline.json_bytes import Publish, decode_batch, decode_publish
from deliveries.services import traces
from tenants import access, log_context
from tenants.addresses import remote_ip_of
from tenants.api import problems
from tenants.api.idempotency import again, check_key, keep, look
from tenants.api.problems import Problem
from tenants.api.views import with_rate
from tenants.idempotency import fingerprint
from tenants.json_strict import MalformedJson
from tenants.said import plain
from tenants.validation import InvalidContent

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Of the body of a publish, single or batched: it is held in memory as a whole."""

View = Callable[..., HttpResponseBase]
Decoded = TypeVar("Decoded")

Item = Publish | MalformedJson | InvalidContent
Outcome = Accepted | Refused | MalformedJson | InvalidContent


def publish_or(list_view: View) -> View:
    """POST publishes; every other method goes to the list's view."""

    @csrf_exempt
    def events(request: HttpRequest, tenant: str) -> HttpResponseBase:
        return publish(request, tenant) if request.method == "POST" else list_view(request, tenant=tenant)

    return events


def publish(request: HttpRequest, tenant: str) -> HttpResponse:
    """`POST /tenants/{tenant}/events`"""
    entry = _enter(request, tenant)
    one = _decoded(entry.body, decode_publish)
    key = _idempotency_key(request)
    idempotency = None if key is None else Idempotency(key, fingerprint("POST", request.path, entry.body))
    result = _run(request, [_event(one, entry, idempotency)])[0]
    if isinstance(result, Refused):
        raise problem_of(result)
    response = HttpResponse(result.reply, status=202, content_type="application/json")
    if result.is_replayed:
        response["Idempotent-Replayed"] = "true"
    return with_rate(request, response)


@csrf_exempt
def publish_batch(request: HttpRequest, tenant: str) -> HttpResponse:
    """`POST /tenants/{tenant}/events/batch`"""
    if request.method != "POST":
        # Who may not publish hears that first.
        _authenticated(request)
        raise problems.method_not_allowed(["POST"])
    entry = _enter(request, tenant)
    items = _decoded(entry.body, decode_batch)
    batch = _batch(request, entry, items)

    events: list[NewEvent] = []
    for item in items:
        if isinstance(item, Publish):
            idempotency = None
            if item.idempotency_key is not None:
                idempotency = Idempotency(item.idempotency_key, _item_fingerprint(request, item))
            events.append(_event(item, entry, idempotency, batch))
        else:
            counters.add(f"publishes:{'malformed_json' if isinstance(item, MalformedJson) else 'invalid'}")
    if not events and entry.is_suspended:
        # There is no event by which `ingest` would notice.
        raise problem_of(Refused(Refusal.TENANT_SUSPENDED))
    if batch is not None and not events:
        return with_rate(request, _answered_once(batch))
    results = _run(request, events)
    # Events of one request share the look at their tenant, so the first speaks for all.
    if results and isinstance(results[0], Refused) and results[0].reason in TENANT_REFUSALS:
        raise problem_of(results[0])
    if batch is None:
        body = _batch_body(request, _outcomes(items, results))
        return with_rate(request, _batch_response(body, is_replayed=_is_replayed(results)))
    if batch.refused is not None:
        raise problem_of(batch.refused)
    return with_rate(request, _batch_response(batch.reply, is_replayed=batch.is_replayed))


# --- the steps --------------------------------------------------------------------------------------------------------


class _Entry:
    """Who publishes for whom, and the raw body."""

    __slots__ = ("body", "hops", "is_suspended", "tenant_id")

    def __init__(self, *, tenant_id: bytes, is_suspended: bool, body: bytes, hops: int) -> None:
        self.tenant_id = tenant_id
        self.is_suspended = is_suspended
        self.body = body
        self.hops = hops


def _enter(request: HttpRequest, reference: str) -> _Entry:
    """In this order: 401, 429, 403, 404, 422 of the query, 415, 413, 508."""
    meta = request.META
    caller = _authenticated(request)
    access.require(caller, "events:write")
    facts = access.resolve_tenant(caller, reference)
    log_context.key_id.set(caller.key_id)
    log_context.tenant_id.set(facts.id)
    if request.GET:
        raise problems.invalid(
            [(name, "unknown_parameter", "There is no such parameter here.") for name in request.GET]
        )
    if not _is_json(meta.get("CONTENT_TYPE", "")):
        raise problems.unsupported_media_type()
    if int(meta.get("CONTENT_LENGTH") or 0) > MAX_BATCH_BYTES:
        raise problems.too_large(MAX_BATCH_BYTES)
    hops = _hops(meta.get("HTTP_WEBHOOK_HOPS", ""))
    return _Entry(tenant_id=facts.id.bytes, is_suspended=facts.is_suspended, body=request.body, hops=hops)


def _authenticated(request: HttpRequest) -> access.Caller:
    """Whose key it is. The request counts against it from here on, whatever becomes of it, and its answer says so."""
    caller = access.authenticate(request.META.get("HTTP_AUTHORIZATION"), remote_ip=remote_ip_of(request))
    rate = access.check_rate(caller)
    if rate is not None:
        request.rate = rate  # type: ignore[attr-defined] # added by us
    return caller


def _decoded(body: bytes, decode: Callable[[bytes], Decoded]) -> Decoded:
    try:
        return decode(body)
    except InvalidContent:
        counters.add("publishes:invalid")
        raise
    except MalformedJson as error:
        counters.add("publishes:malformed_json")
        raise problems.malformed_json(str(error)) from None


def _is_json(content_type: str) -> bool:
    return (
        content_type == "application/json"
        or content_type.partition(";")[0].strip().lower() == "application/json"
    )


def _hops(text: str) -> int:
    hops = hops_of(text)
    if hops >= MAX_HOPS:
        raise Problem(
            508,
            "loop_detected",
            "Loop detected",
            f"This event went through {hops} webhooks that lead to one another.",
        )
    return hops


def _idempotency_key(request: HttpRequest) -> str | None:
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None:
        check_key(key)
    return key


def _batch(request: HttpRequest, entry: _Entry, items: Sequence[Item]) -> Batch | None:
    """For a batch with an Idempotency-Key: what has to be known to answer it once."""
    key = _idempotency_key(request)
    if key is None:
        return None
    return Batch(
        entry.tenant_id,
        key,
        fingerprint("POST", request.path, entry.body),
        answer=lambda results: _batch_body(request, _outcomes(items, results)),
    )


def _item_fingerprint(request: HttpRequest, item: Publish) -> bytes:
    """Of a batch item: its content, so that it may come again in another batch."""
    content = [
        item.type,
        item.data.decode(),
        item.occurred_at and item.occurred_at.isoformat(),
        item.channels,
        item.ordering_key,
        item.deliver_at and item.deliver_at.isoformat(),
    ]
    return fingerprint("POST", request.path, msgspec.json.encode(content))


def _event(
    item: Publish, entry: _Entry, idempotency: Idempotency | None, batch: Batch | None = None
) -> NewEvent:
    return NewEvent(
        tenant_id=entry.tenant_id,
        type=item.type,
        data=item.data,
        occurred_at=item.occurred_at,
        channels=list(item.channels) or None,
        ordering_key=item.ordering_key,
        deliver_at=item.deliver_at,
        idempotency=idempotency,
        batch=batch,
        hops=entry.hops,
    )


def _run(request: HttpRequest, events: Sequence[NewEvent]) -> list[Accepted | Refused]:
    if not events:
        return []
    return traces.publish(events, traceparent=request.META.get("HTTP_TRACEPARENT"))


def _answered_once(batch: Batch) -> HttpResponse:
    """A batch without a single event that `ingest` could take: its reply is kept like any other."""
    space = UUID(bytes=batch.tenant_id)
    with transaction.atomic():
        kept = look(space, batch.key, batch.fingerprint)
        if kept is not None:
            return again(kept)
        reply = batch.answer([])
        keep(space, batch.key, batch.fingerprint, reply, status_code=202)
    return _batch_response(reply, is_replayed=False)


def _outcomes(items: Sequence[Item], results: Sequence[Accepted | Refused]) -> list[Outcome]:
    """Of every item: what became of its event, or why it is none."""
    remaining = iter(results)
    return [next(remaining) if isinstance(item, Publish) else item for item in items]


def _is_replayed(results: Sequence[Accepted | Refused]) -> bool:
    """Whether all that was accepted was so before, each by a key of its own."""
    is_any = False
    for result in results:
        if isinstance(result, Accepted):
            if not result.is_replayed:
                return False
            is_any = True
    return is_any


def _batch_body(request: HttpRequest, outcomes: Sequence[Outcome]) -> bytes:
    request_id = getattr(request, "request_id", "")
    parts: list[bytes] = []
    accepted = 0
    for outcome in outcomes:
        if isinstance(outcome, Accepted):
            accepted += 1
            parts.append(outcome.reply)
        else:
            document = _item_problem(outcome).document(request_id)
            parts.append(b'{"error":' + msgspec.json.encode(document, enc_hook=plain) + b"}")
    return b'{"data":[%b],"accepted":%d,"rejected":%d}' % (
        b",".join(parts),
        accepted,
        len(outcomes) - accepted,
    )


def _batch_response(body: bytes, *, is_replayed: bool) -> HttpResponse:
    response = HttpResponse(body, status=202, content_type="application/json")
    if is_replayed:
        response["Idempotent-Replayed"] = "true"
    return response


def _item_problem(outcome: Refused | MalformedJson | InvalidContent) -> Problem:
    match outcome:
        case Refused():
            return problem_of(outcome)
        case MalformedJson():
            return problems.malformed_json(str(outcome))
        case InvalidContent():
            return problems.invalid(outcome.errors)
        case _:
            assert_never(outcome)


def problem_of(refused: Refused) -> Problem:
    """What a refusal looks like over HTTP."""
    errors = [(field, refused.reason.value, message) for field, message in refused.errors]
    match refused.reason:
        case Refusal.TENANT_NOT_FOUND:
            return problems.not_found()
        case Refusal.TENANT_SUSPENDED:
            return Problem(
                403, "tenant_suspended", "Tenant suspended", "This tenant is suspended: it takes no events."
            )
        case Refusal.TENANT_RATE_LIMITED:
            return Problem(
                429,
                "tenant_rate_limited",
                "Too many events",
                f"The tenant's limit events_per_second is {refused.limit}, and it is used up.",
                headers={"Retry-After": str(math.ceil(max(1.0, 1 / (refused.limit or 1.0))))},
            )
        case Refusal.PAYLOAD_TOO_LARGE:
            return Problem(
                413,
                "too_large",
                "Too large",
                f"data may have at most {refused.limit} bytes.",
                errors=[("data", "too_large", f"Must have at most {refused.limit} bytes.")],
            )
        case Refusal.UNKNOWN_EVENT_TYPE | Refusal.EVENT_TYPE_ARCHIVED | Refusal.SCHEMA_VIOLATION:
            title = {
                Refusal.UNKNOWN_EVENT_TYPE: "Unknown event type",
                Refusal.EVENT_TYPE_ARCHIVED: "Archived event type",
                Refusal.SCHEMA_VIOLATION: "The data breaks the event type's schema",
            }[refused.reason]
            detail = errors[0][2] if len(errors) == 1 else f"{len(errors)} fields are wrong."
            return Problem(422, refused.reason.value, title, detail, errors=errors)
        case Refusal.DELIVER_AT_TOO_FAR:
            return problems.invalid(errors)
        case Refusal.IDEMPOTENCY_KEY_REUSED:
            return Problem(
                422,
                "idempotency_key_reused",
                "Idempotency key reused",
                "This Idempotency-Key was used with another request. Use a new one for each request.",
            )
        case Refusal.IDEMPOTENCY_IN_PROGRESS:
            return problems.conflict(
                "idempotency_in_progress",
                "The first request with this Idempotency-Key is still running. Try again.",
            )
        case Refusal.INTERNAL_ERROR:
            return problems.internal_error()
        case _:
            assert_never(refused.reason)
