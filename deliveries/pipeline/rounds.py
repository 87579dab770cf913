"""One round of the lanes clerk: release, clear, check, take, load, fetch. `dispatch` plans it and collects it.

Everything here runs in one job of it, on its connection; the loop's own state is not touched, only read where said.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from uuid import UUID

import psycopg

from deliveries.pipeline import lanes
from deliveries.pipeline.book import MAX_LOAD, NO_ID, HeldLane, beginning
from deliveries.pipeline.database import Row
from deliveries.pipeline.endpoints import ConfigCache, EndpointConfig
from deliveries.pipeline.lanes import Owed
from deliveries.pipeline.payloads import Payload, PayloadRoom

Connection = psycopg.Connection[Row]


@dataclass(slots=True)
class Round:
    """What the lanes clerk is asked to do at once, and what came of it."""

    healths: list[lanes.LaneHealth]
    release: list[lanes.Release]
    clear: list[lanes.Release]
    wanted: list[lanes.Wanted]
    held: list[bytes]
    take: int
    full_tenants: list[bytes]
    busy_tenants: list[bytes]
    """They take nothing in this round if others have something to take."""
    after_tenant: UUID
    look_for_woken: list[bytes]
    check: bool
    waiting_long: list[bytes]
    """At a check: deliveries that wait in memory since the last one."""
    fetch: dict[bytes, bool]
    """Keys of payloads that are needed, and whether they are a transformation's."""
    room: PayloadRoom
    """For the payloads of what this round loads."""
    tenants: dict[bytes, bytes]
    """Of the lanes that are loaded."""
    free_loads: int
    began: float
    """time.monotonic()"""
    is_piling_up: bool = False
    """Versions of lanes do: nothing is looked for before `owed_from`."""
    owed_from: dict[bytes, datetime] = field(default_factory=dict)
    """To keep on lanes that are held for long."""
    changed: dict[bytes, tuple[HeldLane, list[bytes]]] = field(default_factory=dict)
    """Lanes whose new settings are wanted while they are held, and what of them is in the air."""
    is_told: bool = False
    released: int = 0
    passed_over: set[bytes] = field(default_factory=set)
    """Tenants that took nothing, as they have their share, though lanes of theirs are ready."""
    is_of_others: bool = False
    """The busy were not asked."""
    is_due: bool = False
    """Scheduled lanes are."""
    promoted: int = 0
    """Scheduled lanes that are ready now."""
    taken: list[lanes.Taken] = field(default_factory=list)
    configs: dict[bytes, EndpointConfig] = field(default_factory=dict)
    changed_configs: dict[bytes, EndpointConfig] = field(default_factory=dict)
    counts: dict[bytes, int] = field(default_factory=dict)
    """How many were asked for, by lane."""
    owed: list[Owed] = field(default_factory=list)
    followers: dict[bytes, list[Owed]] = field(default_factory=dict)
    """By the head of their line."""
    payload_rows: list[Row] = field(default_factory=list)
    woken: list[bytes] = field(default_factory=list)
    planned: dict[bytes, float] = field(default_factory=dict)
    """Of lanes that were cleared: in how many seconds their next retry falls due."""
    checked: list[Row] | None = None
    weights: dict[bytes, int] = field(default_factory=dict)
    """At a check: of the tenants whose weight is not 1."""
    ended_meanwhile: set[bytes] = field(default_factory=set)
    ended: dict[bytes, int] = field(default_factory=dict)


class RoundWorker:
    """`payloads` is the book's: a look whether one is there already; the loop copes with it having gone meanwhile."""

    def __init__(self, *, me: UUID, payloads: Mapping[bytes, Payload]) -> None:
        self.me = me
        self.payloads = payloads
        self.configs = ConfigCache()

    def work(self, connection: Connection, plan: Round, tell: Callable[[], None]) -> None:
        """A job of the lanes clerk. `tell`: what was brought is in the plan, and need not wait for what is given back.

        Safe to repeat: what was told is not brought again.
        """
        until = until_id()
        if not plan.is_told:
            self._bring(connection, plan, until)
            plan.is_told = True
            tell()
        if plan.healths:
            lanes.keep_health(connection, me=self.me, lanes=plan.healths)
        if plan.owed_from:
            lanes.keep_owed_from(connection, me=self.me, owed_from=plan.owed_from)
        if plan.release:
            plan.released = lanes.release(connection, me=self.me, lanes=plan.release, until=until)

    def _bring(self, connection: Connection, plan: Round, until: bytes) -> None:
        if plan.clear:
            lanes.clear(connection, me=self.me, lanes=plan.clear)
            # Their rows say it no more. Before the load: what falls due between the two is in both, not in neither.
            cleared = [lane.endpoint_id for lane in plan.clear]
            plan.planned = lanes.planned(connection, endpoint_ids=cleared, until=until)
        if plan.check:
            plan.checked = lanes.check(connection, me=self.me)
            plan.weights = lanes.weights(connection)
            plan.ended_meanwhile = lanes.ended_meanwhile(connection, plan.waiting_long)
        if plan.changed:
            self._change(connection, plan)
        if plan.look_for_woken:
            plan.woken = lanes.woken(connection, me=self.me, endpoint_ids=plan.look_for_woken)
        if plan.take:
            self._take(connection, plan)
        for wanted in plan.wanted:
            plan.counts[wanted.endpoint_id] = wanted.count
        if plan.wanted:
            plan.owed = lanes.load(connection, wanted=plan.wanted, held=plan.held, until=until)
            heads = [owed for owed in plan.owed if owed.ordering_key is not None and not owed.attempt_count]
            if 0 < len(heads) <= lanes.READ_AHEAD_LINES and plan.free_loads > 2 * lanes.READ_AHEAD:
                plan.followers = lanes.load_followers(connection, heads=heads)
        self._fetch(connection, plan)
        if plan.is_due:
            plan.promoted = lanes.promote(connection)

    def _take(self, connection: Connection, plan: Round) -> None:
        take = lanes.take(
            connection,
            me=self.me,
            lanes=plan.take,
            after=plan.after_tenant,
            full_tenants=plan.full_tenants,
            busy_tenants=plan.busy_tenants,
        )
        plan.taken, plan.after_tenant, plan.passed_over = take.lanes, take.after, take.passed_over
        # Those who have little are not kept waiting by what is loaded for the busy, who come in the next round.
        plan.is_of_others = take.is_of_others and bool(plan.busy_tenants)
        plan.is_due = take.is_due
        if not plan.taken:
            return
        plan.configs = self.configs.get(connection, [(lane.endpoint_id, lane.version) for lane in plan.taken])
        count = max(1, min(MAX_LOAD, plan.free_loads // len(plan.taken) // 2))
        for lane in plan.taken:
            plan.tenants[lane.endpoint_id] = lane.tenant_id
            config = plan.configs.get(lane.endpoint_id)
            if config is not None and config.cancel_reason is not None:
                plan.ended[lane.endpoint_id] = lanes.end_pending(
                    connection, endpoint_id=lane.endpoint_id, reason=config.cancel_reason, held=[]
                )
            else:
                begin = beginning(lane.owed_from, is_piling_up=plan.is_piling_up)
                most = count if config is None else int(min(count, config.most_a_second))
                plan.wanted.append(
                    lanes.Wanted(lane.endpoint_id, 1 if lane.is_probed else most, begin, NO_ID)
                )

    def _change(self, connection: Connection, plan: Round) -> None:
        """Settings that changed while requests by the earlier ones are in the air."""
        plan.changed_configs = self.configs.load(connection, list(plan.changed))
        for endpoint_id, (_, flying) in plan.changed.items():
            config = plan.changed_configs.get(endpoint_id)
            if config is not None and config.cancel_reason is not None:
                plan.ended[endpoint_id] = lanes.end_pending(
                    connection, endpoint_id=endpoint_id, reason=config.cancel_reason, held=flying
                )

    def _fetch(self, connection: Connection, plan: Round) -> None:
        """Payloads for what was loaded, the first of each lane first, as many as there is room for."""
        payloads = self.payloads
        wanted = plan.fetch
        first: dict[bytes, Owed] = {}
        later = [owed for owed in plan.owed if first.setdefault(owed.endpoint_id, owed) is not owed]
        for owed in chain(first.values(), later, *plan.followers.values()):
            if owed.payload_key in payloads or owed.payload_key in wanted:
                continue
            tenant_id = plan.tenants[owed.endpoint_id]
            if plan.room.take(tenant_id=tenant_id, endpoint_id=owed.endpoint_id, size=owed.size):
                wanted[owed.payload_key] = owed.has_body
        events = [key for key, is_body in wanted.items() if not is_body]
        if events:
            plan.payload_rows = lanes.load_events(connection, events)
        if len(events) < len(wanted):
            bodies = [key for key, is_body in wanted.items() if is_body]
            plan.payload_rows = [*plan.payload_rows, *lanes.load_bodies(connection, bodies)]
        found = {row[0] for row in plan.payload_rows}
        # Gone with its partition: the delivery must end, not wait for it.
        plan.payload_rows += [lanes.erased(key) for key in wanted if key not in found]


def until_id() -> bytes:
    """An id that nothing made today exceeds: keeps the planner off the partitions of the coming weeks."""
    return ((time.time_ns() // 1_000_000 + 86_400_000) << 80).to_bytes(16, "big")
