"""Several events in one request, for endpoints that want it so: which go together, and when. Pure. Called by `dispatch`.

What has not been tried yet goes together as it comes, when there is enough of it or the first has waited long enough.
What failed together comes due together, to the microsecond, and is tried again as a whole.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from deliveries.pipeline.endpoints import BatchRule
from deliveries.pipeline.lanes import Owed
from tenants import ids

ID_PREFIX = "bat"
BATCH_TYPE = "webhook.batch"
"""What stands in for the event type where a signature template names one."""

MAX_BYTES = 512 * 1024
"""Of the data in one request, unless a single event is larger. So all of it fits into what a lane may have in memory."""

SPREAD_SECONDS = 0.01
"""Added at random to the wait of a batch that failed, so that two of them are not due at the same microsecond."""


def ready(
    queue: Iterable[Owed],
    rule: BatchRule,
    *,
    now: float,
    is_all_here: bool,
    is_present: Callable[[Owed], bool],
    is_patient: bool,
) -> Sequence[Owed] | float:
    """Those that go now, in one request; or for how many seconds to wait, 0 for more to be loaded or fetched.

    `queue` is not empty. `now`: Unix time by the database's clock. `is_all_here`: nothing more is due.
    `is_present`: its payload is in memory. `is_patient`: what is missing may be waited for.
    """
    waiting = list(queue)
    first = waiting[0]
    if goes_alone(first):
        return [first] if is_present(first) else 0.0
    if first.attempt_count:
        again = [
            owed for owed in waiting if owed.due == first.due and not goes_alone(owed) and owed.attempt_count
        ]
        present = [owed for owed in again if is_present(owed)]
        is_cut = again[-1] is waiting[-1] and not is_all_here
        if not present or ((is_cut or len(present) < len(again)) and is_patient):
            return 0.0
        return present
    fresh: list[Owed] = []
    size = 0
    is_full = False
    for owed in waiting:
        if owed.attempt_count or goes_alone(owed):
            continue
        is_full = len(fresh) == rule.max_events or bool(fresh and size + owed.size > MAX_BYTES)
        if is_full or not is_present(owed):
            break
        fresh.append(owed)
        size += owed.size
    if not fresh:
        return 0.0
    if not is_full and len(fresh) < rule.max_events:
        if not is_all_here and is_patient:
            return 0.0
        seconds_left = _unix(first.due) + rule.max_wait_seconds - now
        if seconds_left > 0.0:
            # What is asked for by hand, or tried again, waits for no other.
            rest = [owed for owed in waiting if owed.attempt_count or goes_alone(owed)]
            if not rest:
                return seconds_left
            return ready(
                rest,
                rule,
                now=now,
                is_all_here=is_all_here,
                is_present=is_present,
                is_patient=is_patient,
            )
    return fresh


def goes_alone(owed: Owed) -> bool:
    """Asked for by hand, or not to be sent at all."""
    return owed.manual_requested_at is not None or owed.preparation_error is not None


def id_of(delivery_ids: Sequence[bytes]) -> str:
    """The same for the same deliveries, so that a batch that is tried again is recognized."""
    digest = hashlib.sha256(b"".join(sorted(delivery_ids))).digest()
    return ids.bytes_to_text(ID_PREFIX, digest[:16])


def _unix(at: datetime) -> float:
    return at.timestamp()
