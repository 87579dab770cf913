"""Endpoints and subscriptions in the admin: how each is called, how its lane stands, and what can be done about it."""

from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries import credentials
from deliveries.models import Endpoint, Lane, Subscription
from deliveries.services import health, hosts, overview, snapshots
from deliveries.services.endpoints import address_of
from deliveries.services.jobs import jobs_of
from deliveries.validation import mask_url
from tenants import ids
from tenants.admin.base import Action, Column, IdField, Link, OfTenant, OperatorAdmin, Sheet, Table
from tenants.admin.show import (
    NOTHING,
    act_url,
    beside,
    code,
    link,
    list_url,
    number,
    page_url,
    pretty,
    seconds,
    state,
    when,
)
from tenants.admin.tenants import tenant_link
from tenants.models import Tenant

SEALED: Final = (
    "sensitive_headers_encrypted",
    "template_secret_encrypted",
    "auth_encrypted",
    "client_key_encrypted",
)
"""What no page of an operator needs."""


class EndpointFilter(OfTenant):
    host = forms.CharField(
        label=gettext_lazy("Host, or domain of it"),
        required=False,
        max_length=253,
        help_text="example.com",
    )
    by_platform = forms.BooleanField(
        label=gettext_lazy("Only those that the platform disabled"), required=False
    )


def endpoint_link(endpoint: Endpoint | None) -> object:
    if endpoint is None:
        return NOTHING
    return link(page_url("deliveries_endpoint", endpoint.id), address_of(endpoint)[:120])


def status_of(endpoint: Endpoint) -> object:
    if endpoint.deleted_at is not None:
        return state("deleted")
    if endpoint.status == Endpoint.Status.ENABLED and endpoint.is_paused:
        return state("paused")
    return state(endpoint.status)


def health_of(lane: Lane | None) -> object:
    """What its last answers say, in a few words."""
    if lane is None or lane.failing_since is None:
        return NOTHING
    age = seconds((timezone.now() - lane.failing_since).total_seconds())
    return beside(
        state("failing"), _("for %(age)s, %(count)s in a row") % {"age": age, "count": lane.failures}
    )


def lane_of(endpoint: Endpoint) -> Lane | None:
    """Without a query where the list has selected it; an endpoint always has one."""
    lane: Lane | None = getattr(endpoint, "lane", None)
    return lane


@admin.register(Endpoint)
class EndpointAdmin(OperatorAdmin):
    filters = EndpointFilter
    columns = [
        Column(gettext_lazy("URL"), endpoint_link),
        Column(gettext_lazy("Tenant"), lambda row: tenant_link(row.tenant)),
        Column(gettext_lazy("Status"), status_of),
        Column(gettext_lazy("Health"), lambda row: health_of(lane_of(row))),
        Column(gettext_lazy("Description"), lambda row: row.description[:80]),
    ]
    bulk_actions: ClassVar = [
        ("pause", gettext_lazy("Pause")),
        ("continue", gettext_lazy("Let go on")),
        ("enable", gettext_lazy("Enable")),
        ("disable", gettext_lazy("Disable")),
        ("send-missed", gettext_lazy("Send what was missed")),
        ("recover", gettext_lazy("Recover what failed")),
        ("drain", gettext_lazy("Drain")),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Endpoint]":
        rows: QuerySet[Endpoint] = Endpoint.unscoped.all()
        if wanted.get("host"):
            rows = hosts.endpoints_of_host(wanted["host"], with_subdomains=True)
        if wanted.get("by_platform"):
            rows = rows.filter(overview.DISABLED_BY_THE_PLATFORM)
        if wanted.get("tenant"):
            rows = rows.filter(tenant=wanted["tenant"])
        return rows.select_related("tenant", "lane").defer("sensitive_headers_encrypted")

    def get(self, key: UUID) -> Endpoint | None:
        rows = Endpoint.unscoped.select_related("tenant", "lane").defer(*SEALED)
        row: Endpoint | None = rows.filter(id=key).first()
        return row

    def sheet(self, row: Endpoint) -> Sheet:
        slug = row.tenant.slug
        endpoint_id = ids.to_text(ids.ENDPOINT, row.id)
        host = hosts.host_of(row.url)
        lane = lane_of(row)
        # One that is polled has no host.
        of_host = list_url("deliveries_endpoint", host=host)
        return Sheet(
            title=address_of(row),
            notes=_notes(row),
            facts=[
                (_("Tenant"), tenant_link(row.tenant)),
                (_("Id"), code(endpoint_id)),
                (_("Uid"), row.uid or NOTHING),
                (_("Host"), link(of_host, host) if host else NOTHING),
                (_("Status"), status_of(row)),
                (_("Reason"), row.get_disabled_reason_display() if row.disabled_reason else NOTHING),
                (_("Description"), row.description or NOTHING),
                (_("Missed since"), when(row.missed_since)),
                *_health_facts(row, lane, now=timezone.now()),
                *_lane_facts(lane),
                (_("Called by"), f"{row.method}, {row.format}, {row.signature_scheme}"),
                (_("Order"), row.ordering),
                (_("At once, a second, for"), _pace(row)),
                (_("Batches"), _batches(row)),
                (
                    _("Headers"),
                    ", ".join([*row.headers, *(f"{each} (***)" for each in row.sensitive_headers)])
                    or NOTHING,
                ),
                (_("Signs in by"), _sign_in(row)),
                (_("Client certificate"), _certificates(row.client_certificate)),
                (_("Authorities of its own"), _certificates(row.ca_certificates)),
                (_("Channels"), ", ".join(row.channels) if row.channels is not None else _("all")),
                (_("Metadata"), pretty(row.metadata)),
                (_("Made"), when(row.created_at)),
                (_("Changed"), when(row.updated_at)),
                (_("Deleted"), when(row.deleted_at)),
            ],
            links=[
                Link(
                    _("Failed deliveries"),
                    list_url("deliveries_delivery", tenant=slug, endpoint=endpoint_id, status="failed"),
                ),
                Link(
                    _("Pending deliveries"),
                    list_url("deliveries_delivery", tenant=slug, endpoint=endpoint_id, status="pending"),
                ),
                Link(_("Deliveries"), list_url("deliveries_delivery", tenant=slug, endpoint=endpoint_id)),
                *([Link(_("Everybody's endpoints on this host"), of_host)] if host else []),
                Link(_("Audit log"), list_url("tenants_auditentry", tenant=slug)),
            ],
            actions=_actions(row),
            tables=[_subscriptions(row), _jobs(row)],
        )


def _pace(row: Endpoint) -> str:
    a_second = NOTHING if row.rate_limit is None else f"{row.rate_limit:g}"
    return f"{row.max_in_flight}, {a_second}, {row.timeout_seconds} s"


def _batches(row: Endpoint) -> str:
    if row.batch is None:
        return NOTHING
    return _("up to %(events)s events, after %(wait)s ms at most") % {
        "events": row.batch["max_events"],
        "wait": number(row.batch["max_wait_ms"]),
    }


def _sign_in(row: Endpoint) -> str:
    """What is readable of it. The secret was not even loaded."""
    auth = row.auth or {}
    names = [
        mask_url(auth.get("token_url", "")),
        auth.get("client_id"),
        auth.get("username"),
        auth.get("scope"),
    ]
    return ", ".join(filter(None, [auth.get("type"), *names])) or NOTHING


def _certificates(pem: str | None) -> object:
    if not pem:
        return NOTHING
    found = ((each.subject, _("until"), when(each.expires_at)) for each in credentials.about(pem))
    return format_html_join("; ", "{} {} {}", found)


def _notes(row: Endpoint) -> list[str]:
    notes = []
    if row.deleted_at is not None:
        notes.append(_("Deleted. Its history is kept as long as that of others."))
    elif row.status == Endpoint.Status.DISABLED:
        notes.append(
            _("Disabled: events published now make no deliveries. Enable it, then send what it missed.")
        )
    elif row.is_paused:
        notes.append(_("Paused by an operator: deliveries are made and wait."))
    elif row.tenant.status == Tenant.Status.SUSPENDED and row.tenant.deleted_at is None:
        notes.append(_("Held, because its tenant is suspended."))
    if _is_missing_something(row):
        notes.append(_("It missed events while it was disabled. They are ready to be sent."))
    return notes


def _is_missing_something(row: Endpoint) -> bool:
    is_served = row.deleted_at is None and row.status == Endpoint.Status.ENABLED
    return is_served and row.missed_since is not None


def _health_facts(row: Endpoint, lane: Lane | None, *, now: datetime) -> list[tuple[str, object]]:
    """As the API tells it."""
    if lane is None:
        return []
    found = health.of(row, now=now)
    held: object = NOTHING
    if found.held_until is not None:
        held = beside(when(found.held_until), f"({found.hold_reason or ''})")
    circuit: object = state(found.circuit)
    if lane.circuit_opened_at is not None:
        circuit = beside(circuit, beside(_("since"), when(lane.circuit_opened_at)))
    return [
        (_("Health"), health_of(lane)),
        (_("Last failed"), when(found.failed_at)),
        (_("Circuit"), circuit),
        (_("Will be disabled, if it goes on failing"), when(found.disables_at)),
        (_("Held until"), held),
    ]


def _lane_facts(lane: Lane | None) -> list[tuple[str, object]]:
    if lane is None:
        return []
    holder = NOTHING if lane.dispatcher_id is None else link(list_url("deliveries_dispatcher"), _("yes"))
    return [
        (_("To be looked at"), when(lane.ready_at)),
        (_("Served now"), holder),
        (_("Requests at once, earned"), f"{lane.slots:g}"),
    ]


def _actions(row: Endpoint) -> list[Action]:
    if row.deleted_at is not None:
        return []
    chosen = {"ids": row.id}
    if row.status == Endpoint.Status.DISABLED:
        return [Action(_("Enable…"), act_url("enable", **chosen))]
    return [
        Action(_("Let go on…"), act_url("continue", **chosen))
        if row.is_paused
        else Action(_("Pause…"), act_url("pause", **chosen)),
        *(
            [Action(_("Send what it missed…"), act_url("send-missed", **chosen))]
            if _is_missing_something(row)
            else []
        ),
        Action(_("Recover what failed…"), act_url("recover", **chosen)),
        Action(_("Replay everything…"), act_url("replay-endpoint", **chosen)),
        Action(_("Drain…"), act_url("drain", **chosen), is_severe=True),
        Action(_("Disable…"), act_url("disable", **chosen), is_severe=True),
    ]


def _subscriptions(row: Endpoint) -> Table:
    return Table(
        _("Subscriptions"),
        [_("Event types"), _("Filter"), _("Transformation")],
        [
            [
                link(page_url("deliveries_subscription", each.id), each.event_type),
                code(each.filter),
                _("yes") if each.transformation else NOTHING,
            ]
            for each in snapshots.subscriptions_of(row)[:50]
        ],
        empty=_("None: it gets nothing."),
    )


def _jobs(row: Endpoint) -> Table:
    found = jobs_of(row.tenant_id).filter(endpoint=row).order_by("-id")[:5]
    return Table(
        _("Recover and replay"),
        [_("Made"), _("Kind"), _("Status"), _("Done")],
        [
            [
                link(page_url("deliveries_job", each.id), when(each.created_at)),
                each.kind,
                state(each.status),
                f"{number(each.done)} / {number(each.total)}",
            ]
            for each in found
        ],
        empty=_("Never."),
    )


# --- subscriptions ----------------------------------------------------------------------------------------------------


class SubscriptionFilter(OfTenant):
    endpoint = IdField(ids.ENDPOINT, label=gettext_lazy("Endpoint"), help_text="ep_…")


@admin.register(Subscription)
class SubscriptionAdmin(OperatorAdmin):
    filters = SubscriptionFilter
    columns = [
        Column(
            gettext_lazy("Event types"),
            lambda row: link(page_url("deliveries_subscription", row.id), row.event_type),
        ),
        Column(gettext_lazy("Endpoint"), lambda row: endpoint_link(row.endpoint)),
        Column(gettext_lazy("Tenant"), lambda row: tenant_link(row.tenant)),
        Column(gettext_lazy("Filter"), lambda row: code((row.filter or "")[:120])),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Subscription]":
        rows: QuerySet[Subscription] = Subscription.unscoped.select_related("tenant", "endpoint")
        if wanted.get("endpoint"):
            rows = rows.filter(endpoint_id=wanted["endpoint"])
        if wanted.get("tenant"):
            # By the tenant's endpoints: subscriptions have an index by endpoint.
            rows = rows.filter(endpoint__tenant=wanted["tenant"])
        return rows.defer("endpoint__sensitive_headers_encrypted")

    def get(self, key: UUID) -> Subscription | None:
        rows = Subscription.unscoped.select_related("tenant", "endpoint")
        row: Subscription | None = rows.filter(id=key).first()
        return row

    def sheet(self, row: Subscription) -> Sheet:
        return Sheet(
            title=row.event_type,
            facts=[
                (_("Tenant"), tenant_link(row.tenant)),
                (_("Endpoint"), endpoint_link(row.endpoint)),
                (_("Id"), code(ids.to_text(ids.SUBSCRIPTION, row.id))),
                (_("Filter"), code(row.filter)),
                (_("Transformation"), code(row.transformation)),
                (_("Description"), row.description or NOTHING),
                (_("Made"), when(row.created_at)),
                (_("Changed"), when(row.updated_at)),
            ],
        )
