"""The Celery tasks of jobs: a slice of work at a time, so that the sweeps in the same queue do not wait."""

from uuid import UUID

from celery import shared_task

from deliveries.services import erasing, jobs
from deliveries.services.jobs import Progress

BEHIND_SECONDS = 0.5
"""Between looks at an endpoint that has not caught up. With what may wait for it, ten thousand a second at most."""


@shared_task(name="deliveries.run_job", ignore_result=True)
def run_job(job_id: str) -> str:
    """A slice, then a message for the next one. If that is lost, the sweep finds the job."""
    progress = jobs.work(job_id=UUID(job_id))
    if progress is Progress.AT_ONCE:
        run_job.apply_async((job_id,), retry=False)
    elif progress is Progress.LATER:
        run_job.apply_async((job_id,), countdown=BEHIND_SECONDS, retry=False)
    return progress.value


@shared_task(name="deliveries.continue_jobs", ignore_result=True)
def continue_jobs() -> None:
    """Every 10 s: jobs whose worker is gone, or whose message was lost."""
    for job_id in jobs.stale_jobs():
        jobs.announce(job_id)


@shared_task(name="deliveries.erase_echoes", ignore_result=True)
def erase_echoes() -> None:
    """Every minute: what was in the air while its payload was erased."""
    erasing.erase_echoes()
