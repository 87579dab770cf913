"""What processes still have in memory when they are told to end is written down: counts, usage, and spans of traces."""

import os
import signal

import pytest

from tests.support.collector import Collector
from tests.support.platform import Place

EVENTS = 300


@pytest.mark.timeout(120)
def test_what_was_counted_and_traced_in_the_last_seconds_outlives_a_deployment(place: Place) -> None:
    with Collector() as collector:
        # So that nothing is sent before the end.
        place.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "60000",
        }
        world = place.make_world("a", 10)
        place.start()
        place.publish(world, EVENTS)
        place.wait_until_delivered(seconds=30)
        before = len(collector.spans)
        for name in ("web", "dispatch"):
            os.kill(place.pid(name), signal.SIGTERM)
            place.wait_until_ended(name, seconds=40)
        collector.wait_for(2 * EVENTS)

    publishes, attempts = collector.named("publish"), collector.named("attempt")
    assert before == 0
    assert (len(publishes), len(attempts)) == (EVENTS, EVENTS)
    assert {span.span_id for span in publishes} == {span.parent_span_id for span in attempts}
    assert place.query(
        "SELECT key, value FROM deliveries_metrictotal"
        " WHERE key IN ('publishes:accepted', 'deliveries_made:automatic', 'attempts:succeeded') ORDER BY key"
    ) == [
        ("attempts:succeeded", EVENTS),
        ("deliveries_made:automatic", EVENTS),
        ("publishes:accepted", EVENTS),
    ]
    assert place.query("SELECT sum(events), sum(attempts) FROM deliveries_usage") == [(EVENTS, EVENTS)]
