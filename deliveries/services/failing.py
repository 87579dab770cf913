"""Endpoints that do nothing but fail: their owners are warned, and later the endpoint is disabled. Called by a task.

How long, or how often in a row, is agreed with each tenant (`disable_after_days`, `disable_after_failures`). Judged by the
time between the first and the last failure, so an endpoint that gets nothing is not disabled for what it got long ago.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction

from deliveries.models import Endpoint, Lane
from deliveries.pipeline.announce import Kind
from deliveries.pipeline.health import RULES
from deliveries.services import health
from deliveries.services.endpoint_changes import endpoints_of
from deliveries.services.stopping import disable_endpoint
from tenants import access
from tenants.models import DEFAULT_LIMITS
from tenants.services.audit import PLATFORM

WARNED_AT: Final = 0.8
"""The share of the time, or of the failures, at which a warning is given. The rest of the time has to pass after it."""

NOTICE: Final = timedelta(hours=1)
"""Between the warning and disabling by number, at least. A warning waits up to `notices.PERIOD` for the notice that it
goes into; one that finds the endpoint disabled says that alone."""

MOST_AT_A_TIME: Final = 1_000
"""A run handles so many of either; the next one goes on."""

# What is served at this moment is left to the next run: its holder knows more than the lane says.
FAILING = """
SELECT f.endpoint_id, f.failing_since FROM (
    SELECT lane.endpoint_id, lane.failing_since, lane.failed_at, lane.failures, lane.warned_at,
           COALESCE((t.limits->>'disable_after_days')::float8, %(days)s) * interval '1 day' AS longest,
           COALESCE((t.limits->>'disable_after_failures')::int, %(failures)s) AS most
    FROM deliveries_lane lane JOIN deliveries_endpoint e ON e.id = lane.endpoint_id
    JOIN tenants_tenant t ON t.id = lane.tenant_id
    WHERE lane.failing_since IS NOT NULL AND lane.dispatcher_id IS NULL
      AND e.status = 'enabled' AND e.deleted_at IS NULL AND t.deleted_at IS NULL
) f
WHERE (f.warned_at IS NOT NULL) = %(is_warned)s AND f.failures >= %(fewest)s AND (
    (f.longest > interval '0' AND f.failed_at - f.failing_since >= %(share)s * f.longest
     AND (f.warned_at IS NULL OR f.warned_at <= now() - %(rest)s * f.longest))
    OR (f.failures >= %(share)s * f.most
        AND (f.warned_at IS NULL OR f.warned_at <= now() - make_interval(secs => %(notice)s)))
)
ORDER BY f.failing_since, f.endpoint_id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Judged:
    warned: int
    disabled: int


def judge_failing(*, now: datetime) -> Judged:
    """Disable what was warned and goes on failing; then warn."""
    disabled = sum(_disable(*row) for row in _failing(is_warned=True, share=1.0))
    warned = sum(_warn(*row, now=now) for row in _failing(is_warned=False, share=WARNED_AT))
    return Judged(warned, disabled)


def _failing(*, is_warned: bool, share: float) -> list[tuple[UUID, datetime]]:
    parameters: dict[str, Any] = {
        "days": DEFAULT_LIMITS["disable_after_days"],
        "failures": DEFAULT_LIMITS["disable_after_failures"],
        "is_warned": is_warned,
        "share": share,
        "rest": 1 - WARNED_AT,
        "notice": NOTICE.total_seconds(),
        # Few failures over days are a quiet endpoint's, and may be a few bad hours.
        "fewest": RULES.open_after_failures,
        "limit": MOST_AT_A_TIME,
    }
    with connection.cursor() as cursor:
        cursor.execute(FAILING, parameters)
        return list(cursor.fetchall())


def _disable(endpoint_id: UUID, failing_since: datetime) -> bool:
    endpoint = Endpoint.unscoped.select_related("tenant").filter(id=endpoint_id).first()
    if endpoint is None:
        return False
    with transaction.atomic():
        try:
            disable_endpoint(actor=PLATFORM, endpoint=endpoint, reason=Endpoint.DisabledReason.FAILING)
        except access.NotFound:
            return False
        # A good answer may have come since we looked. (After the tenant's lock, as everybody locks them.)
        if not _still_failing(endpoint, failing_since):
            transaction.set_rollback(True)
            return False
    return True


def _warn(endpoint_id: UUID, failing_since: datetime, *, now: datetime) -> bool:
    known = Endpoint.unscoped.select_related("tenant").filter(id=endpoint_id).first()
    endpoint = None if known is None else endpoints_of(known.tenant).filter(id=endpoint_id).first()
    if endpoint is None:
        return False
    with transaction.atomic():
        if not _still_failing(endpoint, failing_since):
            return False
        Lane.objects.for_tenant(endpoint.tenant_id).filter(endpoint=endpoint).update(warned_at=now)
        at = _disables_at(endpoint, now)
        health.tell(
            endpoint,
            kind=Kind.ENDPOINT_DISABLING,
            is_quiet=not endpoint.lane.is_own_failing,
            disables_at=None if at is None else at.timestamp(),
        )
    return True


def _disables_at(endpoint: Endpoint, now: datetime) -> datetime | None:
    """The earliest that is known, warned as it is now. By number, when it will be that many is not."""
    limits = endpoint.tenant.effective_limits
    most, days = limits["disable_after_failures"], limits["disable_after_days"]
    by_days = health.disables_at(endpoint)
    if most and endpoint.lane.failures >= most:
        return now + NOTICE
    if by_days is None or not days:
        return None
    return max(by_days, now + (1 - WARNED_AT) * timedelta(days=days))


def _still_failing(endpoint: Endpoint, failing_since: datetime) -> bool:
    lane = Lane.objects.for_tenant(endpoint.tenant_id).select_for_update(no_key=True)
    return lane.filter(endpoint=endpoint, failing_since=failing_since, dispatcher_id__isnull=True).exists()
