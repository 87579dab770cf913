"""What the lists of events and deliveries share: from the URL to a filter, from a filter to a page, a file or a job."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.http import HttpResponse, QueryDict, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render, resolve_url
from django.utils import timezone
from django.utils.translation import gettext as _

from deliveries.models import Job
from deliveries.portal.filters import DeliveryFilter, EventFilter, SearchForm, choices_of
from deliveries.services import deliveries, exports, jobs, searching
from deliveries.services.exports import Format, TooManyRows
from deliveries.services.history import EPOCH
from deliveries.services.jobs import JobRunning
from deliveries.services.listing import Kind, ListFilter
from tenants import access, ids, paging
from tenants.models import Tenant
from tenants.paging import AFTER, Cursor, InvalidCursor, Page
from tenants.portal.entry import PortalRequest, Role, changes, portal_page
from tenants.portal.lists import PAGE_SIZE, page_of

SEARCHED: Final = timedelta(days=30)
"""How far back text is looked for, unless a period is chosen."""

MOST_COUNTED: Final = 10_000
"""Rows that a page counts. Of more it says so."""


# --- from the URL to a filter -----------------------------------------------------------------------------------------


def event_filter(query: QueryDict) -> tuple[EventFilter, ListFilter | None]:
    """None: something does not parse, and the form says what."""
    form = EventFilter(query)
    if not form.is_valid():
        return form, None
    given = form.cleaned_data
    return form, _with_search(
        ListFilter(
            kind=Kind.EVENTS,
            event_type=given["type"],
            channel=given["channel"],
            text=given["q"] or None,
            since=given["since"],
            until=given["until"],
        )
    )


def delivery_filter(tenant: Tenant, query: QueryDict) -> tuple[DeliveryFilter, ListFilter | None]:
    form = DeliveryFilter(query)
    form.offer(choices_of(tenant))
    if not form.is_valid():
        return form, None
    given = form.cleaned_data
    endpoint_id = None
    if given["endpoint"] is not None:
        endpoint_id = deliveries.endpoint_id_of(tenant, given["endpoint"])
        if endpoint_id is None:
            form.add_error("endpoint", _("There is no such endpoint."))
            return form, None
    return form, _with_search(
        ListFilter(
            kind=Kind.DELIVERIES,
            endpoint_id=endpoint_id,
            event_id=given["event"],
            event_type=given["event_type"],
            status=given["status"] or None,
            outcome=given["outcome"] or None,
            text=given["q"] or None,
            since=given["since"],
            until=given["until"],
        )
    )


def _with_search(wanted: ListFilter) -> ListFilter:
    if wanted.text is None or wanted.since is not None:
        return wanted
    # Nothing is older than that, and the calendar ends not far before the first year that a form takes.
    until = max(wanted.until or timezone.now(), EPOCH)
    return replace(wanted, since=until - SEARCHED)


def filter_of(tenant: Tenant, kind: Kind, query: QueryDict) -> tuple[SearchForm, ListFilter | None]:
    return event_filter(query) if kind is Kind.EVENTS else delivery_filter(tenant, query)


def jump_to(request: PortalRequest, form: SearchForm) -> HttpResponse | None:
    """To what an id in the search box names. If that is gone, its page says so."""
    if not form.is_valid() or (wanted := form.wanted_id) is None:
        return None
    page, name = PAGES[wanted.partition("_")[0]]
    return redirect(resolve_url(page, **{"tenant": request.tenant.slug, name: wanted}))


PAGES: Final = {
    ids.EVENT: ("portal-event", "event"),
    ids.DELIVERY: ("portal-delivery", "delivery"),
    ids.ATTEMPT: ("portal-attempt", "attempt"),
    ids.ENDPOINT: ("portal-endpoint", "endpoint"),
    ids.JOB: ("portal-job", "job"),
}


# --- a page of it -----------------------------------------------------------------------------------------------------


def rows_of(request: PortalRequest, wanted: ListFilter | None) -> dict[str, Any]:
    """`page`, and of a search in payloads how far it looked."""
    if wanted is None:
        return {"page": Page([], None, None), "query": ""}
    query = _without_cursor(request.GET)
    if wanted.text is None:
        return {"page": page_of(request, wanted.rows(request.tenant)), "query": query}
    found = searching.search(request.tenant, wanted, before=_before(request), limit=PAGE_SIZE)
    further = None if found.reached is None else paging.write_cursor(Cursor(AFTER, (found.reached.id,)))
    return {"page": Page(found.rows, further, None), "query": query, "search": found, "searched": wanted}


def _before(request: PortalRequest) -> Any:
    """Of a mistyped or very old link: from the beginning."""
    try:
        cursor = paging.read_cursor(request.GET.get("cursor", ""), Job, ("id",))
    except InvalidCursor:
        return None
    return cursor.key[0] if cursor.direction == AFTER else None


def _without_cursor(query: QueryDict) -> str:
    kept = query.copy()
    kept.pop("cursor", None)
    return kept.urlencode()


# --- all of it --------------------------------------------------------------------------------------------------------


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def everything(request: PortalRequest) -> HttpResponse:
    """Try again or cancel all deliveries that a filter finds: how many that is, then a job."""
    form, wanted = delivery_filter(request.tenant, request.GET)
    if wanted is None:
        return redirect(
            f"{resolve_url('portal-deliveries', tenant=request.tenant.slug)}?{request.GET.urlencode()}"
        )
    if request.method == "POST":
        kind = KINDS.get(request.POST.get("action", ""))
        if kind is not None:
            return _begin(request, kind, wanted)
        messages.error(request, _("Nothing was done: choose what to do with them."))
    number = None
    if wanted.text is None:
        number = searching.count(request.tenant, wanted, most=MOST_COUNTED)
    context = {
        "form": form,
        "number": number,
        "is_more": number is not None and number > MOST_COUNTED,
        "most": MOST_COUNTED,
        "query": _without_cursor(request.GET),
        "narrowed": narrowed(form),
    }
    return render(request, "portal/deliveries/everything.html", context)


KINDS: Final = {"retry": Job.Kind.RETRY, "cancel": Job.Kind.CANCEL}


def narrowed(form: forms.Form) -> list[tuple[str, str]]:
    """(label, value) of every filter that is set, in words."""
    told = []
    for field in form:
        value = field.value()
        if not value:
            continue
        choices = dict(
            getattr(field.field, "choices", None) or getattr(field.field.widget, "choices", None) or ()
        )
        told.append((str(field.label), str(choices.get(value, value))))
    return told


def _begin(
    request: PortalRequest, kind: Job.Kind, wanted: ListFilter, form: Format | None = None
) -> HttpResponse:
    try:
        job = jobs.create_list_job(
            actor=request.actor,
            tenant=request.tenant,
            kind=kind,
            wanted=wanted,
            form=form,
            now=timezone.now(),
        )
    except JobRunning as error:
        messages.warning(request, _("One of this kind is running. Wait for it, or cancel it."))
        if error.job_id is None:
            return redirect("portal-jobs", tenant=request.tenant.slug)
        return to_job(request, error.job_id)
    return to_job(request, job.id)


def to_job(request: PortalRequest, job_id: Any) -> HttpResponse:
    return redirect("portal-job", tenant=request.tenant.slug, job=ids.to_text(ids.JOB, job_id))


# --- as a file --------------------------------------------------------------------------------------------------------


@portal_page()
def export(request: PortalRequest, kind: str) -> HttpResponseBase:
    """What the filter finds, at once; if that is too much, the offer to have a job do it."""
    kind_, form = _asked(kind, request.GET.get("format", ""))
    filter_form, wanted = filter_of(request.tenant, kind_, request.GET)
    if wanted is None:
        return redirect(
            f"{resolve_url(f'portal-{kind_}', tenant=request.tenant.slug)}?{request.GET.urlencode()}"
        )
    wanted = wanted.before(timezone.now())
    try:
        pieces = exports.stream(request.tenant, wanted, form)
    except TooManyRows:
        context = {
            "kind": kind_.value,
            "format": form.value,
            "most": exports.STREAMED,
            "narrowed": narrowed(filter_form),
            "query": _without_cursor(request.GET),
        }
        return render(request, "portal/jobs/export.html", context)
    return as_file(
        pieces, form, exports.file_name({"kind": kind_.value, "format": form.value}, timezone.now())
    )


@changes()
def export_by_job(request: PortalRequest, kind: str) -> HttpResponse:
    kind_, form = _asked(kind, request.GET.get("format", ""))
    _form, wanted = filter_of(request.tenant, kind_, request.GET)
    if wanted is None:
        return redirect(
            f"{resolve_url(f'portal-{kind_}', tenant=request.tenant.slug)}?{request.GET.urlencode()}"
        )
    return _begin(request, Job.Kind.EXPORT, wanted, form)


def _asked(kind: str, form: str) -> tuple[Kind, Format]:
    """Raises access.NotFound: no page leads to any other."""
    try:
        return Kind(kind), Format(form)
    except ValueError:
        raise access.NotFound from None


MIME: Final = {Format.CSV: "text/csv; charset=utf-8", Format.JSON: "application/json"}


def as_file(pieces: Any, form: Format, name: str) -> StreamingHttpResponse:
    """To be saved: no browser is to show, let alone run, what receivers wrote."""
    response = StreamingHttpResponse(pieces, content_type=MIME[form])
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
