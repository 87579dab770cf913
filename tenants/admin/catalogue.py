"""The event catalogue in the admin: the shared types and those of tenants."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants.admin.base import Column, Link, OfTenant, OperatorAdmin, Sheet
from tenants.admin.show import link, list_url, page_url, pretty, state, when
from tenants.admin.tenants import tenant_link
from tenants.models import EventType


class EventTypeFilter(OfTenant):
    is_shared = forms.BooleanField(label=gettext_lazy("Only the shared ones"), required=False)


def owner(row: EventType) -> object:
    return _("shared by all") if row.tenant is None else tenant_link(row.tenant)


@admin.register(EventType)
class EventTypeAdmin(OperatorAdmin):
    filters = EventTypeFilter
    columns = [
        Column(gettext_lazy("Name"), lambda row: link(page_url("tenants_eventtype", row.id), row.name)),
        Column(gettext_lazy("Tenant"), owner),
        Column(gettext_lazy("Group"), lambda row: row.group),
        Column(gettext_lazy("State"), lambda row: state("archived" if row.archived_at else "active")),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[EventType]":
        rows = EventType.objects.select_related("tenant").defer("schema", "example")
        if wanted.get("tenant"):
            return rows.filter(tenant=wanted["tenant"])
        return rows.filter(tenant__isnull=True) if wanted.get("is_shared") else rows

    def get(self, key: UUID) -> EventType | None:
        return EventType.objects.select_related("tenant").filter(id=key).first()

    def sheet(self, row: EventType) -> Sheet:
        links = []
        if row.tenant is not None:
            wanted = {"tenant": row.tenant.slug}
            links = [
                Link(_("Events of this type"), list_url("deliveries_event", type=row.name, **wanted)),
                Link(
                    _("Deliveries of this type"),
                    list_url("deliveries_delivery", event_type=row.name, **wanted),
                ),
            ]
        return Sheet(
            title=row.name,
            facts=[
                (_("Tenant"), owner(row)),
                (_("Description"), row.description),
                (_("Group"), row.group),
                (_("Schema"), pretty(row.schema)),
                (_("Example"), pretty(row.example)),
                (_("Made"), when(row.created_at)),
                (_("Archived"), when(row.archived_at)),
            ],
            links=links,
        )
