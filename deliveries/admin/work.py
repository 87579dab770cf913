"""The platform's own work in the admin: dispatchers and their leases, jobs of tenants, actions of operators."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries.admin.endpoints import endpoint_link
from deliveries.models import BulkAction, Dispatcher, Job
from deliveries.services import overview
from deliveries.services.bulk_actions import ACTIONS
from deliveries.services.bulk_selection import MOST_COUNTED
from tenants import ids
from tenants.admin.base import Action, Column, OfTenant, OperatorAdmin, Sheet, Table
from tenants.admin.show import (
    NOTHING,
    act_url,
    beside,
    code,
    link,
    number,
    page_url,
    pretty,
    seconds,
    state,
    when,
)
from tenants.admin.tenants import tenant_link

# --- dispatchers ------------------------------------------------------------------------------------------------------


def lease_of(row: Dispatcher) -> object:
    left = (row.alive_until - timezone.now()).total_seconds()
    if left <= 0:
        return beside(state("expired"), _("%s ago") % seconds(-left))
    return beside(state("draining" if row.is_draining else "active"), _("for %s more") % seconds(left))


@admin.register(Dispatcher)
class DispatcherAdmin(OperatorAdmin):
    filters = forms.Form
    columns = [
        Column(
            gettext_lazy("Process"),
            lambda row: link(page_url("deliveries_dispatcher", row.id), row.process or row.id),
        ),
        Column(gettext_lazy("Lease"), lease_of),
        Column(gettext_lazy("Room"), lambda row: _("yes") if row.has_room else _("no")),
        Column(gettext_lazy("Deliveries"), lambda row: number(row.deliveries_done)),
        Column(gettext_lazy("Began"), lambda row: when(row.started_at)),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Dispatcher]":  # noqa: ARG002 - no filters
        return Dispatcher.objects.all()

    def get(self, key: UUID) -> Dispatcher | None:
        return Dispatcher.objects.filter(id=key).first()

    def sheet(self, row: Dispatcher) -> Sheet:
        return Sheet(
            title=row.process or str(row.id),
            facts=[
                (_("Lease"), lease_of(row)),
                (_("Lease ends"), when(row.alive_until)),
                (_("Takes more"), _("yes") if row.has_room and not row.is_draining else _("no")),
                (_("Lanes in its hands"), number(overview.lanes_of(row.id))),
                (_("Deliveries"), number(row.deliveries_done)),
                (_("Began"), when(row.started_at)),
            ],
        )


# --- jobs of tenants --------------------------------------------------------------------------------------------------


@admin.register(Job)
class JobAdmin(OperatorAdmin):
    filters = OfTenant
    columns = [
        Column(
            gettext_lazy("Made"), lambda row: link(page_url("deliveries_job", row.id), when(row.created_at))
        ),
        Column(gettext_lazy("Tenant"), lambda row: tenant_link(row.tenant)),
        Column(gettext_lazy("Endpoint"), lambda row: endpoint_link(row.endpoint)),
        Column(gettext_lazy("Kind"), lambda row: row.kind),
        Column(gettext_lazy("Status"), lambda row: state(row.status)),
        Column(gettext_lazy("Done"), lambda row: f"{number(row.done)} / {number(row.total)}"),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Job]":
        rows: QuerySet[Job] = Job.unscoped.select_related("tenant", "endpoint")
        rows = rows.defer("endpoint__sensitive_headers_encrypted")
        return rows.filter(tenant=wanted["tenant"]) if wanted.get("tenant") else rows

    def get(self, key: UUID) -> Job | None:
        row: Job | None = Job.unscoped.select_related("tenant", "endpoint").filter(id=key).first()
        return row

    def sheet(self, row: Job) -> Sheet:
        is_running = row.status == Job.Status.RUNNING
        return Sheet(
            title=f"{row.get_kind_display()}: {row.get_only_display()}",
            facts=[
                (_("Tenant"), tenant_link(row.tenant)),
                (_("Endpoint"), endpoint_link(row.endpoint)),
                (_("Id"), code(ids.to_text(ids.JOB, row.id))),
                (_("Status"), state(row.status)),
                (_("Why"), row.error.replace("_", " ") or NOTHING),
                (_("Done"), f"{number(row.done)} / {number(row.total)}"),
                (_("Event types"), ", ".join(row.event_types or []) or _("all")),
                (_("From"), when(row.since)),
                (_("Before"), when(row.until)),
                (_("Worked on"), when(row.heartbeat_at)),
                (_("Made"), when(row.created_at)),
                (_("Ended"), when(row.completed_at)),
            ],
            actions=[Action(_("Cancel…"), act_url("cancel-job", ids=row.id), is_severe=True)]
            if is_running
            else [],
            refresh_seconds=2 if is_running else None,
        )


# --- actions of operators ---------------------------------------------------------------------------------------------


def name_of(row: BulkAction) -> str:
    action = ACTIONS.get(row.action)
    return row.action if action is None else str(action.label)


@admin.register(BulkAction)
class BulkActionAdmin(OperatorAdmin):
    filters = forms.Form
    columns = [
        Column(
            gettext_lazy("Began"),
            lambda row: link(page_url("deliveries_bulkaction", row.id), when(row.created_at)),
        ),
        Column(gettext_lazy("What"), name_of),
        Column(gettext_lazy("Who"), lambda row: row.actor_label),
        Column(gettext_lazy("Status"), lambda row: state(row.status)),
        Column(gettext_lazy("Done"), lambda row: f"{number(row.done)} / {number(row.total)}"),
        Column(gettext_lazy("Not done"), lambda row: number(row.refused)),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[BulkAction]":  # noqa: ARG002 - no filters
        return BulkAction.objects.all()

    def get(self, key: UUID) -> BulkAction | None:
        return BulkAction.objects.filter(id=key).first()

    def sheet(self, row: BulkAction) -> Sheet:
        is_running = row.status == BulkAction.Status.RUNNING
        return Sheet(
            title=name_of(row),
            progress=None if row.total == 0 else (min(row.done + row.refused, row.total), row.total),
            facts=[
                (_("Status"), state(row.status)),
                (_("Done"), _("%(done)s of %(total)s") % {"done": number(row.done), "total": _total(row)}),
                (_("Could not be done"), number(row.refused)),
                (_("Why"), ", ".join(f"{why} ({count})" for why, count in row.reasons.items()) or NOTHING),
                (_("Who"), row.actor_label),
                (_("To what"), pretty(row.selection)),
                (_("How"), pretty(row.arguments)),
                (_("Began"), when(row.created_at)),
                (_("Worked on"), when(row.heartbeat_at)),
                (_("Ended"), when(row.completed_at)),
            ],
            actions=[Action(_("Stop…"), act_url("stop", ids=row.id), is_severe=True)] if is_running else [],
            tables=[
                Table(
                    _("What could not be done"),
                    [_("Which"), _("Why")],
                    [[_target(row, each), why] for each, why in row.problems],
                    empty=_("Nothing."),
                )
            ],
            refresh_seconds=2 if is_running else None,
        )


def _total(row: BulkAction) -> str:
    return _("at least %s") % number(row.total) if row.total >= MOST_COUNTED else number(row.total)


def _target(row: BulkAction, key: str) -> object:
    action = ACTIONS.get(row.action)
    return key if action is None else link(page_url(action.target.page, UUID(key)), key)
