"""Endpoints in the portal: listed, made, shown and changed. How they are stopped and ended stands in `stopping.py`."""

from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from deliveries.credentials import about
from deliveries.models import Endpoint
from deliveries.pipeline.retry import DEFAULT_SCHEDULE
from deliveries.portal.attention import concern_of
from deliveries.portal.charts import Dot, retry_line
from deliveries.portal.endpoint_forms import EndpointForm, groups_of
from deliveries.portal.endpoint_forms import waits as waits_of
from deliveries.portal.signature_forms import LABELS, TemplateForm
from deliveries.services import (
    deliveries,
    endpoint_changes,
    endpoint_deletion,
    endpoints,
    ownership,
)
from deliveries.services.condition import conditions_of
from deliveries.services.endpoint_changes import EndpointLimitReached
from deliveries.services.endpoints import UidTaken
from deliveries.services.secrets import SecretLimitReached
from deliveries.services.subscriptions import SubscriptionLimitReached
from tenants import ids
from tenants.portal.entry import PortalRequest, Role, portal_page
from tenants.portal.lists import page_of, posted
from tenants.portal.words import refusals
from tenants.validation import InvalidContent

RECENT = 10
"""Deliveries on an endpoint's page."""


@portal_page()
def listing(request: PortalRequest) -> HttpResponse:
    page = page_of(request, endpoint_changes.endpoints_of(request.tenant))
    health = conditions_of(
        tenant=request.tenant, endpoint_ids=(row.id for row in page.rows), now=timezone.now()
    )
    rows = [{"endpoint": row, "health": health.get(row.id)} for row in page.rows]
    reference = request.GET.get("deleted", "")
    deleted = endpoint_deletion.restorable(tenant=request.tenant, reference=reference) if reference else None
    context = {"page": page, "rows": rows, "deleted": deleted}
    return render(request, "portal/endpoints/list.html", context)


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def create(request: PortalRequest) -> HttpResponse:
    form = EndpointForm(
        posted(request),
        groups=groups_of(request.tenant),
        is_polled=request.GET.get("kind") == "poll",
        may_set_credentials=request.support is None,
    )
    if request.method == "POST" and form.is_valid():
        fields: dict[str, Any] = form.cleaned_data
        try:
            proof = ownership.prove_new(tenant=request.tenant, **fields)
            made = endpoints.create_endpoint(
                actor=request.actor, tenant=request.tenant, proof=proof, **fields
            )
        except REFUSALS as error:
            show_refusal(form, error)
        else:
            if request.support is not None:
                return to_endpoint(request, made)
            path = resolve_url(
                "portal-endpoint-secret",
                tenant=request.tenant.slug,
                endpoint=ids.to_text(ids.ENDPOINT, made.id),
            )
            return redirect(f"{path}?new")
    status = 422 if form.is_bound else 200
    context = {"form": form, "attempts": attempts_of(None)}
    return render(request, "portal/endpoints/form.html", context, status=status)


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def edit(request: PortalRequest, endpoint: str) -> HttpResponse:
    row = found(request, endpoint)
    form = EndpointForm(
        posted(request),
        groups=groups_of(request.tenant),
        endpoint=row,
        may_set_credentials=request.support is None,
    )
    if request.method == "POST" and form.is_valid():
        changed = form.changes(row)
        try:
            proof = ownership.prove_change(endpoint=row, **changed)
            endpoints.update_endpoint(actor=request.actor, endpoint=row, proof=proof, **changed)
        except REFUSALS as error:
            show_refusal(form, error)
        else:
            messages.success(request, _("Saved."))
            return to_endpoint(request, row)
    status = 422 if form.is_bound else 200
    context = {"form": form, "endpoint": row, "attempts": attempts_of(row.retry_schedule)}
    return render(request, "portal/endpoints/form.html", context, status=status)


@portal_page()
def retries(request: PortalRequest) -> HttpResponse:
    """The schedule that is being typed, drawn; a part of the form's page."""
    try:
        waits = waits_of(request.GET.get("retry_schedule", "")[:MOST_TYPED])
    except InvalidContent as invalid:
        return render(request, "portal/endpoints/_retries.html", {"errors": refusals(invalid)})
    return render(request, "portal/endpoints/_retries.html", {"attempts": attempts_of(waits)})


MOST_TYPED: Final = 1_000
"""Characters of a schedule that is being typed."""


@portal_page()
def signature(request: PortalRequest) -> HttpResponse:
    """The header that the typed template would make; a part of the form's page. Its secret is not sent here."""
    form = TemplateForm(request.GET, endpoint=None)
    form.is_valid()
    return render(request, "portal/endpoints/_signature_preview.html", {"form": form})


@portal_page()
def detail(request: PortalRequest, endpoint: str) -> HttpResponse:
    row = found(request, endpoint)
    now = timezone.now()
    recent: QuerySet[Any] = deliveries.find_deliveries(request.tenant, endpoint_id=row.id)
    condition = conditions_of(tenant=request.tenant, endpoint_ids=[row.id], now=now).get(row.id)
    context = {
        "endpoint": row,
        "subscriptions": list(row.subscriptions.all()),
        "recent": list(recent.order_by("-id")[:RECENT]),
        "health": condition,
        "concern": None if condition is None else concern_of(row, condition, now=now),
        "is_missing_something": row.missed_since is not None and row.status == Endpoint.Status.ENABLED,
        "attempts": attempts_of(row.retry_schedule),
        "certificates": about(row.client_certificate) if row.client_certificate else [],
        "authorities": about(row.ca_certificates) if row.ca_certificates else [],
        "template_name": LABELS.get((row.signature_template or {}).get("preset", "")),
        "poll_url": poll_url(request, row) if row.kind == Endpoint.Kind.POLL else "",
    }
    return render(request, "portal/endpoints/detail.html", context)


def poll_url(request: PortalRequest, row: Endpoint) -> str:
    base = settings.WEBHOOKS_PUBLIC_URL or f"{request.scheme}://{request.get_host()}"
    endpoint_id = ids.to_text(ids.ENDPOINT, row.id)
    return f"{base}/api/v1/tenants/{request.tenant.slug}/endpoints/{endpoint_id}/poll"


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


def attempts_of(schedule: Sequence[int] | None) -> list[Dot]:
    return retry_line(DEFAULT_SCHEDULE if schedule is None else schedule)


def show_refusal(form: EndpointForm, error: Exception) -> None:
    match error:
        case InvalidContent():
            form.add_refusal(error)
        case UidTaken():
            form.add_error("uid", _("Another endpoint has this id."))
        case EndpointLimitReached():
            form.add_error(None, too_many_endpoints(error))
        case SubscriptionLimitReached():
            form.add_error("event_types", too_many_patterns(error))
        case _:
            form.add_error(
                "signature_scheme",
                _("Too many secrets are live. Wait until the overlap of an earlier change ends."),
            )


def too_many_endpoints(error: EndpointLimitReached) -> str:
    text = ngettext(
        "There is room for %(limit)d endpoint. Delete one that is not needed, or ask for more.",
        "There is room for %(limit)d endpoints. Delete one that is not needed, or ask for more.",
        error.limit,
    )
    return text % {"limit": error.limit}


def too_many_patterns(error: SubscriptionLimitReached) -> str:
    text = ngettext(
        "An endpoint may have %(limit)d pattern. A wildcard such as order.* counts as one.",
        "An endpoint may have %(limit)d patterns. A wildcard such as order.* counts as one.",
        error.limit,
    )
    return text % {"limit": error.limit}
