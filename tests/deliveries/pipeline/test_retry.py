from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliveries.pipeline.retry import DEFAULT_SCHEDULE, next_wait


def test_the_default_waits_are_those_of_the_contract() -> None:
    hour = timedelta(hours=1)

    waits = [next_wait(None, step, jitter=0, retry_after=None) for step in range(10)]

    assert waits == [
        timedelta(seconds=5),
        timedelta(minutes=5),
        timedelta(minutes=30),
        2 * hour,
        5 * hour,
        10 * hour,
        14 * hour,
        20 * hour,
        24 * hour,
        None,
    ]


@pytest.mark.parametrize(
    ("case", "schedule", "step", "jitter", "retry_after", "seconds"),
    [
        ("the endpoint's own schedule", [1, 2], 1, 0.0, None, 2),
        ("at once", [0], 0, 1.0, None, 0),
        ("an empty schedule means one attempt", [], 0, 0.0, None, None),
        ("exhausted", [1, 2], 2, 0.0, None, None),
        ("exhausted, whatever the receiver asks for", [1, 2], 2, 0.0, 60, None),
        ("full jitter adds a tenth", [100], 0, 1.0, None, 110),
        ("half", [100], 0, 0.5, None, 105),
        ("a longer Retry-After counts", [100], 0, 0.0, 500, 500),
        ("a shorter one does not", [100], 0, 0.0, 5, 100),
        ("a day at most", [100], 0, 0.0, 10**9, 86_400),
        ("Retry-After is spread, too", [100], 0, 1.0, 1000, 1100),
    ],
)
def test_the_next_wait(
    case: str, schedule: list[int], step: int, jitter: float, retry_after: int | None, seconds: float | None
) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)

    assert next_wait(schedule, step, jitter=jitter, retry_after=retry_after) == expected, case


@given(st.integers(0, 8), st.floats(0, 1), st.none() | st.integers(0, 100_000))
def test_jitter_and_retry_after_only_lengthen(step: int, jitter: float, retry_after: int | None) -> None:
    least = max(DEFAULT_SCHEDULE[step], min(retry_after or 0, 86_400))

    wait = next_wait(None, step, jitter=jitter, retry_after=retry_after)

    assert wait is not None
    assert timedelta(seconds=least) <= wait <= timedelta(seconds=least) * 1.1 + timedelta(microseconds=1)


@pytest.mark.parametrize(("step", "jitter"), [(-1, 0.0), (0, -0.1), (0, 1.1), (0, float("nan"))])
def test_nonsense_is_refused(step: int, jitter: float) -> None:
    with pytest.raises(ValueError, match=r"first attempt|from 0 to 1"):
        next_wait(None, step, jitter=jitter, retry_after=None)
