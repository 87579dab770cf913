"""The settings' first page, by what one may see of them."""

from django.http import HttpResponse
from django.shortcuts import redirect

from tenants.portal import errors
from tenants.portal.entry import PortalRequest, Role, portal_page


@portal_page()
def start(request: PortalRequest) -> HttpResponse:
    if request.is_admin:
        return redirect("portal-members", tenant=request.tenant.slug)
    if request.by_link is None:
        return redirect("portal-notifications", tenant=request.tenant.slug)
    if request.may_change:
        return redirect("portal-channel", tenant=request.tenant.slug)
    return errors.forbidden(request, needs=Role.DEVELOPER)
