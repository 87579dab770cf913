"""OpenTelemetry traces: a span for each publish and one for each attempt, in the trace of whoever published.

Called by `services/traces.py` and `dispatch`, where traces are on; where they are off, nothing imports this module. The
publisher's `traceparent` is the parent of the publish's span; that span is kept with the event and is the parent of each
attempt, whose own span goes out with the request.

Spans are handed to OpenTelemetry's own queue and sent by its thread. What it cannot send is dropped, never waited for.
"""

import logging
import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.publication import Accepted, NewEvent, Result
from deliveries.pipeline.record import Result as AttemptResult
from deliveries.pipeline.request import Flight, prepare
from deliveries.pipeline.transport import OutgoingRequest
from tenants import ids

logger = logging.getLogger(__name__)

SERVICE = "webhooks-platform"
"""Unless OTEL_SERVICE_NAME says otherwise."""

SPAN_ID = slice(36, 52)
"""Where it stands in a traceparent: `00-<32 digits>-<16 digits>-01`."""

FLUSH_SECONDS = 3
"""How long the end of a process may wait for its last spans to be sent."""

_propagator = TraceContextTextMapPropagator()


class Tracer:
    """One a process. Sampling, batching, headers and so on: OpenTelemetry's own variables of the environment."""

    def __init__(self) -> None:
        self._ids = _Ids()
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: SERVICE}
        # Its own way to end waits for a collector that is away.
        self._provider = TracerProvider(
            resource=Resource.create(named), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        # Not atexit: workers of the web server end without it.
        Finalize(None, self.flush, exitpriority=0)
        self._tracer = self._provider.get_tracer("webhooks")

    def publish(
        self,
        events: Sequence[NewEvent],
        *,
        traceparent: str | None,
        run: Callable[[Sequence[NewEvent]], list[Result]],
    ) -> list[Result]:
        """As `run`, with a span for each event. What is no `traceparent` counts as none."""
        parent = _context(traceparent)
        spans = [self._publishing(event, parent) for event in events]
        try:
            results = run(events)
        except Exception:
            for span in spans:
                span.set_status(Status(StatusCode.ERROR, "unavailable"))
                span.end()
            raise
        for span, result in zip(spans, results, strict=True):
            _tell_result(span, result)
            span.end()
        return results

    def _publishing(self, event: NewEvent, parent: Context) -> Span:
        span = self._tracer.start_span(
            "publish",
            parent,
            SpanKind.PRODUCER,
            {
                "webhooks.tenant_id": ids.bytes_to_text(ids.TENANT, event.tenant_id),
                "webhooks.event_type": event.type,
            },
        )
        context = span.get_span_context()
        # A trace that is the publisher's goes on even if nobody records it; one that would begin here does not.
        if parent or context.trace_flags.sampled:
            event.traceparent = traceparent_of(context)
        return span

    def attempt(self, result: AttemptResult, sent: "_Sent") -> None:
        """The span of an attempt, from what was recorded of it."""
        began = int(result.started_at * 1e9)
        facts: dict[str, str | float | None] = {
            "webhooks.tenant_id": ids.bytes_to_text(ids.TENANT, result.tenant_id),
            "webhooks.endpoint_id": ids.bytes_to_text(ids.ENDPOINT, sent.endpoint_id),
            "webhooks.event_id": sent.event,
            "webhooks.event_type": sent.event_type,
            "webhooks.delivery_id": ids.bytes_to_text(ids.DELIVERY, result.delivery_id),
            "webhooks.attempt_id": ids.bytes_to_text(ids.ATTEMPT, result.attempt_id),
            "webhooks.attempt": result.number,
            "webhooks.trigger": result.trigger,
            "webhooks.outcome": result.outcome,
            "http.response.status_code": result.status_code,
            "network.peer.address": result.remote_ip,
            "webhooks.dns_ms": result.dns_ms,
            "webhooks.connect_ms": result.connect_ms,
            "webhooks.tls_ms": result.tls_ms,
            "webhooks.first_byte_ms": result.first_byte_ms,
        }
        attributes = {name: value for name, value in facts.items() if value is not None}
        self._ids.chosen.span_id = sent.span_id
        span = self._tracer.start_span(
            "attempt", _context(sent.traceparent), SpanKind.CLIENT, attributes, start_time=began
        )
        if not result.is_success:
            span.set_status(Status(StatusCode.ERROR, result.outcome))
        span.end(began + int(result.duration_ms * 1e6))

    def flush(self) -> None:
        """Send what waits, as far as that can be done soon. For the end of a process."""
        flushing = threading.Thread(target=self._provider.force_flush, daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)


class AttemptTraces:
    """Of one dispatcher: remembers the spans of what is in the air until it is recorded."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._in_air: dict[bytes, _Sent] = {}
        """By delivery."""
        self._random = random.Random()  # noqa: S311 - unique, no secret

    def prepare(
        self, flight: Flight, *, now: float, user_agent_line: str
    ) -> OutgoingRequest | tuple[Outcome, str]:
        """As `request.prepare`, and the request says which span it belongs to."""
        request = prepare(flight, now=now, user_agent_line=user_agent_line)
        line = self._began(flight)
        if line is not None and isinstance(request, OutgoingRequest):
            own = flight.lane.config.header_lines
            if not any(each.lower().startswith("traceparent:") for each in own):
                flight.headers.append(line)
                request.headers.append(line)
        return request

    def _began(self, flight: Flight) -> str | None:
        """The header of the request. Of several events in it, a receiver can only be told one trace: the first."""
        header = None
        for owed, payload in ((flight.owed, flight.payload), *flight.others):
            parent = payload.traceparent
            if parent is None:
                continue
            own = parent
            if is_sampled(parent):
                span_id = self._random.getrandbits(64) or 1
                self._in_air[owed.id] = _Sent(
                    parent, span_id, flight.lane.endpoint_id, payload.id_text, payload.type
                )
                own = f"{parent[: SPAN_ID.start]}{span_id:016x}{parent[SPAN_ID.stop :]}"
            header = header or f"traceparent: {own}"
        return header

    def recorded(self, results: Sequence[AttemptResult]) -> None:
        """Once for a batch, after its commit. Whatever happens here, the deliveries are as they were recorded."""
        try:
            for result in results:
                sent = self._in_air.pop(result.delivery_id, None)
                if sent is not None:
                    self._tracer.attempt(result, sent)
        except Exception:  # a trace is not worth a delivery
            logger.exception("attempts could not be traced")


@dataclass(frozen=True, slots=True)
class _Sent:
    traceparent: str
    """Of the publish."""
    span_id: int
    """Of the attempt: the receiver has been told it."""
    endpoint_id: bytes
    event: str
    event_type: str


class _Ids(RandomIdGenerator):
    """Lets an attempt's span have the id that went out with its request."""

    def __init__(self) -> None:
        self.chosen = threading.local()

    def generate_span_id(self) -> int:
        span_id: int | None = getattr(self.chosen, "span_id", None)
        self.chosen.span_id = None
        return super().generate_span_id() if span_id is None else span_id


def traceparent_of(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def is_sampled(traceparent: str) -> bool:
    return traceparent.endswith("1")


def _context(traceparent: str | None) -> Context:
    """Empty if it is none."""
    return _propagator.extract({} if traceparent is None else {"traceparent": traceparent}, Context())


def _tell_result(span: Span, result: Result) -> None:
    if isinstance(result, Accepted):
        if result.event_id:
            span.set_attribute("webhooks.event_id", ids.bytes_to_text(ids.EVENT, result.event_id))
        if result.is_replayed:
            span.set_attribute("webhooks.is_replayed", True)
        else:
            span.set_attribute("webhooks.deliveries", len(result.delivery_ids))
    else:
        span.set_status(Status(StatusCode.ERROR, result.reason.value))
