"""A machine whose clock is off: a dispatcher does not begin there, and ends when it goes off."""

import time
from types import SimpleNamespace

import pytest

from deliveries.models import Dispatcher
from deliveries.pipeline import heart, ingest
from deliveries.pipeline.dispatch import Ending
from deliveries.pipeline.heart import ClockOff
from tests.support.builders import deliveries_of, lane_of, make_endpoint, make_tenant, new_event, publish
from tests.support.running import Reply, Webhooks, make_dispatcher, run_until_dry, running, until

pytestmark = pytest.mark.usefixtures("quiet_lanes")


def set_clock(monkeypatch: pytest.MonkeyPatch, *, ahead: float) -> None:
    """As the thread sees it that renews the lease."""
    clock = SimpleNamespace(**{name: getattr(time, name) for name in ("clock_gettime", "CLOCK_BOOTTIME")})
    clock.time = lambda: time.time() + ahead
    monkeypatch.setattr(heart, "time", clock)


@pytest.mark.parametrize("ahead", [62.0, -62.0, 5_184_000.0])
def test_a_dispatcher_more_than_a_minute_off_does_not_begin(
    monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    tenant = make_tenant()
    set_clock(monkeypatch, ahead=ahead)
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant)
        dispatcher = make_dispatcher()

        with pytest.raises(ClockOff):
            dispatcher.run()

    assert webhooks.requests == []
    assert Dispatcher.objects.count() == 0
    assert lane_of(endpoint).dispatcher_id is None


def test_one_a_little_off_sends_what_is_due_by_the_databases_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = make_tenant()
    set_clock(monkeypatch, ahead=58.0)
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant)

        run_until_dry()

    assert len(webhooks.requests) == 1


def test_a_dispatcher_whose_clock_goes_off_finishes_what_is_in_the_air_and_starts_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        ingest.publish([new_event(tenant) for _ in range(10)])
        with running() as one:
            webhooks.wait_for(2)

            set_clock(monkeypatch, ahead=62.0)
            one.dispatcher.heart.beat()  # as it does every five seconds
            until(lambda: one.dispatcher.ending is not None)
            webhooks.release()

            assert one.join() is Ending.CLOCK_OFF

    assert len(webhooks.requests) == 2
    assert (
        sorted(delivery.status for delivery in deliveries_of(tenant)) == ["pending"] * 8 + ["succeeded"] * 2
    )
    assert (lane_of(endpoint).dispatcher_id, lane_of(endpoint).is_ready) == (None, True)
