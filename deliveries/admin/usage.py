"""What one tenant used, month by month."""

from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from deliveries.services import usage
from deliveries.services.usage import Month
from tenants.admin.base import Link, Table
from tenants.admin.show import number, page_url
from tenants.models import Tenant, User


def month_cells(month: Month | None) -> list[str]:
    """Events, requests, delivered, failed."""
    if month is None:
        return [number(0)] * 4
    return [number(each) for each in (month.events, month.attempts, month.succeeded, month.failed)]


@require_safe
def of_tenant(request: HttpRequest, object_id: UUID) -> HttpResponse:
    if not (isinstance(request.user, User) and request.user.has_perm("tenants.view_tenant")):
        raise PermissionDenied
    tenant = Tenant.objects.filter(id=object_id).first()
    if tenant is None:
        raise Http404
    table = Table(
        _("By month"),
        [_("Month"), _("Events"), _("Requests"), _("Delivered"), _("Failed")],
        [[f"{month.begins:%Y-%m}", *month_cells(month)] for month in usage.months_of(tenant)],
        empty=_("Nothing yet."),
        more=Link(_("The tenant"), page_url("tenants_tenant", tenant.id)),
    )
    context = {
        **admin.site.each_context(request),
        "title": _("Usage of %s") % tenant.name,
        "tables": [table],
    }
    return TemplateResponse(request, "admin/find.html", context)
