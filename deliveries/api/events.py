"""Events: `/tenants/{tenant}/events`. Publishing is in `publish.py`; what stands here about it is for the document."""

from collections.abc import Callable
from typing import Any

import msgspec
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries import validation
from deliveries.api.deliveries import (
    DeliveryOut,
    DeliveryPage,
    delivery_json,
    endpoint_reference,
    not_sendable,
)
from deliveries.api.endpoint_shapes import ENDPOINT_REFERENCE
from deliveries.api.publish import publish, publish_batch
from deliveries.models import Event
from deliveries.pipeline.json_bytes import MAX_BATCH
from deliveries.services import deliveries, erasing, events
from deliveries.services.deliveries import EndpointStopped, PayloadErased
from deliveries.services.endpoints import get_endpoint
from tenants import access, ids
from tenants.api import fields, problems
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.idempotency import MARK, idempotent
from tenants.api.pagination import page
from tenants.api.query import PAGE, SINCE, UNTIL, Parameter, check_window
from tenants.api.rendering import optional_time_text, time_text
from tenants.api.schema import EVENT_TYPE_NAME, example, page_of
from tenants.api.views import APIView, TenantAPIView
from tenants.models import ApiKey

READ, WRITE = ApiKey.Scope.EVENTS_READ, ApiKey.Scope.EVENTS_WRITE

EVENT_ID = fields.id_text(ids.EVENT)
CHANNEL = fields.text(128, 1, pattern="^[A-Za-z0-9._:-]+$")
CHANNELS = fields.list_of(CHANNEL, validation.MAX_CHANNELS)
ORDERING_KEY = fields.text(128, 1, pattern=f"^[^{validation.UNSEEN}]*$")
IDEMPOTENCY_KEY = fields.text(255, 1, pattern="^[ -~]+$")

DATA: dict[str, Any] = {"id": "A-17", "amount": 12.5}
PUBLISH_EXAMPLE: dict[str, Any] = {"type": "order.created", "data": DATA, "channels": ["shop-17"]}
ACCEPTED_EXAMPLE: dict[str, Any] = {
    "id": "evt_01h455vb4pex5vsknk084sn02q",
    "type": "order.created",
    "occurred_at": "2026-03-01T12:00:00.000000Z",
    "created_at": "2026-03-01T12:00:00.000000Z",
    "channels": ["shop-17"],
    "deliveries": 3,
}
EXAMPLE: dict[str, Any] = {
    **ACCEPTED_EXAMPLE,
    "ordering_key": None,
    "deliver_at": None,
    "schema_warnings": None,
    "data_erased_at": None,
}


# --- what is published, for the document ------------------------------------------------------------------------------


@example(PUBLISH_EXAMPLE)
class PublishIn(Input):
    type = Field(
        validation.event_type_name,
        EVENT_TYPE_NAME,
        required=True,
        help_text="Of the tenant's catalogue, and not archived.",
    )
    data = Field(  # type: ignore[assignment] # a field of ours, which DRF takes out of the class
        lambda value: value,
        fields.ANY_OBJECT,
        required=True,
        help_text="Any JSON object, kept and sent byte for byte. Its type's schema must take it.",
    )
    occurred_at = Field(validation.moment, fields.TIME, help_text="Default: acceptance.")
    channels = Field(
        validation.event_channels,
        CHANNELS,
        help_text="Endpoints with channels get only events that carry one of them.",
    )
    ordering_key = Field(
        validation.ordering_key,
        ORDERING_KEY,
        help_text="Endpoints with `fifo` get events of one key in the order of publication.",
    )
    deliver_at = Field(validation.moment, fields.TIME, help_text="Not before; at most 30 days ahead.")


@example({**PUBLISH_EXAMPLE, "idempotency_key": "order-A-17"})
class BatchItemIn(PublishIn):
    idempotency_key = Field(
        validation.idempotency_key,
        IDEMPOTENCY_KEY,
        help_text="As the header `Idempotency-Key` of a single publish; they share one space of keys.",
    )


@example({"events": [{**PUBLISH_EXAMPLE, "idempotency_key": "order-A-17"}]})
class BatchIn(Input):
    events = BatchItemIn(many=True, help_text="Together at most 8 MiB.")

    @classmethod
    def documented(cls, schema: fields.AnySchema) -> fields.AnySchema:
        """Any item is taken: a bad one is refused by itself."""
        events = schema["properties"]["events"]
        refused = {"description": "Anything else is refused by itself: its place in the reply says why."}
        events |= {"minItems": 1, "maxItems": MAX_BATCH, "items": {"anyOf": [events["items"], refused]}}
        return schema


@example(ACCEPTED_EXAMPLE)
class AcceptedOut(Output):
    id = Shown(EVENT_ID)
    type = Shown(EVENT_TYPE_NAME)
    occurred_at = Shown(fields.TIME)
    created_at = Shown(fields.TIME)
    channels = Shown(fields.nullable(CHANNELS))
    deliveries = Shown({"type": "integer", "minimum": 0}, "To how many endpoints it goes.")


REFUSED: fields.AnySchema = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"$ref": "#/components/schemas/Problem"}},
    "additionalProperties": False,
}


@example({"data": [ACCEPTED_EXAMPLE], "accepted": 1, "rejected": 0})
class BatchOut(Output):
    data = Shown(  # type: ignore[assignment] # a field of ours, which DRF takes out of the class
        fields.list_of({"oneOf": [{"$ref": "#/components/schemas/AcceptedOut"}, REFUSED]}),
        "In the order given: what was accepted, or the problem with it.",
    )
    accepted = Shown({"type": "integer", "minimum": 0})
    rejected = Shown({"type": "integer", "minimum": 0})


# --- what is shown ----------------------------------------------------------------------------------------------------

WARNINGS = fields.list_of(
    {
        "type": "object",
        "required": ["field", "message"],
        "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
    }
)


@example(EXAMPLE)
class EventOut(AcceptedOut):
    ordering_key = Shown(fields.nullable(ORDERING_KEY))
    deliver_at = Shown(fields.nullable(fields.TIME))
    schema_warnings = Shown(
        fields.nullable(WARNINGS), "What its schema refuses, if the tenant takes such events with a warning."
    )
    data_erased_at = Shown(fields.nullable(fields.TIME))


@example({**EXAMPLE, "data": DATA})
class EventWithData(EventOut):
    data = Shown(  # type: ignore[assignment] # a field of ours, which DRF takes out of the class
        fields.nullable(fields.ANY_OBJECT), "As it was published, byte for byte; null if erased."
    )


def event_json(event: Event) -> dict[str, Any]:
    return {
        "id": ids.to_text(ids.EVENT, event.id),
        "type": event.type,
        "occurred_at": time_text(event.occurred_at),
        "created_at": time_text(event.created_at),
        "channels": event.channels,
        "deliveries": event.delivery_count,
        "ordering_key": event.ordering_key,
        "deliver_at": optional_time_text(event.deliver_at),
        "schema_warnings": event.schema_warning,
        "data_erased_at": optional_time_text(event.data_erased_at),
    }


@example({"endpoint": "ep_01h455vb4pex5vsknk084sn02q"})
class EventReplayIn(Input):
    endpoint = Field(
        endpoint_reference,
        ENDPOINT_REFERENCE,
        help_text="Id or uid: to this endpoint alone, whether it matches or not. Default: to all that match now.",
    )


class DeliveriesOut(Output):
    data = DeliveryOut(many=True)  # type: ignore[assignment] # a field of ours, which DRF takes out of the class


# --- views ------------------------------------------------------------------------------------------------------------


class EventsView(TenantAPIView):
    scopes = {"GET": READ, "POST": WRITE}
    parameters = {
        "GET": (
            Parameter("type", validation.event_type_name, "A whole event type.", EVENT_TYPE_NAME),
            Parameter("channel", validation.channel, "Events that carry this channel.", CHANNEL),
            SINCE,
            UNTIL,
            *PAGE,
        )
    }

    @extend_schema(
        operation_id="list_events", summary="List events", tags=["Events"], responses={200: page_of(EventOut)}
    )
    def get(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first, without their data."""
        since, until = check_window(self.query)
        found = events.find_events(
            self.tenant, type=self.query["type"], channel=self.query["channel"], since=since, until=until
        )
        return page(self.query, found, serialize=event_json)

    @extend_schema(
        operation_id="publish_event",
        summary="Publish an event",
        tags=["Events"],
        request=PublishIn,
        responses={202: AcceptedOut},
    )
    def post(self, request: Request, tenant: str) -> HttpResponseBase:
        """Accepted means durable: from the reply on, every delivery of it ends one way or the other, and says how.

        `422 unknown_event_type`, `event_type_archived` or `schema_violation` (its `errors` name `data.<path>`);
        `413` for data over the tenant's `payload_bytes`; `403 tenant_suspended`; `429 tenant_rate_limited`.
        """
        return publish(request._request, tenant)  # noqa: SLF001 - the plain request; `urls.py` goes past this method

    setattr(post, MARK, True)


class EventBatchView(TenantAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="publish_events",
        summary="Publish many events",
        tags=["Events"],
        request=BatchIn,
        responses={202: BatchOut},
    )
    def post(self, request: Request, tenant: str) -> HttpResponseBase:
        """One bad event does not spoil the others. All that are accepted commit in one transaction, in their order."""
        return publish_batch(request._request, tenant)  # noqa: SLF001 - as above

    setattr(post, MARK, True)


def past_rest_framework(fast: Callable[..., HttpResponseBase], view: type[APIView]) -> Any:
    """The hot path in the place of a view, which stays what the document is made from."""

    @csrf_exempt
    def straight(request: HttpRequest, tenant: str) -> HttpResponseBase:
        return fast(request, tenant)

    shown: Any = straight
    shown.cls = shown.view_class = view
    shown.initkwargs = {}
    return shown


class EventAPIView(TenantAPIView):
    """Below `/tenants/{tenant}/events/{event}`."""

    shows_data = False
    event: Event

    def locate(self, **kwargs: Any) -> None:
        super().locate(**kwargs)
        self.event = events.get_event(
            tenant=self.tenant, reference=kwargs["event"], with_data=self.shows_data
        )


class EventView(EventAPIView):
    scopes = {"GET": READ}
    shows_data = True

    @extend_schema(
        operation_id="get_event", summary="Get an event", tags=["Events"], responses={200: EventWithData}
    )
    def get(self, request: Request, tenant: str, event: str) -> Response:  # noqa: ARG002 - DRF's signature
        """With its data."""
        data = None if self.event.data is None else msgspec.Raw(bytes(self.event.data))
        return Response({**event_json(self.event), "data": data})


class EventDeliveriesView(EventAPIView):
    scopes = {"GET": READ}
    parameters = {"GET": PAGE}

    @extend_schema(
        operation_id="list_event_deliveries",
        summary="List the deliveries of an event",
        tags=["Events"],
        responses={200: DeliveryPage},
    )
    def get(self, request: Request, tenant: str, event: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first. Who got nothing, and why, is told by `explain`."""
        found = deliveries.find_deliveries(self.tenant, event_id=self.event.id)
        return page(self.query, found, serialize=delivery_json)


class EventReplayView(EventAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="replay_event",
        summary="Send an event again",
        tags=["Events"],
        request=EventReplayIn,
        responses={202: DeliveriesOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, event: str) -> Response:  # noqa: ARG002 - DRF's signature
        """New deliveries to what matches now, or to one endpoint. Their `webhook-id` is the event's, as it was.

        `409 payload_erased`: there is nothing to send. `409 endpoint_disabled`: the one that was named takes nothing.
        """
        reference = EventReplayIn.read(request).get("endpoint")
        endpoint = None
        if reference is not None:
            try:
                endpoint = get_endpoint(tenant=self.tenant, reference=reference)
            except access.NotFound:
                raise problems.invalid(
                    [("endpoint", "unknown_endpoint", "There is no endpoint with this id or uid.")]
                ) from None
        try:
            made = events.replay_event(
                actor=self.actor, tenant=self.tenant, event=self.event, endpoint=endpoint
            )
        except (EndpointStopped, PayloadErased) as error:
            raise not_sendable(error) from None
        return Response({"data": [delivery_json(delivery) for delivery in made]}, status=202)


class EventDataView(EventAPIView):
    scopes = {"DELETE": WRITE}

    @extend_schema(
        operation_id="erase_event_data",
        summary="Erase the data of an event",
        tags=["Events"],
        responses={204: OpenApiResponse(description="Erased.")},
    )
    def delete(self, request: Request, tenant: str, event: str) -> Response:  # noqa: ARG002 - DRF's signature
        """The payload, and every copy and echo of it in deliveries, attempts and kept replies. Pending deliveries are
        cancelled; retry, replay and recover of it answer `409 payload_erased`. There is no way back.
        """
        erasing.erase_data(actor=self.actor, tenant=self.tenant, event=self.event)
        return Response(status=204)
