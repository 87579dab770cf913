"""The operators' site: Django's admin with pages of our own.

Lists and pages of single things stand in `tenants/admin` and `deliveries/admin`, and register themselves here; what
gathers from all tenants stands in `operator_dashboard`, `operator_pages` and `operator_usage`.
"""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants.models import User
from tenants.services import platform, two_factor


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
        from deliveries.admin.usage import of_tenant  # noqa: PLC0415
        from tenants.admin import support  # noqa: PLC0415
        from webhooks_platform import operator_pages as pages  # noqa: PLC0415
        from webhooks_platform import operator_usage as usage  # noqa: PLC0415

        view = self.admin_view
        return [
            path("find/", view(pages.find), name="find"),
            path("hosts/", view(pages.host), name="host"),
            path("sending/", view(pages.sending), name="sending"),
            path("support/<uuid:object_id>/", view(support.begin), name="support"),
            path("support/<uuid:object_id>/end/", view(support.end), name="support-end"),
            path("usage/<uuid:object_id>/", view(of_tenant), name="tenant-usage"),
            path("usage/", view(usage.usage_list), name="usage"),
            path("usage.csv", view(usage.usage_csv), name="usage-csv"),
            path("act/", view(actions.act_on_chosen), name="act-on-chosen"),
            path("act/<slug:action>/", view(actions.act), name="act"),
            *super().get_urls(),
        ]

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        """Ours change nothing but through services. Those of libraries do, so they are made to write it down."""
        # As above.
        from tenants.admin.audited import Audited  # noqa: PLC0415
        from tenants.admin.base import OperatorAdmin  # noqa: PLC0415

        if admin_class is None or not issubclass(admin_class, OperatorAdmin):
            stock = admin_class or admin.ModelAdmin
            admin_class = type(f"Audited{stock.__name__}", (Audited, stock), {})
        super().register(model_or_iterable, admin_class, **options)

    def has_permission(self, request: HttpRequest) -> bool:
        """For whoever has a second factor, unless the settings ask for none."""
        if not super().has_permission(request):
            return False
        user = request.user
        assert isinstance(user, User)
        if not settings.WEBHOOKS_OPERATORS_SECOND_FACTOR:
            return True
        if not hasattr(request, "has_second_factor"):
            request.has_second_factor = two_factor.is_on(user)  # type: ignore[attr-defined] # once a request
        return bool(request.has_second_factor)  # type: ignore[attr-defined] # as above

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:  # noqa: ARG002 - Django's
        """Operators sign in where everybody does: one form, one limit of attempts, one second factor."""
        if request.user.is_authenticated:
            if self.has_permission(request):
                return redirect("admin:index")
            if super().has_permission(request):
                messages.warning(request, _("Operators need a second factor: turn it on, then come back."))
                return redirect("portal-second-factor")
            raise PermissionDenied
        wanted = request.GET.get("next") or reverse("admin:index")
        return redirect(f"{reverse('portal-sign-in')}?{urlencode({'next': wanted})}")

    def password_change(  # type: ignore[override] # it leads elsewhere
        self,
        request: HttpRequest,  # noqa: ARG002 - as above
        extra_context: dict[str, Any] | None = None,  # noqa: ARG002 - as above
    ) -> HttpResponse:
        """Where everybody does, too: counted, and in the audit log."""
        return redirect("portal-password")

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
        from webhooks_platform.operator_dashboard import dashboard  # noqa: PLC0415
        from webhooks_platform.operator_pages import may_look  # noqa: PLC0415

        return super().index(request, dashboard() if may_look(request) else {})
