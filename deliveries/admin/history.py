"""Events, deliveries and attempts in the admin: read-only, by key, and filtered by what has an index.

Status, outcome and type are filters within one tenant. Without one only the newest are listed: looking for a rare status
among all rows would read all of them.
"""

from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries.admin.endpoints import endpoint_link
from deliveries.models import Attempt, Delivery, Event
from deliveries.pipeline.outcome import Outcome, explain
from deliveries.services import deliveries, endpoints, events
from deliveries.services import explain as explaining
from deliveries.services.explain import ATTEMPT_ECHOES
from deliveries.services.history import created_between, last_key
from tenants import ids
from tenants.admin.base import ANY, Action, Column, IdField, Link, OfTenant, OperatorAdmin, Sheet, Table
from tenants.admin.show import NOTHING, act_url, beside, code, link, list_url, number, page_url, state, when
from tenants.admin.tenants import tenant_link
from tenants.models import Tenant

MOST_ATTEMPTS = 50
"""On a delivery's page, the newest first."""


class WithinTenant(OfTenant):
    """Filters that have an index within a tenant alone."""

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("tenant") is None and not self.errors:
            for name, value in cleaned.items():
                if name not in {"tenant", "id"} and value:
                    self.add_error("tenant", _("Say of which tenant: the other filters work within one."))
                    break
        return cleaned


# --- events -----------------------------------------------------------------------------------------------------------


class EventFilter(WithinTenant):
    type = forms.CharField(label=gettext_lazy("Type"), required=False, max_length=128)
    channel = forms.CharField(label=gettext_lazy("Channel"), required=False, max_length=128)


def event_link(event_id: UUID) -> object:
    return link(page_url("deliveries_event", event_id), ids.to_text(ids.EVENT, event_id))


@admin.register(Event)
class EventAdmin(OperatorAdmin):
    filters = EventFilter
    columns = [
        Column(gettext_lazy("Event"), lambda row: event_link(row.id)),
        Column(gettext_lazy("Tenant"), lambda row: tenant_link(row.tenant)),
        Column(gettext_lazy("Type"), lambda row: row.type),
        Column(gettext_lazy("Deliveries"), lambda row: number(row.delivery_count)),
        Column(gettext_lazy("Published"), lambda row: when(row.created_at)),
    ]
    bulk_actions: ClassVar = [
        ("replay-event", gettext_lazy("Replay")),
        ("erase", gettext_lazy("Erase payload")),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Event]":
        if wanted.get("tenant"):
            rows: QuerySet[Event] = events.find_events(
                wanted["tenant"], type=wanted["type"] or None, channel=wanted["channel"] or None
            )
        else:
            rows = created_between(Event.unscoped.get_queryset(), since=None, until=None)
        return rows.select_related("tenant").defer("data", "schema_warning")

    def get(self, key: UUID) -> Event | None:
        row: Event | None = Event.unscoped.select_related("tenant").filter(id=key).first()
        return row

    def sheet(self, row: Event) -> Sheet:
        is_erased = row.data_erased_at is not None
        chosen = {"ids": row.id}
        return Sheet(
            title=row.type,
            notes=[_("Its payload was erased.")] if is_erased else [],
            facts=[
                (_("Id"), code(ids.to_text(ids.EVENT, row.id))),
                (_("Tenant"), tenant_link(row.tenant)),
                (_("Type"), row.type),
                (_("Published"), when(row.created_at)),
                (_("Happened"), when(row.occurred_at)),
                (_("To be delivered"), when(row.deliver_at)),
                (_("Channels"), ", ".join(row.channels or []) or NOTHING),
                (_("Ordering key"), row.ordering_key or NOTHING),
                (_("Bytes"), NOTHING if row.data is None else number(len(row.data))),
                (_("Breaks its schema"), _("yes") if row.schema_warning else _("no")),
                (_("Hops"), str(row.hops)),
                (_("Erased"), when(row.data_erased_at)),
            ],
            actions=[]
            if is_erased
            else [
                Action(_("Replay…"), act_url("replay-event", **chosen)),
                Action(_("Erase payload…"), act_url("erase", **chosen), is_severe=True),
            ],
            tables=[_explained(row)],
        )


def _explained(row: Event) -> Table:
    """Every endpoint of the tenant, and why it got the event or not."""
    explained = explaining.explain_event(row.tenant, row)
    names = endpoints.named(tenant=row.tenant, endpoint_ids=[each.endpoint_id for each in explained])
    return Table(
        _("Who got it, who did not, and why"),
        [_("Endpoint"), _("Verdict"), _("Why"), _("Attempts"), _("Delivery")],
        [
            [
                endpoint_link(names.get(each.endpoint_id)),
                state(each.verdict.value),
                each.reason,
                number(len(each.attempts)),
                NOTHING if each.delivery is None else delivery_link(each.delivery.id),
            ]
            for each in explained
        ],
        empty=_("The tenant has no endpoints."),
    )


# --- deliveries -------------------------------------------------------------------------------------------------------


class DeliveryFilter(WithinTenant):
    endpoint = IdField(ids.ENDPOINT, label=gettext_lazy("Endpoint"), help_text="ep_…")
    status = forms.ChoiceField(
        label=gettext_lazy("Status"), required=False, choices=[ANY, *Delivery.Status.choices]
    )
    outcome = forms.ChoiceField(
        label=gettext_lazy("Last outcome"),
        required=False,
        choices=[ANY, *((outcome.value, outcome.value.replace("_", " ")) for outcome in Outcome)],
    )
    event_type = forms.CharField(label=gettext_lazy("Event type"), required=False, max_length=128)


def delivery_link(delivery_id: UUID) -> object:
    return link(page_url("deliveries_delivery", delivery_id), ids.to_text(ids.DELIVERY, delivery_id))


def last_answer(row: Delivery) -> str:
    if row.last_outcome is None:
        return NOTHING
    answer = row.last_outcome.replace("_", " ")
    return f"{answer} {row.last_status_code}" if row.last_status_code else answer


@admin.register(Delivery)
class DeliveryAdmin(OperatorAdmin):
    filters = DeliveryFilter
    columns = [
        Column(gettext_lazy("Delivery"), lambda row: delivery_link(row.id)),
        Column(gettext_lazy("Tenant"), lambda row: tenant_link(row.tenant)),
        Column(gettext_lazy("Endpoint"), lambda row: endpoint_link(row.endpoint)),
        Column(gettext_lazy("Type"), lambda row: row.event_type),
        Column(gettext_lazy("Status"), lambda row: state(row.status)),
        Column(gettext_lazy("Last outcome"), last_answer),
        Column(gettext_lazy("Attempts"), lambda row: number(row.attempt_count)),
        Column(gettext_lazy("Made"), lambda row: when(row.created_at)),
    ]
    bulk_actions: ClassVar = [("retry", gettext_lazy("Retry")), ("cancel", gettext_lazy("Cancel"))]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Delivery]":
        if wanted.get("tenant"):
            rows: QuerySet[Delivery] = deliveries.find_deliveries(
                wanted["tenant"],
                endpoint_id=wanted["endpoint"],
                status=wanted["status"] or None,
                outcome=wanted["outcome"] or None,
                event_type=wanted["event_type"] or None,
            )
        else:
            rows = created_between(Delivery.unscoped.get_queryset(), since=None, until=None)
        return rows.select_related("tenant", "endpoint").defer(
            *deliveries.BODIES, "endpoint__sensitive_headers_encrypted"
        )

    def whole_list_actions(self, wanted: dict[str, Any]) -> list[Action]:
        """Of one tenant, and of one status: what can be told exactly from what is published meanwhile."""
        tenant = wanted.get("tenant")
        if not isinstance(tenant, Tenant) or not wanted.get("status"):
            return []
        chosen: dict[str, object] = {"tenant": tenant.slug, "status": wanted["status"]}
        if wanted.get("endpoint"):
            chosen["endpoint"] = ids.to_text(ids.ENDPOINT, wanted["endpoint"])
        for name in ("outcome", "event_type"):
            if wanted.get(name):
                chosen[name] = wanted[name]
        if wanted["status"] == Delivery.Status.PENDING:
            return [Action(_("Cancel all of these…"), act_url("cancel", **chosen), is_severe=True)]
        return [Action(_("Retry all of these…"), act_url("retry", **chosen))]

    def get(self, key: UUID) -> Delivery | None:
        rows = Delivery.unscoped.select_related("tenant", "endpoint").defer("body")
        row: Delivery | None = rows.filter(id=key).first()
        return row

    def sheet(self, row: Delivery) -> Sheet:
        chosen = {"ids": row.id}
        endpoint_id = ids.to_text(ids.ENDPOINT, row.endpoint_id)
        actions = [Action(_("Retry…"), act_url("retry", **chosen))]
        if row.status == Delivery.Status.PENDING:
            actions.append(Action(_("Cancel…"), act_url("cancel", **chosen), is_severe=True))
        return Sheet(
            title=ids.to_text(ids.DELIVERY, row.id),
            facts=[
                (_("Tenant"), tenant_link(row.tenant)),
                (_("Endpoint"), endpoint_link(row.endpoint)),
                (_("Event"), event_link(row.event_id)),
                (_("Type"), row.event_type),
                (_("Status"), state(row.status)),
                (_("Why"), row.get_cancel_reason_display() if row.cancel_reason else NOTHING),
                (_("Last outcome"), last_answer(row)),
                (_("Trigger"), row.trigger),
                (_("Attempts"), number(row.attempt_count)),
                (_("Next attempt"), when(row.next_attempt_at)),
                (_("Asked for by hand"), when(row.manual_requested_at)),
                (_("Bytes"), number(row.size)),
                (_("Made"), when(row.created_at)),
                (_("Ended"), when(row.completed_at)),
            ],
            links=[
                Link(_("Its event, and who else got it"), page_url("deliveries_event", row.event_id)),
                Link(
                    _("Other deliveries of the endpoint"),
                    list_url("deliveries_delivery", tenant=row.tenant.slug, endpoint=endpoint_id),
                ),
            ],
            actions=actions,
            tables=[_attempts(row)],
        )


def _attempts(row: Delivery) -> Table:
    found = deliveries.attempts_of(row).defer(*ATTEMPT_ECHOES).order_by("-id")[:MOST_ATTEMPTS]
    return Table(
        _("Attempts, the latest first"),
        [_("Attempt"), _("Began"), _("Took"), _("Outcome"), _("Why")],
        [
            [
                link(page_url("deliveries_attempt", each.id), each.number),
                when(each.started_at),
                f"{each.duration_ms:.0f} ms",
                _outcome(each),
                why(each),
            ]
            for each in found
        ],
        empty=_("None yet."),
    )


# --- attempts ---------------------------------------------------------------------------------------------------------


class AttemptFilter(forms.Form):
    delivery = IdField(ids.DELIVERY, label=gettext_lazy("Delivery"), help_text="dlv_…")


def why(attempt: Attempt) -> str:
    return explain(Outcome(attempt.outcome), attempt.status_code, attempt.detail)


def _outcome(attempt: Attempt) -> object:
    return beside(
        state("succeeded" if attempt.outcome == Outcome.SUCCEEDED else "failed"),
        attempt.status_code or attempt.outcome.replace("_", " "),
    )


@admin.register(Attempt)
class AttemptAdmin(OperatorAdmin):
    filters = AttemptFilter
    columns = [
        Column(
            gettext_lazy("Attempt"),
            lambda row: link(page_url("deliveries_attempt", row.id), ids.to_text(ids.ATTEMPT, row.id)),
        ),
        Column(gettext_lazy("Tenant"), lambda row: tenant_link(row.tenant)),
        Column(gettext_lazy("Delivery"), lambda row: delivery_link(row.delivery_id)),
        Column(gettext_lazy("Outcome"), _outcome),
        Column(gettext_lazy("Took"), lambda row: f"{row.duration_ms:.0f} ms"),
        Column(gettext_lazy("Began"), lambda row: when(row.started_at)),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Attempt]":
        rows: QuerySet[Attempt] = Attempt.unscoped.select_related("tenant").defer(*ATTEMPT_ECHOES)
        if wanted.get("delivery"):
            rows = rows.filter(delivery_id=wanted["delivery"])
        # Attempts have no `created_at`; their keys tell.
        return rows.filter(id__lte=last_key())

    def get(self, key: UUID) -> Attempt | None:
        rows = Attempt.unscoped.select_related("tenant").defer(*ATTEMPT_ECHOES)
        row: Attempt | None = rows.filter(id=key).first()
        return row

    def sheet(self, row: Attempt) -> Sheet:
        phases = [
            f"{label} {value:.1f} ms"
            for label, value in (
                (_("name"), row.dns_ms),
                (_("connect"), row.connect_ms),
                (_("TLS"), row.tls_ms),
                (_("first byte"), row.first_byte_ms),
            )
            if value is not None
        ]
        return Sheet(
            title=_("Attempt %d") % row.number,
            facts=[
                (_("Why"), why(row)),
                (_("Outcome"), _outcome(row)),
                (_("Tenant"), tenant_link(row.tenant)),
                (_("Delivery"), delivery_link(row.delivery_id)),
                (_("Id"), code(ids.to_text(ids.ATTEMPT, row.id))),
                (_("Trigger"), row.trigger),
                (_("Began"), when(row.started_at)),
                (_("Took"), f"{row.duration_ms:.0f} ms"),
                (_("Phases"), ", ".join(phases) or NOTHING),
                (_("Address"), row.remote_ip or NOTHING),
            ],
        )
