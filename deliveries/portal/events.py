"""Events in the portal: the list with its filters, one with its payload, who got it and why, and replay."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from deliveries.portal.deliveries import not_sendable
from deliveries.portal.history import event_filter, jump_to, rows_of
from deliveries.portal.showing import payload
from deliveries.services import endpoints, events, explain
from deliveries.services.deliveries import EndpointStopped, PayloadErased
from deliveries.services.explain import Explanation, Verdict
from tenants import access
from tenants.portal.entry import PortalRequest, changes, portal_page
from tenants.portal.words import in_words


@portal_page()
def listing(request: PortalRequest) -> HttpResponse:
    form, wanted = event_filter(request.GET)
    if there := jump_to(request, form):
        return there
    context = {"form": form, **rows_of(request, wanted)}
    return render(request, "portal/events/list.html", context, status=200 if form.is_valid() else 422)


SENT = {Verdict.DELIVERED, Verdict.PENDING, Verdict.FAILED, Verdict.CANCELLED}


@portal_page()
def detail(request: PortalRequest, event: str) -> HttpResponse:
    row = events.get_event(tenant=request.tenant, reference=event, with_data=True)
    explained = explain.explain_event(request.tenant, row)
    names = endpoints.named(tenant=request.tenant, endpoint_ids=(each.endpoint_id for each in explained))
    entries = [_entry(each, names.get(each.endpoint_id)) for each in explained]
    context = {
        "event": row,
        "payload": None if row.data is None else payload(row.data),
        "sent": [each for each in entries if each["is_sent"]],
        "unsent": [each for each in entries if not each["is_sent"]],
    }
    return render(request, "portal/events/detail.html", context)


def _entry(explanation: Explanation, endpoint: Any) -> dict[str, Any]:
    may_send = endpoint is not None and endpoint.deleted_at is None and endpoint.status == "enabled"
    return {
        "explanation": explanation,
        "reason": in_words(explanation.reason),
        "endpoint": endpoint,
        "verdict": VERDICTS[explanation.verdict],
        "is_sent": explanation.verdict in SENT,
        "may_send": may_send,
    }


VERDICTS = {
    Verdict.DELIVERED: gettext_lazy("delivered"),
    Verdict.PENDING: gettext_lazy("pending"),
    Verdict.FAILED: gettext_lazy("failed"),
    Verdict.CANCELLED: gettext_lazy("cancelled"),
    Verdict.NOT_SUBSCRIBED: gettext_lazy("not subscribed"),
    Verdict.FILTERED: gettext_lazy("filtered out"),
    Verdict.CHANNEL: gettext_lazy("other channel"),
    Verdict.DISABLED: gettext_lazy("disabled"),
    Verdict.DELETED: gettext_lazy("deleted"),
    Verdict.CREATED_LATER: gettext_lazy("created later"),
}


@changes()
def replay(request: PortalRequest, event: str) -> HttpResponse:
    """To whatever matches now, or to the endpoint that the form names."""
    row = events.get_event(tenant=request.tenant, reference=event)
    endpoint = None
    if reference := request.POST.get("endpoint"):
        try:
            endpoint = endpoints.get_endpoint(tenant=request.tenant, reference=reference)
        except access.NotFound:
            messages.error(request, _("The endpoint was deleted: there is nowhere to send it."))
            return redirect("portal-event", tenant=request.tenant.slug, event=event)
    try:
        made = events.replay_event(actor=request.actor, tenant=request.tenant, event=row, endpoint=endpoint)
    except (EndpointStopped, PayloadErased) as error:
        messages.error(request, not_sendable(error))
    else:
        if made:
            text = ngettext(
                "Sent again to %(count)d endpoint.", "Sent again to %(count)d endpoints.", len(made)
            )
            messages.success(request, text % {"count": len(made)})
        else:
            messages.warning(
                request, _("No endpoint wants this event as things stand now, so nothing was sent.")
            )
    return redirect("portal-event", tenant=request.tenant.slug, event=event)
