"""The shapes of charts."""

from datetime import UTC, datetime, timedelta

import pytest

from deliveries.portal.charts import bar_chart, parts_of, retry_line, round_top, strip
from deliveries.services.activity import Counts

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("most", "top"), [(0, 2), (1, 2), (2, 2), (3, 5), (9, 10), (11, 20), (450, 500), (1_000_000, 1_000_000)]
)
def test_the_scale_ends_at_a_number_that_people_read_at_once(most: int, top: int) -> None:
    assert round_top(most) == top


def test_bars_stand_on_the_ground_and_failures_are_on_top() -> None:
    parts = parts_of(Counts(succeeded=50, failed=25, pending=0, cancelled=5), 100)

    assert [(part.name, part.y, part.height) for part in parts] == [
        ("succeeded", "50.00", "50.00"),
        ("cancelled", "45.00", "5.00"),
        ("failed", "20.00", "25.00"),
    ]


def test_one_failure_among_a_million_can_be_seen_and_no_bar_leaves_the_chart() -> None:
    parts = parts_of(Counts(succeeded=999_999, failed=1), 1_000_000)

    assert [(part.name, part.y, part.height) for part in parts] == [
        ("succeeded", "1.50", "98.50"),
        ("failed", "0.00", "1.50"),
    ]


def test_every_bucket_has_a_bar() -> None:
    chart = bar_chart([(AT + timedelta(hours=hour), Counts(succeeded=hour)) for hour in range(4)])

    assert [(bar.x, bar.width, len(bar.parts)) for bar in chart.bars] == [
        ("2.25", "20.50", 0),
        ("27.25", "20.50", 1),
        ("52.25", "20.50", 1),
        ("77.25", "20.50", 1),
    ]
    assert (chart.top, chart.half, chart.is_empty) == (5, None, False)


def test_a_strip_ends_at_the_right_edge() -> None:
    assert [(ticks.name, ticks.path) for ticks in strip("sfr")] == [
        ("succeeded", "M150 24v-12"),
        ("failed", "M154 24v-24M158 24v-24"),
    ]


def test_seconds_and_days_are_on_one_line() -> None:
    dots = retry_line([5, 300, 86_400])

    assert [(dot.number, dot.seconds) for dot in dots] == [(1, 0), (2, 5), (3, 305), (4, 86_705)]
    assert [float(dot.x) for dot in dots] == sorted(float(dot.x) for dot in dots)
    assert (dots[0].x, dots[-1].x) == ("2.00", "98.00")
