"""Live tail: events and outcomes as they happen. The page asks again every two seconds, while it is looked at."""

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone

from deliveries.models import Delivery, Event
from deliveries.services import endpoints, live
from deliveries.services.live import Look, Tried
from tenants.portal.entry import PortalRequest, portal_page


@portal_page()
def page(request: PortalRequest) -> HttpResponse:
    found = live.look(request.tenant, after=None, now=timezone.now())
    return render(request, "portal/live/page.html", _context(request, found))


@portal_page()
def rows(request: PortalRequest) -> HttpResponse:
    """What is new and what changed since the cursor, for htmx to put in its places."""
    found = live.look(
        request.tenant, after=_key(request, "after"), oldest=_key(request, "oldest"), now=timezone.now()
    )
    return render(request, "portal/live/_rows.html", _context(request, found))


def _key(request: PortalRequest, name: str) -> UUID | None:
    """One that makes no sense begins anew."""
    try:
        return UUID(hex=request.GET.get(name, ""))
    except ValueError:
        return None


def _context(request: PortalRequest, found: Look) -> dict[str, Any]:
    deliveries = [row for row in map(_delivery_of, [*found.new, *found.changed]) if row is not None]
    names = endpoints.named(tenant=request.tenant, endpoint_ids=(row.endpoint_id for row in deliveries))

    def shown(row: Delivery | Event | Tried) -> dict[str, Any]:
        delivery = _delivery_of(row)
        return {
            "row": row,
            "delivery": delivery,
            "tried": row if isinstance(row, Tried) else None,
            "endpoint": None if delivery is None else names.get(delivery.endpoint_id),
        }

    return {
        "new": [shown(row) for row in found.new],
        "changed": [shown(row) for row in found.changed],
        "skipped": found.skipped,
        "cursor": found.cursor.hex,
        "oldest": found.oldest.hex,
    }


def _delivery_of(row: Delivery | Event | Tried) -> Delivery | None:
    match row:
        case Delivery():
            return row
        case Tried():
            return row.delivery
        case _:
            return None
