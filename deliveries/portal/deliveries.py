"""Deliveries in the portal: the list with its filters, one with its attempts as they arrive, retry and cancel."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render, resolve_url
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from deliveries.models import Attempt, Delivery, Endpoint
from deliveries.portal.history import delivery_filter, jump_to, rows_of
from deliveries.portal.showing import ShownAttempt, shown_attempt
from deliveries.services import deliveries, endpoints, events, picked, sent
from deliveries.services.deliveries import EndpointStopped, NotPending, PayloadErased
from deliveries.services.picked import MOST_PICKED, Done
from tenants import access, ids
from tenants.ids import InvalidId
from tenants.portal.entry import PortalRequest, changes, portal_page

MOST_ATTEMPTS: Final = 50
"""On a delivery's page, the newest first. The default schedule has ten."""

FIRST_POLL_MS: Final = 300
"""Between looks at a delivery that is on its way: what somebody just sent should be seen to arrive."""

POLL_MS: Final = 2_000
"""Between looks at one that is soon to be tried again."""

SOON_SECONDS: Final = 30
"""A next attempt nearer than this is worth watching for."""


# --- the list ---------------------------------------------------------------------------------------------------------


@portal_page()
def listing(request: PortalRequest) -> HttpResponse:
    form, wanted = delivery_filter(request.tenant, request.GET)
    if there := jump_to(request, form):
        return there
    context: dict[str, Any] = {"form": form, **rows_of(request, wanted)}
    page = context["page"]
    names = endpoints.named(tenant=request.tenant, endpoint_ids=(row.endpoint_id for row in page.rows))
    context["rows"] = [{"delivery": row, "endpoint": names.get(row.endpoint_id)} for row in page.rows]
    return render(request, "portal/deliveries/list.html", context, status=200 if form.is_valid() else 422)


@changes()
def change_picked(request: PortalRequest) -> HttpResponse:
    """Try again or cancel those that were ticked, and come back to the same list."""
    chosen = _chosen(request.POST.getlist("delivery"))
    match request.POST.get("action"):
        case _ if not chosen:
            messages.warning(request, _("No delivery was ticked, so nothing was done."))
        case "retry":
            done = picked.retry_picked(
                actor=request.actor, tenant=request.tenant, delivery_ids=chosen, now=timezone.now()
            )
            _say(request, retried_texts(done))
        case "cancel":
            done = picked.cancel_picked(actor=request.actor, tenant=request.tenant, delivery_ids=chosen)
            _say(request, cancelled_texts(done))
        case _:
            messages.error(request, _("Nothing was done: choose what to do with them."))
    query = QueryDict(request.POST.get("query", "")).urlencode()
    return redirect(f"{resolve_url('portal-deliveries', tenant=request.tenant.slug)}?{query}")


def _chosen(references: Sequence[str]) -> list[UUID]:
    chosen = []
    for reference in references[:MOST_PICKED]:
        try:
            chosen.append(ids.from_text(ids.DELIVERY, reference))
        except InvalidId:
            # Nobody's form sends that.
            continue
    return chosen


def _say(request: PortalRequest, texts: tuple[str, list[str]]) -> None:
    done, left_out = texts
    messages.add_message(
        request, messages.WARNING if left_out else messages.SUCCESS, " ".join([done, *left_out])
    )


def retried_texts(done: Done) -> tuple[str, list[str]]:
    said = ngettext(
        "Trying %(count)d delivery again now.", "Trying %(count)d deliveries again now.", done.changed
    ) % {"count": done.changed}
    left_out = []
    if done.endpoint_stopped:
        left_out.append(
            ngettext(
                "%(count)d was left out: its endpoint is disabled or deleted.",
                "%(count)d were left out: their endpoints are disabled or deleted.",
                done.endpoint_stopped,
            )
            % {"count": done.endpoint_stopped}
        )
    if done.payload_erased:
        left_out.append(
            ngettext(
                "%(count)d was left out: its payload was erased.",
                "%(count)d were left out: their payloads were erased.",
                done.payload_erased,
            )
            % {"count": done.payload_erased}
        )
    return said, left_out


def cancelled_texts(done: Done) -> tuple[str, list[str]]:
    said = ngettext("%(count)d delivery cancelled.", "%(count)d deliveries cancelled.", done.changed) % {
        "count": done.changed
    }
    left_out = []
    if done.ended:
        left_out.append(
            ngettext("%(count)d had ended already.", "%(count)d had ended already.", done.ended)
            % {"count": done.ended}
        )
    return said, left_out


# --- one of them ------------------------------------------------------------------------------------------------------


@portal_page()
def detail(request: PortalRequest, delivery: str) -> HttpResponse:
    return render(request, "portal/deliveries/detail.html", _progress(request, delivery))


@portal_page()
def progress(request: PortalRequest, delivery: str) -> HttpResponse:
    """The part of the page that changes, asked for by the page itself while something is to come."""
    return render(request, "portal/deliveries/_progress.html", _progress(request, delivery))


def _progress(request: PortalRequest, reference: str) -> dict[str, Any]:
    row = deliveries.get_delivery(tenant=request.tenant, reference=reference, with_body=True)
    attempts = list(deliveries.attempts_of(row).order_by("-id")[:MOST_ATTEMPTS])
    context = _shown(request, row, attempts)
    endpoint: Endpoint | None = context["endpoint"]
    return context | {
        "poll_ms": _poll_ms(row),
        "may_retry": endpoint is not None
        and endpoint.deleted_at is None
        and endpoint.status == "enabled"
        and not context["is_erased"],
    }


@portal_page()
def attempt(request: PortalRequest, attempt: str) -> HttpResponse:
    """One alone, for whoever is sent its link."""
    row = deliveries.get_attempt(tenant=request.tenant, reference=attempt)
    delivery = deliveries.get_delivery(
        tenant=request.tenant, reference=ids.to_text(ids.DELIVERY, row.delivery_id), with_body=True
    )
    context = _shown(request, delivery, [row])
    return render(request, "portal/deliveries/attempt.html", context | {"shown": context["attempts"][0]})


def _shown(request: PortalRequest, row: Delivery, attempts: list[Attempt]) -> dict[str, Any]:
    endpoint = endpoints.named(tenant=request.tenant, endpoint_ids=[row.endpoint_id]).get(row.endpoint_id)
    try:
        event = events.get_event(
            tenant=request.tenant, reference=ids.to_text(ids.EVENT, row.event_id), with_data=bool(attempts)
        )
    except access.NotFound:
        # Its history was dropped already.
        event = None
    is_erased = event is None or event.data_erased_at is not None
    request_sent = None
    if attempts and endpoint is not None and event is not None:
        request_sent = sent.request_of(delivery=row, event=event, endpoint=endpoint)
    shown: list[ShownAttempt] = [
        shown_attempt(
            each,
            is_https=endpoint is not None and endpoint.url.startswith("https:"),
            is_erased=is_erased,
            sent=request_sent,
        )
        for each in attempts
    ]
    return {
        "delivery": row,
        "endpoint": endpoint,
        "event": event,
        "is_erased": is_erased,
        "attempts": shown,
    }


def _poll_ms(row: Delivery) -> int | None:
    """How soon to look again: often for a first attempt, never when nothing is to come soon."""
    if row.manual_requested_at is not None or (
        row.status == Delivery.Status.PENDING and row.attempt_count == 0
    ):
        return FIRST_POLL_MS
    if row.status == Delivery.Status.PENDING and row.next_attempt_at is not None:
        return POLL_MS if (row.next_attempt_at - timezone.now()).total_seconds() < SOON_SECONDS else None
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
