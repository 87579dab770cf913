"""What a batch adds to the histograms: how long first attempts waited, and how long deliveries took to their end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deliveries.pipeline import tally
from deliveries.pipeline.record import Result
from tenants.ids import Minter, new_id

ACCEPTED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def result(*, began: float, duration_ms: float, **fields: Any) -> Result:
    """Of a delivery that was accepted at noon; the attempt began so many seconds later by the database's clock."""
    values: dict[str, Any] = {
        "attempt_id": new_id().bytes,
        "tenant_id": new_id().bytes,
        "delivery_id": Minter(int(ACCEPTED.timestamp() * 1_000_000)).next().bytes,
        "number": 1,
        "trigger": "automatic",
        "started_at": ACCEPTED.timestamp() + began - CLOCK_OFFSET,
        "duration_ms": duration_ms,
        "dns_ms": None,
        "connect_ms": None,
        "tls_ms": None,
        "first_byte_ms": None,
        "outcome": "succeeded",
        "detail": "",
        "status_code": 200,
        "remote_ip": None,
        "request_headers": b"",
        "response_headers": b"",
        "response_body": b"",
        "is_truncated": False,
        "read_count": 0,
        "is_success": True,
        "wait_seconds": None,
        "is_automatic": True,
        "manual_seen": None,
    }
    return Result(**(values | fields))


CLOCK_OFFSET = 3.0
"""The database's clock goes ahead of ours."""


@pytest.mark.parametrize(
    ("what", "waits", "whole"),
    [
        pytest.param(
            {"began": 0.5, "duration_ms": 250.0, "first_due": ACCEPTED, "is_ended": True},
            [0.5],
            [0.75],
            id="succeeded at once",
        ),
        pytest.param(
            {"began": 0.5, "duration_ms": 250.0, "first_due": ACCEPTED}, [0.5], [], id="is tried again"
        ),
        pytest.param(
            {"began": 7200.0, "duration_ms": 1500.0, "is_ended": True, "read_count": 4},
            [],
            [7201.5],
            id="ended by a later attempt",
        ),
        pytest.param({"began": 7200.0, "duration_ms": 1500.0, "read_count": 4}, [], [], id="neither"),
        pytest.param(
            {
                "began": 86_401.0,
                "duration_ms": 500.0,
                "first_due": ACCEPTED + timedelta(days=1),
                "is_ended": True,
            },
            [1.0],
            [1.5],
            id="was to wait for a day",
        ),
    ],
)
def test_times_run_from_acceptance_to_the_first_attempt_and_to_the_end(
    what: dict[str, Any], waits: list[float], whole: list[float]
) -> None:
    first, end = tally._latencies([result(**what)], CLOCK_OFFSET)

    assert first == pytest.approx(waits, abs=0.001)
    assert end == pytest.approx(whole, abs=0.001)
