"""The condition that endpoints are in: their latest deliveries, what is due and waits, and what holds them.

One query for however many endpoints. Called by the pages that list them. What it reads of an endpoint is bounded: so
many deliveries, newest first, and so many of what is due, however much there is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Case, IntegerField, Q, Value, When

from deliveries.models import Endpoint
from deliveries.services.endpoint_changes import endpoints_of
from deliveries.services.history import first_key, last_key
from tenants.models import Tenant

LATEST: Final = 40
"""Deliveries of an endpoint that are looked at, and shown one by one."""

LOOK_BACK: Final = timedelta(days=30)
"""Older ones say nothing of now."""

MOST_DUE: Final = 1_000
"""Deliveries that are due are counted up to this."""

MOST_LOOKED_AT: Final = 200
"""Endpoints of a tenant that are looked at for trouble: of more, those with something to do come first."""

SUCCEEDED, FAILED, RETRYING, PENDING, CANCELLED = "sfrpc"
"""A delivery in a letter. Retrying: its last attempt failed, and another follows."""


@dataclass(frozen=True, slots=True)
class Condition:
    latest: str = ""
    """A letter a delivery, the oldest first."""
    last_outcome: str | None = None
    """Of the newest of them that did not succeed."""
    last_status_code: int | None = None
    due: int = 0
    """Deliveries that should have been sent by now, up to MOST_DUE."""
    due_since: datetime | None = None
    hold_reason: str | None = None
    """Why the lane is held, while it is: rate, circuit or answer."""
    hold_until: datetime | None = None
    is_paused: bool = False
    failing_since: datetime | None = None
    """Nothing but failures since then."""
    is_circuit_open: bool = False
    """Because of them it is tried rarely."""

    @property
    def tried(self) -> int:
        """Of the latest, those that an attempt was made for."""
        return sum(self.latest.count(letter) for letter in (SUCCEEDED, FAILED, RETRYING))

    @property
    def unsuccessful(self) -> int:
        return self.latest.count(FAILED) + self.latest.count(RETRYING)

    @property
    def failing_in_a_row(self) -> int:
        """How many of the newest that were tried did not succeed, one after the other."""
        tried = [letter for letter in self.latest if letter in (SUCCEEDED, FAILED, RETRYING)]
        return (
            len(tried) - 1 - max((at for at, letter in enumerate(tried) if letter == SUCCEEDED), default=-1)
        )


def conditions_of(*, tenant: Tenant, endpoint_ids: Iterable[UUID], now: datetime) -> dict[UUID, Condition]:
    """One query. An endpoint without a row here has nothing to tell."""
    wanted = list(endpoint_ids)
    if not wanted:
        return {}
    parameters: dict[str, Any] = {
        "endpoints": wanted,
        "tenant": tenant.id,
        "latest": LATEST,
        "most_due": MOST_DUE,
        "now": now,
        "low": first_key(now - LOOK_BACK),
        "high": last_key(),
    }
    with connection.cursor() as cursor:
        cursor.execute(HEALTH, parameters)
        return {
            row[0]: Condition(
                latest=row[1] or "",
                last_outcome=row[2],
                last_status_code=row[3],
                due=row[4],
                due_since=row[5],
                hold_reason=row[6],
                hold_until=row[7],
                is_paused=row[8],
                failing_since=row[9],
                is_circuit_open=row[10],
            )
            for row in cursor.fetchall()
        }


# What is due comes along `delivery_due`, the latest along `delivery_by_endpoint`.
HEALTH = """
SELECT lane.endpoint_id, latest.letters, latest.outcome, latest.status_code, due.number, due.since,
       CASE WHEN lane.hold_until > %(now)s THEN lane.hold_reason END,
       CASE WHEN lane.hold_until > %(now)s THEN lane.hold_until END,
       lane.is_paused, lane.failing_since, lane.circuit_opened_at IS NOT NULL
FROM unnest(%(endpoints)s::uuid[]) AS wanted(id)
JOIN deliveries_lane lane ON lane.endpoint_id = wanted.id AND lane.tenant_id = %(tenant)s
CROSS JOIN LATERAL (
    SELECT string_agg(CASE WHEN status = 'succeeded' THEN 's' WHEN status = 'failed' THEN 'f'
                           WHEN status = 'cancelled' THEN 'c' WHEN attempt_count > 0 THEN 'r' ELSE 'p' END,
                      '' ORDER BY id) AS letters,
           (array_agg(last_outcome ORDER BY id DESC) FILTER (WHERE last_outcome <> 'succeeded'))[1] AS outcome,
           (array_agg(last_status_code ORDER BY id DESC) FILTER (WHERE last_outcome <> 'succeeded'))[1] AS status_code
    FROM (
        SELECT id, status, attempt_count, last_outcome, last_status_code FROM deliveries_delivery
        WHERE endpoint_id = wanted.id AND tenant_id = %(tenant)s AND id >= %(low)s AND id <= %(high)s
        ORDER BY id DESC LIMIT %(latest)s
    ) newest
) latest
CROSS JOIN LATERAL (
    SELECT count(*) AS number, min(due_at) AS since FROM (
        SELECT LEAST(next_attempt_at, manual_requested_at) AS due_at FROM deliveries_delivery
        WHERE endpoint_id = wanted.id AND tenant_id = %(tenant)s AND id <= %(high)s
          AND (status = 'pending' OR manual_requested_at IS NOT NULL)
          AND LEAST(next_attempt_at, manual_requested_at) <= %(now)s
        ORDER BY LEAST(next_attempt_at, manual_requested_at) LIMIT %(most_due)s
    ) soonest
) due
"""


def may_need_attention(tenant: Tenant) -> list[Endpoint]:
    """Of the tenant's endpoints those that trouble is looked for at: at most MOST_LOOKED_AT, one query.

    First those that the platform disabled, then those whose lane has something to do, which failing ones have.
    """
    by_hand = Q(status=Endpoint.Status.DISABLED, disabled_reason=Endpoint.DisabledReason.MANUAL)
    order = Case(
        When(by_hand, then=Value(3)),
        When(status=Endpoint.Status.DISABLED, then=Value(0)),
        When(lane__ready_at__isnull=False, then=Value(1)),
        default=Value(2),
        output_field=IntegerField(),
    )
    rows = endpoints_of(tenant).prefetch_related(None).order_by(order, "-id")
    return list(rows[:MOST_LOOKED_AT])
