"""What a recovery or a replay sends again: read batch after batch, the oldest first. Changes nothing.

Called by `jobs`, which counts it, and by `job_work`, which sends it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection

from deliveries.models import Job
from deliveries.pipeline.again import Again
from deliveries.pipeline.fan_out import TenantSettings, fan_out, receivers_of
from deliveries.services.history import first_key, last_key
from deliveries.services.routing import owed, settings_now
from deliveries.validation import pattern_matches

BATCH: Final = 500
"""Deliveries looked at in one transaction."""

LOOK: Final = 2_000
"""Events looked at in one transaction. Most are told by their type alone, so it may be more."""

COUNTED_AT_ONCE: Final = 10_000
"""Deliveries or events looked at by one statement that only counts."""


@dataclass(frozen=True, slots=True)
class Batch:
    cursor: UUID
    """The last key that was looked at."""
    again: list[Again]


def walk(job: Job, *, from_the_start: bool = False) -> Iterator[Batch]:
    """What the job has before it, batch by batch, the oldest first."""
    low = first_key(job.since)
    cursor = low if from_the_start or job.cursor is None else job.cursor
    settings = settings_now(job.tenant, endpoint=job.endpoint)
    most = COUNTED_AT_ONCE if from_the_start else BATCH
    look = COUNTED_AT_ONCE if from_the_start else LOOK
    while True:
        batch = (
            _failed(job, settings, cursor, most=most)
            if job.only == Job.Only.FAILED
            else _matching(job, settings, cursor, most=most, look=look)
        )
        if batch is None:
            return
        yield batch
        cursor = batch.cursor


# Deliveries that failed and whose event did not reach the endpoint otherwise since. Of several of one event, the last
# in the window stands for all. Tests are nobody's loss.
FAILED = """
SELECT d.id, d.event_id, d.subscription_id, d.body, d.preparation_error, d.event_type,
       d.trigger <> 'test'
       AND d.created_at >= %(since)s AND d.created_at < %(until)s
       AND (d.status = 'failed' OR d.cancel_reason = 'endpoint_disabled')
       AND NOT EXISTS (
           SELECT FROM deliveries_delivery other
           WHERE other.event_id = d.event_id AND other.endpoint_id = d.endpoint_id AND other.id <> d.id
             AND other.id > d.event_id  -- older partitions are not looked at
             AND (other.status IN ('pending', 'succeeded')
                  OR (other.id > d.id AND other.id <= %(last)s AND other.created_at < %(until)s
                      AND (other.status = 'failed' OR other.cancel_reason = 'endpoint_disabled')))
       )
FROM deliveries_delivery d
WHERE d.tenant_id = %(tenant)s AND d.endpoint_id = %(endpoint)s AND d.status IN ('failed', 'cancelled')
  AND d.id > %(cursor)s AND d.id <= %(last)s
ORDER BY d.id LIMIT %(batch)s
"""


def _failed(job: Job, settings: TenantSettings, cursor: UUID, *, most: int) -> Batch | None:
    with connection.cursor() as database:
        database.execute(
            FAILED,
            {
                "tenant": job.tenant_id,
                "endpoint": job.endpoint_id,
                "since": job.since,
                "until": job.until,
                "cursor": cursor,
                "last": last_key(job.until),
                "batch": most,
            },
        )
        rows = database.fetchall()
    if not rows:
        return None
    assert job.endpoint_id is not None
    again = []
    broken = []
    for _, event_id, subscription_id, body, error, event_type, is_wanted in rows:
        if not is_wanted or not _is_of_type(job, event_type):
            continue
        if error is not None:
            broken.append(event_id)
        stored = None if body is None else bytes(body)
        again.append(Again(event_id, job.endpoint_id, subscription_id, stored, error))
    sendable = _events(job.tenant_id, [one.event_id for one in again], with_data=broken)
    again = [_mended(one, settings, sendable) for one in again if one.event_id in sendable]
    return Batch(rows[-1][0], again)


def _mended(one: Again, settings: TenantSettings, events: "dict[UUID, _Event]") -> Again:
    """What a transformation failed on is transformed as the endpoint is now; everything else is sent as it was owed."""
    if one.error is None:
        return one
    targets = _targets(settings, events[one.event_id])
    return targets[0] if targets else one


# Events of the window. Scheduled ones whose time has not come are not missing yet.
EVENTS = """
SELECT e.id, e.type, e.channels, e.occurred_at,
       e.created_at >= %(since)s AND e.created_at < %(until)s AND e.data IS NOT NULL
       AND (e.deliver_at IS NULL OR e.deliver_at <= now())
FROM deliveries_event e
WHERE e.tenant_id = %(tenant)s AND e.id > %(cursor)s AND e.id <= %(last)s
ORDER BY e.id LIMIT %(look)s
"""

# Of these events: those that have a delivery to the endpoint, and those that were tests, of whatever endpoint. For what
# was missed, a delivery that failed or was cancelled by stopping the endpoint is none.
HANDLED = """
SELECT d.event_id,
       bool_or(d.endpoint_id = %(endpoint)s
               AND (%(only)s <> 'missed' OR d.status IN ('pending', 'succeeded')
                    OR d.cancel_reason NOT IN ('endpoint_disabled', 'endpoint_deleted'))),
       bool_or(d.trigger = 'test')
FROM deliveries_delivery d
WHERE d.event_id = ANY(%(events)s) AND d.tenant_id = %(tenant)s AND d.id >= %(first)s
  AND (d.endpoint_id = %(endpoint)s OR d.trigger = 'test')
GROUP BY d.event_id
"""


def _matching(job: Job, settings: TenantSettings, cursor: UUID, *, most: int, look: int) -> Batch | None:
    """Everything that matches as the endpoint is now, or what of it never came."""
    parameters: dict[str, Any] = {
        "tenant": job.tenant_id,
        "endpoint": job.endpoint_id,
        "since": job.since,
        "until": job.until,
        "cursor": cursor,
        "last": last_key(job.until),
        "look": look,
        "only": job.only,
    }
    with connection.cursor() as database:
        database.execute(EVENTS, parameters)
        rows = database.fetchall()
        if not rows:
            return None
        reached = rows[-1][0]
        candidates = {
            row[0]: _Event(*row[:4])
            for row in rows
            if row[4] and _is_of_type(job, row[1]) and receivers_of(settings, row[1])
        }
        if len(candidates) > most:
            # No more than a batch at once: the next one begins behind it.
            candidates = dict(list(candidates.items())[:most])
            reached = list(candidates)[-1]
        if candidates:
            database.execute(
                HANDLED,
                parameters | {"events": list(candidates), "first": min(candidates)},
            )
            for event_id, has_delivery, is_test in database.fetchall():
                if is_test or (has_delivery and job.only != Job.Only.ALL):
                    del candidates[event_id]
    if _needs_data(settings):
        candidates = _events(job.tenant_id, list(candidates), with_data=list(candidates))
    again = [again for event in candidates.values() for again in _targets(settings, event)]
    return Batch(reached, again)


@dataclass(frozen=True, slots=True)
class _Event:
    """What routing looks at."""

    id: UUID
    type: str
    channels: list[str] | None
    occurred_at: datetime
    data: bytes = b"{}"


def _needs_data(settings: TenantSettings) -> bool:
    """Whether a filter or a transformation looks into payloads. They are not read otherwise."""
    routes = [route for receiver in settings.receivers for route in receiver.routes]
    return any(route.filter is not None or route.transformation is not None for route in routes)


def _events(tenant_id: UUID, event_ids: Sequence[UUID], *, with_data: Sequence[UUID]) -> dict[UUID, _Event]:
    """Those of them that have a payload, in the order of their keys; it is read for some."""
    if not event_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, type, channels, occurred_at, CASE WHEN id = ANY(%s) THEN data ELSE '{}' END"
            " FROM deliveries_event WHERE id = ANY(%s) AND tenant_id = %s AND data IS NOT NULL ORDER BY id",
            [list(with_data), list(event_ids), tenant_id],
        )
        return {row[0]: _Event(row[0], row[1], row[2], row[3], bytes(row[4])) for row in cursor.fetchall()}


def _targets(settings: TenantSettings, event: _Event) -> list[Again]:
    targets = fan_out(
        settings,
        event_type=event.type,
        data=event.data,
        channels=event.channels,
        occurred_at=event.occurred_at,
    )
    return owed(event.id, targets)


def _is_of_type(job: Job, event_type: str) -> bool:
    return job.event_types is None or any(pattern_matches(each, event_type) for each in job.event_types)
