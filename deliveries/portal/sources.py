"""Sources and inspectors in the portal: listed, made, shown with what came, mended, run again, ended."""

from datetime import timedelta
from typing import Any, Final

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from deliveries.inbound.requests import Verdict
from deliveries.inbound.verification import Scheme, settings_of
from deliveries.models import IncomingRequest, Source
from deliveries.pipeline.ingest import DatabaseUnavailable
from deliveries.portal.showing import payload
from deliveries.portal.source_forms import SourceForm
from deliveries.services import arrivals, sources
from deliveries.services.arrivals import NotAgain, PayloadErased
from deliveries.services.sources import SourceLimitReached, TokenLimitReached
from deliveries.texts import header_map, readable
from deliveries.validation import mask_query
from tenants import ids
from tenants.portal import errors
from tenants.portal.entry import PortalRequest, Role, changes, portal_page
from tenants.portal.lists import page_of
from tenants.portal.words import refusals
from tenants.validation import InvalidContent

POLL_MS: Final = 2_000
"""How often the page of an inspector asks for what came."""

LOOKS: Final = {
    Verdict.ACCEPTED.value: "succeeded",
    Verdict.REFUSED.value: "failed",
    Verdict.UNMAPPED.value: "pending",
}
"""Which colour a verdict has, beside its word."""


@portal_page()
def listing(request: PortalRequest) -> HttpResponse:
    page = page_of(request, sources.sources_of(request.tenant))
    rows = [{"source": row, "url": _masked(request, row)} for row in page.rows]
    return render(request, "portal/sources/list.html", {"page": page, "rows": rows})


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def create(request: PortalRequest) -> HttpResponse:
    form = SourceForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        fields: dict[str, Any] = form.cleaned_data
        try:
            made, token = sources.create_source(actor=request.actor, tenant=request.tenant, **fields)
        except InvalidContent as invalid:
            form.add_refusal(invalid)
        except SourceLimitReached as error:
            form.add_error(None, _limit_text(error))
        else:
            return _made(request, made, token)
    status = 422 if form.is_bound else 200
    return render(request, "portal/sources/form.html", {"form": form}, status=status)


@changes()
def inspect(request: PortalRequest) -> HttpResponse:
    """A throw-away URL, made at a click. With a secret pasted in, its page says what a receiver's check would say."""
    secret = request.POST.get("secret", "").strip()
    fields: dict[str, Any] = {}
    if secret:
        fields = {"verification": settings_of({"scheme": Scheme.STANDARD}), "secrets": [secret]}
    try:
        made, token = sources.create_source(
            actor=request.actor,
            tenant=request.tenant,
            name=_("Inspector"),
            kind=Source.Kind.INSPECTOR,
            **fields,
        )
    except InvalidContent as invalid:
        messages.error(request, refusals(invalid)[0])
    except SourceLimitReached as error:
        messages.error(request, _limit_text(error))
    else:
        return _made(request, made, token)
    return redirect("portal-sources", tenant=request.tenant.slug)


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def edit(request: PortalRequest, source: str) -> HttpResponse:
    row = found(request, source)
    form = SourceForm(
        request.POST if request.method == "POST" else None,
        source=row,
        may_set_secrets=request.support is None,
    )
    if request.method == "POST" and form.is_valid():
        try:
            sources.update_source(actor=request.actor, source=row, **form.cleaned_data)
        except InvalidContent as invalid:
            form.add_refusal(invalid)
        else:
            messages.success(request, _("Saved."))
            return to_source(request, row)
    status = 422 if form.is_bound else 200
    return render(request, "portal/sources/form.html", {"form": form, "source": row}, status=status)


@portal_page()
def detail(request: PortalRequest, source: str) -> HttpResponse:
    row = found(request, source)
    context = {"source": row, "url": _masked(request, row), **_recent(request, row)}
    return render(request, "portal/sources/detail.html", context)


@portal_page()
def recent(request: PortalRequest, source: str) -> HttpResponse:
    """The part of the page that changes."""
    row = found(request, source)
    return render(request, "portal/sources/_recent.html", {"source": row, **_recent(request, row)})


@portal_page()
def request_page(request: PortalRequest, source: str, incoming: str) -> HttpResponse:
    row = found(request, source)
    came = arrivals.get_request(source=row, reference=incoming)
    context = {
        "source": row,
        "came": _shown(came),
        "headers": header_map(came.headers),
        "query": mask_query(readable(came.query)),
        "payload": payload(came.body),
    }
    return render(request, "portal/sources/request.html", context)


@changes()
def rotate(request: PortalRequest, source: str) -> HttpResponse:
    """At once, if the box is ticked; else the old URL goes on for a day."""
    row = found(request, source)
    overlap = timedelta(0) if request.POST.get("at_once") else sources.DEFAULT_OVERLAP
    try:
        token = sources.rotate_token(actor=request.actor, source=row, overlap=overlap)
    except TokenLimitReached:
        messages.error(request, _("Too many URLs of it are live. End the earlier ones at once."))
        return to_source(request, row)
    return _made(request, row, token)


@changes()
def switch(request: PortalRequest, source: str) -> HttpResponse:
    row = found(request, source)
    is_on = row.status == Source.Status.ENABLED
    status = Source.Status.DISABLED if is_on else Source.Status.ENABLED
    sources.update_source(actor=request.actor, source=row, status=status)
    messages.success(request, _("Disabled: senders are answered 410.") if is_on else _("Enabled."))
    return to_source(request, row)


@changes()
def delete(request: PortalRequest, source: str) -> HttpResponse:
    sources.delete_source(actor=request.actor, source=found(request, source))
    messages.success(request, _("Deleted. Its URL is unknown from now on."))
    return redirect("portal-sources", tenant=request.tenant.slug)


@changes()
def rerun_all(request: PortalRequest, source: str) -> HttpResponse:
    row = found(request, source)
    try:
        mapped, unmapped = arrivals.run_all_again(actor=request.actor, source=row)
    except DatabaseUnavailable:
        return errors.unavailable(request)
    text = ngettext("%(count)d is an event now.", "%(count)d are events now.", mapped) % {"count": mapped}
    if unmapped:
        text += " " + ngettext(
            "%(count)d still is not: see why below.", "%(count)d still are not: see why below.", unmapped
        ) % {"count": unmapped}
    messages.success(request, text)
    return to_source(request, row)


@changes()
def rerun(request: PortalRequest, source: str, incoming: str) -> HttpResponse:
    row = found(request, source)
    came = arrivals.get_request(source=row, reference=incoming)
    try:
        changed = arrivals.run_again(actor=request.actor, source=row, incoming=came)
    except NotAgain:
        messages.error(request, _("Only requests whose mapping failed are run again."))
    except PayloadErased:
        messages.error(request, _("Its payload was erased."))
    except DatabaseUnavailable:
        return errors.unavailable(request)
    else:
        if changed.verdict == Verdict.UNMAPPED:
            messages.error(request, _("It still makes no event; the reason stands below."))
        else:
            messages.success(request, _("Done."))
    return redirect("portal-incoming", tenant=request.tenant.slug, source=source, incoming=incoming)


# --- parts ------------------------------------------------------------------------------------------------------------


def found(request: PortalRequest, reference: str) -> Source:
    """Raises access.NotFound."""
    row = sources.get_source(tenant=request.tenant, reference=reference)
    # The row that is known already, instead of a query for it.
    row.tenant = request.tenant
    return row


def to_source(request: PortalRequest, row: Source) -> HttpResponse:
    return redirect("portal-source", tenant=request.tenant.slug, source=ids.to_text(ids.SOURCE, row.id))


def _made(request: PortalRequest, row: Source, token: str) -> HttpResponse:
    """The one page that shows the whole URL."""
    base = sources.base_url(scheme=str(request.scheme), host=request.get_host())
    return render(request, "portal/sources/made.html", {"source": row, "url": f"{base}/in/{token}"})


def _masked(request: PortalRequest, row: Source) -> str:
    return sources.masked_url(row, scheme=str(request.scheme), host=request.get_host())


def _recent(request: PortalRequest, row: Source) -> dict[str, Any]:
    page = page_of(request, arrivals.requests_of(row).defer("headers", "body"))
    return {
        "page": page,
        "recent": [_shown(each) for each in page.rows],
        "has_unmapped": any(each.verdict == Verdict.UNMAPPED for each in page.rows),
        "poll_ms": POLL_MS if row.kind == Source.Kind.INSPECTOR else None,
    }


def _shown(came: IncomingRequest) -> dict[str, Any]:
    verdict: object = came.get_verdict_display()
    look = LOOKS.get(came.verdict, "")
    if came.verdict == Verdict.INSPECTED:
        # Its signature is what there is to see.
        look = "failed" if came.reason else "succeeded"
        verdict = REFUSED if came.reason else GENUINE
    return {"row": came, "look": look, "verdict": verdict}


GENUINE = gettext_lazy("genuine")
REFUSED = gettext_lazy("not genuine")


def _limit_text(error: SourceLimitReached) -> str:
    text = ngettext(
        "There is room for %(limit)d source. Delete one that is not needed.",
        "There is room for %(limit)d sources. Delete one that is not needed.",
        error.limit,
    )
    return text % {"limit": error.limit}
