"""Whether there are traces (OpenTelemetry), as the settings have it. Called by whoever publishes, and by the dispatcher's
task."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.conf import settings

from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import NewEvent, Result

if TYPE_CHECKING:
    from deliveries.pipeline.tracing import AttemptTraces, Tracer


def publish(events: Sequence[NewEvent], *, traceparent: str | None) -> list[Result]:
    """As `ingest.publish`. `traceparent`: what the publisher's request said of its trace."""
    if not settings.WEBHOOKS_TRACES:
        return ingest.publish(events)
    return _tracer().publish(events, traceparent=traceparent, run=ingest.publish)


def attempt_traces() -> "AttemptTraces | None":
    """For one dispatcher."""
    if not settings.WEBHOOKS_TRACES:
        return None
    # As below.
    from deliveries.pipeline.tracing import AttemptTraces  # noqa: PLC0415

    return AttemptTraces(_tracer())


def flush() -> None:
    """At the end of a process that has no other way to know of it."""
    if _tracer.cache_info().currsize:
        _tracer().flush()


@functools.cache
def _tracer() -> "Tracer":
    # OpenTelemetry is loaded only where somebody wants traces.
    from deliveries.pipeline.tracing import Tracer  # noqa: PLC0415

    return Tracer()
