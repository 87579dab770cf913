"""After ten minutes, or a million deliveries, a fresh run goes on where this one stopped."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import current_app

from deliveries.models import Dispatcher, Lane
from deliveries.pipeline import dispatch, ingest
from deliveries.pipeline.dispatch import Ending
from tests.support.builders import deliveries_of, make_endpoints, make_tenant, new_event
from tests.support.running import Reply, Webhooks, running, until

pytestmark = pytest.mark.usefixtures("quiet_lanes")


@pytest.fixture
def broker(quiet_lanes: None, quiet_nudger: None) -> Iterator[Any]:
    with current_app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel._purge("dispatch")
        yield channel
        channel._purge("dispatch")


@pytest.mark.parametrize(("constant", "value"), [("HAND_OVER_SECONDS", 1.5), ("HAND_OVER_DELIVERIES", 100)])
def test_a_run_hands_over_finishes_what_is_in_the_air_and_asks_for_the_next(
    monkeypatch: pytest.MonkeyPatch, broker: Any, constant: str, value: float
) -> None:
    monkeypatch.setattr(dispatch, constant, value)
    tenant = make_tenant()
    paths = ["/a", "/b", "/c"]
    with Webhooks() as webhooks:
        webhooks.replies = dict.fromkeys(paths, Reply(seconds=0.2))
        make_endpoints(tenant, [webhooks.url(path) for path in paths], max_in_flight=10)
        ingest.publish([new_event(tenant) for _ in range(300)])
        until(lambda: broker._size("dispatch") == 1)
        broker._purge("dispatch")

        with running() as one:
            assert one.join() is Ending.HANDED_OVER
            # Nobody polls now; who published while it was alive sent no nudge.
            until(lambda: broker._size("dispatch") == 1)
        first = len(webhooks.requests)
        done = [delivery.status for delivery in deliveries_of(tenant)].count("succeeded")
        lanes = Lane.objects.for_tenant(tenant)
        held = list(lanes.exclude(dispatcher_id=None))
        waiting = lanes.filter(is_ready=True).count()
        alive = Dispatcher.objects.count()
        monkeypatch.undo()
        webhooks.replies = {}
        with running():
            until(lambda: not lanes.exclude(ready_at=None).exists(), seconds=30)

    # What was in the air is over and written down, so nothing of it is sent again.
    assert 0 < first == done < 900
    assert (held, waiting, alive) == ([], 3, 0)
    assert [delivery.status for delivery in deliveries_of(tenant)] == ["succeeded"] * 900
    assert len(webhooks.requests) == 900
    assert webhooks.together == []
