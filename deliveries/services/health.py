"""How an endpoint does, for people; and what is told and forgotten when it is stopped or started.

The counting is done where requests are made (`pipeline/health.py`) and kept on the lane.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.db.models import F

from deliveries.models import Announcement, Endpoint, Lane
from deliveries.pipeline.announce import Kind


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    circuit: Circuit
    failures: int
    failing_since: datetime | None
    failed_at: datetime | None
    held_until: datetime | None
    hold_reason: str | None
    disables_at: datetime | None
    """If it goes on failing."""


def of(endpoint: Endpoint, *, now: datetime) -> EndpointHealth:
    """Needs lane and tenant with it, as the endpoint services give them."""
    lane = endpoint.lane
    is_held = lane.hold_until is not None and lane.hold_until > now
    circuit = Circuit.CLOSED
    if lane.circuit_opened_at is not None:
        circuit = Circuit.OPEN if is_held else Circuit.HALF_OPEN
    return EndpointHealth(
        circuit=circuit,
        failures=lane.failures,
        failing_since=lane.failing_since,
        failed_at=lane.failed_at,
        held_until=lane.hold_until if is_held else None,
        hold_reason=lane.hold_reason if is_held else None,
        disables_at=disables_at(endpoint),
    )


def disables_at(endpoint: Endpoint) -> datetime | None:
    since = endpoint.lane.failing_since
    if since is None or endpoint.status != Endpoint.Status.ENABLED or endpoint.deleted_at is not None:
        return None
    days = endpoint.tenant.effective_limits["disable_after_days"]
    return since + timedelta(days=days) if days else None


def tell(endpoint: Endpoint, *, kind: Kind, is_quiet: bool = False, **more: Any) -> None:
    """Of a transition, inside the transaction that makes it. `is_quiet`: no operational event comes of it."""
    lane = endpoint.lane
    data: dict[str, Any] = {"status": endpoint.status, "disabled_reason": endpoint.disabled_reason}
    if lane.failing_since is not None:
        data |= {"failing_since": lane.failing_since.timestamp(), "failures": lane.failures}
    if endpoint.missed_since is not None:
        data["missed_since"] = endpoint.missed_since.timestamp()
    Announcement.objects.for_tenant(endpoint.tenant_id).bulk_create(
        [
            Announcement(
                tenant_id=endpoint.tenant_id,
                endpoint=endpoint,
                kind=kind.value,
                data=data | more,
                is_quiet=is_quiet,
            )
        ]
    )


def wipe(endpoint: Endpoint) -> None:
    """It starts afresh. Who holds the lane does not write what it counted before: it sees that `resets` was raised."""
    Lane.objects.for_tenant(endpoint.tenant_id).filter(endpoint=endpoint).update(
        failures=0,
        failing_since=None,
        failed_at=None,
        is_own_failing=False,
        pause_seconds=None,
        circuit_opened_at=None,
        circuit_seconds=None,
        warned_at=None,
        hold_until=None,
        hold_reason=None,
        resets=F("resets") + 1,
    )
