"""Why each endpoint of a tenant got an event or not, as things stood when it was published. Called by the API and the portal.

Answered from kept versions of the settings, so that publishing pays nothing for it: there is no row for an endpoint
that an event was not sent to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, assert_never
from uuid import UUID

import msgspec
from django.utils import translation
from django.utils.functional import Promise

from deliveries.expression_costs import InvalidExpression
from deliveries.expressions import EVENT_UNITS, Budget, Scope, compile_filter
from deliveries.models import Attempt, Delivery, Endpoint, Event
from deliveries.pipeline.fan_out import reaches
from deliveries.pipeline.outcome import Outcome, explain
from deliveries.services.deliveries import created_after
from deliveries.services.snapshots import snapshots_at
from tenants.models import Tenant
from tenants.said import Said, joined, said, said_of

ATTEMPT_ECHOES: Final = ("request_headers", "response_headers", "response_body")
"""Columns of an attempt that explain does not show."""


class Verdict(StrEnum):
    DELIVERED = "delivered"
    PENDING = "pending"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOT_SUBSCRIBED = "not_subscribed"
    FILTERED = "filtered"
    CHANNEL = "channel"
    DISABLED = "disabled"
    DELETED = "deleted"
    CREATED_LATER = "created_later"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of one endpoint."""

    endpoint_id: UUID
    verdict: Verdict
    reason: str
    subscription_id: UUID | None
    delivery: Delivery | None
    attempts: Sequence[Attempt]


class Unsent(NamedTuple):
    """Why nothing was owed at publish."""

    verdict: Verdict
    reason: str
    subscription_id: UUID | None = None


def explain_event(tenant: Tenant, event: Event) -> list[Explanation]:
    """One for every endpoint of the tenant, the oldest first. `event` has its payload. Four queries, however many there are."""
    snapshots = snapshots_at(tenant.id, version=event.settings_version)
    deliveries = _deliveries(event)
    attempts = _attempts(event, deliveries)
    is_test = any(each.trigger == Delivery.Trigger.TEST for each in deliveries)
    by_endpoint: dict[UUID, list[Delivery]] = {}
    for delivery in deliveries:
        by_endpoint.setdefault(delivery.endpoint_id, []).append(delivery)
    judge = _Judge(event, is_test=is_test)
    found = []
    for endpoint_id, snapshot in snapshots:
        own = by_endpoint.get(endpoint_id)
        if own is None:
            unsent = judge.unsent(snapshot)
            found.append(
                Explanation(endpoint_id, unsent.verdict, unsent.reason, unsent.subscription_id, None, [])
            )
            continue
        shown = next((each for each in own if each.status == Delivery.Status.SUCCEEDED), own[-1])
        own_attempts = [attempt for each in own for attempt in attempts.get(each.id, [])]
        found.append(
            Explanation(
                endpoint_id,
                _verdict(shown),
                _sentence(shown, own, judge.unsent(snapshot)),
                shown.subscription_id,
                shown,
                sorted(own_attempts, key=lambda attempt: attempt.id),
            )
        )
    return found


def _deliveries(event: Event) -> list[Delivery]:
    """The oldest first."""
    rows = Delivery.objects.for_tenant(event.tenant_id).defer("body").filter(event_id=event.id)
    return list(created_after(rows, event.created_at).order_by("id"))


def _attempts(event: Event, deliveries: Sequence[Delivery]) -> dict[UUID, list[Attempt]]:
    found: dict[UUID, list[Attempt]] = {}
    if deliveries:
        rows = Attempt.objects.for_tenant(event.tenant_id).defer(*ATTEMPT_ECHOES)
        for attempt in created_after(rows, event.created_at).filter(
            delivery_id__in=[each.id for each in deliveries]
        ):
            found.setdefault(attempt.delivery_id, []).append(attempt)
    return found


# --- what was sent ----------------------------------------------------------------------------------------------------


def _verdict(delivery: Delivery) -> Verdict:
    status = Delivery.Status(delivery.status)
    match status:
        case Delivery.Status.SUCCEEDED:
            return Verdict.DELIVERED
        case Delivery.Status.PENDING:
            return Verdict.PENDING
        case Delivery.Status.FAILED:
            return Verdict.FAILED
        case Delivery.Status.CANCELLED:
            return Verdict.CANCELLED
        case _:
            assert_never(status)


def _sentence(delivery: Delivery, own: Sequence[Delivery], unsent: Unsent) -> str:
    sentence = _of_delivery(delivery)
    first = own[0]
    if first.trigger == Delivery.Trigger.TEST:
        return joined(sentence, said("It was a test, sent to this endpoint alone."))
    if first.trigger == Delivery.Trigger.REPLAY:
        later = said("It was replayed to this endpoint later. At publish: %(reason)s", reason=unsent.reason)
        return joined(sentence, later)
    if len(own) > 1:
        again = said_of("It was replayed once.", "It was replayed %(number)d times.", len(own) - 1)
        return joined(sentence, again)
    return sentence


def _of_delivery(delivery: Delivery) -> str:
    tried = said_of("%(number)d attempt", "%(number)d attempts", delivery.attempt_count)
    status = Delivery.Status(delivery.status)
    match status:
        case Delivery.Status.SUCCEEDED:
            return said("Delivered after %(attempts)s.", attempts=tried)
        case Delivery.Status.PENDING if delivery.attempt_count == 0:
            if delivery.next_attempt_at is None and delivery.ordering_key is not None:
                return said("Waiting for the events before it, in order.")
            return said("Waiting for its first attempt.")
        case Delivery.Status.PENDING:
            waiting = said("Waiting for the next attempt, after %(attempts)s.", attempts=tried)
            return joined(waiting, _last(delivery))
        case Delivery.Status.FAILED if delivery.cancel_reason == Delivery.CancelReason.EXPIRED:
            return said("Given up: it waited longer than it is kept.")
        case Delivery.Status.FAILED:
            return joined(said("Failed after %(attempts)s.", attempts=tried), _last(delivery))
        case Delivery.Status.CANCELLED:
            return said(
                "Cancelled after %(attempts)s: %(reason)s.", attempts=tried, reason=_cancel_reason(delivery)
            )
        case _:
            assert_never(status)


def _last(delivery: Delivery) -> str:
    if delivery.last_outcome is None:
        return ""
    detail = delivery.preparation_error or ""
    return explain(Outcome(delivery.last_outcome), delivery.last_status_code, detail)


def _cancel_reason(delivery: Delivery) -> str:
    if delivery.cancel_reason is None:
        return ""
    return _label(Delivery.CancelReason(delivery.cancel_reason).label)


def _label(label: str | Promise) -> Said:
    """Of a choice. Labels follow the language of whoever asks, and the API is English to everybody."""
    with translation.override("en"):
        return said(str(label))


# --- what was not -----------------------------------------------------------------------------------------------------


EXPLAIN_UNITS: Final = 20 * EVENT_UNITS
"""What all filters of an answer may cost together: about two seconds."""


class _Judge:
    """Repeats what `fan_out` decided, from snapshots: stopped, type, channels, filters, in this order."""

    def __init__(self, event: Event, *, is_test: bool) -> None:
        self.event = event
        self.is_test = is_test
        self._scope: Scope | None = None

    def unsent(self, snapshot: dict[str, Any] | None) -> Unsent:
        if snapshot is None:
            return Unsent(
                Verdict.CREATED_LATER, said("The endpoint was created after the event was published.")
            )
        if snapshot["is_deleted"]:
            return Unsent(Verdict.DELETED, said("The endpoint was deleted before the event was published."))
        if snapshot["status"] != Endpoint.Status.ENABLED:
            return Unsent(Verdict.DISABLED, _disabled(snapshot["disabled_reason"]))
        if self.is_test:
            return Unsent(
                Verdict.NOT_SUBSCRIBED, said("The event was a test, sent to another endpoint alone.")
            )
        subscriptions = snapshot["subscriptions"]
        matching = [each for each in subscriptions if reaches(each["event_type"], self.event.type)]
        if not matching:
            return Unsent(Verdict.NOT_SUBSCRIBED, self._not_subscribed(subscriptions))
        channels = snapshot["channels"]
        if channels is not None and set(channels).isdisjoint(self.event.channels or []):
            return Unsent(Verdict.CHANNEL, self._other_channels(channels), UUID(matching[0]["id"]))
        return self._filtered(matching)

    def _not_subscribed(self, subscriptions: list[dict[str, Any]]) -> str:
        if not subscriptions:
            return said("The endpoint had no subscription.")
        patterns = _listed([each["event_type"] for each in subscriptions])
        return said(
            "The endpoint was subscribed to %(patterns)s, which does not include %(type)s.",
            patterns=patterns,
            type=self.event.type,
        )

    def _other_channels(self, channels: list[str]) -> str:
        wanted = _listed(channels)
        if not self.event.channels:
            return said_of(
                "The endpoint took only events of the channel %(wanted)s, and the event had none.",
                "The endpoint took only events of the channels %(wanted)s, and the event had none.",
                len(channels),
                wanted=wanted,
            )
        return said_of(
            "The endpoint took only events of the channel %(wanted)s, and the event was of %(had)s.",
            "The endpoint took only events of the channels %(wanted)s, and the event was of %(had)s.",
            len(channels),
            wanted=wanted,
            had=_listed(self.event.channels),
        )

    def _filtered(self, matching: list[dict[str, Any]]) -> Unsent:
        first = UUID(matching[0]["id"])
        filters = [each["filter"] for each in matching if each["filter"]]
        if len(filters) < len(matching):
            return Unsent(Verdict.NOT_SUBSCRIBED, said("Its settings match, but no delivery is kept."), first)
        if self.event.data is None:
            lost = said("The payload is erased, so it cannot be said why.")
            were_false = [said("The filter %(filter)s was false.", filter=each) for each in filters]
            return Unsent(Verdict.FILTERED, joined(*were_false, lost), first)
        return Unsent(Verdict.FILTERED, joined(*(self._why(each) for each in filters)), first)

    def _why(self, text: str) -> str:
        try:
            compiled = compile_filter(text)
        except InvalidExpression as error:
            return said("The filter %(filter)s counted as false: %(reason)s", filter=text, reason=str(error))
        if self._scope is None:
            assert self.event.data is not None
            self._scope = Scope(
                type=self.event.type,
                data=msgspec.json.decode(bytes(self.event.data)),
                channels=self.event.channels or [],
                occurred_at=self.event.occurred_at,
                budget=Budget(EXPLAIN_UNITS),
            )
        if compiled.matches(self._scope):
            return said(
                "The filter %(filter)s counted as false: with all others it took more than an event may.",
                filter=text,
            )
        return compiled.why(self._scope)


def _disabled(reason: str | None) -> str:
    if reason is None:
        return said("The endpoint was disabled when the event was published.")
    return said(
        "The endpoint was disabled when the event was published: %(reason)s.",
        reason=_label(Endpoint.DisabledReason(reason).label),
    )


def _listed(names: Sequence[str]) -> str:
    """At most ten, for people."""
    unique = list(dict.fromkeys(names))
    shown = ", ".join(unique[:10])
    if len(unique) <= 10:
        return shown
    return said("%(names)s and %(number)d more", names=shown, number=len(unique) - 10)
