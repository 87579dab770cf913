"""What tenants used in a month, for operators: as a page, and as a file for invoices."""

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Final

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from deliveries.admin.usage import month_cells
from deliveries.services import usage
from tenants import csv_cells, ids
from tenants.admin.base import page_of
from tenants.admin.tenants import tenant_link
from tenants.models import Tenant
from webhooks_platform.operator_pages import may_look


class MonthForm(forms.Form):
    month = forms.DateField(
        label=gettext_lazy("Month"),
        required=False,
        input_formats=["%Y-%m"],
        widget=forms.DateInput(attrs={"type": "month"}, format="%Y-%m"),
    )


USAGE_COLUMNS: Final = ("tenant", "slug", "month", "events", "attempts", "succeeded", "failed")


def _month_asked(form: MonthForm) -> date | None:
    """This one, unless the address says another. None: it makes no sense."""
    if not form.is_valid():
        return None
    month: date = form.cleaned_data["month"] or timezone.now().date()
    return month.replace(day=1)


@require_safe
def usage_list(request: HttpRequest) -> HttpResponse:
    """Tenants and what they used in a month, the newest tenants first."""
    if not may_look(request):
        raise PermissionDenied
    form = MonthForm(request.GET)
    month = _month_asked(form)
    page = page_of(request, Tenant.objects.all())
    used = usage.month_of([tenant.id for tenant in page.rows], month) if month else {}
    query = request.GET.copy()
    query.pop("cursor", None)
    context = {
        **admin.site.each_context(request),
        "title": _("Usage"),
        "form": form,
        "month": month,
        "page": page,
        "query": query.urlencode(),
        "headings": [_("Tenant"), _("Name"), _("Events"), _("Requests"), _("Delivered"), _("Failed")],
        "rows": [
            (tenant.id, [tenant_link(tenant), tenant.name, *month_cells(used.get(tenant.id))])
            for tenant in page.rows
        ],
        "file_url": f"{reverse('admin:usage-csv')}?month={month:%Y-%m}" if month else "",
    }
    return TemplateResponse(request, "admin/usage.html", context, status=200 if month else 422)


@require_safe
def usage_csv(request: HttpRequest) -> HttpResponseBase:
    """Every tenant that used anything, for invoices."""
    if not may_look(request):
        raise PermissionDenied
    month = _month_asked(MonthForm(request.GET))
    if month is None:
        return redirect("admin:usage")
    response = StreamingHttpResponse(_usage_lines(month), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="usage-{month:%Y-%m}.csv"'
    return response


def _usage_lines(month: date) -> Iterator[str]:
    yield _csv_line(USAGE_COLUMNS)
    for tenant, used in usage.everybody(month):
        yield _csv_line(
            (
                ids.to_text(ids.TENANT, tenant.id),
                tenant.slug,
                f"{month:%Y-%m}",
                used.events,
                used.attempts,
                used.succeeded,
                used.failed,
            )
        )


def _csv_line(values: Iterable[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(csv_cells.cell(value) for value in values)
    return buffer.getvalue()
