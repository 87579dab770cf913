"""The schedule in the database, and messages between machines whose clocks differ."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import current_app
from celery.worker.request import Request
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import ModelEntry
from kombu import Message

from deliveries.apps import SCHEDULE, make_schedule
from deliveries.models import Lane
from deliveries.pipeline import sweeps
from deliveries.pipeline.wake import wake
from tenants.apps import SCHEDULE as TENANTS_SCHEDULE
from tenants.apps import make_schedule as make_tenants_schedule
from tenants.clock import MOST_APART_SECONDS, MOST_OFF_SECONDS
from tests.support.builders import make_endpoint, make_tenant
from tests.support.running import until

pytestmark = pytest.mark.usefixtures("quiet_lanes")


AHEAD = timedelta(seconds=2 * MOST_OFF_SECONDS - 5)
"""A worker's clock before that of whoever sends the message: both are as far off as they may be, one each way."""


def is_thrown_away(message: Any) -> bool:
    """By a worker that gets it now."""
    return bool(Request(message, app=current_app).maybe_expire())


def sent_by_beat(scheduled: PeriodicTask, *, at: datetime) -> Any:
    """As it comes out of the queue."""
    expires = ModelEntry(scheduled, app=current_app).options["expires"]
    sent = current_app.amqp.as_task_v2("id", scheduled.task, expires=expires, now=at)
    return Message(
        json.dumps(sent.body),
        content_type="application/json",
        content_encoding="utf-8",
        headers=sent.headers,
        properties=sent.properties,
        delivery_info={},
    )


def test_nothing_that_is_scheduled_is_thrown_away_by_a_worker_whose_clock_is_ahead() -> None:
    current_app.loader.import_default_modules()
    now = datetime.now(UTC)
    rows = list(PeriodicTask.objects.filter(task__regex=r"^(deliveries|tenants)\."))

    late = [row.task for row in rows if is_thrown_away(sent_by_beat(row, at=now - AHEAD))]
    long_ago = [row.task for row in rows if is_thrown_away(sent_by_beat(row, at=now - timedelta(days=2)))]

    assert late == []
    assert sorted(long_ago) == sorted([each[0] for each in (SCHEDULE | TENANTS_SCHEDULE).values()])


def test_migrating_goes_on_when_an_operator_made_an_interval_that_was_there() -> None:
    lengths = {seconds for _, seconds in (SCHEDULE | TENANTS_SCHEDULE).values()}
    twice = [IntervalSchedule.objects.create(every=each, period="seconds") for each in lengths]
    before = list(PeriodicTask.objects.order_by("id").values_list("name", "interval"))
    PeriodicTask.objects.filter(name="notify people").delete()
    try:
        make_schedule()
        make_tenants_schedule()

        after = PeriodicTask.objects.order_by("id").values_list("name", "interval")
        assert sorted(after) == sorted(before)
    finally:
        IntervalSchedule.objects.filter(id__in=[each.id for each in twice]).delete()


@pytest.fixture
def dispatch_queue(quiet_lanes: None, quiet_nudger: None) -> Iterator[Any]:
    with current_app.connection_for_write() as broker:
        channel: Any = broker.default_channel
        channel._purge("dispatch")
        yield channel
        channel._purge("dispatch")


def seconds_to_live(channel: Any) -> float:
    until(lambda: channel._size("dispatch") == 1)
    message = channel.basic_get("dispatch", no_ack=True)
    expires = datetime.fromisoformat(message.headers["expires"])
    return (expires - datetime.now(UTC)).total_seconds()


def test_a_publishers_nudge_lasts_seconds_and_that_of_the_sweep_as_long_as_clocks_may_differ(
    dispatch_queue: Any,
) -> None:
    endpoint = make_endpoint(make_tenant(), "http://127.0.0.1:9/")

    wake([(endpoint.id, None)])
    of_publisher = seconds_to_live(dispatch_queue)
    sweeps.sweep(wanted=1)
    of_sweep = seconds_to_live(dispatch_queue)
    Lane.unscoped.filter(endpoint=endpoint).update(ready_at=None, is_ready=False)
    wake([(endpoint.id, None)])
    of_publisher_again = seconds_to_live(dispatch_queue)

    assert 3 < of_publisher <= 5
    assert AHEAD.total_seconds() < of_sweep <= MOST_APART_SECONDS
    assert 3 < of_publisher_again <= 5
