"""`GET /tenants/{tenant}/events/{event}/explain`: every endpoint, and why it got the event or not."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries.api.deliveries import AttemptHead, attempt_head
from deliveries.api.events import EVENT_ID, READ, EventAPIView
from deliveries.services import explain
from deliveries.services.explain import Explanation, Verdict
from tenants import ids
from tenants.api import fields
from tenants.api.fields import Output, Shown
from tenants.api.rendering import optional_time_text
from tenants.api.schema import example

EXAMPLE: dict[str, Any] = {
    "endpoint": "ep_01h455vb4pex5vsknk084sn02q",
    "verdict": "filtered",
    "reason": "The filter data.amount > 100 is false for this event.",
    "subscription": "sub_01h455vb4pex5vsknk084sn02q",
    "delivery": None,
    "attempts": [],
    "next_attempt_at": None,
}


@example(EXAMPLE)
class ExplanationOut(Output):
    endpoint = Shown(fields.id_text(ids.ENDPOINT))
    verdict = Shown({"type": "string", "enum": [verdict.value for verdict in Verdict]})
    reason = Shown({"type": "string"}, "A sentence for people.")
    subscription = Shown(
        fields.nullable(fields.id_text(ids.SUBSCRIPTION)), "The one that decided; null if none did."
    )
    delivery = Shown(
        fields.nullable(fields.id_text(ids.DELIVERY)), "Of several, the one that succeeded, else the newest."
    )
    attempts = AttemptHead(many=True)
    next_attempt_at = Shown(fields.nullable(fields.TIME))


@example({"event": "evt_01h455vb4pex5vsknk084sn02q", "data": [EXAMPLE]})
class ExplainOut(Output):
    event = Shown(EVENT_ID)
    data = ExplanationOut(many=True)  # type: ignore[assignment] # a field of ours, which DRF takes out of the class


def explanation_json(one: Explanation) -> dict[str, Any]:
    delivery = one.delivery
    return {
        "endpoint": ids.to_text(ids.ENDPOINT, one.endpoint_id),
        "verdict": one.verdict.value,
        "reason": one.reason,
        "subscription": None
        if one.subscription_id is None
        else ids.to_text(ids.SUBSCRIPTION, one.subscription_id),
        "delivery": None if delivery is None else ids.to_text(ids.DELIVERY, delivery.id),
        "attempts": [attempt_head(attempt) for attempt in one.attempts],
        "next_attempt_at": None if delivery is None else optional_time_text(delivery.next_attempt_at),
    }


class ExplainView(EventAPIView):
    scopes = {"GET": READ}
    shows_data = True

    @extend_schema(
        operation_id="explain_event",
        summary="Explain who got an event, and why",
        tags=["Events"],
        responses={200: ExplainOut},
    )
    def get(self, request: Request, tenant: str, event: str) -> Response:  # noqa: ARG002 - DRF's signature
        """One entry for every endpoint of the tenant, by the settings as they stood when the event was published."""
        found = explain.explain_event(self.tenant, self.event)
        return Response(
            {
                "event": ids.to_text(ids.EVENT, self.event.id),
                "data": [explanation_json(one) for one in found],
            }
        )
