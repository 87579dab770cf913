"""The work of jobs, and what it does to their rows. Called by `deliveries/job_tasks.py`.

Each batch and the place that it reached are one transaction, so a worker that is killed loses nothing and repeats
nothing; whoever continues begins behind the last batch. The row's lock keeps two workers from the same batch, and a
cancel from coming in its middle.

    work       a slice of about a second: count if nobody has, then batch after batch, as long as the endpoint keeps up
    continue   the task sends itself again, and a sweep finds jobs whose worker is gone
"""

import time
from collections.abc import Iterator
from typing import Final, assert_never
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from deliveries.models import Delivery, Job
from deliveries.pipeline.again import deliver_again
from deliveries.pipeline.cancel import cancel
from deliveries.services import exports, picked, resending, searching, slices
from deliveries.services.deliveries import EndpointStopped, check_sendable
from deliveries.services.exports import Format
from deliveries.services.listing import ListFilter
from deliveries.services.slices import SLICE_SECONDS, Progress
from tenants.clock import database_now

MOST_PENDING: Final = 5_000
"""Deliveries that may wait for the endpoint before a job makes more: what is published now stands behind them."""


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
    return slices.stale(Job.unscoped.all())


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
            if time.monotonic() - beat > slices.STALE_SECONDS / 6:
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
        yield from (len(batch.again) for batch in resending.walk(job, from_the_start=True))
        return
    rows = _filter_of(job).rows(job.tenant)
    after: UUID | None = None
    while True:
        beyond = rows if after is None else rows.filter(id__gt=after)
        keys = list(beyond.order_by("id").values_list("id", flat=True)[: resending.COUNTED_AT_ONCE])
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
    batch = next(resending.walk(job), None)
    if batch is None:
        return _end(job, Job.Status.DONE)
    made = deliver_again(tenant_id=job.tenant_id, again=batch.again, trigger=Delivery.Trigger.REPLAY)
    return _go_on(job, batch.cursor, len(made))


def _retry(job: Job) -> Progress:
    stretch = searching.walk(job.tenant, _filter_of(job), after=job.cursor, most=resending.BATCH)
    if stretch is None:
        return _end(job, Job.Status.DONE)
    if any(_is_behind(endpoint_id) for endpoint_id in {row.endpoint_id for row in stretch.rows}):
        return _wait(job)
    done = picked.retry_batch(tenant_id=job.tenant_id, rows=stretch.rows, now=database_now())
    return _go_on(job, stretch.reached, done.changed)


def _cancel(job: Job) -> Progress:
    stretch = searching.walk(job.tenant, _filter_of(job), after=job.cursor, most=resending.BATCH)
    if stretch is None:
        return _end(job, Job.Status.DONE)
    wanted = [row.id for row in stretch.rows]
    ended = cancel(tenant_id=job.tenant_id, delivery_ids=wanted, reason=Delivery.CancelReason.REQUESTED)
    return _go_on(job, stretch.reached, len(ended))


def _export(job: Job) -> Progress:
    assert job.filter is not None
    stretch = exports.add_part(job, _filter_of(job), Format(job.filter["format"]))
    if stretch is None:
        job.expires_at = database_now() + exports.KEPT
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
