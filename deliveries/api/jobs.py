"""Recover, replay and their jobs: `/tenants/{tenant}/endpoints/{endpoint}/recover`, `…/replay`, `/tenants/{tenant}/jobs`."""

from datetime import datetime
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries import validation
from deliveries.api.deliveries import not_sendable
from deliveries.api.endpoint_shapes import PATTERN
from deliveries.api.endpoints import READ, WRITE, EndpointAPIView
from deliveries.models import Job
from deliveries.services import jobs
from deliveries.services.deliveries import EndpointStopped
from deliveries.services.jobs import JobEnded, JobRunning, Plan, TooManyToCount
from tenants import ids
from tenants.api import fields, problems
from tenants.api.fields import Field, Input, NoBody, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.query import PAGE
from tenants.api.rendering import optional_time_text, time_text
from tenants.api.schema import example, page_of
from tenants.api.views import TenantAPIView

JOB_ID = fields.id_text(ids.JOB)

EXAMPLE: dict[str, Any] = {
    "id": "job_01h455vb4pex5vsknk084sn02q",
    "endpoint": "ep_01h455vb4pex5vsknk084sn02q",
    "kind": "recover",
    "status": "running",
    "error": None,
    "total": 1200,
    "done": 500,
    "created_at": "2026-03-01T12:00:00.000000Z",
    "completed_at": None,
}


@example(EXAMPLE)
class JobOut(Output):
    id = Shown(JOB_ID)
    endpoint = Shown(
        fields.nullable(fields.id_text(ids.ENDPOINT)),
        "null of what works on a list: `retry`, `cancel`, `export`, which people begin in the portal.",
    )
    kind = Shown({"type": "string", "enum": Job.Kind.values})
    status = Shown({"type": "string", "enum": Job.Status.values})
    error = Shown(
        fields.nullable({"type": "string"}),
        "Why it failed: `endpoint_disabled`, `endpoint_deleted`, `tenant_deleted`; of an export `too_large`, "
        "`payload_erased`.",
    )
    total = Shown(
        fields.nullable({"type": "integer", "minimum": 0}),
        "Deliveries that it makes. null for the moment that counting takes, if there are very many.",
    )
    done = Shown({"type": "integer", "minimum": 0}, "Deliveries that it made.")
    created_at = Shown(fields.TIME)
    completed_at = Shown(fields.nullable(fields.TIME))


def job_json(job: Job) -> dict[str, Any]:
    return {
        "id": ids.to_text(ids.JOB, job.id),
        "endpoint": None if job.endpoint_id is None else ids.to_text(ids.ENDPOINT, job.endpoint_id),
        "kind": job.kind,
        "status": job.status,
        "error": job.error or None,
        "total": job.total,
        "done": job.done,
        "created_at": time_text(job.created_at),
        "completed_at": optional_time_text(job.completed_at),
    }


@example({"since": "2026-03-01T00:00:00Z", "until": "2026-03-02T00:00:00Z"})
class RecoverIn(Input):
    since = Field(validation.moment, fields.TIME, required=True, help_text="Created at this time or later.")
    until = Field(
        validation.moment, fields.TIME, help_text="Created before this time. Default, and at most: now."
    )


@example({"since": "2026-03-01T00:00:00Z", "only": "missing", "event_types": ["order.*"], "dry_run": True})
class ReplayIn(RecoverIn):
    event_types = Field(
        lambda value: validation.list_of(value, validation.pattern, low=1, high=validation.MAX_PATTERNS),
        fields.list_of(PATTERN, validation.MAX_PATTERNS, 1),
        help_text="Patterns: only events of these types. Default: all.",
    )
    only = Field(
        lambda value: validation.choice(value, Job.Only.values),
        {"type": "string", "enum": Job.Only.values},
        required=True,
        help_text=(
            "`missing`: matches as the endpoint is now and has no delivery to it, also from before it existed. "
            "`missed`: the same, and what failed or was cancelled by disabling. "
            "`failed`: failed, or was cancelled by disabling, and did not come through since. "
            "`all`: everything that matches as the endpoint is now."
        ),
    )
    dry_run = Field(validation.boolean, fields.BOOLEAN, help_text="Only count.")


@example({"total": 1200})
class Total(Output):
    total = Shown({"type": "integer", "minimum": 0}, "Deliveries that it would make.")


def window(given: dict[str, Any]) -> tuple[datetime, datetime]:
    now = timezone.now()
    since: datetime = given["since"]
    until: datetime = given.get("until") or now
    if until < since:
        field = "until" if given.get("until") else "since"
        says = "Must not be before since." if field == "until" else "Must not be in the future."
        raise problems.invalid([(field, "invalid", says)])
    return since, min(until, now)


# --- views ------------------------------------------------------------------------------------------------------------


class RecoverView(EndpointAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="recover_endpoint",
        summary="Send again what failed",
        tags=["Jobs"],
        request=RecoverIn,
        responses={202: JobOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What was published in the window, failed or was cancelled by disabling, and did not come through since.

        One running job an endpoint: else `409 job_running`, whose detail names it. Erased payloads are left out.
        """
        since, until = window(RecoverIn.read(request))
        plan = Plan(kind=Job.Kind.RECOVER, only=Job.Only.FAILED, since=since, until=until)
        return _started(self, plan)


class ReplayView(EndpointAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="replay_endpoint",
        summary="Send events again, or for the first time",
        tags=["Jobs"],
        request=ReplayIn,
        responses={
            200: OpenApiResponse(Total, description="Of a dry run."),
            202: OpenApiResponse(JobOut, description="The job that does it."),
        },
    )
    @idempotent()
    def post(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """One running job an endpoint: else `409 job_running`, whose detail names it. Erased payloads are left out."""
        given = ReplayIn.read(request)
        since, until = window(given)
        plan = Plan(
            kind=Job.Kind.REPLAY,
            only=Job.Only(given["only"]),
            since=since,
            until=until,
            event_types=given.get("event_types"),
        )
        if not given.get("dry_run"):
            return _started(self, plan)
        try:
            return Response({"total": jobs.count(endpoint=self.endpoint, plan=plan)})
        except EndpointStopped as error:
            raise not_sendable(error) from None
        except TooManyToCount:
            raise problems.invalid(
                [("since", "window_too_large", "There is too much to count. Choose a shorter window.")]
            ) from None


def _started(view: EndpointAPIView, plan: Plan) -> Response:
    try:
        job = jobs.create_job(actor=view.actor, endpoint=view.endpoint, plan=plan)
    except EndpointStopped as error:
        raise not_sendable(error) from None
    except JobRunning as error:
        running = "Another job" if error.job_id is None else ids.to_text(ids.JOB, error.job_id)
        raise problems.conflict("job_running", f"{running} is running for this endpoint.") from None
    return Response(job_json(job), status=202)


class JobsView(TenantAPIView):
    scopes = {"GET": READ}
    parameters = {"GET": PAGE}

    @extend_schema(
        operation_id="list_jobs", summary="List jobs", tags=["Jobs"], responses={200: page_of(JobOut)}
    )
    def get(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first."""
        return page(self.query, jobs.jobs_of(self.tenant), serialize=job_json)


class JobAPIView(TenantAPIView):
    """Below `/tenants/{tenant}/jobs/{job}`."""

    job: Job

    def locate(self, **kwargs: Any) -> None:
        super().locate(**kwargs)
        self.job = jobs.get_job(tenant=self.tenant, reference=kwargs["job"])


class JobView(JobAPIView):
    scopes = {"GET": READ}

    @extend_schema(operation_id="get_job", summary="Get a job", tags=["Jobs"], responses={200: JobOut})
    def get(self, request: Request, tenant: str, job: str) -> Response:  # noqa: ARG002 - DRF's signature
        """How far it is."""
        return Response(job_json(self.job))


class CancelJobView(JobAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="cancel_job",
        summary="Cancel a job",
        tags=["Jobs"],
        request=None,
        responses={200: JobOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, job: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Nothing more is made; the deliveries that were made stay. `409 job_ended`: it runs no more."""
        NoBody.read(request)
        try:
            cancelled = jobs.cancel_job(actor=self.actor, job=self.job)
        except JobEnded:
            raise problems.conflict("job_ended", "The job runs no more.") from None
        return Response(job_json(cancelled))
