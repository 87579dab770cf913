"""What one dispatcher has in memory: lanes held, deliveries loaded, requests in the air, payloads; and who may start next.

No database and no network in here, so its rules can be tested with numbers. Called by `dispatch`.

Fairness is one rule at every level: a tenant starts, loads or takes something more only while it has less of it than is
free. One tenant alone then has at most half; n greedy tenants have 1/(n+1) each; and as much always stays free for
whoever comes next. A tenant's weight multiplies what it may have, and how many requests it starts in its turn.

What hangs has at most half of the slots. It is too late to count it when it hangs, so what may hang is counted with it:
every request of a lane that is not known to be quick. Of this half a tenant gets the less, the less is left of it: what
hangs is not back soon, and whoever comes next is not known yet either.
"""

import heapq
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from deliveries.pipeline.endpoints import EndpointConfig
from deliveries.pipeline.health import Health, Hold
from deliveries.pipeline.lanes import LATEST_COMMIT_SECONDS, LaneHealth, Owed, Release
from deliveries.pipeline.payloads import Payloads

MAX_LOADED = 4_096
"""Deliveries in memory that are not in the air. About a quarter of a second of work."""

MAX_LANES = 4_096
"""Lanes held at once. Each costs a kilobyte, and a row at each renewal."""

MAX_LOAD = 512
"""Deliveries loaded of one lane at a time, at most."""

BUSY_LANES = 32
"""Of a tenant that the others are served apart from."""

TURN_SECONDS = 0.1
"""How long a lane is served while others wait for their turn in the database."""

SLOW_SECONDS = 1.0
"""From here on a transfer counts as slow; those together take at most half of the slots."""

DOUBT = 4
"""A tenant starts something that may hang only while its part of that half is less than so many times the square of the
part that is free. Alone it gets six tenths of the half for endpoints that have not answered yet; twenty tenants, one after
the other, leave an eightieth of it. (With a plain multiple, each would take the same part of what is left, and six leave
nothing until their requests time out.)"""

LONGEST_PACE_IN_MEMORY = 1.0
"""Seconds to the next token up to which a lane is kept; beyond it, it is given back with a hold."""

LINGER_SECONDS = 5.0
"""Where versions of lanes pile up, a lane stays for so long after its last work. To take it, to give it back and to wake
it would make four more of them, and every statement about it steps over all of them."""

LATEST_COMMIT = timedelta(seconds=LATEST_COMMIT_SECONDS)

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
NO_ID = b"\x00" * 16


def beginning(owed_from: datetime | None, *, is_piling_up: bool) -> datetime:
    """Behind which due time to look for the oldest that a lane owes. Where versions pile up, not from the very first on."""
    return owed_from if is_piling_up and owed_from is not None else BEGINNING


@dataclass(slots=True, eq=False)
class TenantShare:
    """What one tenant has of this dispatcher."""

    tenant_id: bytes
    weight: int = 1
    turns: int = 1
    """Requests that it may start before the next tenant's turn comes."""
    lanes: int = 0
    loaded: int = 0
    in_air: int = 0
    in_doubt: int = 0
    """In the air of its lanes that are not quick."""
    sendable: "deque[HeldLane]" = field(default_factory=deque)
    set_aside: "OrderedDict[HeldLane, None]" = field(default_factory=OrderedDict)
    """Sendable ones that are not quick, and found no room."""
    is_waiting: bool = False
    """Stands in `Book.turn` already."""
    is_aside: bool = False
    """Stands in `Book.aside` already."""


@dataclass(slots=True, eq=False)
class HeldLane:
    endpoint_id: bytes
    share: TenantShare
    config: EndpointConfig
    slots: float
    taken_at: float
    queue: deque[Owed] = field(default_factory=deque)
    in_air: int = 0
    slow: int = 0
    is_quick: bool = False
    """A good answer came within a second since it was taken, and nothing of it has been slow since."""
    unrecorded: int = 0
    flying: dict[bytes, int] = field(default_factory=dict)
    """Ids in the air or not yet recorded, and how often: a load leaves them out. A retry that is due at once may be
    loaded and started before the loop hears that the first attempt was recorded."""
    flying_due: dict[bytes, datetime] = field(default_factory=dict)
    """Since when the same were due."""
    lines: dict[bytes, deque[Owed]] = field(default_factory=dict)
    """Of ordering keys: what comes after a head that waits here or is in the air, by the head's id."""
    after_due: Any = BEGINNING
    after_id: bytes = NO_ID
    newest: tuple[Any, bytes] = (BEGINNING, NO_ID)
    """The furthest that the cursor ever stood: nothing in memory was due later."""
    served: int = 0
    is_dry: bool = False
    """The last load brought less than was asked for."""
    is_in_lines: bool = False
    """Lines were read ahead: what is in memory may fall due only when the one before it has ended."""
    is_loading: bool = False
    is_sendable: bool = False
    """Stands in its tenant's queue of sendable lanes, or was set aside there."""
    is_unfinished: bool = False
    """More is to be ended than one round ended."""
    is_hungry: bool = False
    """Its next delivery's payload is not here and being fetched."""
    is_gathering: bool = False
    """Waits for a batch to be full, or whole, or for its time."""
    impatient_at: float | None = None
    """When it stops waiting for what is missing of a batch."""
    is_dropped: bool = False
    """Lost, paused or stopped: nothing more starts; it goes back when the last result is recorded."""
    is_leaving: bool = False
    """It is done, and goes back with the next round that has room for it."""
    before: "HeldLane | None" = None
    """As it was with earlier settings, while requests made by them are in the air or not yet recorded."""
    cleared_at: float | None = None
    """Its `ready_at` was cleared while it waits for slow answers, so that wakes can be seen."""
    held_until: float | None = None
    """time.monotonic(): nothing starts before; it goes back with this."""
    hold_reason: str | None = None
    resets: int = 0
    health: Health | None = None
    """None: its last answer was good."""
    is_health_new: bool = False
    """Not yet kept on the lane as it is here."""
    tokens: float = 0.0
    """Requests that its pace allows now. Filled at `rate_limit` a second up to half a second's worth, at least one."""
    tokens_at: float = 0.0
    is_paced: bool = False
    """Waits for its next token, in `Book.paced`."""

    loaded_at: float = 0.0
    looked_at: float = 0.0
    """When it was last looked for new work on it beside results that wait."""
    retry_at: float = float("inf")
    """time.monotonic(): from when on one that failed may be due again. Slow answers may keep the lane here until then, or a
    batch that is not full."""
    cursor_since: float = 0.0
    """When the cursor (`after_due`, `after_id`) last stood at the beginning."""
    owed_from: datetime | None = None
    """Nothing is owed that was due before, in memory or not. None: not known."""
    kept_owed_from: datetime | None = None
    """The same, as the lane's row has it."""

    def seconds_to_token(self, now: float) -> float:
        """0 if a request may start now. The endpoint has a rate limit."""
        rate = self.config.rate_limit
        assert rate is not None
        self.tokens = min(max(1.0, rate / 2), self.tokens + (now - self.tokens_at) * rate)
        self.tokens_at = now
        # A hair less than one is one: the clock is read in steps.
        return 0.0 if self.tokens > 0.999 else (1.0 - self.tokens) / rate

    def release(self, now: float, *, is_piling_up: bool = False) -> Release:
        """As it goes back. `is_piling_up`: as of the book."""
        tokens = None
        if self.config.rate_limit is not None:
            self.seconds_to_token(now)
            tokens = self.tokens
        return Release(
            self.endpoint_id,
            self.slots,
            None if self.held_until is None else max(0.0, self.held_until - now),
            self.hold_reason,
            tokens,
            self.is_unfinished,
            self.resets,
            self.owed_from if is_piling_up else None,
        )

    def looked_from_beginning(self, at: datetime) -> None:
        """All that was owed then, by the database's clock, and not in memory was loaded; or its oldest were."""
        self.owed_from = min(
            [at - LATEST_COMMIT, *self.flying_due.values(), *[owed.due for owed in self.queue]]
        )

    def health_to_keep(self) -> LaneHealth:
        """As it is now: what the loop counts meanwhile is not mixed into what a thread writes."""
        return LaneHealth(
            self.endpoint_id, self.resets, None if self.health is None else replace(self.health)
        )

    @property
    def is_cursor_back(self) -> bool:
        """Something in memory may be due behind the cursor: a load must leave it out."""
        return (self.after_due, self.after_id) < self.newest

    def in_memory(self) -> list[bytes]:
        """Deliveries that such a load leaves out."""
        behind = [owed.id for line in self.lines.values() for owed in line]
        return [*self.flying, *[owed.id for owed in self.queue], *behind]

    @property
    def limit(self) -> int:
        """Requests at once: what its answers have earned, up to what the endpoint wants."""
        most = min(int(self.slots), self.config.max_in_flight)
        return (
            most
            if self.before is None
            else min(most, self.config.max_in_flight - self.before.in_air_to(self.config))
        )

    @property
    def ahead(self) -> int:
        """Deliveries that it can use at once."""
        batch = self.config.batch
        return self.limit if batch is None else self.limit * batch.max_events

    @property
    def most_loaded(self) -> float:
        """Deliveries at a time. What waits in memory for long counts against its tenant, whose other lanes would find no
        room: so of one that hangs, fails or has a pace, no more than it can use soon."""
        most = self.config.most_a_second
        if self.slow or (self.health is not None and not self.is_quick):
            return min(most, max(1, 2 * self.ahead))
        return most

    def in_air_to(self, config: EndpointConfig) -> int:
        """Requests by these settings and earlier ones that have the same receiver."""
        own = self.in_air if self.config.destination.url == config.destination.url else 0
        return own if self.before is None else own + self.before.in_air_to(config)

    @property
    def has_in_air(self) -> bool:
        """By these settings or earlier ones."""
        return self.in_air > 0 or (self.before is not None and self.before.has_in_air)

    @property
    def is_idle(self) -> bool:
        return (
            not self.queue
            and not self.in_air
            and not self.unrecorded
            and not self.is_loading
            and (self.before is None or self.before.is_idle)
        )


Place = tuple[int, float, bytes, HeldLane]
"""Among those that go back. A lane is in the book once, so its id tells any two apart."""


def _place(lane: HeldLane) -> Place:
    return lane.share.lanes, lane.taken_at, lane.endpoint_id, lane


class Book:
    def __init__(self, *, capacity: int, linger_seconds: float = LINGER_SECONDS) -> None:
        self.capacity = capacity
        self.lanes: dict[bytes, HeldLane] = {}
        self.is_piling_up = False
        """Versions of lanes do (`lanes.are_piling_up`)."""
        self.linger_seconds = min(linger_seconds, LINGER_SECONDS)
        self.weights: dict[bytes, int] = {}
        """Of the tenants whose weight is not 1."""
        self.shares: dict[bytes, TenantShare] = {}
        self.passed_over: set[bytes] = set()
        """Tenants that have their share of this dispatcher, and further lanes that are ready."""
        self.turn: deque[TenantShare] = deque()
        self.aside: list[TenantShare] = []
        """Tenants that have nothing to send but what was set aside."""
        self.is_less_in_doubt = False
        """Since they were last looked at."""
        self.paced: list[tuple[float, bytes]] = []
        """A heap: when the next token of a lane is due."""
        self.held_back: list[HeldLane] = []
        """Lanes that give up their place because their next token takes long."""
        self.leaving: list[Place] = []
        """A heap: lanes that are done, and wait for a round that has room for them."""
        self.in_air = 0
        self.in_doubt = 0
        """In the air of lanes that are not quick: what hangs, and what may."""
        self.most_in_doubt = max(1, capacity // 2)
        self.loaded = 0
        self.payloads = Payloads()

    # --- lanes --------------------------------------------------------------------------------------------------------

    def hold(
        self, *, endpoint_id: bytes, tenant_id: bytes, config: EndpointConfig, slots: float, now: float
    ) -> HeldLane:
        share = self.shares.get(tenant_id)
        if share is None:
            share = self.shares[tenant_id] = TenantShare(tenant_id, self.weights.get(tenant_id, 1))
        share.lanes += 1
        lane = HeldLane(endpoint_id, share, config, max(slots, 1.0), now)
        self.lanes[endpoint_id] = lane
        return lane

    def succeed(self, lane: HeldLane, *, config: EndpointConfig, now: float) -> HeldLane:
        """Go on with new settings, beside what is still in the air by the earlier ones. The lane was dropped."""
        new = HeldLane(
            lane.endpoint_id,
            lane.share,
            config,
            lane.slots,
            now,
            flying=lane.flying,
            flying_due=lane.flying_due,
            newest=lane.newest,
            is_in_lines=lane.is_in_lines,
            before=lane,
            retry_at=now,
            resets=lane.resets,
            health=None if lane.health is None else replace(lane.health),
            is_health_new=lane.is_health_new,
            owed_from=lane.owed_from,
            kept_owed_from=lane.kept_owed_from,
        )
        if config.rate_limit is not None and lane.config.rate_limit is not None:
            new.tokens, new.tokens_at = lane.tokens, lane.tokens_at
        lane.share.set_aside.pop(lane, None)
        self.lanes[lane.endpoint_id] = new
        return new

    def leave(self, lanes: Sequence[HeldLane], *, at_most: int) -> list[HeldLane]:
        """Which lanes go back now, as these may: of smallest tenants first, then those that were taken first.

        What is done stays here until it goes, and is not looked at again: there may be thousands. Of the others, whose turn
        is over, the caller thinks again.
        """
        for lane in lanes:
            if lane.is_dry or lane.is_dropped:
                lane.is_leaving = True
                heapq.heappush(self.leaving, _place(lane))
        over = deque(sorted(_place(lane) for lane in lanes if not lane.is_leaving))
        going: list[HeldLane] = []
        while len(going) < at_most and (over or self.leaving):
            is_over = bool(over) and (not self.leaving or over[0] < self.leaving[0])
            lane = (over.popleft() if is_over else heapq.heappop(self.leaving))[-1]
            lane.is_leaving = True
            going.append(lane)
        return going

    def let_go(self, lane: HeldLane) -> None:
        self.drop_queue(lane)
        lane.share.set_aside.pop(lane, None)
        if self.lanes.pop(lane.endpoint_id, None) is not None:
            lane.share.lanes -= 1
            share = lane.share
            if not share.lanes and not share.loaded and not share.in_air:
                self.shares.pop(share.tenant_id, None)

    def weigh(self, weights: dict[bytes, int]) -> None:
        """What operators set, as it now is."""
        self.weights = weights
        for share in self.shares.values():
            share.weight = weights.get(share.tenant_id, 1)

    def free_lanes(self) -> int:
        # A take brings one lane of each tenant whose turn it is, so a few more than were asked for.
        return max(0, MAX_LANES - len(self.lanes))

    def full_tenants(self) -> list[bytes]:
        """Those that have as many lanes, loaded deliveries or slots as are free: they take no further lanes now."""
        free_lanes, free_loads, free_slots = self.free_lanes(), self.free_loads(), self.free_slots()
        return [
            share.tenant_id
            for share in self.shares.values()
            if share.lanes >= share.weight * free_lanes
            or share.loaded >= share.weight * free_loads
            or share.in_air >= share.weight * free_slots
        ]

    def busy_tenants(self) -> list[bytes]:
        """Those with so many lanes that whoever is taken together with more of them waits for what is loaded for these."""
        return [
            share.tenant_id
            for share in self.shares.values()
            if share.lanes >= BUSY_LANES and share.lanes * 8 >= len(self.lanes)
        ]

    # --- loaded deliveries --------------------------------------------------------------------------------------------

    def free_loads(self) -> int:
        return MAX_LOADED - self.loaded

    def add(self, lane: HeldLane, owed: list[Owed]) -> None:
        lane.queue.extend(owed)
        self.loaded += len(owed)
        lane.share.loaded += len(owed)
        if lane.is_gathering:
            lane.is_gathering = lane.is_paced = False
        self.offer(lane)

    def follow(self, lane: HeldLane, head: Owed, followers: list[Owed]) -> None:
        """They wait until the head is over."""
        lane.is_in_lines = True
        lane.lines[head.id] = deque(followers)
        self.loaded += len(followers)
        lane.share.loaded += len(followers)

    def head_ended(self, lane: HeldLane, head_id: bytes) -> bool:
        """The next of its line may start, if it is here."""
        line = lane.lines.pop(head_id, None)
        if line is None:
            return False
        owed = line.popleft()
        owed.due = datetime.now(UTC)
        if line:
            lane.lines[owed.id] = line
        lane.queue.append(owed)
        self.offer(lane)
        return True

    def drop_line(self, lane: HeldLane, head_id: bytes) -> bool:
        """The head keeps its line waiting, or is one no more: the others are loaded again when it is time."""
        line = lane.lines.pop(head_id, None)
        if line is None:
            return False
        self.loaded -= len(line)
        lane.share.loaded -= len(line)
        for owed in line:
            self.payloads.unpin(owed.payload_key)
        return True

    def drop_queue(self, lane: HeldLane) -> None:
        for head_id in list(lane.lines):
            self.drop_line(lane, head_id)
        count = len(lane.queue)
        for owed in lane.queue:
            self.payloads.unpin(owed.payload_key)
        lane.queue.clear()
        self.loaded -= count
        lane.share.loaded -= count

    def waiting_since(self, before: float) -> list[bytes]:
        """Deliveries loaded before then that have not been started."""
        old = [lane for lane in self.lanes.values() if lane.loaded_at < before]
        behind = [owed.id for lane in old for line in lane.lines.values() for owed in line]
        return [owed.id for lane in old for owed in lane.queue] + behind

    def forget(self, lane: HeldLane, delivery_ids: set[bytes]) -> None:
        """Drop those of the queue that are owed no more."""
        for head_id, line in list(lane.lines.items()):
            # What is left of such a line is loaded again.
            is_broken = head_id in delivery_ids or any(owed.id in delivery_ids for owed in line)
            if is_broken and self.drop_line(lane, head_id):
                lane.is_dry, lane.cursor_since = False, 0.0
        gone = [owed for owed in lane.queue if owed.id in delivery_ids]
        if not gone:
            return
        lane.queue = deque(owed for owed in lane.queue if owed.id not in delivery_ids)
        self.loaded -= len(gone)
        lane.share.loaded -= len(gone)
        for owed in gone:
            self.payloads.unpin(owed.payload_key)

    # --- who may start next -------------------------------------------------------------------------------------------

    def free_slots(self) -> int:
        return self.capacity - self.in_air

    def offer(self, lane: HeldLane) -> None:
        """Queue the lane among its tenant's sendable ones, and the tenant among those whose turn comes."""
        if (
            lane.is_paced
            or lane.is_sendable
            or not lane.queue
            or lane.is_hungry
            or lane.is_dropped
            or lane.in_air >= lane.limit
        ):
            return
        lane.is_sendable = True
        self._queue(lane)

    def _queue(self, lane: HeldLane) -> None:
        share = lane.share
        share.sendable.append(lane)
        if not share.is_waiting:
            share.is_waiting = True
            self._line_up(share)

    def _line_up(self, share: TenantShare) -> None:
        """At the back of the line; in front, while it may start more in this turn."""
        if share.turns > 1:
            share.turns -= 1
            self.turn.appendleft(share)
        else:
            share.turns = share.weight
            self.turn.append(share)

    def next_lane(self) -> HeldLane | None:
        """The lane that may start one request now: tenants in turn, then lanes. None: nobody may."""
        if self.aside and self.is_less_in_doubt:
            self._look_at_those_aside()
        for _ in range(len(self.turn)):
            share = self.turn.popleft()
            if share.in_air >= share.weight * (self.capacity - self.in_air):
                # It has its share; others go first, and answers bring it back here.
                self.turn.append(share)
                continue
            lane = self._next_of(share)
            if share.sendable or (share.set_aside and lane is not None):
                self._line_up(share)
            else:
                share.is_waiting = False
                if share.set_aside and not share.is_aside:
                    share.is_aside = True
                    self.aside.append(share)
            if lane is not None:
                return lane
        return None

    def _next_of(self, share: TenantShare) -> HeldLane | None:
        has_room = self._has_room_for_doubt(share)
        while True:
            if has_room and share.set_aside:
                lane, _ = share.set_aside.popitem(last=False)
            elif share.sendable:
                lane = share.sendable.popleft()
                if not has_room and not lane.is_quick:
                    # What hangs, or may, has its part of the slots already; quick lanes go on.
                    share.set_aside[lane] = None
                    continue
            else:
                return None
            lane.is_sendable = False
            if not lane.queue or lane.is_hungry or lane.is_dropped or lane.in_air >= lane.limit:
                continue
            if lane.config.rate_limit is not None and self._must_wait(lane):
                continue
            return lane

    def _has_room_for_doubt(self, share: TenantShare) -> bool:
        free = self.most_in_doubt - self.in_doubt
        return free > 0 and share.in_doubt * self.most_in_doubt < DOUBT * share.weight * free * free

    def _look_at_those_aside(self) -> None:
        """Once after answers, not at each start: there may be as many as there are tenants.

        They have waited the longest, so they go before those whose answers made the room.
        """
        self.is_less_in_doubt = False
        still: list[TenantShare] = []
        first: list[TenantShare] = []
        for share in self.aside:
            if not self._has_room_for_doubt(share):
                still.append(share)
                continue
            share.is_aside = False
            if share.set_aside and not share.is_waiting:
                share.is_waiting = True
                first.append(share)
        self.aside = still
        self.turn.extendleft(reversed(first))

    def _must_wait(self, lane: HeldLane) -> bool:
        """Whether its pace has no token now. Then it is offered again when it has, or given back if that takes long."""
        now = time.monotonic()
        seconds = lane.seconds_to_token(now)
        if not seconds:
            return False
        if seconds > LONGEST_PACE_IN_MEMORY:
            lane.held_until, lane.hold_reason = now + seconds, "rate"
            lane.is_dropped = True
            self.drop_queue(lane)
            self.held_back.append(lane)
        else:
            lane.is_paced = True
            heapq.heappush(self.paced, (now + seconds, lane.endpoint_id))
        return True

    def wake_paced(self, now: float) -> None:
        """Offer again the lanes whose next token is due."""
        while self.paced and self.paced[0][0] <= now:
            lane = self.lanes.get(heapq.heappop(self.paced)[1])
            if lane is not None and lane.is_paced:
                lane.is_paced = False
                self.offer(lane)

    def started(self, lane: HeldLane, owed: Owed) -> None:
        self.loaded -= 1
        lane.share.loaded -= 1
        lane.in_air += 1
        lane.share.in_air += 1
        self.in_air += 1
        if not lane.is_quick:
            lane.share.in_doubt += 1
            self.in_doubt += 1
        lane.served += 1
        if lane.config.rate_limit is not None:
            lane.tokens -= 1.0
        lane.flying[owed.id] = lane.flying.get(owed.id, 0) + 1
        lane.flying_due[owed.id] = owed.due
        self.offer(lane)

    def joined(self, lane: HeldLane, others: Sequence[Owed]) -> None:
        """They go out in the request that was just started."""
        self.loaded -= len(others)
        lane.share.loaded -= len(others)
        lane.served += len(others)
        for owed in others:
            lane.flying[owed.id] = lane.flying.get(owed.id, 0) + 1
            lane.flying_due[owed.id] = owed.due

    def gather(self, lane: HeldLane, seconds: float) -> None:
        """Look again after so long, or when more is loaded."""
        lane.is_gathering = lane.is_paced = True
        heapq.heappush(self.paced, (time.monotonic() + seconds, lane.endpoint_id))

    def answered(self, lane: HeldLane, *, is_good: bool, is_timeout: bool, was_slow: bool) -> None:
        lane.in_air -= 1
        lane.share.in_air -= 1
        self.in_air -= 1
        if was_slow:
            lane.slow -= 1
        if not lane.is_quick:
            self._less_in_doubt(lane, 1)
            if is_good and not was_slow and not lane.slow:
                self._is_quick_now(lane)
        if is_good:
            if lane.slots < lane.config.max_in_flight:
                lane.slots += 1.0
        elif is_timeout:
            lane.slots = max(1.0, lane.slots / 2)
        # By earlier settings: who goes on with new ones may have waited for its place.
        self.offer(self.lanes.get(lane.endpoint_id, lane) if lane.is_dropped else lane)

    def hangs(self, lane: HeldLane) -> None:
        """One of its transfers became slow; the others of it may, too."""
        lane.slow += 1
        if lane.is_quick:
            lane.is_quick = False
            lane.share.in_doubt += lane.in_air
            self.in_doubt += lane.in_air
        self.shorten(lane)

    def shorten(self, lane: HeldLane) -> None:
        """Of one that hangs: those behind what it can use soon are loaded again when it can use them."""
        count = int(max(0, len(lane.queue) - lane.most_loaded))
        # What is being loaded would come before them; and in lines some are not due yet, so they would not come again.
        if lane.is_loading or lane.is_in_lines or count <= lane.ahead:
            return
        for _ in range(count):
            self.payloads.unpin(lane.queue.pop().payload_key)
        self.loaded -= count
        lane.share.loaded -= count
        lane.is_dry, lane.cursor_since = False, 0.0

    def _is_quick_now(self, lane: HeldLane) -> None:
        self._less_in_doubt(lane, lane.in_air)
        lane.is_quick = True
        if lane in lane.share.set_aside:
            del lane.share.set_aside[lane]
            self._queue(lane)

    def _less_in_doubt(self, lane: HeldLane, count: int) -> None:
        lane.share.in_doubt -= count
        self.in_doubt -= count
        self.is_less_in_doubt = True

    def hold_back(self, lane: HeldLane, *, reason: Hold, until: float) -> None:
        """Its answers say that nothing more should start before. Afterwards it begins with one request at a time."""
        lane.held_until, lane.hold_reason = until, reason.value
        lane.is_dropped = True
        lane.slots = 1.0
        self.drop_queue(lane)

    def recorded(self, lane: HeldLane, delivery_id: bytes) -> None:
        lane.unrecorded -= 1
        lane.flying[delivery_id] -= 1
        if not lane.flying[delivery_id]:
            del lane.flying[delivery_id], lane.flying_due[delivery_id]
