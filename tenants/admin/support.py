"""Signing in to a tenant's portal as support: asked first, and in the tenant's own audit log."""

from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from tenants import access
from tenants.admin.base import actor_of, may_operate
from tenants.admin.show import page_url
from tenants.models import Tenant, User
from tenants.services import support


class SupportForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        required=False,
        max_length=200,
        help_text=gettext_lazy(
            "Empty: you only look. With a reason you may do what a developer may. The tenant reads it."
        ),
    )


@require_http_methods(["GET", "HEAD", "POST"])
def begin(request: HttpRequest, object_id: UUID) -> HttpResponse:
    if not may_operate(request):
        raise PermissionDenied
    tenant = Tenant.objects.filter(id=object_id, deleted_at__isnull=True).first()
    if tenant is None:
        raise Http404
    form = SupportForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        assert isinstance(request.user, User)
        session = support.begin(
            actor=actor_of(request),
            user=request.user,
            tenant=tenant,
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
        )
        others = request.session.get(support.SESSION_KEY, [])
        request.session[support.SESSION_KEY] = [*others, session.id.hex][-support.MOST_AT_ONCE :]
        return redirect("portal-overview", tenant=tenant.slug)
    context = {
        **admin.site.each_context(request),
        "title": _("Sign in to the portal of %s as support") % tenant.name,
        "form": form,
        "back": page_url("tenants_tenant", tenant.id),
        "minutes": int(support.LASTS.total_seconds() // 60),
    }
    return TemplateResponse(request, "admin/support.html", context, status=422 if form.errors else 200)


@require_POST
def end(request: HttpRequest, object_id: UUID) -> HttpResponse:
    """From the banner in the portal."""
    assert isinstance(request.user, User)
    try:
        support.end(actor=actor_of(request), user=request.user, session_id=object_id)
    except access.NotFound:
        messages.warning(request, _("It was over already."))
    else:
        messages.success(request, _("You are out of the portal."))
    mine = request.session.get(support.SESSION_KEY, [])
    request.session[support.SESSION_KEY] = [each for each in mine if each != object_id.hex]
    return redirect("admin:index")
