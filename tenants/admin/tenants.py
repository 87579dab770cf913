"""Tenants in the admin: the list with its search, and the page from which everything of a tenant is found."""

from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants import ids
from tenants.admin.base import ANY, Action, Column, Link, OfTenant, OperatorAdmin, Sheet, Table
from tenants.admin.show import NOTHING, act_url, code, link, list_url, number, page_url, pretty, state, when
from tenants.models import AuditEntry, Tenant
from tenants.services import finding


class TenantFilter(forms.Form):
    q = forms.CharField(label=gettext_lazy("Slug or words of the name"), required=False, max_length=200)
    status = forms.ChoiceField(
        label=gettext_lazy("Status"), required=False, choices=[ANY, *Tenant.Status.choices]
    )


def tenant_link(tenant: Tenant | None) -> object:
    return NOTHING if tenant is None else link(page_url("tenants_tenant", tenant.id), tenant.slug)


def status_of(tenant: Tenant) -> object:
    return state("deleted" if tenant.deleted_at else tenant.status)


@admin.register(Tenant)
class TenantAdmin(OperatorAdmin):
    filters = TenantFilter
    columns = [
        Column(gettext_lazy("Slug"), tenant_link),
        Column(gettext_lazy("Name"), lambda tenant: tenant.name),
        Column(gettext_lazy("Status"), status_of),
        Column(gettext_lazy("Made"), lambda tenant: when(tenant.created_at)),
    ]
    bulk_actions: ClassVar = [
        ("suspend", gettext_lazy("Suspend")),
        ("resume", gettext_lazy("Resume")),
        ("limits", gettext_lazy("Change limits")),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Tenant]":
        rows = Tenant.objects.all()
        if wanted.get("q"):
            rows = rows.filter(finding.matching(wanted["q"]))
        if wanted.get("status"):
            rows = rows.filter(status=wanted["status"], deleted_at__isnull=True)
        return rows

    def get(self, key: UUID) -> Tenant | None:
        return Tenant.objects.filter(id=key).first()

    def sheet(self, row: Tenant) -> Sheet:
        notes = []
        if row.deleted_at is not None:
            notes.append(_("Deleted. Its rows are erased 30 days after."))
        elif row.status == Tenant.Status.SUSPENDED:
            notes.append(_("Suspended: publishes are refused, deliveries are held."))
        limits = [
            f"{name.replace('_', ' ')}: {_('none') if value is None else number(value)}"
            for name, value in row.effective_limits.items()
        ]
        return Sheet(
            title=row.name,
            notes=notes,
            facts=[
                (_("Slug"), row.slug),
                (_("Id"), code(ids.to_text(ids.TENANT, row.id))),
                (_("Status"), status_of(row)),
                (_("Limits"), ", ".join(limits)),
                (_("Weight"), str(row.weight)),
                (_("Kept for"), _kept(row)),
                (_("Schemas"), row.get_schema_validation_display()),
                (_("Settings version"), str(row.settings_version)),
                (_("Metadata"), pretty(row.metadata)),
                (_("Made"), when(row.created_at)),
                (_("Deleted"), when(row.deleted_at)),
            ],
            links=[
                Link(label, list_url(model, tenant=row.slug, **more))
                for label, model, more in (
                    (_("Endpoints"), "deliveries_endpoint", {}),
                    (_("Failed deliveries"), "deliveries_delivery", {"status": "failed"}),
                    (_("Pending deliveries"), "deliveries_delivery", {"status": "pending"}),
                    (_("Deliveries"), "deliveries_delivery", {}),
                    (_("Events"), "deliveries_event", {}),
                    (_("Subscriptions"), "deliveries_subscription", {}),
                    (_("Recover and replay jobs"), "deliveries_job", {}),
                    (_("Event types"), "tenants_eventtype", {}),
                    (_("Members"), "tenants_member", {}),
                    (_("API keys"), "tenants_apikey", {}),
                    (_("Portal links"), "tenants_portallink", {}),
                    (_("Audit log"), "tenants_auditentry", {}),
                )
            ]
            + [Link(_("Usage"), f"{reverse('admin:tenant-usage', args=[row.id])}")],
            actions=self._actions(row),
            tables=[_lately(row)],
        )

    def _actions(self, row: Tenant) -> list[Action]:
        if row.deleted_at is not None:
            return []
        chosen = {"ids": row.id}
        is_active = row.status == Tenant.Status.ACTIVE
        return [
            Action(_("Suspend…"), act_url("suspend", **chosen), is_severe=True)
            if is_active
            else Action(_("Resume…"), act_url("resume", **chosen)),
            Action(_("Change limits…"), act_url("limits", **chosen)),
            Action(_("Sign in as support…"), reverse("admin:support", args=[row.id])),
        ]


def _kept(row: Tenant) -> str:
    days = [_("%d days") % row.retention_days]
    if row.payload_retention_days is not None:
        days.append(_("payloads %d") % row.payload_retention_days)
    if row.attempt_retention_days is not None:
        days.append(_("headers and bodies of attempts %d") % row.attempt_retention_days)
    return ", ".join(days)


def _lately(row: Tenant) -> Table:
    entries = AuditEntry.objects.filter(tenant=row).order_by("-id")[:10]
    return Table(
        _("Done lately"),
        [_("When"), _("Who"), _("What"), _("To")],
        [[when(each.created_at), each.actor, each.action, code(each.target)] for each in entries],
        empty=_("Nothing yet."),
        more=Link(_("The whole audit log"), list_url("tenants_auditentry", tenant=row.slug)),
    )


class AuditFilter(OfTenant):
    pass


@admin.register(AuditEntry)
class AuditEntryAdmin(OperatorAdmin):
    filters = AuditFilter
    columns = [
        Column(
            gettext_lazy("When"),
            lambda entry: link(page_url("tenants_auditentry", entry.id), when(entry.created_at)),
        ),
        Column(gettext_lazy("Tenant"), lambda entry: tenant_link(entry.tenant)),
        Column(gettext_lazy("Who"), lambda entry: f"{entry.actor_kind} {entry.actor}"),
        Column(gettext_lazy("What"), lambda entry: entry.action),
        Column(gettext_lazy("To"), lambda entry: code(entry.target)),
        Column(gettext_lazy("From"), lambda entry: entry.remote_ip or NOTHING),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[AuditEntry]":
        rows = AuditEntry.objects.select_related("tenant")
        return rows.filter(tenant=wanted["tenant"]) if wanted.get("tenant") else rows

    def get(self, key: UUID) -> AuditEntry | None:
        return AuditEntry.objects.select_related("tenant").filter(id=key).first()

    def sheet(self, row: AuditEntry) -> Sheet:
        return Sheet(
            title=row.action,
            facts=[
                (_("When"), when(row.created_at)),
                (_("Tenant"), tenant_link(row.tenant)),
                (_("Who"), f"{row.actor_kind} {row.actor}"),
                (_("From"), row.remote_ip or NOTHING),
                (_("To"), code(row.target)),
                (_("Before"), pretty(row.before)),
                (_("After"), pretty(row.after)),
                (_("Request"), code(row.request_id)),
            ],
        )
