"""How the platform stands, for the operators' dashboard: speeds, what fails, who delivers. Called by the admin.

Nothing here counts or scans: speeds are differences of the totals that `/metrics` shows, what fails has an index of its
own, and every list ends after so many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet

from deliveries.models import BY_THE_PLATFORM, Dispatcher, Endpoint, Lane, MetricSample
from tenants.clock import database_now
from tenants.models import Tenant

KEPT: Final = timedelta(days=1)
"""How long samples of the totals are kept."""

SAMPLED: Final = ("publishes:", "deliveries_made:", "deliveries_ended:", "attempts:")
"""Beginnings of the keys of totals that speeds are told of."""

MOST_FAILING: Final = 20_000
"""Failing endpoints that are added up for the worst tenants and hosts, those that fail longest first."""

MOST_LANES: Final = 10_000
"""Lanes of a dispatcher are counted so far."""


# --- speeds -----------------------------------------------------------------------------------------------------------


def totals_now() -> dict[str, float]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT key, value FROM deliveries_metrictotal")
        return dict(cursor.fetchall())


def sample() -> None:
    """Keep the totals as they are, and forget those of yesterday."""
    totals = {key: value for key, value in totals_now().items() if key.startswith(SAMPLED)}
    now = database_now()
    MetricSample.objects.create(at=now, totals=totals)
    MetricSample.objects.filter(at__lt=now - KEPT).delete()


@dataclass(frozen=True, slots=True)
class Speeds:
    """Of the time since a sample, each a second. None: there is no sample yet."""

    seconds: float
    published: float
    succeeded: float
    failed: float
    attempts: float
    attempts_failed: float


def speeds(totals: dict[str, float], *, over: timedelta, now: datetime) -> Speeds | None:
    """`over`: about how far back. The newest sample that is so old, or the oldest there is."""
    older = MetricSample.objects.filter(at__lte=now - over, at__gt=now - 2 * over).order_by("-at").first()
    first = older or MetricSample.objects.filter(at__gt=now - over).order_by("at").first()
    if first is None:
        return None
    elapsed = max((now - first.at).total_seconds(), 1.0)

    def speed(key: str) -> float:
        before: float = first.totals.get(key, 0.0)
        return max(0.0, totals.get(key, 0.0) - before) / elapsed

    attempts = {key: speed(key) for key in totals if key.startswith("attempts:")}
    return Speeds(
        seconds=elapsed,
        published=speed("publishes:accepted"),
        succeeded=speed("deliveries_ended:succeeded"),
        failed=speed("deliveries_ended:failed"),
        attempts=sum(attempts.values()),
        attempts_failed=sum(value for key, value in attempts.items() if key != "attempts:succeeded"),
    )


def course(*, now: datetime, minutes: int = 60) -> list[tuple[datetime, float]]:
    """Deliveries that ended, a second, minute by minute: (when, how many)."""
    samples = list(MetricSample.objects.filter(at__gt=now - timedelta(minutes=minutes + 2)).order_by("at"))
    found = []
    for before, after in pairwise(samples):
        elapsed = (after.at - before.at).total_seconds()
        ended = sum(
            value - before.totals.get(key, 0.0)
            for key, value in after.totals.items()
            if key.startswith("deliveries_ended:")
        )
        if elapsed > 0:
            found.append((after.at, max(0.0, ended) / elapsed))
    return found


# --- what fails -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class FailingTenant:
    tenant: Tenant
    endpoints: int
    since: datetime


@dataclass(slots=True)
class FailingHost:
    host: str
    endpoints: int
    tenants: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Failing:
    """The endpoints that fail longest, and whom and what they have in common."""

    endpoints: list[Endpoint]
    tenants: list[FailingTenant]
    hosts: list[FailingHost]
    is_cut: bool
    """There are more than were looked at."""


DISABLED_BY_THE_PLATFORM: Final = Q(
    # As the index of them says it.
    disabled_reason__in=BY_THE_PLATFORM,
    deleted_at__isnull=True,
    tenant__deleted_at__isnull=True,
)
"""Because they failed for too long, or their receivers said so: nobody did it by hand, and somebody may not know of it."""

# Along the index of failing lanes. The database adds up: when a receiver that thousands share is down, loading all of
# their rows would take longer than the page may.
FAILING = """
WITH failing AS MATERIALIZED (
    SELECT lane.endpoint_id, lane.tenant_id, lane.failing_since,
           COALESCE(substring(endpoint.url from '^[a-z]+://(\\[[^]]*\\]|[^/:?]*)'), '') COLLATE "C" AS host
    FROM deliveries_lane lane JOIN deliveries_endpoint endpoint ON endpoint.id = lane.endpoint_id
    JOIN tenants_tenant tenant ON tenant.id = lane.tenant_id
    WHERE lane.failing_since IS NOT NULL AND endpoint.status = 'enabled' AND endpoint.deleted_at IS NULL
      AND tenant.deleted_at IS NULL
    ORDER BY lane.failing_since, lane.endpoint_id LIMIT %(looked_at)s
)
(SELECT 'endpoint', endpoint_id::text, 1 AS endpoints, 1 AS tenants, failing_since AS since
 FROM failing ORDER BY failing_since, endpoint_id LIMIT %(most)s)
UNION ALL
(SELECT 'tenant', tenant_id::text, count(*) AS endpoints, 1, min(failing_since) AS since
 FROM failing GROUP BY tenant_id ORDER BY endpoints DESC, since LIMIT %(most)s)
UNION ALL
(SELECT 'host', host, count(*) AS endpoints, count(DISTINCT tenant_id), min(failing_since) AS since
 FROM failing GROUP BY host ORDER BY endpoints DESC, since LIMIT %(most)s)
UNION ALL
SELECT 'all', '', count(*), 0, now() FROM failing
"""


def failing(*, most: int = 10) -> Failing:
    """Those whose last answers were all bad, with their lanes."""
    with connection.cursor() as cursor:
        cursor.execute(FAILING, {"looked_at": MOST_FAILING + 1, "most": most})
        found = cursor.fetchall()
    worst = [UUID(key) for what, key, *_ in found if what == "endpoint"]
    tenants = Tenant.objects.in_bulk([UUID(key) for what, key, *_ in found if what == "tenant"])
    return Failing(
        endpoints=_with_lanes(worst),
        tenants=[
            FailingTenant(tenants[UUID(key)], endpoints, since)
            for what, key, endpoints, _, since in found
            if what == "tenant"
        ],
        hosts=[FailingHost(host, *figures) for what, host, *figures in found if what == "host"],
        is_cut=any(what == "all" and endpoints > MOST_FAILING for what, _, endpoints, *_ in found),
    )


def _with_lanes(endpoint_ids: Sequence[UUID]) -> list[Endpoint]:
    """In this order."""
    rows = (
        Endpoint.unscoped.select_related("tenant", "lane")
        .defer("sensitive_headers_encrypted")
        .in_bulk(endpoint_ids)
    )
    return [rows[endpoint_id] for endpoint_id in endpoint_ids if endpoint_id in rows]


def disabled_lately(*, most: int = 10) -> list[Endpoint]:
    """By the platform, the latest first, with their tenants. One that was changed since then comes first, too."""
    rows: QuerySet[Endpoint] = Endpoint.unscoped.filter(DISABLED_BY_THE_PLATFORM).select_related("tenant")
    rows = rows.defer("sensitive_headers_encrypted")
    return list(rows.order_by("-updated_at", "-id")[:most])


# --- who waits, who delivers ------------------------------------------------------------------------------------------

# Along the index of ready lanes; each is one of the queue that dispatchers take from.
WAITING = """
SELECT endpoint_id FROM deliveries_lane
WHERE is_ready AND dispatcher_id IS NULL AND NOT is_paused ORDER BY ready_at LIMIT %s
"""


def dispatchers() -> list[Dispatcher]:
    """The oldest first; there are few."""
    return list(Dispatcher.objects.order_by("started_at", "id")[:100])


def lanes_of(dispatcher_id: UUID) -> int:
    """How many lanes it has, as far as MOST_LANES."""
    return int(Lane.unscoped.filter(dispatcher_id=dispatcher_id).values("pk")[:MOST_LANES].count())


def waiting_longest(*, most: int = 5) -> list[Lane]:
    """Ready lanes that nobody has taken yet, with endpoint and tenant."""
    with connection.cursor() as cursor:
        cursor.execute(WAITING, [most])
        found = [row[0] for row in cursor.fetchall()]
    lanes = Lane.unscoped.filter(endpoint_id__in=found).select_related("endpoint", "endpoint__tenant")
    return sorted(lanes.defer("endpoint__sensitive_headers_encrypted"), key=lambda lane: lane.ready_at)
