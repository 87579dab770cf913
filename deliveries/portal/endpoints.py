"""Endpoints in the portal: listed, made, shown, changed, stopped and ended; their secret on request."""

from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from deliveries.models import Endpoint
from deliveries.portal.endpoint_forms import EndpointForm, groups_of
from deliveries.services import deliveries, endpoints, secrets
from deliveries.services.condition import conditions_of
from deliveries.services.endpoints import EndpointLimitReached, UidTaken
from deliveries.services.secrets import SecretLimitReached
from deliveries.services.subscriptions import SubscriptionLimitReached
from tenants import ids
from tenants.portal.entry import PortalRequest, Role, changes, portal_page
from tenants.portal.lists import page_of
from tenants.validation import InvalidContent

RECENT = 10
"""Deliveries on an endpoint's page."""


@portal_page()
def listing(request: PortalRequest) -> HttpResponse:
    page = page_of(request, endpoints.endpoints_of(request.tenant))
    health = conditions_of(
        tenant=request.tenant, endpoint_ids=(row.id for row in page.rows), now=datetime.now(UTC)
    )
    rows = [{"endpoint": row, "health": health.get(row.id)} for row in page.rows]
    return render(request, "portal/endpoints/list.html", {"page": page, "rows": rows})


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def create(request: PortalRequest) -> HttpResponse:
    form = EndpointForm(request.POST if request.method == "POST" else None, groups=groups_of(request.tenant))
    if request.method == "POST" and form.is_valid():
        fields: dict[str, Any] = form.cleaned_data
        try:
            made = endpoints.create_endpoint(actor=request.actor, tenant=request.tenant, **fields)
        except REFUSALS as error:
            show_refusal(form, error)
        else:
            messages.success(request, _("Endpoint added. Send it a test event to see that it works."))
            return to_endpoint(request, made)
    status = 422 if form.is_bound else 200
    return render(request, "portal/endpoints/form.html", {"form": form}, status=status)


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def edit(request: PortalRequest, endpoint: str) -> HttpResponse:
    row = found(request, endpoint)
    form = EndpointForm(
        request.POST if request.method == "POST" else None, groups=groups_of(request.tenant), endpoint=row
    )
    if request.method == "POST" and form.is_valid():
        changed = {name: value for name, value in form.cleaned_data.items() if is_other(row, name, value)}
        try:
            endpoints.update_endpoint(actor=request.actor, endpoint=row, **changed)
        except REFUSALS as error:
            show_refusal(form, error)
        else:
            messages.success(request, _("Saved."))
            return to_endpoint(request, row)
    status = 422 if form.is_bound else 200
    context = {"form": form, "endpoint": row}
    return render(request, "portal/endpoints/form.html", context, status=status)


@portal_page()
def detail(request: PortalRequest, endpoint: str) -> HttpResponse:
    return endpoint_page(request, found(request, endpoint))


@changes()
def enable(request: PortalRequest, endpoint: str) -> HttpResponse:
    row = found(request, endpoint)
    endpoints.enable_endpoint(actor=request.actor, endpoint=row)
    messages.success(request, _("Enabled. Events published from now on are sent to it."))
    return to_endpoint(request, row)


@changes()
def disable(request: PortalRequest, endpoint: str) -> HttpResponse:
    row = found(request, endpoint)
    endpoints.disable_endpoint(actor=request.actor, endpoint=row)
    messages.success(request, _("Disabled. Nothing is sent to it until you enable it again."))
    return to_endpoint(request, row)


@changes()
def delete(request: PortalRequest, endpoint: str) -> HttpResponse:
    row = found(request, endpoint)
    endpoints.delete_endpoint(actor=request.actor, endpoint=row)
    messages.success(request, _("Endpoint deleted. What was sent to it stays in the history."))
    return redirect("portal-endpoints", tenant=request.tenant.slug)


@changes()
def secret(request: PortalRequest, endpoint: str) -> HttpResponse:
    """Shown once it is asked for, by POST: each reading is in the audit log."""
    row = found(request, endpoint)
    shown = secrets.read_secret(actor=request.actor, endpoint=row)
    if request.htmx:
        return render(request, "portal/endpoints/_secret.html", {"endpoint": row, "shown": shown})
    return endpoint_page(request, row, shown=shown)


# --- parts ------------------------------------------------------------------------------------------------------------

REFUSALS = (InvalidContent, EndpointLimitReached, SubscriptionLimitReached, UidTaken, SecretLimitReached)


def found(request: PortalRequest, reference: str) -> Endpoint:
    """Raises access.NotFound."""
    row = endpoints.get_endpoint(tenant=request.tenant, reference=reference)
    # The row that is known already, instead of a query for it.
    row.tenant = request.tenant
    return row


def to_endpoint(request: PortalRequest, row: Endpoint) -> HttpResponse:
    endpoint_id = ids.to_text(ids.ENDPOINT, row.id)
    return redirect("portal-endpoint", tenant=request.tenant.slug, endpoint=endpoint_id)


def endpoint_page(
    request: PortalRequest, row: Endpoint, *, shown: secrets.Shown | None = None
) -> HttpResponse:
    recent: QuerySet[Any] = deliveries.find_deliveries(request.tenant, endpoint_id=row.id)
    context = {
        "endpoint": row,
        "subscriptions": list(row.subscriptions.all()),
        "recent": list(recent.order_by("-id")[:RECENT]),
        "shown": shown,
    }
    return render(request, "portal/endpoints/detail.html", context)


def is_other(row: Endpoint, name: str, value: Any) -> bool:
    """Whether the form changes it. What it leaves is not sent, so that it does not undo somebody else's change."""
    if name == "headers":
        return bool(value)
    if name == "event_types":
        return set(value) != set(endpoints.patterns_of(row))
    return bool(getattr(row, name) != value)


def show_refusal(form: EndpointForm, error: Exception) -> None:
    match error:
        case InvalidContent():
            form.add_refusal(error)
        case UidTaken():
            form.add_error("uid", _("Another endpoint has this id."))
        case EndpointLimitReached():
            text = ngettext(
                "There is room for %(limit)d endpoint. Delete one that is not needed, or ask for more.",
                "There is room for %(limit)d endpoints. Delete one that is not needed, or ask for more.",
                error.limit,
            )
            form.add_error(None, text % {"limit": error.limit})
        case SubscriptionLimitReached():
            text = ngettext(
                "An endpoint may have %(limit)d pattern. A wildcard such as order.* counts as one.",
                "An endpoint may have %(limit)d patterns. A wildcard such as order.* counts as one.",
                error.limit,
            )
            form.add_error("event_types", text % {"limit": error.limit})
        case _:
            form.add_error(
                "signature_scheme",
                _("Too many secrets are live. Wait until the overlap of an earlier change ends."),
            )
