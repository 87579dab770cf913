"""When to try a delivery again. Called by `dispatch` after an attempt that is neither a success nor final. Pure."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from deliveries.pipeline.outcome import MAX_RETRY_AFTER_SECONDS

DEFAULT_SCHEDULE: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before each retry: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h. Ten attempts over about three days,
the span in which a receiver that broke on a Friday is usually mended. Part of the API contract."""

MAX_JITTER: Final = 0.1
"""The share of a wait by which it may be lengthened, so that what failed together does not come back together."""


def next_wait(
    schedule: Sequence[int] | None, step: int, *, jitter: float, retry_after: int | None
) -> timedelta | None:
    """How long to wait before the next automatic attempt. None: the schedule is exhausted.

    `schedule` is the endpoint's own, or None for the default; `step` is the number of automatic attempts already made,
    less one. `jitter`, a random number from 0 to 1, and `retry_after`, in seconds, only ever lengthen the wait.
    """
    if step < 0:
        raise ValueError("no wait comes before the first attempt")
    if not 0 <= jitter <= 1:
        raise ValueError("jitter is a number from 0 to 1")
    waits = DEFAULT_SCHEDULE if schedule is None else schedule
    if step >= len(waits):
        return None

    seconds = max(waits[step], min(retry_after or 0, MAX_RETRY_AFTER_SECONDS))
    return timedelta(seconds=seconds * (1 + MAX_JITTER * jitter))
