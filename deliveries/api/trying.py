"""Trying things out: `…/{endpoint}/test`, `…/subscriptions/test` and `…/subscriptions/transform`."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries import validation
from deliveries.api.deliveries import DeliveryOut, delivery_json
from deliveries.api.endpoint_shapes import CHANNEL, PATTERN
from deliveries.api.endpoints import READ, WRITE, EndpointAPIView
from deliveries.api.publish import problem_of
from deliveries.api.subscriptions import EXPRESSION, SUBSCRIPTION_ID
from deliveries.expressions import TransformationFailed
from deliveries.models import Subscription
from deliveries.pipeline.json_bytes import check_data
from deliveries.services import subscriptions, trying
from deliveries.services.trying import EndpointDisabled, Judged, TestRefused, Verdict
from tenants import ids
from tenants.api import fields, problems
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.rendering import body_of
from tenants.api.schema import EVENT_TYPE_NAME, example
from tenants.validation import Invalid


def data_object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be a JSON object.")
    return value


def raw_data(request: Request) -> bytes | None:
    """`data` as it was sent, byte for byte: what an endpoint gets, and what is signed."""
    raw = msgspec.json.decode(body_of(request) or b"{}", type=dict[str, msgspec.Raw]).get("data")
    if raw is None or bytes(raw) == b"null":
        return None
    data = bytes(raw)
    check_data(data)
    return data


# --- a test event -----------------------------------------------------------------------------------------------------


@example({"event_type": "order.created", "data": {"id": "A-17", "amount": 12.5}})
class EndpointTestIn(Input):
    event_type = Field(
        validation.event_type_name,
        EVENT_TYPE_NAME,
        help_text="Default: `webhook.test`, one of the platform's own.",
    )
    data = Field(  # type: ignore[assignment] # a field of ours, which DRF takes out of the class
        data_object, fields.ANY_OBJECT, help_text="Default: the type's example, or an empty object."
    )


class EndpointTestView(EndpointAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="test_endpoint",
        summary="Send a test event",
        tags=["Endpoints"],
        request=EndpointTestIn,
        responses={202: DeliveryOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """To this endpoint alone, whatever its subscriptions. `409 endpoint_disabled` if it is disabled."""
        given = EndpointTestIn.read(request)
        try:
            delivery = trying.send_test(
                actor=self.actor,
                endpoint=self.endpoint,
                event_type=given.get("event_type"),
                data=raw_data(request),
            )
        except EndpointDisabled:
            raise problems.conflict(
                "endpoint_disabled", "The endpoint is disabled: enable it first."
            ) from None
        except TestRefused as error:
            raise problem_of(error.refused) from None
        return Response(delivery_json(delivery), status=202)


# --- would it match? --------------------------------------------------------------------------------------------------


class _EventIn(Input):
    """An event as it would be published."""

    type = Field(validation.event_type_name, EVENT_TYPE_NAME, required=True)
    data = Field(  # type: ignore[assignment] # a field of ours, which DRF takes out of the class
        data_object, fields.ANY_OBJECT, help_text="Default: an empty object."
    )
    channels = Field(validation.event_channels, fields.list_of(CHANNEL, validation.MAX_CHANNELS))
    occurred_at = Field(validation.moment, fields.TIME, help_text="Default: now.")


@example(
    {
        "type": "order.created",
        "data": {"amount": 120, "customer": {"tier": "gold"}},
        "event_type": "order.*",
        "filter": "data.amount > 100",
    }
)
class MatchIn(_EventIn):
    event_type = Field(
        validation.pattern,
        PATTERN,
        help_text="With this, `filter` or `transformation`: a subscription that does not exist yet, instead of the "
        "endpoint's own. Default of the pattern: `*`.",
    )
    filter = Field(subscriptions.filter_text, EXPRESSION)
    transformation = Field(subscriptions.transformation_text, EXPRESSION)


_JUDGED: fields.AnySchema = {
    "type": "object",
    "required": ["subscription", "event_type", "matched", "reason"],
    "properties": {
        "subscription": fields.nullable(SUBSCRIPTION_ID),
        "event_type": {"type": "string"},
        "matched": fields.BOOLEAN,
        "reason": {"type": "string"},
    },
}


@example(
    {
        "matched": True,
        "reason": "The filter data.amount > 100 is true for this event.",
        "subscription": None,
        "data": None,
        "error": None,
        "subscriptions": [
            {
                "subscription": None,
                "event_type": "order.*",
                "matched": True,
                "reason": "The filter data.amount > 100 is true for this event.",
            }
        ],
    }
)
class MatchOut(Output):
    matched = Shown(fields.BOOLEAN, "Whether the event would be delivered to the endpoint.")
    reason = Shown({"type": "string"}, "Why, in a sentence.")
    subscription = Shown(fields.nullable(SUBSCRIPTION_ID), "The one that decides: the oldest that matches.")
    data = Shown(  # type: ignore[assignment] # as above
        fields.nullable(fields.ANY_OBJECT), "What its transformation makes of the data."
    )
    error = Shown(fields.nullable({"type": "string"}), "Why its transformation fails.")
    subscriptions = Shown(fields.list_of(_JUDGED), "Each one's own verdict.")


class MatchView(EndpointAPIView):
    scopes = {"POST": READ}

    @extend_schema(
        operation_id="test_subscriptions",
        summary="Would an event match?",
        tags=["Subscriptions"],
        request=MatchIn,
        responses={200: MatchOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Whether an event would be delivered to the endpoint as it is now, and why. Nothing is sent or stored."""
        given = MatchIn.read(request)
        draft = {name: given[name] for name in ("event_type", "filter", "transformation") if given.get(name)}
        verdict = trying.judge(
            endpoint=self.endpoint,
            subscriptions=[_draft(draft)] if draft else list(self.endpoint.subscriptions.all()),
            event_type=given["type"],
            data=_decoded(request),
            channels=given.get("channels") or [],
            occurred_at=given.get("occurred_at") or datetime.now(UTC),
        )
        return Response(verdict_json(verdict, is_draft=bool(draft)))


def _draft(fields_: dict[str, str]) -> Subscription:
    return Subscription(**({"event_type": "*"} | fields_))


def _decoded(request: Request) -> Any:
    raw = raw_data(request)
    return {} if raw is None else msgspec.json.decode(raw)


def verdict_json(verdict: Verdict, *, is_draft: bool) -> dict[str, Any]:
    decided_by = verdict.decided_by
    return {
        "matched": verdict.is_matched,
        "reason": verdict.reason,
        "subscription": None if decided_by is None or is_draft else _id(decided_by),
        "data": None if verdict.transformed is None else msgspec.Raw(verdict.transformed),
        "error": verdict.transformation_error,
        "subscriptions": [_judged_json(each, is_draft=is_draft) for each in verdict.judged],
    }


def _judged_json(judged: Judged, *, is_draft: bool) -> dict[str, Any]:
    return {
        "subscription": None if is_draft else _id(judged.subscription),
        "event_type": judged.subscription.event_type,
        "matched": judged.is_matched,
        "reason": judged.reason,
    }


def _id(subscription: Subscription) -> str:
    return ids.to_text(ids.SUBSCRIPTION, subscription.id)


# --- what does it make of the data? -----------------------------------------------------------------------------------


@example(
    {
        "type": "order.created",
        "data": {"id": "A-17", "amount": 12.5},
        "transformation": '{"order": data.id, "total": data.amount}',
    }
)
class TransformIn(_EventIn):
    transformation = Field(subscriptions.transformation_text, EXPRESSION, required=True)


@example({"data": {"order": "A-17", "total": 12.5}, "error": None})
class TransformOut(Output):
    data = Shown(  # type: ignore[assignment] # as above
        fields.nullable(fields.ANY_OBJECT), "What would be sent in place of `data`."
    )
    error = Shown(fields.nullable({"type": "string"}), "Why it fails on this event.")


class TransformView(EndpointAPIView):
    scopes = {"POST": READ}

    @extend_schema(
        operation_id="test_transformation",
        summary="Try a transformation",
        tags=["Subscriptions"],
        request=TransformIn,
        responses={200: TransformOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What it makes of the data, or why it fails. Nothing is sent or stored."""
        given = TransformIn.read(request)
        try:
            made = trying.transform(
                transformation=given["transformation"],
                event_type=given["type"],
                data=_decoded(request),
                channels=given.get("channels") or [],
                occurred_at=given.get("occurred_at") or datetime.now(UTC),
            )
        except TransformationFailed as error:
            return Response({"data": None, "error": str(error)})
        return Response({"data": msgspec.Raw(made), "error": None})
