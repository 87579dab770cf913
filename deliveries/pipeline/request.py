"""From a loaded delivery to the request that goes out, and to the attempt that is written down. Called by `dispatch`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from deliveries.pipeline.batch import BATCH_TYPE, id_of
from deliveries.pipeline.body import (
    RequestTooLarge,
    encode,
    encode_batch,
    query_of,
    source_of,
    wire_query,
)
from deliveries.pipeline.book import HeldLane
from deliveries.pipeline.database import Row
from deliveries.pipeline.endpoints import EndpointConfig
from deliveries.pipeline.lanes import Owed
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.payloads import Payload, memory_of
from deliveries.pipeline.signing import sign
from deliveries.pipeline.transport import Answer, OutgoingRequest
from tenants import ids


@dataclass(slots=True, eq=False)
class Flight:
    """A request in the air: what the transport hands back with its answer."""

    lane: HeldLane
    owed: Owed
    payload: Payload
    started: float
    """time.monotonic()"""
    headers: list[str] = field(default_factory=list)
    others: Sequence[tuple[Owed, Payload]] = ()
    """What else goes out in it: a batch."""
    request: OutgoingRequest | None = None
    """Kept while it may be sent again with another access token."""
    token: str = ""
    is_second: bool = False
    """It was sent again with a new token."""
    is_slow: bool = False
    is_over: bool = False


def prepare(flight: Flight, *, now: float, user_agent_line: str) -> OutgoingRequest | tuple[Outcome, str]:
    """The signed request, or why it cannot be made. `now`: Unix time by the database's clock."""
    lane, owed, payload = flight.lane, flight.owed, flight.payload
    config = lane.config
    if config.broken is not None:
        return Outcome.INTERNAL_ERROR, config.broken
    if config.certificate_until <= now:
        return Outcome.CREDENTIALS_FAILED, "The endpoint's client certificate has expired."
    if owed.preparation_error is not None:
        return Outcome.TRANSFORMATION_FAILED, owed.preparation_error
    if payload.data is None:
        return Outcome.INTERNAL_ERROR, "the payload was erased"
    query = None
    first_lines: list[str] = []
    try:
        if config.batch is not None:
            content_type, body = _batch_body(flight)
            first_lines, signed = [f"content-type: {content_type}"], body
        elif config.method == "GET":
            query = query_of(event_type=payload.type, occurred_at=payload.occurred_at, data=payload.data)
            body, signed = b"", wire_query(config.destination.url, query)
        else:
            first_lines, body = _body(config, payload)
            signed = body
    except RequestTooLarge as error:
        return Outcome.REQUEST_TOO_LARGE, str(error)
    number = owed.attempt_count + 1
    timestamp = int(now)
    id_text, event_type = payload.id_text, payload.type
    if config.batch is not None:
        id_text, event_type = id_of([owed.id, *(other.id for other, _ in flight.others)]), BATCH_TYPE
    signature = sign(config.signing_keys(now), id_text, timestamp, signed)
    lines = [
        *first_lines,
        user_agent_line,
        f"webhook-id: {id_text}",
        f"webhook-timestamp: {timestamp}",
        f"webhook-signature: {signature}",
        f"webhook-attempt: {number}",
        f"webhook-hops: {payload.hops + 1}",
    ]
    if config.template is not None:
        lines += config.template_lines(now, message_id=id_text, event_type=event_type, signed=signed)
    flight.headers = lines
    return OutgoingRequest(
        config.destination, config.method, query, lines + config.header_lines, body, flight
    )


def _batch_body(flight: Flight) -> tuple[str, bytes]:
    payloads = [flight.payload, *(payload for _, payload in flight.others)]
    events = [
        (payload.id_text, payload.type, payload.occurred_at, payload.data)
        for payload in payloads
        if payload.data is not None
    ]
    config = flight.lane.config
    return encode_batch(config.format, events, source=source_of(config.tenant_id))


def _body(config: EndpointConfig, payload: Payload) -> tuple[list[str], bytes]:
    """Header lines that say what it is, and body. Raises RequestTooLarge."""
    encoded = payload.encoded.get(config.format)
    if encoded is None:
        assert payload.data is not None
        content_type, extra_lines, body = encode(
            config.format,
            event_id_text=payload.id_text,
            event_type=payload.type,
            occurred_at=payload.occurred_at,
            data=payload.data,
            source=source_of(payload.tenant_id),
        )
        encoded = [f"content-type: {content_type}", *extra_lines], body
        payload.encoded[config.format] = encoded
    return encoded


def no_answer(flight: Flight, outcome: Outcome, detail: str, *, is_platform_fault: bool = False) -> Answer:
    """An attempt that never left."""
    return Answer(
        tag=flight,
        failure=outcome,
        detail=detail,
        is_platform_fault=is_platform_fault,
        status_code=None,
        response_headers=b"",
        response_body=b"",
        is_truncated=False,
        remote_ip=None,
        started_at=time.time(),
        duration_ms=0.0,
        dns_ms=None,
        connect_ms=None,
        tls_ms=None,
        first_byte_ms=None,
        is_new_connection=False,
    )


def payload_of(row: Row, now: float) -> Payload:
    """From a row of `lanes.load_events` or `load_bodies`."""
    key, event_id, tenant_id, event_type, occurred_at, data, hops, channels, traceparent = row
    return Payload(
        key=key,
        tenant_id=tenant_id,
        id_text=ids.bytes_to_text(ids.EVENT, event_id),
        type=event_type,
        occurred_at=occurred_at,
        data=None if data is None else bytes(data),
        hops=hops,
        channels=channels,
        size=memory_of(len(data or b"")),
        fetched_at=now,
        traceparent=traceparent,
    )
