"""A broker that is away fails nobody, and is counted."""

import pytest
from celery import Celery, current_app

from deliveries.models import MetricTotal
from deliveries.pipeline import counters
from tenants.services.messages import announce

pytestmark = pytest.mark.usefixtures("database")


def lost() -> float:
    counters.write()
    found = MetricTotal.objects.filter(key="broker_errors:task").values_list("value", flat=True)
    return sum(found)


def test_a_message_that_the_broker_does_not_take_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    before = lost()
    ours = current_app._get_current_object()  # type: ignore[attr-defined] # of the proxy
    away = Celery("away", set_as_current=False)
    # Where messages are sent to; `broker` itself is always that of the environment.
    away.conf.update(broker_write_url="redis://127.0.0.1:1/0")
    away.set_current()
    try:
        announce("deliveries.run_job", "job")
    finally:
        ours.set_current()
        away.close()

    assert lost() == before + 1
    assert "task not announced" in caplog.text
    announce("deliveries.nothing_of_this_name", "job")
    assert lost() == before + 1
