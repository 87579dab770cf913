"""The audit log of a tenant: who did what, filtered, by pages, and as CSV. For admins."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy

from tenants import validation
from tenants.csv_cells import cell
from tenants.models import AuditEntry
from tenants.portal.entry import PortalRequest, Role, portal_page
from tenants.portal.lists import RuleField, WindowForm, page_of
from tenants.services import audit_log

COLUMNS = ("time", "kind", "actor", "action", "target", "before", "after", "address", "request_id")


def _text(value: object) -> str:
    return validation.text(value, low=1, high=255)


class AuditFilters(WindowForm):
    action = RuleField(
        _text,
        label=gettext_lazy("What was done"),
        max_length=64,
        help_text=gettext_lazy("How it begins, such as endpoint or api_key.revoked."),
    )
    actor = RuleField(
        _text,
        label=gettext_lazy("By whom"),
        max_length=255,
        help_text=gettext_lazy("A part of the address, name or id."),
    )
    target = RuleField(_text, label=gettext_lazy("To what (id)"), max_length=64)
    field_order = ["action", "actor", "target", "since", "until"]


@portal_page(needs=Role.ADMIN)
def listing(request: PortalRequest) -> HttpResponse:
    form = AuditFilters(request.GET)
    rows = _rows(request, form)
    return render(
        request,
        "portal/settings/audit.html",
        {"form": form, "page": None if rows is None else page_of(request, rows)},
        status=422 if rows is None else 200,
    )


@portal_page(needs=Role.ADMIN)
def as_csv(request: PortalRequest) -> StreamingHttpResponse | HttpResponse:
    """What the filters of the page show, all of it, line by line."""
    rows = _rows(request, AuditFilters(request.GET))
    if rows is None:
        return listing(request, tenant=request.tenant.slug)  # type: ignore[return-value] # which says what is wrong
    response = StreamingHttpResponse(
        _lines(audit_log.newest_first(rows)), content_type="text/csv; charset=utf-8"
    )
    response["Content-Disposition"] = f'attachment; filename="audit-{request.tenant.slug}.csv"'
    return response


def _rows(request: PortalRequest, form: AuditFilters) -> "QuerySet[AuditEntry] | None":
    if not form.is_valid():
        return None
    filters: dict[str, Any] = {name: form.cleaned_data[name] or None for name in form.fields}
    return audit_log.find(request.tenant, **filters)


def _lines(entries: Iterable[AuditEntry]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerow(
            cell(value)
            for value in (
                entry.created_at.isoformat(),
                entry.actor_kind,
                entry.actor,
                entry.action,
                entry.target,
                _json(entry.before),
                _json(entry.after),
                entry.remote_ip,
                entry.request_id,
            )
        )
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _json(value: dict[str, Any] | None) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
