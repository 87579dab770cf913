"""The operators' own pages beside Django's lists: the search, hosts, and the kill switch."""

from typing import Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from deliveries.admin import actions
from deliveries.admin.endpoints import endpoint_link, health_of
from deliveries.services import hosts
from tenants import ids
from tenants.admin.base import Link, Table, actor_of, may_operate
from tenants.admin.show import link, list_url, page_url, state
from tenants.admin.tenants import status_of, tenant_link
from tenants.models import User
from tenants.services import finding, platform

PAGES: Final = {
    ids.TENANT: "tenants_tenant",
    ids.API_KEY: "tenants_apikey",
    ids.USER: "tenants_user",
    ids.PORTAL_LINK: "tenants_portallink",
    ids.ENDPOINT: "deliveries_endpoint",
    ids.SUBSCRIPTION: "deliveries_subscription",
    ids.EVENT: "deliveries_event",
    ids.DELIVERY: "deliveries_delivery",
    ids.ATTEMPT: "deliveries_attempt",
    ids.JOB: "deliveries_job",
    ids.SOURCE: "deliveries_source",
    ids.MEMBER: "tenants_member",
}
"""Whatever id somebody quotes leads to its page."""


def may_look(request: HttpRequest) -> bool:
    """Into what is gathered from all tenants."""
    return isinstance(request.user, User) and request.user.has_perms(
        ["tenants.view_tenant", "deliveries.view_endpoint"]
    )


# --- finding ----------------------------------------------------------------------------------------------------------


@require_safe
def find(request: HttpRequest) -> HttpResponse:
    """One field for everything that somebody may quote: an id, a slug, a name, a host, an e-mail address."""
    if not may_look(request):
        raise PermissionDenied
    text = request.GET.get("q", "").replace("\x00", "").strip()[:200]
    prefix = text.partition("_")[0]
    if prefix in PAGES:
        try:
            return redirect(page_url(PAGES[prefix], ids.from_text(prefix, text)))
        except ids.InvalidId:
            pass
    context = {
        **admin.site.each_context(request),
        "title": _("Found for %s") % text if text else _("Find"),
        "q": text,
        "tables": _found(text) if text else [],
    }
    return TemplateResponse(request, "admin/find.html", context)


def _found(text: str) -> list[Table]:
    tenants = finding.find_tenants(text)
    people = finding.memberships_of_people(finding.find_people(text))
    endpoints = list(
        hosts.endpoints_of_host(text, with_subdomains=True)
        .select_related("tenant", "lane")
        .defer("sensitive_headers_encrypted")
        .order_by("id")[: finding.MOST]
    )
    return [
        Table(
            _("Tenants"),
            [_("Slug"), _("Name"), _("Status")],
            [[tenant_link(each), each.name, status_of(each)] for each in tenants],
            empty=_("No slug or name begins so."),
        ),
        Table(
            _("People"),
            [_("E-mail address"), _("Tenant"), _("Role")],
            [
                [
                    link(page_url("tenants_user", each.user_id), each.user.email),
                    tenant_link(each.tenant),
                    each.role,
                ]
                for each in people
            ],
            empty=_("No member's e-mail address begins so."),
        ),
        Table(
            _("Endpoints on this host"),
            [_("Endpoint"), _("Tenant"), _("Health")],
            [[endpoint_link(each), tenant_link(each.tenant), health_of(each.lane)] for each in endpoints],
            empty=_("No endpoint leads to a host of this name."),
            more=Link(_("Everything on this host"), host_url(text.lower())) if endpoints else None,
        ),
    ]


# --- one host ---------------------------------------------------------------------------------------------------------


def host_url(name: str) -> str:
    return f"{reverse('admin:host')}?{urlencode({'host': name})}"


@require_safe
def host(request: HttpRequest) -> HttpResponse:
    """One receiver, whoever's endpoints lead to it."""
    if not may_look(request):
        raise PermissionDenied
    name = request.GET.get("host", "").strip().lower()[:253]
    if not name:
        return redirect("admin:index")
    rows = (
        hosts.endpoints_of_host(name)
        .select_related("tenant", "lane")
        .defer("sensitive_headers_encrypted")
        .order_by("id")[:100]
    )
    context = {
        **admin.site.each_context(request),
        "title": name,
        "counts": actions.host_counts(name),
        "acts": actions.host_actions(name) if may_operate(request) else [],
        "tables": [
            Table(
                _("Endpoints"),
                [_("Endpoint"), _("Tenant"), _("Status"), _("Health")],
                [
                    [
                        endpoint_link(each),
                        tenant_link(each.tenant),
                        state("paused" if each.is_paused else each.status),
                        health_of(each.lane),
                    ]
                    for each in rows
                ],
                empty=_("No endpoint leads there."),
                more=Link(
                    _("All of them, and those of hosts below it"), list_url("deliveries_endpoint", host=name)
                ),
            )
        ],
    }
    return TemplateResponse(request, "admin/host.html", context)


# --- the kill switch --------------------------------------------------------------------------------------------------


class SendingForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=200, help_text=gettext_lazy("Goes into the audit log.")
    )


@require_http_methods(["GET", "HEAD", "POST"])
def sending(request: HttpRequest) -> HttpResponse:
    """Stops all sending, or lets it go on. What the page showed decides, so that two people do not undo each other."""
    if not may_operate(request):
        raise PermissionDenied
    form = SendingForm(request.POST or None)
    is_stopped = platform.is_sending_stopped()
    if request.method == "POST" and form.is_valid():
        switch = platform.stop_sending if request.POST.get("to") == "stop" else platform.resume_sending
        if switch(actor=actor_of(request), reason=form.cleaned_data["reason"]):
            messages.success(request, _("Felt by every dispatcher within five seconds."))
        else:
            messages.warning(request, _("Somebody else did it before."))
        return redirect("admin:index")
    context = {
        **admin.site.each_context(request),
        "title": _("Let sending go on") if is_stopped else _("Stop all sending"),
        "form": form,
        "is_stopped": is_stopped,
    }
    return TemplateResponse(request, "admin/sending.html", context, status=422 if form.errors else 200)
