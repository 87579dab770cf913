"""The first page of a tenant: how its webhooks are doing, and which endpoints need somebody."""

from datetime import UTC, datetime
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from deliveries.portal.attention import MOST_SHOWN, concerns
from deliveries.portal.charts import bar_chart
from deliveries.services.activity import LAYOUTS, MOST_PENDING, Window, tenant_activity
from deliveries.services.condition import conditions_of, may_need_attention
from tenants.portal.entry import PortalRequest, portal_page


@portal_page()
def overview(request: PortalRequest) -> HttpResponse:
    now = datetime.now(UTC)
    window = window_of(request.GET.get("window"))
    endpoints = may_need_attention(request.tenant)
    found = tenant_activity(tenant=request.tenant, window=window, now=now)
    health = conditions_of(tenant=request.tenant, endpoint_ids=(each.id for each in endpoints), now=now)
    worries = concerns(endpoints, health, now=now)
    context: dict[str, Any] = {
        "window": window,
        "windows": [(each.value, window_label(each), each is window) for each in Window],
        "is_daily": LAYOUTS[window].bucket.days >= 1,
        "overview": found,
        "chart": bar_chart(found.buckets),
        "is_pending_more": found.pending >= MOST_PENDING,
        "concerns": worries[:MOST_SHOWN],
        "more_concerns": len(worries) - len(worries[:MOST_SHOWN]),
        "has_endpoints": bool(endpoints),
        "first_endpoint": endpoints[0] if endpoints else None,
        "was_anything_sent": found.totals.total > 0 or any(each.latest for each in health.values()),
    }
    return render(request, "portal/overview.html", context)


def window_of(text: str | None) -> Window:
    """A window that there is not, from a mistyped link, is the shortest."""
    return Window(text) if text in set(Window) else Window.DAY


def window_label(window: Window) -> str:
    match window:
        case Window.DAY:
            return _("24 hours")
        case Window.WEEK:
            return _("7 days")
        case Window.MONTH:
            return _("30 days")
