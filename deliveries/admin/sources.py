"""Sources in the admin: whose they are, how they verify, what lately came of their requests. No payloads, no URLs."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries.models import Source
from deliveries.services import arrivals
from tenants import ids
from tenants.admin.base import Column, OfTenant, OperatorAdmin, Sheet, Table
from tenants.admin.show import NOTHING, code, link, number, page_url, state, when
from tenants.admin.tenants import tenant_link

RECENT = 20
"""Requests that came to it, on a source's page."""


def status_of(row: Source) -> object:
    return state("deleted" if row.deleted_at is not None else row.status)


@admin.register(Source)
class SourceAdmin(OperatorAdmin):
    filters = OfTenant
    columns = [
        Column(gettext_lazy("Name"), lambda row: link(page_url("deliveries_source", row.id), row.name)),
        Column(gettext_lazy("Tenant"), lambda row: tenant_link(row.tenant)),
        Column(gettext_lazy("Kind"), lambda row: row.get_kind_display()),
        Column(gettext_lazy("Provider"), lambda row: row.preset or NOTHING),
        Column(gettext_lazy("Status"), status_of),
        Column(gettext_lazy("Made"), lambda row: when(row.created_at)),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Source]":
        rows: QuerySet[Source] = Source.unscoped.select_related("tenant").defer("secrets_encrypted")
        return rows.filter(tenant=wanted["tenant"]) if wanted.get("tenant") else rows

    def get(self, key: UUID) -> Source | None:
        row: Source | None = (
            Source.unscoped.select_related("tenant").defer("secrets_encrypted").filter(id=key).first()
        )
        return row

    def sheet(self, row: Source) -> Sheet:
        came = arrivals.requests_of(row).defer("headers", "query", "body").order_by("-id")[:RECENT]
        return Sheet(
            title=row.name,
            facts=[
                (_("Tenant"), tenant_link(row.tenant)),
                (_("Id"), code(ids.to_text(ids.SOURCE, row.id))),
                (_("Status"), status_of(row)),
                (_("Provider"), row.preset or NOTHING),
                (_("Verification"), row.verification.get("scheme", NOTHING)),
                (_("Secrets"), number(row.secret_count)),
                (_("Requests per minute"), number(row.rate_limit) if row.rate_limit else NOTHING),
                (_("Ends"), when(row.expires_at)),
                (_("Made"), when(row.created_at)),
                (_("Changed"), when(row.updated_at)),
            ],
            tables=[
                Table(
                    title=_("What came"),
                    headings=[_("When"), _("Verdict"), _("Why"), _("Bytes"), _("Answered")],
                    rows=[
                        [
                            when(each.created_at),
                            state(each.verdict),
                            each.reason.replace("_", " ") or NOTHING,
                            number(each.size),
                            each.status_code,
                        ]
                        for each in came
                    ],
                    empty=_("Nothing yet."),
                )
            ],
        )
