"""The operators' first page: how it goes, whom it hurts, what waits."""

from datetime import timedelta
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from deliveries.admin.endpoints import endpoint_link, health_of
from deliveries.admin.work import lease_of
from deliveries.services import overview
from tenants import ids
from tenants.admin.base import Link, Table
from tenants.admin.show import NOTHING, link, list_url, number, page_url, seconds, when
from tenants.admin.tenants import tenant_link
from webhooks_platform import metrics
from webhooks_platform.operator_pages import host_url

SPEED_OVER: Final = timedelta(minutes=5)
"""What the speeds of the first tiles are the mean of."""


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
            _disabled_lately(),
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


def _disabled_lately() -> Table:
    found = overview.disabled_lately()
    return Table(
        _("Disabled by the platform lately"),
        [_("Endpoint"), _("Tenant"), _("Why"), _("Missed since")],
        [
            [
                endpoint_link(each),
                tenant_link(each.tenant),
                each.get_disabled_reason_display(),
                when(each.missed_since),
            ]
            for each in found
        ],
        empty=_("None."),
        more=Link(_("All of them"), list_url("deliveries_endpoint", by_platform="on")) if found else None,
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
