"""Reading an endpoint of kind poll: `/tenants/{tenant}/endpoints/{endpoint}/poll`. For receivers behind firewalls."""

import re
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries import validation
from deliveries.api.endpoints import EndpointAPIView
from deliveries.pipeline.polling import UnknownPosition
from deliveries.services import polling
from deliveries.services.polling import EndpointDisabled, Item, NotPolled
from deliveries.texts import readable
from tenants import ids
from tenants.api import fields, problems
from tenants.api.fields import Output, Shown
from tenants.api.query import Parameter, whole_number
from tenants.api.schema import example
from tenants.models import ApiKey
from tenants.validation import Invalid

_CURSOR = re.compile(r"[0-9]{1,18}", re.ASCII)
_CONSUMER = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def _cursor(value: object) -> int:
    if not isinstance(value, str) or not _CURSOR.fullmatch(value):
        raise Invalid("invalid_cursor", "Must be a cursor of an earlier reply.")
    return int(value)


def _consumer(value: object) -> str:
    return validation.matching(
        value, _CONSUMER, high=64, says="Must be 1 to 64 of the characters A-Z, a-z, 0-9, . _ and -."
    )


PARAMETERS = (
    Parameter(
        "after",
        _cursor,
        "Acknowledges everything up to this cursor, and reads on behind it. Without it: behind what this consumer "
        "acknowledged last.",
        {"type": "string", "pattern": "^[0-9]{1,18}$"},
    ),
    Parameter(
        "limit",
        whole_number(low=1, high=250),
        "How many to give at most; 4 MiB of bodies end a reply earlier.",
        {"type": "integer", "minimum": 1, "maximum": 250, "default": 50},
        default=50,
    ),
    Parameter(
        "consumer",
        _consumer,
        "Who reads. Each consumer gets everything, and has a place of its own.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "default": "default"},
        default="default",
    ),
)

ITEM: dict[str, Any] = {
    "cursor": "1207",
    "delivery": "dlv_01h455vb4pex5vsknk084sn02q",
    "event": "evt_01h455vb4pex5vsknk084sn02q",
    "event_type": "order.created",
    "headers": {
        "content-type": "application/json",
        "webhook-id": "evt_01h455vb4pex5vsknk084sn02q",
        "webhook-timestamp": "1772366400",
        "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        "webhook-attempt": "1",
        "webhook-hops": "1",
    },
    "body": '{"type":"order.created","timestamp":"2026-03-01T12:00:00.000000Z","data":{"order":"ord_7"}}',
}


@example(ITEM)
class PollItemOut(Output):
    cursor = Shown({"type": "string"}, "Give it back as `after` once this is done.")
    delivery = Shown(fields.id_text(ids.DELIVERY))
    event = Shown(fields.id_text(ids.EVENT))
    event_type = Shown({"type": "string"})
    headers = Shown(fields.TEXTS, "As they would be sent; the signature covers `body`.")
    body = Shown({"type": "string"}, "As it would be sent.")


@example({"data": [ITEM], "cursor": "1207"})
class PollOut(Output):
    data = PollItemOut(many=True)  # type: ignore[assignment] # a field of ours, which DRF takes out of the class
    cursor = Shown({"type": "string"}, "Of the last one, or where this consumer is.")


def item_json(item: Item) -> dict[str, Any]:
    return {
        "cursor": str(item.position),
        "delivery": ids.to_text(ids.DELIVERY, item.delivery_id),
        "event": ids.to_text(ids.EVENT, item.event_id),
        "event_type": item.event_type,
        "headers": item.headers,
        "body": readable(item.body),
    }


class PollView(EndpointAPIView):
    scopes = {"GET": ApiKey.Scope.EVENTS_READ}
    parameters = {"GET": PARAMETERS}

    @extend_schema(
        operation_id="poll_endpoint",
        summary="Read what waits for it",
        tags=["Endpoints"],
        responses={200: PollOut},
    )
    def get(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Of an endpoint of kind `poll`, in the order of publication. Nothing is handed over for good until a later
        reading says `after`: what was read and not acknowledged is read again. A delivery is `succeeded` as soon as one
        consumer acknowledged it. `409 not_polled`, `409 endpoint_disabled`."""
        try:
            items, position = polling.poll(
                endpoint=self.endpoint,
                consumer=self.query["consumer"],
                after=self.query["after"],
                most=self.query["limit"],
                now=timezone.now(),
            )
        except NotPolled:
            raise problems.conflict("not_polled", "This endpoint is called, not polled.") from None
        except EndpointDisabled:
            raise problems.conflict("endpoint_disabled", "The endpoint is disabled.") from None
        except UnknownPosition:
            raise problems.invalid(
                [("after", "invalid_cursor", "Must be a cursor of an earlier reply.")]
            ) from None
        return Response({"data": [item_json(item) for item in items], "cursor": str(position)})
