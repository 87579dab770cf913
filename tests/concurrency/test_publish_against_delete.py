"""A publisher reads the settings, an endpoint is deleted, the publisher commits: nothing of it stays pending for ever.

Seen in a prototype: services ended what was pending when they deleted, and what was committed a moment later stayed.
Here only the lane's holder ends deliveries, and it does so whenever it finds some.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from deliveries.models import Endpoint, Event
from deliveries.pipeline import ingest
from deliveries.pipeline.database import connect
from deliveries.pipeline.wake import wake_lanes
from tests.support.builders import (
    change_endpoint,
    deliveries_of,
    lane_of,
    make_endpoint,
    make_tenant,
    new_event,
)
from tests.support.running import Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")


def delete(endpoint: Endpoint) -> None:
    change_endpoint(endpoint, deleted_at=datetime.now(UTC))


def disable(endpoint: Endpoint) -> None:
    change_endpoint(endpoint, status="disabled", disabled_reason="manual")


@pytest.mark.parametrize("was_idle", [True, False], ids=["the holder was done", "nobody looked yet"])
@pytest.mark.parametrize(
    ("stop", "reason"),
    [(delete, "endpoint_deleted"), (disable, "endpoint_disabled")],
    ids=["delete", "disable"],
)
def test_a_delivery_committed_a_moment_after_its_endpoint_was_stopped_ends_cancelled(
    stop: Callable[[Endpoint], None], reason: str, was_idle: bool
) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks, connect(application_name="test", statement_timeout_seconds=10) as publisher:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        event = new_event(tenant)
        results: list[Any] = [None]
        read = ingest._read(publisher, [event])
        prepared = ingest._prepare(publisher, [event], read, results)
        with publisher.transaction():
            ingest._insert(publisher, prepared, read.now)
            stop(endpoint)
            if was_idle:
                run_until_dry()
                assert lane_of(endpoint).ready_at is None
        wake_lanes(publisher, [(endpoint.id.bytes, None)])

        run_until_dry()

    (delivery,) = deliveries_of(tenant)
    assert (delivery.status, delivery.cancel_reason, delivery.next_attempt_at) == ("cancelled", reason, None)
    assert delivery.completed_at is not None
    assert delivery.attempt_count == 0
    assert Event.objects.for_tenant(tenant).count() == 1
    assert lane_of(endpoint).ready_at is None
    assert webhooks.requests == []
