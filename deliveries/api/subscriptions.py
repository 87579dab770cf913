"""Subscriptions: `/tenants/{tenant}/endpoints/{endpoint}/subscriptions`. Trying them out is in `trying.py`."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries import validation
from deliveries.api.endpoint_shapes import PATTERN
from deliveries.api.endpoints import READ, WRITE, EndpointAPIView, location_of, refusing
from deliveries.expressions import MAX_EXPRESSION_BYTES
from deliveries.models import Subscription
from deliveries.services import subscriptions
from tenants import ids
from tenants.api import fields
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.query import PAGE
from tenants.api.schema import example, page_of
from tenants.api.views import created

SUBSCRIPTION_ID = fields.id_text(ids.SUBSCRIPTION)
EXPRESSION = fields.text(MAX_EXPRESSION_BYTES, 1)

EXAMPLE: dict[str, Any] = {
    "id": "sub_01h455vb4pex5vsknk084sn02q",
    "event_type": "order.*",
    "filter": 'data.amount > 100 && data.customer.tier == "gold"',
    "transformation": None,
    "description": "Large orders of gold customers",
}


@example({"filter": "data.amount > 200"})
class SubscriptionChange(Input):
    event_type = Field(
        validation.pattern, PATTERN, nullable=False, help_text="An event type, `*`, or `order.*`."
    )
    filter = Field(
        subscriptions.filter_text,
        EXPRESSION,
        help_text="CEL over `type`, `data`, `channels`, `occurred_at`. A missing key makes it false. null: none.",
    )
    transformation = Field(
        subscriptions.transformation_text,
        EXPRESSION,
        help_text="CEL whose result, an object, replaces `data`. null: none.",
    )
    description = Field(validation.description, fields.text(2000))


@example({key: value for key, value in EXAMPLE.items() if key != "id"})
class SubscriptionIn(SubscriptionChange):
    event_type = Field(
        validation.pattern, PATTERN, required=True, help_text="An event type, `*`, or `order.*`."
    )


@example(EXAMPLE)
class SubscriptionOut(Output):
    id = Shown(SUBSCRIPTION_ID)
    event_type = Shown({"type": "string"})
    filter = Shown(fields.nullable({"type": "string"}))
    transformation = Shown(fields.nullable({"type": "string"}))
    description = Shown({"type": "string"})


def subscription_json(subscription: Subscription) -> dict[str, Any]:
    return {
        "id": ids.to_text(ids.SUBSCRIPTION, subscription.id),
        "event_type": subscription.event_type,
        "filter": subscription.filter,
        "transformation": subscription.transformation,
        "description": subscription.description,
    }


class SubscriptionsView(EndpointAPIView):
    scopes = {"GET": READ, "POST": WRITE}
    parameters = {"GET": PAGE}

    @extend_schema(
        operation_id="list_subscriptions",
        summary="List subscriptions",
        tags=["Subscriptions"],
        responses={200: page_of(SubscriptionOut)},
    )
    def get(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first. Of several that match an event, the oldest decides."""
        rows = subscriptions.subscriptions_of(self.endpoint)
        return page(self.query, rows, serialize=subscription_json)

    @extend_schema(
        operation_id="create_subscription",
        summary="Create a subscription",
        tags=["Subscriptions"],
        request=SubscriptionIn,
        responses={201: SubscriptionOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Several of one pattern are allowed. Expressions are compiled here; what does not compile is a `422`."""
        given = SubscriptionIn.read(request)
        with refusing():
            made = subscriptions.create_subscription(actor=self.actor, endpoint=self.endpoint, **given)
        location = f"{location_of(self.endpoint)}/subscriptions/{ids.to_text(ids.SUBSCRIPTION, made.id)}"
        return created(subscription_json(made), location)


class SubscriptionView(EndpointAPIView):
    scopes = {"GET": READ, "PATCH": WRITE, "DELETE": WRITE}

    subscription: Subscription

    def locate(self, **kwargs: Any) -> None:
        super().locate(**kwargs)
        self.subscription = subscriptions.get_subscription(
            endpoint=self.endpoint, reference=kwargs["subscription"]
        )

    @extend_schema(
        operation_id="get_subscription",
        summary="Get a subscription",
        tags=["Subscriptions"],
        responses={200: SubscriptionOut},
    )
    def get(self, request: Request, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        return Response(subscription_json(self.subscription))

    @extend_schema(
        operation_id="update_subscription",
        summary="Change a subscription",
        tags=["Subscriptions"],
        request=SubscriptionChange,
        responses={200: SubscriptionOut},
    )
    def patch(self, request: Request, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Holds for every event published after the reply."""
        given = SubscriptionChange.read(request, is_partial=True)
        changed = subscriptions.update_subscription(
            actor=self.actor, endpoint=self.endpoint, subscription=self.subscription, **given
        )
        return Response(subscription_json(changed))

    @extend_schema(
        operation_id="delete_subscription",
        summary="Delete a subscription",
        tags=["Subscriptions"],
        responses={204: OpenApiResponse(description="Deleted.")},
    )
    def delete(self, request: Request, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        subscriptions.delete_subscription(
            actor=self.actor, endpoint=self.endpoint, subscription=self.subscription
        )
        return Response(status=204)
