"""What the lanes clerk should do next about the lanes in memory. Called by `dispatch` for each round; no database in here."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import Enum
from itertools import islice

from deliveries.pipeline.book import MAX_LOAD, NO_ID, TURN_SECONDS, Book, HeldLane, beginning
from deliveries.pipeline.lanes import Wanted
from deliveries.pipeline.payloads import PayloadRoom
from deliveries.pipeline.rounds import Round

LANES_A_ROUND = 512
"""Lanes taken at a time, at most."""

FEWEST_LANES_A_ROUND = 16

ROUND_SECONDS = 0.015
"""How long a round should take. Whoever comes meanwhile waits for its end: of lanes, only so many are taken and given
back at a time that it keeps to that."""

RETRY_LOOK_SECONDS = 2.0
"""Between looks for retries on a lane that is kept by slow answers or a batch that is not full, once one may be due."""

LOOK_AGAIN_SECONDS = 0.02
"""Between looks for new work on a lane that has sent all it had and waits behind a busy tenant's results."""

CURSOR_SECONDS = 1.0
"""How long loads of a lane go on behind the last one, before they begin again at its oldest delivery."""

LINGER_LANES = 256
"""With more in memory none lingers: each has few versions then, and waiting for them all would be work."""

LINGER_MARGIN = timedelta(seconds=0.5)
"""Where versions pile up, loads begin so much before the last one's end: what a publisher was committing meanwhile."""

PILED_CURSOR_SECONDS = 20.0
"""The same where versions pile up. Beginning again steps over what was delivered since `owed_from`: half a minute's."""

STALE_OWED_FROM = timedelta(seconds=60)
"""How far `owed_from` of a lane's row may be behind, if its holder dies while versions pile up."""

KEPT_A_ROUND = 128
"""Lanes of which that is mended in one round."""


class Need(Enum):
    NOTHING = 0
    LOAD = 1
    RELEASE = 2
    CLEAR = 3
    """It waits for slow answers: empty its `ready_at`, so that wakes can be seen, and look once more."""
    WAKE = 4
    """It was cleared: see whether it was woken since."""
    LATER = 5
    """Nothing yet: think of it again at the next round."""


def need_of(lane: HeldLane, *, now: float, book: Book, others_wait: bool, is_ending: bool) -> Need:
    """`others_wait`: takes bring all they ask for, so lanes give way after their turn."""
    if lane.is_loading or lane.is_leaving or book.lanes.get(lane.endpoint_id) is not lane:
        return Need.NOTHING
    if lane.before is not None and lane.before.is_idle:
        lane.before = None
    # What still goes by earlier settings is waited for like an answer that is slow.
    is_kept = lane.slow > 0 or lane.before is not None
    gives_way = others_wait or lane.share.tenant_id in book.passed_over
    is_turn_over = gives_way and now - lane.taken_at > TURN_SECONDS
    # At the end also one that has more: it was taken in the last round, and nothing of it was put into memory.
    if lane.is_idle and (lane.is_dry or lane.is_dropped or is_turn_over or is_ending):
        if is_turn_over or is_ending or not lingers(lane, now=now, book=book):
            return Need.RELEASE
        if now - lane.looked_at < LOOK_AGAIN_SECONDS:
            return Need.LATER
        # It is ready still, as it was taken: what is published meanwhile changes nothing about it, and is found here.
        lane.looked_at = now
        return Need.LOAD
    if lane.is_dropped or is_ending:
        return Need.NOTHING
    if not lane.is_dry:
        # A lane whose turn is over is given back, unless slow answers keep it here anyway.
        wants = len(lane.queue) < lane.ahead and (not is_turn_over or is_kept)
        return Need.LOAD if wants and (book.free_loads() > 0 or not lane.queue) else Need.NOTHING
    is_waiting = lane.is_gathering or (not lane.queue and (lane.in_air > 0 or is_kept))
    if is_waiting and lane.cleared_at is not None:
        if now < lane.retry_at:
            return Need.WAKE
        # A wake says nothing of those: they were published long ago.
        lane.retry_at, lane.cursor_since = now + RETRY_LOOK_SECONDS, 0.0
        return Need.LOAD
    if lane.is_gathering or (is_kept and not lane.queue):
        lane.cleared_at = now
        return Need.CLEAR
    if (others_wait or book.passed_over) and not lane.queue and lane.share.lanes * 8 < len(book.lanes):
        # A small tenant's lane, kept here by results that wait behind a busy one's: what was published to it
        # meanwhile shall not wait for them as well.
        if now - lane.looked_at < LOOK_AGAIN_SECONDS:
            return Need.LATER
        lane.looked_at, lane.cursor_since = now, 0.0
        return Need.LOAD
    return Need.NOTHING


def lingers(lane: HeldLane, *, now: float, book: Book) -> bool:
    """Whether one that has nothing to do stays for what may come, instead of going back at once."""
    return (
        book.is_piling_up
        and len(book.lanes) <= LINGER_LANES
        and now - lane.loaded_at < book.linger_seconds
        and not lane.is_dropped
        and not lane.is_unfinished
        and lane.cleared_at is None
        and lane.held_until is None
    )


def wanted(loading: Sequence[HeldLane], *, book: Book, now: float) -> list[Wanted]:
    """How many to load of each lane: the fewer, the more lanes there are, and the more its tenant has already."""
    free = book.free_loads()
    loads = []
    seconds = PILED_CURSOR_SECONDS if book.is_piling_up else CURSOR_SECONDS
    for lane in loading:
        after = lane.after_due, lane.after_id
        if lane.cleared_at == now or now - lane.cursor_since > seconds or lane.after_id == NO_ID:
            # What committed late stands before the cursor.
            begin = beginning(lane.owed_from, is_piling_up=book.is_piling_up)
            after, lane.cursor_since = (begin, NO_ID), now
        elif book.is_piling_up:
            after = lane.after_due - LINGER_MARGIN, NO_ID
        if not book.is_piling_up:
            lane.after_due, lane.after_id = after
        own = min(free, lane.share.weight * free - lane.share.loaded)
        share = max(1, own // max(1, len(loading)))
        loads.append(Wanted(lane.endpoint_id, int(min(MAX_LOAD, share, lane.most_loaded)), *after))
    return loads


def stale(lanes: Iterable[HeldLane], *, book: Book) -> dict[bytes, datetime]:
    """What to keep of `owed_from` on lanes that are held for long, by lane: a few at a time."""
    if not book.is_piling_up:
        return {}
    found = (
        (lane.endpoint_id, lane.owed_from)
        for lane in lanes
        if lane.owed_from is not None
        and (lane.kept_owed_from is None or lane.owed_from - lane.kept_owed_from > STALE_OWED_FROM)
    )
    return dict(islice(found, KEPT_A_ROUND))


def missing(hungry: Iterable[HeldLane], *, book: Book, room: PayloadRoom) -> dict[bytes, bool]:
    """The payloads that the next deliveries of hungry lanes need, a few of each lane, as there is room."""
    fetch: dict[bytes, bool] = {}
    payloads = book.payloads.by_key
    for lane in hungry:
        tenant_id = lane.share.tenant_id
        if room.is_full(tenant_id):
            continue
        for owed in islice(lane.queue, max(1, lane.ahead)):
            if owed.payload_key in payloads or owed.payload_key in fetch:
                continue
            if not room.take(tenant_id=tenant_id, endpoint_id=lane.endpoint_id, size=owed.size):
                break
            fetch[owed.payload_key] = owed.has_body
    return fetch


def lanes_a_round(before: int, plan: Round, *, seconds: float) -> int:
    """As many as a round can do in its time. `seconds`: what this one took."""
    if seconds > 1.3 * ROUND_SECONDS:
        touched = max(len(plan.release), len(plan.taken), len(plan.wanted))
        return max(FEWEST_LANES_A_ROUND, min(before, int(touched * 0.8)))
    if seconds < 0.8 * ROUND_SECONDS and max(len(plan.release), len(plan.taken)) >= before:
        return min(LANES_A_ROUND, int(before * 1.25))
    return before
