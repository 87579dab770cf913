"""`GET /tenants/{tenant}/endpoints/{endpoint}/stats`."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries.api.endpoints import READ, EndpointAPIView
from deliveries.services import stats
from deliveries.services.stats import Bucket, Counts, TooManyBuckets
from tenants.api import fields, problems, query
from tenants.api.fields import Output, Shown
from tenants.api.query import SINCE, UNTIL, Parameter, check_window
from tenants.api.rendering import optional_time_text, time_text
from tenants.api.schema import example

DEFAULT_WINDOW = timedelta(hours=24)
BEGINNING = datetime.min.replace(tzinfo=UTC)
"""Of the calendar."""

COUNTS_EXAMPLE: dict[str, Any] = {
    "succeeded": 118,
    "failed": 1,
    "cancelled": 0,
    "attempts": 124,
    "latency_ms": {"p50": 41.2, "p95": 187.0, "p99": 411.9},
}
BUCKET_EXAMPLE: dict[str, Any] = {"start": "2026-03-01T12:00:00.000000Z", **COUNTS_EXAMPLE}

NUMBER: fields.AnySchema = {"type": "integer", "minimum": 0}
MILLISECONDS = fields.nullable({"type": "number", "minimum": 0})


class LatencyOut(Output):
    p50 = Shown(MILLISECONDS, "null, as the others, if there was no attempt.")
    p95 = Shown(MILLISECONDS)
    p99 = Shown(MILLISECONDS)


@example(COUNTS_EXAMPLE)
class StatsCounts(Output):
    succeeded = Shown(NUMBER, "Deliveries created in this time, as they stand now.")
    failed = Shown(NUMBER)
    cancelled = Shown(NUMBER)
    attempts = Shown(NUMBER, "Of these deliveries.")
    latency_ms = LatencyOut(
        help_text="Duration of their attempts, to within 4 % where it is more than a few minutes ago."
    )


@example(BUCKET_EXAMPLE)
class StatsBucket(StatsCounts):
    start = Shown(fields.TIME)


@example(
    {
        "data": [BUCKET_EXAMPLE],
        "totals": COUNTS_EXAMPLE,
        "pending": 4,
        "oldest_pending_at": "2026-03-01T12:31:09.120000Z",
    }
)
class StatsOut(Output):
    data = StatsBucket(  # type: ignore[assignment] # a field of ours, which DRF takes out of the class
        many=True, help_text="Every bucket, the oldest first, those without deliveries too."
    )
    totals = StatsCounts()
    pending = Shown(NUMBER, "Now, whatever the window.")
    oldest_pending_at = Shown(fields.nullable(fields.TIME))


def counts_json(counts: Counts) -> dict[str, Any]:
    p50, p95, p99 = counts.latency_ms
    return {
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "attempts": counts.attempts,
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
    }


class StatsView(EndpointAPIView):
    scopes = {"GET": READ}
    parameters = {
        "GET": (
            SINCE,
            UNTIL,
            Parameter(
                "bucket",
                query.choice(*Bucket),
                "Width of a bucket, in UTC.",
                {"type": "string", "enum": [bucket.value for bucket in Bucket], "default": "hour"},
                default=Bucket.HOUR.value,
            ),
        )
    }

    @extend_schema(
        operation_id="get_endpoint_stats",
        summary="Get the statistics of an endpoint",
        tags=["Endpoints"],
        responses={200: StatsOut},
    )
    def get(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Counted when asked. The last 24 hours, if nothing else is said."""
        since, until = check_window(self.query)
        until = until or timezone.now()
        since = since or until - min(DEFAULT_WINDOW, until - BEGINNING)
        if since > until:
            raise problems.invalid([("since", "invalid", "Must not be in the future without until.")])
        try:
            found = stats.endpoint_stats(
                endpoint=self.endpoint, since=since, until=until, bucket=Bucket(self.query["bucket"])
            )
        except TooManyBuckets:
            raise problems.invalid(
                [("bucket", "too_many", f"The window may have at most {stats.MOST_BUCKETS} of them.")]
            ) from None
        return Response(
            {
                "data": [
                    {"start": time_text(start), **counts_json(counts)} for start, counts in found.buckets
                ],
                "totals": counts_json(found.totals),
                "pending": found.pending,
                "oldest_pending_at": optional_time_text(found.oldest_pending_at),
            }
        )
