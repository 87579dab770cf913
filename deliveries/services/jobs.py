"""Work on much, in the background: events to one endpoint again, or all that a list's filter finds. Called by the API,
the portal and job_tasks.

A job works through events or deliveries in batches. Each batch and the place that it reached are one transaction, so a
worker that is killed loses nothing and repeats nothing; whoever continues begins behind the last batch. The row's lock
keeps two workers from the same batch, and a cancel from coming in its middle.

    create     the row; one running job an endpoint, or JobRunning
    work       a slice of about a second: count if nobody has, then batch after batch, as long as the endpoint keeps up
    continue   by `deliveries/job_tasks.py`: the task sends itself again, and a sweep finds jobs whose worker is gone
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, assert_never
from uuid import UUID

from celery import current_app
from django.db import IntegrityError, connection, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from deliveries.models import Delivery, Endpoint, Job
from deliveries.pipeline.again import Again, deliver_again
from deliveries.pipeline.cancel import cancel
from deliveries.pipeline.fan_out import TenantSettings, fan_out, receivers_of
from deliveries.services import exports, picked, searching
from deliveries.services.deliveries import EndpointStopped, check_sendable
from deliveries.services.exports import Format
from deliveries.services.history import EPOCH, first_key, last_key
from deliveries.services.listing import ListFilter
from deliveries.services.routing import settings_now
from deliveries.validation import pattern_matches
from tenants import access, ids
from tenants.models import Tenant
from tenants.scoping import TenantQuerySet
from tenants.services import audit
from tenants.services.audit import Actor

logger = logging.getLogger(__name__)

BATCH: Final = 500
"""Deliveries looked at in one transaction."""

LOOK: Final = 2_000
"""Events looked at in one transaction. Most are told by their type alone, so it may be more."""

COUNTED_AT_ONCE: Final = 10_000
"""Deliveries or events looked at by one statement that only counts."""

MOST_PENDING: Final = 5_000
"""Deliveries that may wait for the endpoint before a job makes more: what is published now stands behind them."""

SLICE_SECONDS: Final = 1.0
"""How long a task works before it gives way: the sweeps share its queue."""

COUNT_SECONDS: Final = 1.0
"""How long the request that makes a job may count. Beyond it the worker counts."""

DRY_RUN_SECONDS: Final = 20.0
"""How long a dry run may count, within the time that a request has."""

STALE_SECONDS: Final = 30
"""A job that nobody has worked on for so long is taken up by the sweep."""


class JobRunning(Exception):
    """The endpoint has a running job. One at a time."""

    def __init__(self, job_id: UUID | None) -> None:
        """None: it ended in this moment."""
        self.job_id = job_id
        super().__init__("The endpoint has a running job.")


class JobEnded(Exception):
    """It is done, cancelled or failed: there is nothing to cancel."""


class TooManyToCount(Exception):
    """A dry run would take too long. A shorter window does not."""

    def __init__(self, at_least: int) -> None:
        """What was counted until then."""
        self.at_least = at_least
        super().__init__(f"More than {at_least}.")


class Progress(StrEnum):
    """What the caller of `work` should do next."""

    AT_ONCE = "at once"
    """Go on."""
    LATER = "later"
    """Go on when the endpoint has caught up."""
    ENDED = "ended"
    """Nothing is left to do, for this caller."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be sent again. `until` is not in the future, so that a job never meets what it made itself."""

    kind: Job.Kind
    only: Job.Only
    since: datetime
    until: datetime
    event_types: Sequence[str] | None = None


# --- making, finding, ending ------------------------------------------------------------------------------------------


def create_job(*, actor: Actor, endpoint: Endpoint, plan: Plan) -> Job:
    """Raises JobRunning, EndpointStopped."""
    with transaction.atomic():
        check_sendable(tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id)
        try:
            with transaction.atomic():
                job: Job = Job.objects.for_tenant(endpoint.tenant_id).create(
                    tenant_id=endpoint.tenant_id,
                    endpoint=endpoint,
                    kind=plan.kind,
                    only=plan.only,
                    event_types=plan.event_types,
                    since=plan.since,
                    until=plan.until,
                )
        except IntegrityError:
            running = jobs_of(endpoint.tenant_id).filter(endpoint=endpoint, status=Job.Status.RUNNING)
            raise JobRunning(running.values_list("id", flat=True).first()) from None
        # What it missed while it was disabled is taken care of.
        Endpoint.objects.for_tenant(endpoint.tenant_id).filter(
            id=endpoint.id, missed_since__gte=plan.since
        ).update(missed_since=None)
        job.refresh_from_db()
        with suppress(TooManyToCount):
            job.total = _counted(job, seconds=COUNT_SECONDS)
            job.save(update_fields=["total"])
        audit.record(
            actor=actor,
            tenant=endpoint.tenant_id,
            action=f"endpoint.{'recovered' if plan.kind == Job.Kind.RECOVER else 'replayed'}",
            target=ids.to_text(ids.ENDPOINT, endpoint.id),
            after={
                "job": ids.to_text(ids.JOB, job.id),
                "only": plan.only.value,
                "since": plan.since.isoformat(),
                "until": plan.until.isoformat(),
            },
        )
        transaction.on_commit(lambda: announce(job.id))
    return job


def announce(job_id: UUID) -> None:
    """Start a worker on it. A hint: without a broker the sweep does."""
    try:
        current_app.send_task("deliveries.run_job", [str(job_id)], queue="celery", retry=False)
    except Exception as error:  # noqa: BLE001 - whatever the broker's client raises
        logger.warning("job not announced", extra={"job_id": str(job_id), "error": type(error).__name__})


def create_list_job(
    *,
    actor: Actor,
    tenant: Tenant,
    kind: Job.Kind,
    wanted: ListFilter,
    now: datetime,
    form: Format | None = None,
) -> Job:
    """Try again, cancel or export everything that the filter finds. `form`: of an export.

    What is made from now on is not in it. One running job of a kind: else JobRunning.
    """
    wanted = wanted.before(now)
    stored = wanted.to_json() | ({} if form is None else {"format": form.value})
    with transaction.atomic():
        try:
            with transaction.atomic():
                job: Job = Job.objects.for_tenant(tenant).create(
                    tenant_id=tenant.id,
                    kind=kind,
                    only=Job.Only.ALL,
                    filter=stored,
                    since=wanted.since or EPOCH,
                    until=wanted.until,
                )
        except IntegrityError:
            running = jobs_of(tenant).filter(kind=kind, endpoint__isnull=True, status=Job.Status.RUNNING)
            raise JobRunning(running.values_list("id", flat=True).first()) from None
        job.refresh_from_db()
        audit.record(
            actor=actor,
            tenant=tenant,
            action=f"{wanted.kind.value}.{DONE_WITH[kind]}",
            target=ids.to_text(ids.JOB, job.id),
            after={"filter": stored},
        )
        transaction.on_commit(lambda: announce(job.id))
    return job


DONE_WITH: Final = {
    Job.Kind.RETRY: "retried",
    Job.Kind.CANCEL: "cancelled",
    Job.Kind.EXPORT: "exported",
}
"""What the audit log calls it."""


def count(*, endpoint: Endpoint, plan: Plan, seconds: float | None = None) -> int:
    """How many deliveries a job would make now. Raises TooManyToCount, EndpointStopped."""
    check_sendable(tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id)
    job = Job(
        tenant_id=endpoint.tenant_id,
        endpoint=endpoint,
        kind=plan.kind,
        only=plan.only,
        event_types=plan.event_types,
        since=plan.since,
        until=plan.until,
    )
    return _counted(job, seconds=DRY_RUN_SECONDS if seconds is None else seconds)


def jobs_of(tenant: Tenant | UUID) -> "TenantQuerySet[Job]":
    return Job.objects.for_tenant(tenant)


def get_job(*, tenant: Tenant, reference: str) -> Job:
    """Raises access.NotFound, without a query for what is no id."""
    try:
        job_id = ids.from_text(ids.JOB, reference)
    except ids.InvalidId:
        raise access.NotFound from None
    job = jobs_of(tenant).filter(id=job_id).first()
    if job is None:
        raise access.NotFound
    return job


def cancel_job(*, actor: Actor, job: Job) -> Job:
    """Nothing more is made; what was made stays. Waits for the batch under way. Raises JobEnded."""
    with transaction.atomic():
        ended = (
            jobs_of(job.tenant_id)
            .filter(id=job.id, status=Job.Status.RUNNING)
            .update(status=Job.Status.CANCELLED, completed_at=Now())
        )
        if not ended:
            raise JobEnded
        audit.record(
            actor=actor, tenant=job.tenant_id, action="job.cancelled", target=ids.to_text(ids.JOB, job.id)
        )
    job.refresh_from_db()
    return job


# --- the work ---------------------------------------------------------------------------------------------------------


def work(*, job_id: UUID, seconds: float = SLICE_SECONDS) -> Progress:
    """A slice of the job. Can be called by anybody, at any time, for any job."""
    until = time.monotonic() + seconds
    progress = _count_first(job_id)
    while progress is Progress.AT_ONCE:
        progress = _batch(job_id)
        if time.monotonic() >= until:
            break
    return progress


def stale_jobs() -> list[UUID]:
    """Running, and nobody works on them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM deliveries_job WHERE status = 'running'"
            " AND heartbeat_at < now() - make_interval(secs => %s) ORDER BY heartbeat_at LIMIT 100",
            [STALE_SECONDS],
        )
        return [row[0] for row in cursor.fetchall()]


def _count_first(job_id: UUID) -> Progress:
    """Without a lock: counting may take long, and a second count does no harm."""
    job = _job(job_id)
    if job is None or job.status != Job.Status.RUNNING:
        return Progress.ENDED
    if job.total is None and not _is_search(job):
        beat = time.monotonic()
        total = 0
        for number in _numbers(job):
            total += number
            if time.monotonic() - beat > STALE_SECONDS / 6:
                beat = time.monotonic()
                if not _running(job_id).update(heartbeat_at=Now()):
                    return Progress.ENDED
        _running(job_id).filter(total__isnull=True).update(total=total, heartbeat_at=Now())
    return Progress.AT_ONCE


def _is_search(job: Job) -> bool:
    """To count what a search finds is as much work as to do it."""
    return job.filter is not None and "text" in job.filter


def _numbers(job: Job) -> Iterator[int]:
    """Of what the job has before it, part by part."""
    if job.filter is None:
        yield from (len(batch.again) for batch in _walk(job, from_the_start=True))
        return
    rows = _filter_of(job).rows(job.tenant)
    after: UUID | None = None
    while True:
        beyond = rows if after is None else rows.filter(id__gt=after)
        keys = list(beyond.order_by("id").values_list("id", flat=True)[:COUNTED_AT_ONCE])
        if not keys:
            return
        yield len(keys)
        after = keys[-1]


def _filter_of(job: Job) -> ListFilter:
    assert job.filter is not None
    return ListFilter.from_json({name: value for name, value in job.filter.items() if name != "format"})


def _job(job_id: UUID) -> Job | None:
    job: Job | None = Job.unscoped.filter(id=job_id).select_related("endpoint", "tenant").first()
    return job


def _lock(job_id: UUID) -> Job | None:
    """For the transaction. None: another has it."""
    rows = Job.unscoped.select_for_update(skip_locked=True, of=("self",)).filter(id=job_id)
    job: Job | None = rows.select_related("endpoint", "tenant").first()
    return job


def _running(job_id: UUID) -> "QuerySet[Job]":
    return Job.unscoped.filter(id=job_id, status=Job.Status.RUNNING)


def _batch(job_id: UUID) -> Progress:
    """One transaction: look at the next rows, do with them what is wanted, write how far it came."""
    with transaction.atomic():
        job = _lock(job_id)
        if job is None:
            # Another works on it and goes on by itself, or it is gone.
            return Progress.ENDED
        if job.status != Job.Status.RUNNING:
            return Progress.ENDED
        if job.tenant.deleted_at is not None:
            return _fail(job, "tenant_deleted")
        kind = Job.Kind(job.kind)
        match kind:
            case Job.Kind.RECOVER | Job.Kind.REPLAY:
                return _send_again(job)
            case Job.Kind.RETRY:
                return _retry(job)
            case Job.Kind.CANCEL:
                return _cancel(job)
            case Job.Kind.EXPORT:
                return _export(job)
            case _:
                assert_never(kind)


def _send_again(job: Job) -> Progress:
    assert job.endpoint_id is not None
    try:
        check_sendable(tenant_id=job.tenant_id, endpoint_id=job.endpoint_id)
    except EndpointStopped as stopped:
        return _fail(job, "endpoint_deleted" if stopped.is_deleted else "endpoint_disabled")
    if _is_behind(job.endpoint_id):
        return _wait(job)
    batch = next(_walk(job), None)
    if batch is None:
        return _end(job, Job.Status.DONE)
    made = deliver_again(tenant_id=job.tenant_id, again=batch.again, trigger=Delivery.Trigger.REPLAY)
    return _go_on(job, batch.cursor, len(made))


def _retry(job: Job) -> Progress:
    stretch = searching.walk(job.tenant, _filter_of(job), after=job.cursor, most=BATCH)
    if stretch is None:
        return _end(job, Job.Status.DONE)
    if any(_is_behind(endpoint_id) for endpoint_id in {row.endpoint_id for row in stretch.rows}):
        return _wait(job)
    done = picked.retry_batch(tenant_id=job.tenant_id, rows=stretch.rows, now=timezone.now())
    return _go_on(job, stretch.reached, done.changed)


def _cancel(job: Job) -> Progress:
    stretch = searching.walk(job.tenant, _filter_of(job), after=job.cursor, most=BATCH)
    if stretch is None:
        return _end(job, Job.Status.DONE)
    wanted = [row.id for row in stretch.rows]
    ended = cancel(tenant_id=job.tenant_id, delivery_ids=wanted, reason=Delivery.CancelReason.REQUESTED)
    return _go_on(job, stretch.reached, len(ended))


def _export(job: Job) -> Progress:
    assert job.filter is not None
    stretch = exports.add_part(job, _filter_of(job), Format(job.filter["format"]))
    if stretch is None:
        job.expires_at = timezone.now() + exports.KEPT
        job.save(update_fields=["expires_at"])
        return _end(job, Job.Status.DONE)
    if exports.is_too_large(job):
        return _fail(job, "too_large")
    return _go_on(job, stretch.reached, len(stretch.rows))


def _go_on(job: Job, cursor: UUID, done: int) -> Progress:
    _running(job.id).update(cursor=cursor, done=F("done") + done, heartbeat_at=Now())
    return Progress.AT_ONCE


def _wait(job: Job) -> Progress:
    _running(job.id).update(heartbeat_at=Now())
    return Progress.LATER


def _fail(job: Job, error: str) -> Progress:
    job.error = error
    return _end(job, Job.Status.FAILED)


def _end(job: Job, status: Job.Status) -> Progress:
    job.status = status
    # What was counted may have changed since: erased, or delivered otherwise.
    job.total = job.done if status == Job.Status.DONE else job.total
    job.completed_at = Now()
    job.save(update_fields=["status", "error", "total", "completed_at"])
    return Progress.ENDED


# What is due, and what waits in order for it. Each part ends after as many as matter.
WAITING = """
SELECT (SELECT count(*) FROM (
            SELECT FROM deliveries_delivery d WHERE d.endpoint_id = %(endpoint)s
            AND (d.status = 'pending' OR d.manual_requested_at IS NOT NULL)
            AND LEAST(d.next_attempt_at, d.manual_requested_at) <= now() LIMIT %(most)s) due)
     + (SELECT count(*) FROM (
            SELECT FROM deliveries_delivery d WHERE d.endpoint_id = %(endpoint)s
            AND (d.status = 'pending' OR d.manual_requested_at IS NOT NULL)
            AND LEAST(d.next_attempt_at, d.manual_requested_at) IS NULL LIMIT %(most)s) blocked)
"""


def _is_behind(endpoint_id: UUID) -> bool:
    """Whether the endpoint has as much waiting as a job may put before what is published now."""
    with connection.cursor() as cursor:
        cursor.execute(WAITING, {"endpoint": endpoint_id, "most": MOST_PENDING})
        row = cursor.fetchone()
    return bool(row and row[0] >= MOST_PENDING)


# --- what is to be sent -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    cursor: UUID
    """The last key that was looked at."""
    again: list[Again]


def _counted(job: Job, *, seconds: float) -> int:
    """Raises TooManyToCount."""
    until = time.monotonic() + seconds
    total = 0
    for batch in _walk(job, from_the_start=True):
        total += len(batch.again)
        if time.monotonic() > until:
            raise TooManyToCount(total)
    return total


def _walk(job: Job, *, from_the_start: bool = False) -> Iterator[Batch]:
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
    return [
        Again(
            event_id=event.id,
            endpoint_id=UUID(bytes=target.endpoint_id),
            subscription_id=None if target.subscription_id is None else UUID(bytes=target.subscription_id),
            body=target.body,
            error=target.error,
        )
        for target in targets
    ]


def _is_of_type(job: Job, event_type: str) -> bool:
    return job.event_types is None or any(pattern_matches(each, event_type) for each in job.event_types)
