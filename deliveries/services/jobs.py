"""Jobs: work on much, in the background. Events to one endpoint again, or all that a list's filter finds.

Called by the API, the portal and the actions of operators. A job is a row; one is running at a time for an endpoint, and
one of each kind for a list. `job_work` does it, batch after batch; `resending` says what is to be sent again.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from deliveries.models import Endpoint, Job
from deliveries.services.deliveries import check_sendable
from deliveries.services.exports import Format
from deliveries.services.history import EPOCH
from deliveries.services.listing import ListFilter
from deliveries.services.resending import walk
from tenants import access, ids
from tenants.models import Tenant
from tenants.scoping import TenantQuerySet
from tenants.services import audit
from tenants.services.audit import Actor
from tenants.services.messages import announce

COUNT_SECONDS: Final = 1.0
"""How long the request that makes a job may count. Beyond it the worker counts."""

DRY_RUN_SECONDS: Final = 20.0
"""How long a dry run may count, within the time that a request has."""


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


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be sent again. `until` is not in the future, so that a job never meets what it made itself."""

    kind: Job.Kind
    only: Job.Only
    since: datetime
    until: datetime
    event_types: Sequence[str] | None = None

    @property
    def sends_what_was_missed(self) -> bool:
        """What was published while the endpoint was disabled made no deliveries, so that none of it failed."""
        return self.only != Job.Only.FAILED and not self.event_types


def create_job(*, actor: Actor, endpoint: Endpoint, plan: Plan) -> Job:
    """Raises JobRunning, EndpointStopped."""
    with transaction.atomic():
        check_sendable(tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id)
        try:
            with transaction.atomic():
                job = _planned(endpoint, plan)
                job.save(force_insert=True)
        except IntegrityError:
            running = jobs_of(endpoint.tenant_id).filter(endpoint=endpoint, status=Job.Status.RUNNING)
            raise JobRunning(running.values_list("id", flat=True).first()) from None
        if plan.sends_what_was_missed:
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
        transaction.on_commit(lambda: announce("deliveries.run_job", str(job.id)))
    return job


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
        transaction.on_commit(lambda: announce("deliveries.run_job", str(job.id)))
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
    return _counted(_planned(endpoint, plan), seconds=DRY_RUN_SECONDS if seconds is None else seconds)


def _planned(endpoint: Endpoint, plan: Plan) -> Job:
    return Job(
        tenant_id=endpoint.tenant_id,
        endpoint=endpoint,
        kind=plan.kind,
        only=plan.only,
        event_types=plan.event_types,
        since=plan.since,
        until=plan.until,
    )


def _counted(job: Job, *, seconds: float) -> int:
    """Raises TooManyToCount."""
    until = time.monotonic() + seconds
    total = 0
    for batch in walk(job, from_the_start=True):
        total += len(batch.again)
        if time.monotonic() > until:
            raise TooManyToCount(total)
    return total


def jobs_of(tenant: Tenant | UUID) -> "TenantQuerySet[Job]":
    return Job.objects.for_tenant(tenant)


def get_job(*, tenant: Tenant, reference: str) -> Job:
    """Raises access.NotFound, without a query for what is no id."""
    return access.find(jobs_of(tenant), ids.JOB, reference)


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
