"""The Celery tasks of jobs: a slice of work at a time, so that the sweeps in the same queue do not wait."""

from uuid import UUID

from celery import shared_task

from deliveries.services import bulk, erasing, exports, forgetting, job_work, overview
from deliveries.services.slices import Progress
from tenants.clock import database_now
from tenants.services.messages import announce

BEHIND_SECONDS = 0.5
"""Between looks at an endpoint that has not caught up. With what may wait for it, ten thousand a second at most."""


@shared_task(name="deliveries.run_job", ignore_result=True)
def run_job(job_id: str) -> str:
    """A slice, then a message for the next one. If that is lost, the sweep finds the job."""
    progress = job_work.work(job_id=UUID(job_id))
    if progress is Progress.AT_ONCE:
        run_job.apply_async((job_id,), retry=False)
    elif progress is Progress.LATER:
        run_job.apply_async((job_id,), countdown=BEHIND_SECONDS, retry=False)
    return progress.value


@shared_task(name="deliveries.continue_jobs", ignore_result=True)
def continue_jobs() -> None:
    """Every 10 s: jobs whose worker is gone, or whose message was lost."""
    for job_id in job_work.stale_jobs():
        announce("deliveries.run_job", str(job_id))
    for bulk_id in bulk.stale():
        announce("deliveries.run_bulk", str(bulk_id))


@shared_task(name="deliveries.run_bulk", ignore_result=True)
def run_bulk(bulk_id: str) -> str:
    """A slice of an operator's action, then a message for the next one, as above."""
    progress = bulk.work(bulk_id=UUID(bulk_id))
    if progress is Progress.AT_ONCE:
        run_bulk.apply_async((bulk_id,), retry=False)
    return progress.value


@shared_task(name="deliveries.sample_metrics", ignore_result=True)
def sample_metrics() -> None:
    """Each minute: the totals, from which the admin's dashboard tells speeds."""
    overview.sample()


@shared_task(name="deliveries.erase_echoes", ignore_result=True)
def erase_echoes() -> None:
    """Every minute: what was in the air while its payload was erased."""
    erasing.erase_echoes()


@shared_task(name="deliveries.expire_exports", ignore_result=True)
def expire_exports() -> None:
    """Each hour: files whose time is over."""
    exports.expire()


@shared_task(name="deliveries.forget_old", ignore_result=True)
def forget_old() -> None:
    """Each day: jobs, operators' actions and versions of settings of long ago."""
    forgetting.forget_old(now=database_now())
