"""Deliveries and attempts: `/tenants/{tenant}/deliveries`."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries import validation
from deliveries.api.endpoint_shapes import ENDPOINT_REFERENCE
from deliveries.models import Attempt, Delivery
from deliveries.pipeline.outcome import Outcome, explain
from deliveries.services import deliveries
from deliveries.services.deliveries import EndpointStopped, NotPending, PayloadErased
from deliveries.services.endpoint_settings import is_uid
from deliveries.texts import header_map, readable
from tenants import ids
from tenants.api import fields, problems, query
from tenants.api.fields import NoBody, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.problems import Problem
from tenants.api.query import PAGE, SINCE, UNTIL, Parameter, check_window, id_of
from tenants.api.rendering import optional_time_text, time_text
from tenants.api.schema import EVENT_TYPE_NAME, example, page_of
from tenants.api.views import TenantAPIView
from tenants.models import ApiKey
from tenants.validation import Invalid

READ, WRITE = ApiKey.Scope.DELIVERIES_READ, ApiKey.Scope.DELIVERIES_WRITE

DELIVERY_ID = fields.id_text(ids.DELIVERY)
STATUS: fields.AnySchema = {"type": "string", "enum": Delivery.Status.values}
OUTCOMES = [outcome.value for outcome in Outcome]
OUTCOME: fields.AnySchema = {"type": "string", "enum": OUTCOMES}
TRIGGER: fields.AnySchema = {"type": "string", "enum": Delivery.Trigger.values}
STATUS_CODE = fields.whole_number(100, 999)
MILLISECONDS: fields.AnySchema = {"type": "number", "minimum": 0}

EXAMPLE: dict[str, Any] = {
    "id": "dlv_01h455vb4pex5vsknk084sn02q",
    "event": "evt_01h455vb4pex5vsknk084sn02q",
    "event_type": "order.created",
    "endpoint": "ep_01h455vb4pex5vsknk084sn02q",
    "trigger": "automatic",
    "status": "pending",
    "cancel_reason": None,
    "attempt_count": 1,
    "next_attempt_at": "2026-03-01T12:05:00.000000Z",
    "last_outcome": "http_error",
    "last_status_code": 503,
    "created_at": "2026-03-01T12:00:00.000000Z",
    "completed_at": None,
}


@example(EXAMPLE)
class DeliveryOut(Output):
    id = Shown(DELIVERY_ID)
    event = Shown(fields.id_text(ids.EVENT))
    event_type = Shown({"type": "string"})
    endpoint = Shown(fields.id_text(ids.ENDPOINT))
    trigger = Shown(TRIGGER, "What made it: a publish, a test or a replay.")
    status = Shown(STATUS)
    cancel_reason = Shown(
        fields.nullable({"type": "string", "enum": Delivery.CancelReason.values}),
        "Why it was cancelled; `expired` if it failed because it waited longer than it is kept.",
    )
    attempt_count = Shown({"type": "integer", "minimum": 0}, "Manual ones counted.")
    next_attempt_at = Shown(
        fields.nullable(fields.TIME), "When the next automatic attempt is due; null while it waits in order."
    )
    last_outcome = Shown(fields.nullable(OUTCOME))
    last_status_code = Shown(fields.nullable(STATUS_CODE))
    created_at = Shown(fields.TIME)
    completed_at = Shown(fields.nullable(fields.TIME))


DeliveryPage = page_of(DeliveryOut)


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": ids.to_text(ids.DELIVERY, delivery.id),
        "event": ids.to_text(ids.EVENT, delivery.event_id),
        "event_type": delivery.event_type,
        "endpoint": ids.to_text(ids.ENDPOINT, delivery.endpoint_id),
        "trigger": delivery.trigger,
        "status": delivery.status,
        "cancel_reason": delivery.cancel_reason,
        "attempt_count": delivery.attempt_count,
        "next_attempt_at": optional_time_text(delivery.next_attempt_at),
        "last_outcome": delivery.last_outcome,
        "last_status_code": delivery.last_status_code,
        "created_at": time_text(delivery.created_at),
        "completed_at": optional_time_text(delivery.completed_at),
    }


ATTEMPT_EXAMPLE: dict[str, Any] = {
    "id": "att_01h455vb4pex5vsknk084sn02q",
    "number": 1,
    "trigger": "automatic",
    "started_at": "2026-03-01T12:00:00.004000Z",
    "duration_ms": 84.1,
    "timings": {"dns_ms": 1.2, "connect_ms": 10.4, "tls_ms": 22.0, "first_byte_ms": 83.7},
    "outcome": "http_error",
    "explanation": "The endpoint answered with status 503; it failed on its side: its logs should say why.",
    "status_code": 503,
    "remote_ip": "203.0.113.7",
    "request_headers": {
        "content-type": "application/json",
        "webhook-id": "evt_01h455vb4pex5vsknk084sn02q",
        "webhook-timestamp": "1772366400",
        "webhook-signature": "v1,c2lnbmF0dXJl",
        "webhook-attempt": "1",
    },
    "response_headers": {"content-type": "text/plain"},
    "response_body": "try again",
    "response_truncated": False,
}

PHASE = fields.nullable(MILLISECONDS)


class TimingsOut(Output):
    dns_ms = Shown(PHASE)
    connect_ms = Shown(PHASE, "null, as the phases beside it, on a connection that was open.")
    tls_ms = Shown(PHASE)
    first_byte_ms = Shown(PHASE)


class AttemptHead(Output):
    id = Shown(fields.id_text(ids.ATTEMPT))
    number = Shown({"type": "integer", "minimum": 1}, "As `webhook-attempt`.")
    trigger = Shown(TRIGGER)
    started_at = Shown(fields.TIME)
    duration_ms = Shown(MILLISECONDS)
    outcome = Shown(OUTCOME)
    explanation = Shown({"type": "string"}, "What happened, and what to do about it.")
    status_code = Shown(fields.nullable(STATUS_CODE))


@example(ATTEMPT_EXAMPLE)
class AttemptOut(AttemptHead):
    timings = TimingsOut()
    remote_ip = Shown(fields.nullable({"type": "string"}))
    request_headers = Shown(fields.TEXTS, "As sent; credentials are masked.")
    response_headers = Shown(fields.TEXTS, "Lines of one name are joined by a comma.")
    response_body = Shown({"type": "string"}, "The first 16 KiB. What is not UTF-8, and NUL, is U+FFFD.")
    response_truncated = Shown(fields.BOOLEAN)


def attempt_head(attempt: Attempt) -> dict[str, Any]:
    """Without what was sent and answered."""
    return {
        "id": ids.to_text(ids.ATTEMPT, attempt.id),
        "number": attempt.number,
        "trigger": attempt.trigger,
        "started_at": time_text(attempt.started_at),
        "duration_ms": attempt.duration_ms,
        "outcome": attempt.outcome,
        "explanation": explain(Outcome(attempt.outcome), attempt.status_code, attempt.detail),
        "status_code": attempt.status_code,
    }


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    return {
        **attempt_head(attempt),
        "timings": {
            "dns_ms": attempt.dns_ms,
            "connect_ms": attempt.connect_ms,
            "tls_ms": attempt.tls_ms,
            "first_byte_ms": attempt.first_byte_ms,
        },
        "remote_ip": attempt.remote_ip,
        "request_headers": header_map(attempt.request_headers),
        "response_headers": validation.mask_response_headers(header_map(attempt.response_headers)),
        "response_body": readable(attempt.response_body),
        "response_truncated": attempt.is_truncated,
    }


# --- parameters -------------------------------------------------------------------------------------------------------


def endpoint_reference(value: object) -> str:
    text = str(value)
    if text.startswith(f"{ids.ENDPOINT}_"):
        id_of(ids.ENDPOINT)(text)
    elif not is_uid(text):
        raise Invalid("invalid_id", "Must be the id or the uid of an endpoint.")
    return text


FILTERS = (
    Parameter(
        "endpoint",
        endpoint_reference,
        "Id or uid of an endpoint. Deleted ones are known by id.",
        ENDPOINT_REFERENCE,
    ),
    Parameter("event", id_of(ids.EVENT), "Id of an event.", fields.id_text(ids.EVENT)),
    Parameter("event_type", validation.event_type_name, "A whole event type.", EVENT_TYPE_NAME),
    Parameter("status", query.choice(*Delivery.Status.values), "How it stands.", STATUS),
    Parameter("outcome", query.choice(*OUTCOMES), "What came of its last attempt.", OUTCOME),
    SINCE,
    UNTIL,
)


# --- views ------------------------------------------------------------------------------------------------------------


class DeliveriesView(TenantAPIView):
    scopes = {"GET": READ}
    parameters = {"GET": (*FILTERS, *PAGE)}

    @extend_schema(
        operation_id="list_deliveries",
        summary="List deliveries",
        tags=["Deliveries"],
        responses={200: DeliveryPage},
    )
    def get(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first."""
        since, until = check_window(self.query)
        endpoint_id = None
        if self.query["endpoint"] is not None:
            endpoint_id = deliveries.endpoint_id_of(self.tenant, self.query["endpoint"])
        found = deliveries.find_deliveries(
            self.tenant,
            endpoint_id=endpoint_id,
            event_id=self.query["event"],
            event_type=self.query["event_type"],
            status=self.query["status"],
            outcome=self.query["outcome"],
            since=since,
            until=until,
        )
        if self.query["endpoint"] is not None and endpoint_id is None:
            found = found.none()
        return page(self.query, found, serialize=delivery_json)


class DeliveryAPIView(TenantAPIView):
    """Below `/tenants/{tenant}/deliveries/{delivery}`."""

    delivery: Delivery

    def locate(self, **kwargs: Any) -> None:
        super().locate(**kwargs)
        self.delivery = deliveries.get_delivery(tenant=self.tenant, reference=kwargs["delivery"])


class DeliveryView(DeliveryAPIView):
    scopes = {"GET": READ}

    @extend_schema(
        operation_id="get_delivery",
        summary="Get a delivery",
        tags=["Deliveries"],
        responses={200: DeliveryOut},
    )
    def get(self, request: Request, tenant: str, delivery: str) -> Response:  # noqa: ARG002 - DRF's signature
        return Response(delivery_json(self.delivery))


class AttemptsView(DeliveryAPIView):
    scopes = {"GET": READ}
    parameters = {"GET": PAGE}

    @extend_schema(
        operation_id="list_attempts",
        summary="List the attempts of a delivery",
        tags=["Deliveries"],
        responses={200: page_of(AttemptOut)},
    )
    def get(self, request: Request, tenant: str, delivery: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first. Headers and bodies are empty if the event's payload was erased."""
        return page(self.query, deliveries.attempts_of(self.delivery), serialize=attempt_json)


class RetryView(DeliveryAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="retry_delivery",
        summary="Try a delivery again",
        tags=["Deliveries"],
        request=None,
        responses={202: DeliveryOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, delivery: str) -> Response:  # noqa: ARG002 - DRF's signature
        """One attempt, whatever the state, as soon as it can be made. Success makes the delivery `succeeded`; failure
        leaves one that had ended as it was. Automatic attempts stay as they are planned.

        `409 endpoint_disabled`, `endpoint_deleted` or `payload_erased`: there is nowhere, or nothing, to send.
        """
        NoBody.read(request)
        try:
            retried = deliveries.retry_delivery(actor=self.actor, delivery=self.delivery, now=timezone.now())
        except (EndpointStopped, PayloadErased) as error:
            raise not_sendable(error) from None
        return Response(delivery_json(retried), status=202)


class CancelView(DeliveryAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="cancel_delivery",
        summary="Cancel a delivery",
        tags=["Deliveries"],
        request=None,
        responses={202: DeliveryOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, delivery: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Only while it is pending: else `409 not_pending`. An attempt in the air is kept, and changes nothing."""
        NoBody.read(request)
        try:
            cancelled = deliveries.cancel_delivery(actor=self.actor, delivery=self.delivery)
        except NotPending:
            raise problems.conflict("not_pending", "The delivery has ended already.") from None
        return Response(delivery_json(cancelled), status=202)


def not_sendable(error: EndpointStopped | PayloadErased) -> Problem:
    match error:
        case PayloadErased():
            return problems.conflict("payload_erased", "The event's payload was erased.")
        case EndpointStopped(is_deleted=True):
            return problems.conflict("endpoint_deleted", "The endpoint was deleted.")
        case _:
            return problems.conflict("endpoint_disabled", "The endpoint is disabled. Enable it first.")
