"""The operators' own pages beside Django's lists: the dashboard, the search, hosts, and the kill switch."""

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from deliveries.admin import actions
from deliveries.admin.endpoints import endpoint_link, health_of
from deliveries.admin.usage import month_cells
from deliveries.admin.work import lease_of
from deliveries.services import hosts, overview, usage
from tenants import csv_cells, ids
from tenants.admin.base import Link, Table, actor_of, may_operate, page_of
from tenants.admin.show import NOTHING, link, list_url, number, page_url, seconds, state, when
from tenants.admin.tenants import status_of, tenant_link
from tenants.models import Tenant, User
from tenants.services import finding, platform
from webhooks_platform import metrics

SPEED_OVER: Final = timedelta(minutes=5)

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
}
"""Whatever id somebody quotes leads to its page."""


def may_look(request: HttpRequest) -> bool:
    """Into what the pages of this module gather from all tenants."""
    return isinstance(request.user, User) and request.user.has_perms(
        ["tenants.view_tenant", "deliveries.view_endpoint"]
    )


# --- the dashboard ----------------------------------------------------------------------------------------------------


def dashboard() -> dict[str, Any]:
    """A few queries, whatever the size of the tables."""
    now = timezone.now()
    totals = overview.totals_now()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(metrics.LOOK, {"most": metrics.MOST_LANES})
        look = cursor.fetchone()
    ready, served, paused, scheduled, held, oldest, alive, with_room, _stopped, snapshot = look
    speeds = overview.speeds(totals, over=SPEED_OVER, now=now)
    failing = overview.failing()
    return {
        "is_dashboard": True,
        "tiles": _tiles(speeds, metrics.backlog(totals), oldest, alive),
        "warnings": _warnings(oldest=oldest, alive=alive, snapshot=snapshot, ready=ready),
        "course": _course(overview.course(now=now)),
        "tables": [
            _failing_tenants(failing),
            _failing_hosts(failing),
            _failing_endpoints(failing),
            _waiting(),
            _dispatchers(),
        ],
        "lanes": [
            (_("ready"), number(ready)),
            (_("served"), number(served)),
            (_("scheduled"), number(scheduled)),
            (_("held"), number(held)),
            (_("paused"), number(paused)),
            (_("dispatchers with room"), f"{with_room} / {alive}"),
            (_("oldest snapshot"), seconds(snapshot)),
        ],
        "is_failing_cut": failing.is_cut,
    }


def _tiles(
    speeds: overview.Speeds | None, backlog: float, oldest: float, alive: int
) -> list[tuple[str, str, str]]:
    """(what, how much, in words)"""
    tiles = []
    if speeds is None:
        tiles.append((_("Throughput"), NOTHING, _("Known a minute after beat was started.")))
    else:
        over = _("a second, over the last %s") % seconds(speeds.seconds)
        share = 100 * speeds.attempts_failed / speeds.attempts if speeds.attempts else 0.0
        tiles += [
            (_("Published"), f"{speeds.published:,.1f}", over),
            (_("Delivered"), f"{speeds.succeeded:,.1f}", over),
            (_("Given up"), f"{speeds.failed:,.1f}", over),
            (_("Attempts that failed"), f"{share:.1f} %", _("of %s a second") % f"{speeds.attempts:,.1f}"),
        ]
    return [
        *tiles,
        (_("Backlog"), number(backlog), _("deliveries pending, planned retries too; an estimate")),
        (_("Oldest ready lane"), seconds(oldest), _("waits for a dispatcher; above 10 s is too long")),
        (_("Dispatchers"), number(alive), _("with a lease")),
    ]


def _warnings(*, oldest: float, alive: int, snapshot: float, ready: int) -> list[str]:
    found = []
    if ready and not alive:
        found.append(_("Work waits and there is no dispatcher: are the dispatch worker and beat running?"))
    elif oldest > 10:
        found.append(_("Lanes wait too long: more dispatchers, or a slow database."))
    if snapshot > 300:
        found.append(_("A transaction is open for more than five minutes: the queue gets slow."))
    return found


CHART_WIDTH, CHART_HEIGHT = 600, 80


def _course(points: list[tuple[Any, float]]) -> dict[str, Any] | None:
    """A line in the coordinates of the picture."""
    if len(points) < 2:
        return None
    highest = max(value for _, value in points) or 1.0
    step = CHART_WIDTH / (len(points) - 1)
    line = " ".join(
        f"{index * step:.1f},{CHART_HEIGHT - value / highest * (CHART_HEIGHT - 4) - 2:.1f}"
        for index, (_, value) in enumerate(points)
    )
    return {
        "line": line,
        "highest": f"{highest:,.1f}",
        "since": when(points[0][0]),
        "until": when(points[-1][0]),
    }


def _ago(since: Any) -> str:
    return seconds((timezone.now() - since).total_seconds())


def _failing_tenants(failing: overview.Failing) -> Table:
    return Table(
        _("Tenants that it hurts"),
        [_("Tenant"), _("Failing endpoints"), _("The first since")],
        [[tenant_link(each.tenant), number(each.endpoints), _ago(each.since)] for each in failing.tenants],
        empty=_("No tenant has a failing endpoint."),
    )


def _failing_hosts(failing: overview.Failing) -> Table:
    return Table(
        _("Hosts that fail"),
        [_("Host"), _("Failing endpoints"), _("Tenants"), _("The first since")],
        [
            [
                link(host_url(each.host), each.host),
                number(each.endpoints),
                number(each.tenants),
                _ago(each.since),
            ]
            for each in failing.hosts
        ],
        empty=_("No host fails."),
    )


def _failing_endpoints(failing: overview.Failing) -> Table:
    return Table(
        _("Endpoints that fail longest"),
        [_("Endpoint"), _("Tenant"), _("Health"), _("Why")],
        [
            [
                endpoint_link(each),
                tenant_link(each.tenant),
                health_of(each.lane),
                link(
                    list_url(
                        "deliveries_delivery",
                        tenant=each.tenant.slug,
                        endpoint=ids.to_text(ids.ENDPOINT, each.id),
                    ),
                    _("its deliveries"),
                ),
            ]
            for each in failing.endpoints
        ],
        empty=_("No endpoint fails."),
    )


def _waiting() -> Table:
    return Table(
        _("Lanes that wait longest for a dispatcher"),
        [_("Endpoint"), _("Tenant"), _("Ready for")],
        [
            [endpoint_link(lane.endpoint), tenant_link(lane.endpoint.tenant), _ago(lane.ready_at)]
            for lane in overview.waiting_longest()
        ],
        empty=_("None waits."),
    )


def _dispatchers() -> Table:
    return Table(
        _("Dispatchers"),
        [_("Process"), _("Lease"), _("Room"), _("Deliveries"), _("Began")],
        [
            [
                link(page_url("deliveries_dispatcher", each.id), each.process or each.id),
                lease_of(each),
                _("yes") if each.has_room else _("no"),
                number(each.deliveries_done),
                when(each.started_at),
            ]
            for each in overview.dispatchers()
        ],
        empty=_("None. With nothing to deliver there are none; the next publish starts one."),
    )


# --- finding ----------------------------------------------------------------------------------------------------------


@require_safe
def find(request: HttpRequest) -> HttpResponse:
    """One field for everything that somebody may quote: an id, a slug, a name, a host, an e-mail address."""
    if not may_look(request):
        raise PermissionDenied
    text = request.GET.get("q", "").strip()[:200]
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


# --- usage ------------------------------------------------------------------------------------------------------------


class MonthForm(forms.Form):
    month = forms.DateField(
        label=gettext_lazy("Month"),
        required=False,
        input_formats=["%Y-%m"],
        widget=forms.DateInput(attrs={"type": "month"}, format="%Y-%m"),
    )


USAGE_COLUMNS: Final = ("tenant", "slug", "month", "events", "attempts", "succeeded", "failed")


def _month_asked(form: MonthForm) -> date | None:
    """This one, unless the address says another. None: it makes no sense."""
    if not form.is_valid():
        return None
    month: date = form.cleaned_data["month"] or timezone.now().date()
    return month.replace(day=1)


@require_safe
def usage_list(request: HttpRequest) -> HttpResponse:
    """Tenants and what they used in a month, the newest tenants first."""
    if not may_look(request):
        raise PermissionDenied
    form = MonthForm(request.GET)
    month = _month_asked(form)
    page = page_of(request, Tenant.objects.all())
    used = usage.month_of([tenant.id for tenant in page.rows], month) if month else {}
    query = request.GET.copy()
    query.pop("cursor", None)
    context = {
        **admin.site.each_context(request),
        "title": _("Usage"),
        "form": form,
        "month": month,
        "page": page,
        "query": query.urlencode(),
        "headings": [_("Tenant"), _("Name"), _("Events"), _("Requests"), _("Delivered"), _("Failed")],
        "rows": [
            (tenant.id, [tenant_link(tenant), tenant.name, *month_cells(used.get(tenant.id))])
            for tenant in page.rows
        ],
        "file_url": f"{reverse('admin:usage-csv')}?month={month:%Y-%m}" if month else "",
    }
    return TemplateResponse(request, "admin/usage.html", context, status=200 if month else 422)


@require_safe
def usage_csv(request: HttpRequest) -> HttpResponseBase:
    """Every tenant that used anything, for invoices."""
    if not may_look(request):
        raise PermissionDenied
    month = _month_asked(MonthForm(request.GET))
    if month is None:
        return redirect("admin:usage")
    response = StreamingHttpResponse(_usage_lines(month), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="usage-{month:%Y-%m}.csv"'
    return response


def _usage_lines(month: date) -> Iterator[str]:
    yield _csv_line(USAGE_COLUMNS)
    for tenant, used in usage.everybody(month):
        yield _csv_line(
            (
                ids.to_text(ids.TENANT, tenant.id),
                tenant.slug,
                f"{month:%Y-%m}",
                used.events,
                used.attempts,
                used.succeeded,
                used.failed,
            )
        )


def _csv_line(values: Iterable[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(csv_cells.cell(value) for value in values)
    return buffer.getvalue()


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
