"""The operators' site: Django's admin with pages of our own.

Lists and pages of single things stand in `tenants/admin` and `deliveries/admin`, and register themselves here; what
gathers from all tenants stands in `operator_pages`.
"""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy

from tenants.services import platform


class OperatorSite(admin.AdminSite):
    site_header = gettext_lazy("Webhooks operations")
    site_title = gettext_lazy("Webhooks operations")
    index_title = gettext_lazy("How it goes")
    index_template = "admin/dashboard.html"
    site_url = None
    enable_nav_sidebar = True

    def get_urls(self) -> list[URLPattern | URLResolver]:
        # They register with this site while they are loaded.
        from deliveries.admin import actions  # noqa: PLC0415
        from webhooks_platform import operator_pages as pages  # noqa: PLC0415

        view = self.admin_view
        return [
            path("find/", view(pages.find), name="find"),
            path("hosts/", view(pages.host), name="host"),
            path("sending/", view(pages.sending), name="sending"),
            path("act/", view(actions.act_on_chosen), name="act-on-chosen"),
            path("act/<slug:action>/", view(actions.act), name="act"),
            *super().get_urls(),
        ]

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:  # noqa: ARG002 - Django's
        """Operators sign in where everybody does: one form, one limit of attempts, one second factor."""
        if request.user.is_authenticated:
            if self.has_permission(request):
                return redirect("admin:index")
            raise PermissionDenied
        wanted = request.GET.get("next") or reverse("admin:index")
        return redirect(f"{reverse('portal-sign-in')}?{urlencode({'next': wanted})}")

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        # As above.
        from tenants.admin.base import may_operate  # noqa: PLC0415
        from webhooks_platform import operator_pages as pages  # noqa: PLC0415

        return {
            **super().each_context(request),
            "is_sending_stopped": platform.is_sending_stopped(),
            "may_operate": may_operate(request),
            "may_look": pages.may_look(request),
        }

    def index(
        self,
        request: HttpRequest,
        extra_context: dict[str, Any] | None = None,  # noqa: ARG002 - as above
    ) -> TemplateResponse:
        # As above.
        from webhooks_platform import operator_pages as pages  # noqa: PLC0415

        return super().index(request, pages.dashboard() if pages.may_look(request) else {})
