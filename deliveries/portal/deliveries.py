"""Deliveries in the portal: the list with its filters, one with its attempts as they arrive, retry and cancel."""

from typing import Any, Final

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries import validation
from deliveries.models import Delivery
from deliveries.pipeline.outcome import Outcome
from deliveries.portal.showing import shown_attempt
from deliveries.services import deliveries, endpoints, events
from deliveries.services.deliveries import EndpointStopped, NotPending, PayloadErased
from tenants import access, ids
from tenants.ids import InvalidId
from tenants.models import Tenant
from tenants.portal.entry import PortalRequest, changes, portal_page
from tenants.portal.lists import RuleField, WindowForm, page_of
from tenants.validation import Invalid

MOST_ATTEMPTS: Final = 50
"""On a delivery's page, the newest first. The default schedule has ten."""

SOON_SECONDS: Final = 30
"""A next attempt nearer than this is worth watching for."""


# --- the list ---------------------------------------------------------------------------------------------------------


def id_of(prefix: str) -> Any:
    def rule(value: object) -> Any:
        try:
            return ids.from_text(prefix, str(value))
        except InvalidId:
            raise Invalid(
                "invalid_id", _("Must be an id that begins with %(prefix)s_.") % {"prefix": prefix}
            ) from None

    return rule


def endpoint_reference(value: object) -> str:
    text = str(value)
    if text.startswith(f"{ids.ENDPOINT}_"):
        id_of(ids.ENDPOINT)(text)
    elif not endpoints.is_uid(text):
        raise Invalid("invalid_id", _("Must be the id of an endpoint."))
    return text


ANY: Final = ("", gettext_lazy("any"))


class DeliveryFilter(WindowForm):
    status = forms.ChoiceField(
        label=gettext_lazy("Status"), required=False, choices=[ANY, *Delivery.Status.choices]
    )
    outcome = forms.ChoiceField(
        label=gettext_lazy("Last outcome"),
        required=False,
        choices=[ANY, *((outcome.value, outcome.value.replace("_", " ")) for outcome in Outcome)],
    )
    event_type = RuleField(validation.event_type_name, label=gettext_lazy("Event type"))
    endpoint = RuleField(endpoint_reference, label=gettext_lazy("Endpoint"), help_text="ep_…")
    event = RuleField(id_of(ids.EVENT), label=gettext_lazy("Event"), help_text="evt_…")

    field_order = ["status", "outcome", "event_type", "endpoint", "event", "since", "until"]


@portal_page()
def listing(request: PortalRequest) -> HttpResponse:
    form = DeliveryFilter(request.GET)
    page = page_of(request, _filtered(request.tenant, form))
    names = endpoints.named(tenant=request.tenant, endpoint_ids=(row.endpoint_id for row in page.rows))
    rows = [{"delivery": row, "endpoint": names.get(row.endpoint_id)} for row in page.rows]
    context = {"form": form, "page": page, "rows": rows}
    return render(request, "portal/deliveries/list.html", context, status=200 if form.is_valid() else 422)


def _filtered(tenant: Tenant, form: DeliveryFilter) -> Any:
    if not form.is_valid():
        return deliveries.find_deliveries(tenant).none()
    wanted = form.cleaned_data
    endpoint_id = None
    if wanted["endpoint"] is not None:
        endpoint_id = deliveries.endpoint_id_of(tenant, wanted["endpoint"])
        if endpoint_id is None:
            form.add_error("endpoint", _("There is no such endpoint."))
            return deliveries.find_deliveries(tenant).none()
    return deliveries.find_deliveries(
        tenant,
        endpoint_id=endpoint_id,
        event_id=wanted["event"],
        event_type=wanted["event_type"],
        status=wanted["status"] or None,
        outcome=wanted["outcome"] or None,
        since=wanted["since"],
        until=wanted["until"],
    )


# --- one of them ------------------------------------------------------------------------------------------------------


@portal_page()
def detail(request: PortalRequest, delivery: str) -> HttpResponse:
    return render(request, "portal/deliveries/detail.html", _progress(request, delivery))


@portal_page()
def progress(request: PortalRequest, delivery: str) -> HttpResponse:
    """The part of the page that changes, asked for by the page itself while something is to come."""
    return render(request, "portal/deliveries/_progress.html", _progress(request, delivery))


def _progress(request: PortalRequest, reference: str) -> dict[str, Any]:
    row = deliveries.get_delivery(tenant=request.tenant, reference=reference)
    endpoint = endpoints.named(tenant=request.tenant, endpoint_ids=[row.endpoint_id]).get(row.endpoint_id)
    try:
        event = events.get_event(tenant=request.tenant, reference=ids.to_text(ids.EVENT, row.event_id))
    except access.NotFound:
        # Its history was dropped already.
        event = None
    is_erased = event is None or event.data_erased_at is not None
    is_https = endpoint is not None and endpoint.url.startswith("https:")
    attempts = list(deliveries.attempts_of(row).order_by("-id")[:MOST_ATTEMPTS])
    return {
        "delivery": row,
        "endpoint": endpoint,
        "event": event,
        "is_erased": is_erased,
        "attempts": [shown_attempt(each, is_https=is_https, is_erased=is_erased) for each in attempts],
        "poll_ms": _poll_ms(row),
        "may_retry": endpoint is not None
        and endpoint.deleted_at is None
        and endpoint.status == "enabled"
        and not is_erased,
    }


def _poll_ms(row: Delivery) -> int | None:
    """How soon to look again: often for a first attempt, never when nothing is to come soon."""
    if row.manual_requested_at is not None or (
        row.status == Delivery.Status.PENDING and row.attempt_count == 0
    ):
        return 500
    if row.status == Delivery.Status.PENDING and row.next_attempt_at is not None:
        return 2000 if (row.next_attempt_at - timezone.now()).total_seconds() < SOON_SECONDS else None
    return None


@changes()
def retry(request: PortalRequest, delivery: str) -> HttpResponse:
    row = deliveries.get_delivery(tenant=request.tenant, reference=delivery)
    try:
        deliveries.retry_delivery(actor=request.actor, delivery=row, now=timezone.now())
    except (EndpointStopped, PayloadErased) as error:
        messages.error(request, not_sendable(error))
    else:
        messages.success(request, _("Trying again now."))
    return redirect("portal-delivery", tenant=request.tenant.slug, delivery=delivery)


@changes()
def cancel(request: PortalRequest, delivery: str) -> HttpResponse:
    row = deliveries.get_delivery(tenant=request.tenant, reference=delivery)
    try:
        deliveries.cancel_delivery(actor=request.actor, delivery=row)
    except NotPending:
        messages.error(request, _("It had ended already, so there was nothing to cancel."))
    else:
        messages.success(request, _("Cancelled."))
    return redirect("portal-delivery", tenant=request.tenant.slug, delivery=delivery)


def not_sendable(error: EndpointStopped | PayloadErased) -> str:
    match error:
        case PayloadErased():
            return _("The event's payload was erased: there is nothing to send.")
        case EndpointStopped(is_deleted=True):
            return _("The endpoint was deleted: there is nowhere to send it.")
        case _:
            return _("The endpoint is disabled. Enable it first.")
