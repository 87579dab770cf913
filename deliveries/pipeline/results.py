"""What an answer means for its delivery: the row of its attempt, and whether and when it is tried again. Pure."""

from datetime import UTC, datetime

from deliveries.pipeline.endpoints import EndpointConfig
from deliveries.pipeline.fan_out import OPERATIONAL_PREFIXES
from deliveries.pipeline.lanes import Owed
from deliveries.pipeline.outcome import Outcome, is_final, retry_after_seconds
from deliveries.pipeline.payloads import Payload
from deliveries.pipeline.record import Result
from deliveries.pipeline.request import Flight
from deliveries.pipeline.retry import next_wait
from deliveries.pipeline.transport import Answer
from tenants import ids

PLATFORM_FAULT_WAIT = 5.0
"""Seconds until an attempt that failed by our own fault is made again. It is not a step of the schedule."""


def is_by_hand(owed: Owed) -> bool:
    """Whether this attempt is the one that somebody asked for, and not the one that was due."""
    return owed.manual_requested_at is not None and not owed.is_automatic_due


def result_of(
    flight: Flight, owed: Owed, payload: Payload, answer: Answer, outcome: Outcome, wait: float | None
) -> Result:
    """Of one delivery in the flight. `wait`: seconds until it is tried again, if it was not by hand."""
    lane = flight.lane
    is_good = outcome is Outcome.SUCCEEDED
    is_manual = is_by_hand(owed)
    is_step = not is_manual and not answer.is_platform_fault
    return Result(
        attempt_id=ids.new_id().bytes,
        tenant_id=lane.config.tenant_id,
        delivery_id=owed.id,
        number=owed.attempt_count + 1,
        trigger="manual" if is_manual else owed.trigger,
        started_at=answer.started_at,
        duration_ms=answer.duration_ms,
        dns_ms=answer.dns_ms,
        connect_ms=answer.connect_ms,
        tls_ms=answer.tls_ms,
        first_byte_ms=answer.first_byte_ms,
        outcome=(
            Outcome.INTERNAL_ERROR
            if answer.is_platform_fault and outcome is not Outcome.PROXY_FAILED
            else outcome
        ).value,
        detail=answer.detail,
        status_code=answer.status_code,
        remote_ip=answer.remote_ip,
        request_headers="\n".join(flight.headers + lane.config.masked_lines).encode(),
        response_headers=answer.response_headers,
        response_body=answer.response_body,
        is_truncated=answer.is_truncated,
        read_count=owed.attempt_count,
        is_success=is_good,
        wait_seconds=wait if is_step or answer.is_platform_fault else None,
        is_automatic=is_step,
        is_ended=wait is None if is_step else (is_good and owed.is_automatic_due is not None),
        first_due=owed.due if owed.attempt_count == 0 and not is_manual else None,
        is_exhausted=is_step
        and not is_good
        and wait is None
        and not payload.type.startswith(OPERATIONAL_PREFIXES),
        line=None if owed.ordering_key is None or wait is not None else (lane.endpoint_id, owed.ordering_key),
        manual_seen=None
        if owed.manual_requested_at is None or (answer.is_platform_fault and not is_manual)
        else owed.manual_requested_at.timestamp(),
        group=flight.owed.id if flight.others else None,
    )


def wait_of(
    config: EndpointConfig, owed: Owed, answer: Answer, outcome: Outcome, *, jitter: float
) -> float | None:
    """Seconds until the next automatic attempt after a failure; None: this was the last. `jitter`: 0 to 1."""
    if is_final(outcome, answer.status_code, is_literal_address=config.is_literal_address):
        return None
    retry_after = None
    if answer.status_code is not None:
        retry_after = retry_after_seconds(answer.status_code, answer.response_headers, datetime.now(UTC))
    wait = next_wait(config.retry_schedule, owed.schedule_step, jitter=jitter, retry_after=retry_after)
    return None if wait is None else wait.total_seconds()
