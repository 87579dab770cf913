"""Jobs in the portal: what is sent again to an endpoint, counted before it begins; every job with its progress; files."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render, resolve_url
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries import validation
from deliveries.models import Endpoint, Job
from deliveries.portal.deliveries import not_sendable
from deliveries.portal.filters import DeliveryFilter, EventFilter, PeriodForm
from deliveries.portal.history import as_file, narrowed, to_job
from deliveries.services import endpoints, exports, jobs
from deliveries.services.deliveries import EndpointStopped
from deliveries.services.exports import FileGone, Format
from deliveries.services.jobs import JobEnded, JobRunning, Plan, TooManyToCount
from deliveries.services.listing import Kind
from tenants import ids
from tenants.portal.entry import PortalRequest, Role, changes, portal_page
from tenants.portal.lists import RuleField, page_of

COUNT_SECONDS = 2.0
"""How long a page counts what a job would send. Beyond it the page says how many there are at least."""

POLL_MS = 1000
"""Between looks at a job that runs."""

# --- an endpoint's events again ---------------------------------------------------------------------------------------


def patterns(value: object) -> list[str] | None:
    words = str(value).replace(",", " ").split()
    return (
        validation.list_of(words, validation.pattern, low=1, high=validation.MAX_PATTERNS) if words else None
    )


class AgainForm(PeriodForm):
    """What is to be sent again."""

    only = forms.ChoiceField(
        label=gettext_lazy("What"),
        choices=[
            ("missed", gettext_lazy("What it missed: never sent, failed, or cancelled by disabling")),
            (
                "failed",
                gettext_lazy("What failed, or was cancelled by disabling, and did not come through since"),
            ),
            ("missing", gettext_lazy("What it never got, though it matches now")),
            ("all", gettext_lazy("Everything that matches now, once more")),
        ],
        widget=forms.RadioSelect,
        initial="failed",
    )
    event_types = RuleField(
        patterns,
        label=gettext_lazy("Only event types"),
        help_text=gettext_lazy("Types or patterns such as order.*, separated by blanks. Empty: all."),
    )

    field_order = ["only", "within", "since", "until", "event_types"]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if not self.errors and cleaned.get("since") is None:
            self.add_error("within", _("Choose a period, or a time to begin from."))
        return cleaned


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def again(request: PortalRequest, endpoint: str) -> HttpResponse:
    """Asked for by GET, which counts; begun by POST."""
    row = endpoints.get_endpoint(tenant=request.tenant, reference=endpoint)
    if request.method == "POST":
        form = AgainForm(request.POST)
        if form.is_valid() and (begun := _begin(request, row, form)):
            return begun
        return _again_page(request, row, form)
    if "only" not in request.GET:
        return _again_page(request, row, AgainForm(initial={"within": "24h", "only": "failed"}))
    form = AgainForm(request.GET)
    if form.is_valid() and request.htmx:
        return render(request, "portal/jobs/_count.html", _count(row, form) | _exact(form))
    return _again_page(request, row, form)


def _again_page(request: PortalRequest, row: Endpoint, form: AgainForm) -> HttpResponse:
    context: dict[str, Any] = {"form": form, "endpoint": row}
    is_asked = form.is_bound and form.is_valid()
    if is_asked:
        context |= _exact(form)
        if "count" in request.GET:
            context |= _count(row, form)
    return render(
        request,
        "portal/jobs/again.html",
        context | {"is_asked": is_asked},
        status=422 if form.is_bound and not is_asked else 200,
    )


def _exact(form: AgainForm) -> dict[str, Any]:
    """The same that is counted is sent, whatever the time when the button is pressed."""
    plan = _plan(form)
    exact = {"only": plan.only.value, "since": plan.since.isoformat(), "until": plan.until.isoformat()}
    if plan.event_types:
        exact["event_types"] = " ".join(plan.event_types)
    return {"exact": exact, "count_query": urlencode(exact | {"count": "1"})}


def _plan(form: AgainForm) -> Plan:
    given = form.cleaned_data
    now = timezone.now()
    only = Job.Only(given["only"])
    is_recover = only is Job.Only.FAILED and not given["event_types"]
    return Plan(
        kind=Job.Kind.RECOVER if is_recover else Job.Kind.REPLAY,
        only=only,
        since=min(given["since"], now),
        until=min(given["until"] or now, now),
        event_types=given["event_types"],
    )


def _count(row: Endpoint, form: AgainForm) -> dict[str, Any]:
    try:
        return {
            "number": jobs.count(endpoint=row, plan=_plan(form), seconds=COUNT_SECONDS),
            "is_counted": True,
        }
    except TooManyToCount as error:
        return {"number": error.at_least, "is_more": True, "is_counted": True}
    except EndpointStopped as error:
        return {"refusal": not_sendable(error), "is_counted": True}


def _begin(request: PortalRequest, row: Endpoint, form: AgainForm) -> HttpResponse | None:
    try:
        job = jobs.create_job(actor=request.actor, endpoint=row, plan=_plan(form))
    except EndpointStopped as error:
        form.add_error(None, not_sendable(error))
        return None
    except JobRunning as error:
        messages.warning(request, _("A job is running for this endpoint. Wait for it, or cancel it."))
        if error.job_id is None:
            return redirect("portal-jobs", tenant=request.tenant.slug)
        return to_job(request, error.job_id)
    return to_job(request, job.id)


# --- jobs -------------------------------------------------------------------------------------------------------------


@portal_page()
def listing(request: PortalRequest) -> HttpResponse:
    page = page_of(request, jobs.jobs_of(request.tenant))
    named = zip(page.rows, _endpoints(request, page.rows), strict=True)
    rows = [{"job": job, "endpoint": endpoint, **_shown(job)} for job, endpoint in named]
    return render(request, "portal/jobs/list.html", {"page": page, "rows": rows})


@portal_page()
def detail(request: PortalRequest, job: str) -> HttpResponse:
    return render(request, "portal/jobs/detail.html", _context(request, job))


@portal_page()
def progress(request: PortalRequest, job: str) -> HttpResponse:
    """The part of the page that changes, asked for by the page itself while the job runs."""
    return render(request, "portal/jobs/_progress.html", _context(request, job))


@changes()
def cancel(request: PortalRequest, job: str) -> HttpResponse:
    row = jobs.get_job(tenant=request.tenant, reference=job)
    try:
        jobs.cancel_job(actor=request.actor, job=row)
    except JobEnded:
        messages.warning(request, _("It had ended already, so there was nothing to cancel."))
    else:
        messages.success(request, _("Cancelled. What it did until now stays."))
    return to_job(request, row.id)


@portal_page()
def file(request: PortalRequest, job: str) -> HttpResponseBase:
    row = jobs.get_job(tenant=request.tenant, reference=job)
    try:
        pieces = exports.file_of(row)
    except FileGone:
        messages.warning(request, _("The file is not there any more. Export it again."))
        return to_job(request, row.id)
    assert row.filter is not None
    return as_file(pieces, Format(row.filter["format"]), exports.file_name(row.filter, row.created_at))


def _context(request: PortalRequest, reference: str) -> dict[str, Any]:
    row = jobs.get_job(tenant=request.tenant, reference=reference)
    (endpoint,) = _endpoints(request, [row])
    is_running = row.status == Job.Status.RUNNING
    return {
        "job": row,
        "endpoint": endpoint,
        "poll_ms": POLL_MS if is_running else None,
        "error": error_text(row.error),
        "has_file": row.kind == Job.Kind.EXPORT
        and row.status == Job.Status.DONE
        and row.expires_at is not None
        and row.expires_at > timezone.now(),
        **_shown(row),
    }


def _endpoints(request: PortalRequest, rows: list[Job]) -> list[Endpoint | None]:
    """Of each; what works on a list has none. One query."""
    wanted = [row.endpoint_id for row in rows if row.endpoint_id is not None]
    named = endpoints.named(tenant=request.tenant, endpoint_ids=wanted)
    return [None if row.endpoint_id is None else named.get(row.endpoint_id) for row in rows]


def _shown(job: Job) -> dict[str, Any]:
    """Its title, its filter in words, and the list that it is of."""
    if job.filter is None:
        title = _("Send again what failed") if job.only == Job.Only.FAILED else _("Send events again")
        return {"title": title, "narrowed": [], "list_url": ""}
    titles = {
        Job.Kind.RETRY: _("Try deliveries again"),
        Job.Kind.CANCEL: _("Cancel deliveries"),
        Job.Kind.EXPORT: _("Export events") if job.filter["kind"] == Kind.EVENTS else _("Export deliveries"),
    }
    query = _query(job.filter)
    form = (EventFilter if job.filter["kind"] == Kind.EVENTS else DeliveryFilter)(QueryDict(urlencode(query)))
    slug = resolve_url(f"portal-{job.filter['kind']}", tenant=job.tenant.slug)
    return {
        "title": titles[Job.Kind(job.kind)],
        "narrowed": narrowed(form),
        "list_url": f"{slug}?{urlencode(query)}",
    }


def _query(stored: dict[str, str]) -> dict[str, str]:
    """The job's filter as the list's URL has it."""
    is_of_events = stored["kind"] == Kind.EVENTS
    query = {}
    for name, value in stored.items():
        match name:
            case "kind" | "format":
                continue
            case "event_type" if is_of_events:
                query["type"] = value
            case "text":
                query["q"] = value
            case "endpoint_id":
                query["endpoint"] = ids.to_text(ids.ENDPOINT, UUID(value))
            case "event_id":
                query["event"] = ids.to_text(ids.EVENT, UUID(value))
            case _:
                query[name] = value
    return query


def error_text(code: str) -> str:
    match code:
        case "":
            return ""
        case "endpoint_disabled":
            return _("The endpoint was disabled meanwhile.")
        case "endpoint_deleted":
            return _("The endpoint was deleted meanwhile.")
        case "tenant_deleted":
            return _("The tenant was deleted meanwhile.")
        case "too_large":
            return _("The file grew too large. Choose a shorter period.")
        case "payload_erased":
            return _(
                "A payload that the file may have held was erased, and the file with it. Export it again."
            )
        case _:
            return code
