"""Trying things out: a test event to one endpoint, whether an event would reach it and why, what a transformation makes.

Called by the API and the portal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db.models import Q

from deliveries.expressions import Scope, TransformationFailed, compile_filter, compile_transformation
from deliveries.models import Delivery, Endpoint, Subscription
from deliveries.pipeline import ingest
from deliveries.pipeline.fan_out import reaches
from deliveries.pipeline.ingest import Accepted, NewEvent, Refusal, Refused
from deliveries.pipeline.wake import let_through
from deliveries.services.subscriptions import check_catalogued
from tenants import ids
from tenants.models import EventType
from tenants.said import said
from tenants.services import audit
from tenants.services.audit import Actor

TEST_TYPE: Final = "webhook.test"
"""What a test is called when no event type is named: one of the platform's own, in no catalogue."""


class EndpointDisabled(Exception):
    """Nothing is sent to it."""


class TestRefused(Exception):
    """As a publish would be."""

    def __init__(self, refused: Refused) -> None:
        self.refused = refused
        super().__init__(refused.reason.value)


# --- a test event -----------------------------------------------------------------------------------------------------


def send_test(
    *, actor: Actor, endpoint: Endpoint, event_type: str | None = None, data: bytes | None = None
) -> Delivery:
    """To this endpoint alone, whatever its subscriptions: the data, else the type's example, else an empty object.

    Raises EndpointDisabled, TestRefused, InvalidContent (no such type), ingest.DatabaseUnavailable.
    """
    if endpoint.status != Endpoint.Status.ENABLED:
        raise EndpointDisabled
    if event_type is not None:
        check_catalogued(tenant=endpoint.tenant_id, patterns=[event_type], fields=["event_type"])
    if data is None:
        data = _example(endpoint.tenant_id, event_type)
    limit = endpoint.tenant.effective_limits["payload_bytes"]
    if limit is not None and len(data) > limit:
        raise TestRefused(Refused(Refusal.PAYLOAD_TOO_LARGE, limit=limit))
    # A transaction of ingest's own, committed when it returns: a dispatcher may take it at once.
    result = ingest.publish(
        [
            NewEvent(
                tenant_id=endpoint.tenant_id.bytes,
                type=event_type or TEST_TYPE,
                data=data,
                only_endpoint=endpoint.id.bytes,
                is_fifo=endpoint.ordering == Endpoint.Ordering.FIFO,
            )
        ]
    )[0]
    match result:
        case Refused():
            raise TestRefused(result)
        case Accepted():
            delivery_id = UUID(bytes=result.delivery_ids[0])
    let_through([endpoint.id])
    audit.record(
        actor=actor,
        tenant=endpoint.tenant_id,
        action="endpoint.tested",
        target=ids.to_text(ids.ENDPOINT, endpoint.id),
        after={"event_type": event_type or TEST_TYPE, "delivery": ids.to_text(ids.DELIVERY, delivery_id)},
    )
    delivery: Delivery = Delivery.objects.for_tenant(endpoint.tenant_id).get(id=delivery_id)
    return delivery


def _example(tenant_id: UUID, event_type: str | None) -> bytes:
    """Of the tenant's own type, or the platform's of this name."""
    found = (
        EventType.objects.filter(Q(tenant_id=tenant_id) | Q(tenant__isnull=True), name=event_type)
        .order_by("tenant_id")
        .first()
    )
    return b"{}" if found is None or found.example is None else msgspec.json.encode(found.example)


# --- would it reach the endpoint? -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """One subscription's verdict on an event."""

    subscription: Subscription
    is_matched: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an event would reach the endpoint, and why."""

    is_matched: bool
    reason: str
    decided_by: Subscription | None
    judged: Sequence[Judged]
    transformed: bytes | None = None
    """What the transformation of the subscription that decided makes of the data."""
    transformation_error: str | None = None


def judge(
    *,
    endpoint: Endpoint,
    subscriptions: Sequence[Subscription],
    event_type: str,
    data: Any,
    channels: Sequence[str],
    occurred_at: datetime,
) -> Verdict:
    """As fan-out would, the oldest subscription first, but with every reason. Stores nothing."""
    scope = Scope(event_type, data, channels, occurred_at)
    judged = [_judge_one(each, scope) for each in subscriptions]
    decided_by = next((each.subscription for each in judged if each.is_matched), None)
    if endpoint.channels is not None and set(endpoint.channels).isdisjoint(channels):
        wanted = ", ".join(endpoint.channels)
        reason: str = said(
            "The endpoint takes only events of the channels %(wanted)s, and this one carries none of them.",
            wanted=wanted,
        )
        return Verdict(False, reason, None, judged)
    if decided_by is None:
        reason = said("The endpoint has no subscription that matches.")
        if len(judged) == 1:
            reason = judged[0].reason
        return Verdict(False, reason, None, judged)
    if endpoint.status != Endpoint.Status.ENABLED:
        return Verdict(False, said("It matches, but the endpoint is disabled."), decided_by, judged)
    reason = next(each.reason for each in judged if each.is_matched)
    if decided_by.transformation is None:
        return Verdict(True, reason, decided_by, judged)
    try:
        transformed = compile_transformation(decided_by.transformation).apply(scope)
    except TransformationFailed as error:
        return Verdict(True, reason, decided_by, judged, transformation_error=str(error))
    return Verdict(True, reason, decided_by, judged, transformed=transformed)


def _judge_one(subscription: Subscription, scope: Scope) -> Judged:
    pattern = subscription.event_type
    if not reaches(pattern, scope.type):
        return Judged(
            subscription,
            False,
            said(
                "The pattern %(pattern)s does not match the event type %(type)s.",
                pattern=pattern,
                type=scope.type,
            ),
        )
    if subscription.filter is None:
        return Judged(
            subscription,
            True,
            said("The pattern %(pattern)s matches, and there is no filter.", pattern=pattern),
        )
    is_matched, why = compile_filter(subscription.filter).judge(scope)
    return Judged(subscription, is_matched, why)


def transform(
    *, transformation: str, event_type: str, data: Any, channels: Sequence[str], occurred_at: datetime
) -> bytes:
    """What the transformation makes of the data. Raises TransformationFailed, InvalidExpression."""
    return compile_transformation(transformation).apply(Scope(event_type, data, channels, occurred_at))
