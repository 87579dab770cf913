"""The dispatcher: takes lanes, sends what is due, writes results in bulk. A Celery task runs it (`deliveries/tasks.py`).

One loop that never waits for the database. Three talk to it meanwhile:

    lanes     one *round* at a time: take, load, fetch payloads, promote; then release
    records   one batch of results at a time
    heart     renews the lease every five seconds, in a thread, whatever the loop does

The first two are clerks, on the loop's own thread whenever they do not wait (see `hub`).

The loop itself (`Dispatcher.run`) sends, judges answers, and decides what the next round and the next batch are. What is
in memory, and whose turn it is, is in `book`.
"""

import logging
import os
import random
import resource
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg

from deliveries.pipeline import batch as batches
from deliveries.pipeline import counters, lanes, lease
from deliveries.pipeline.announce import Kind, Transition, keep_transitions
from deliveries.pipeline.book import (
    NO_ID,
    SLOW_SECONDS,
    Book,
    HeldLane,
)
from deliveries.pipeline.clerk import Clerk
from deliveries.pipeline.database import Row
from deliveries.pipeline.endpoints import BatchRule, EndpointConfig
from deliveries.pipeline.fan_out import OPERATIONAL_PREFIXES
from deliveries.pipeline.health import RULES, Health, Hold, Rules, is_charged
from deliveries.pipeline.heart import ClockOff, Heart, boottime
from deliveries.pipeline.hub import Hub, outside
from deliveries.pipeline.lanes import Owed
from deliveries.pipeline.needs import Need, lanes_a_round, missing, need_of, stale, wanted
from deliveries.pipeline.outcome import GONE, Outcome, Wish, retry_after_seconds, wish_of
from deliveries.pipeline.payloads import Payload
from deliveries.pipeline.record import BY_INDEX, Result, record
from deliveries.pipeline.request import Flight, no_answer, payload_of, prepare
from deliveries.pipeline.results import PLATFORM_FAULT_WAIT, is_by_hand, result_of, wait_of
from deliveries.pipeline.rounds import Round, RoundWorker
from deliveries.pipeline.tally import tally
from deliveries.pipeline.tokens import TokenClient, TokenFailure, Tokens, TokenTag
from deliveries.pipeline.transport import Answer, OutgoingRequest, Transport
from deliveries.pipeline.wake import nudge
from tenants import ids

if TYPE_CHECKING:
    # Where traces are off, what they need is not even loaded.
    from deliveries.pipeline.tracing import AttemptTraces

logger = logging.getLogger(__name__)

HAND_OVER_SECONDS = 600
"""After this a fresh task goes on: what a process gathers over time is let go."""

HAND_OVER_DELIVERIES = 1_000_000

EAGER_SECONDS = 2.0
"""After the last work, lanes are looked for every 5 ms for so long; then every 50 ms."""

EAGER_PAUSE = 0.005
PATIENT_PAUSE = 0.05

STARTS_A_TURN = 32
"""Requests begun before the loop looks at answers, rounds and results again: what came meanwhile waits for the last one."""

JOBS_EVERY = 8
"""Requests begun, or answers judged, before jobs go on whose own answers came: a round waits for a handful of those."""

DRY_SECONDS = 30.0
"""Without work for so long, the dispatcher ends; a nudge starts the next one."""

DRAIN_SECONDS = 25.0
"""After SIGTERM, what is in the air may take this long; the rest is left to the next dispatcher, and repeats."""

LAST_RECORDS_SECONDS = 3.0
"""At the end, for what was answered and is not written down."""

BATCH_RESULTS = 128
"""Results that are recorded at once even if the last batch was recorded a moment ago."""

MOST_A_BATCH = 256
"""Results in one transaction: more only makes a lane that is done wait for them."""

BATCH_SECONDS = 0.01
"""How long a result waits for others."""

MOST_UNRECORDED = 3_072
"""Results in memory. Beyond it nothing is sent until the database has caught up."""

MOST_UNRECORDED_BYTES = 16 * 1024 * 1024

CHECK_SECONDS = 2.0
"""Between looks at what people changed about the lanes that are held. Five are promised."""

PATROL_SECONDS = 0.1
"""Between looks at all lanes in memory, and for new work on those that wait for slow answers."""

STOP_LOOK_SECONDS = 0.05

DESCRIPTORS_SPARE = 200

BATCH_LOOK_SECONDS = 0.02
"""Between looks whether all of a batch is in memory."""

BATCH_PATIENCE_SECONDS = 1.0
"""How long a batch waits for what is not in memory yet. Then what is there goes, so that lanes cannot block one another."""

UNAUTHORIZED = 401

WISHES = {
    Wish.DISABLE: "The receiver asked to disable the endpoint.",
    Wish.ABORT: "The receiver asked not to try again.",
}

Connection = psycopg.Connection[Row]


class Ending(StrEnum):
    ENOUGH = "enough"
    """There are as many as wanted: this one never began."""
    DRY = "dry"
    HANDED_OVER = "handed over"
    DRAINED = "drained"
    CLOCK_OFF = "clock off"
    """This machine's clock went more than a minute from the database's."""
    LEASE_LOST = "lease lost"
    DATABASE_LOST = "database lost"


class Dispatcher:
    """One run. `stop_fd`, when readable, asks it to drain (see `deliveries/tasks.py`)."""

    def __init__(
        self,
        *,
        open_transport: Callable[[int], Transport],
        capacity: int,
        on_gone: Callable[[UUID], None],
        on_refused: Callable[[UUID], None] = lambda _: None,
        user_agent: str,
        stop_fd: int | None = None,
        at_most: int = 1_000,
        dry_seconds: float = DRY_SECONDS,
        drain_seconds: float = DRAIN_SECONDS,
        health_rules: Rules = RULES,
        traces: "AttemptTraces | None" = None,
    ) -> None:
        self.me = ids.new_id()
        self.transport = open_transport(min(capacity, raise_descriptor_limit()))
        self.capacity = self.transport.most_in_flight
        self.on_gone = on_gone
        """Told of an endpoint that answered 410."""
        self.on_refused = on_refused
        """Told of one whose receiver asks for nothing more."""
        self.user_agent_line = f"user-agent: {user_agent}"
        self.stop_fd = stop_fd
        self.at_most = at_most
        """Dispatchers alive at a time, this one among them."""
        self.dry_seconds = dry_seconds
        self.drain_seconds = drain_seconds
        self.health_rules = health_rules
        self.traces = traces
        self.prepare = prepare if traces is None else traces.prepare
        self.tokens = Tokens(user_agent_line=self.user_agent_line)
        self.book = Book(capacity=self.capacity, linger_seconds=dry_seconds)
        self.round_worker = RoundWorker(me=self.me, payloads=self.book.payloads.by_key)
        self.results: list[Result] = []
        self.result_lanes: list[HeldLane] = []
        self.result_bytes = 0
        self.unrecorded = 0
        self.oldest_result = 0.0
        self.flights: deque[Flight] = deque()
        """In the order in which they started, finished ones among them; looked at when a second old."""
        self.hungry: set[HeldLane] = set()
        """Lanes whose next payload is not in memory."""
        self.attention: set[HeldLane] = set()
        """Lanes to which something happened since the last round."""
        self.changed: list[HeldLane] = []
        """Dropped for their new settings, while requests by the old ones are in the air."""
        self.after_tenant = lanes.NO_TENANT
        self.others_wait = False
        """The last take brought all it asked for, or was of others than those who did: lanes give way after their turn."""
        self.was_of_others = False
        """The busy were not asked in the last round: it is their turn as well."""
        self.next_take = 0.0
        self.lanes_a_round = 128
        self.last_taken = 0
        """Lanes. A take brings one of each tenant, however few were asked for."""
        self.next_check = 0.0
        self.next_stop_look = 0.0
        self.next_patrol = 0.0
        self.last_work = 0.0
        self.done = 0
        self.ending: Ending | None = None
        self.drain_until = 0.0
        self.stopped: dict[bytes, Callable[[UUID], None]] = {}
        """Endpoints that want no more, and who is told when the answer that said so is recorded."""
        self.transitions: list[Transition] = []
        self.random = random.Random()  # noqa: S311 - jitter, no secret

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> Ending:
        """Until there is nothing to do, it is time to hand over, or someone says stop."""
        self.heart = Heart(me=self.me, process=f"{socket.gethostname()}:{os.getpid()}", at_most=self.at_most)
        if not self.heart.is_registered:
            self.heart.sign_off()
            self.transport.close()
            return Ending.ENOUGH
        if self.heart.is_clock_off:
            self.heart.sign_off()
            self.transport.close()
            raise ClockOff(self.heart.clock_offset)
        self.heart.start()
        self.hub = Hub()
        self.lanes_clerk = Clerk("lanes", hub=self.hub, statement_timeout_seconds=5, options=lanes.OPTIONS)
        self.records_clerk = Clerk("records", hub=self.hub, statement_timeout_seconds=10, options=BY_INDEX)
        self.transport.watch(self.hub.fileno())
        self.began = self.last_work = time.monotonic()
        try:
            while not self._is_over():
                answers = self.transport.poll(self._pause(), may_go_on=self._may_go_on)
                for number, answer in enumerate(answers, start=1):
                    self._answered(answer)
                    if number % JOBS_EVERY == 0:
                        self.hub.go_on()
                self._collect()
                self._mark_slow()
                self.book.wake_paced(time.monotonic())
                self._send()
                self._record()
                self._next_round()
        finally:
            self._end()
        assert self.ending is not None
        return self.ending

    def _is_over(self) -> bool:
        """Whether the run ends here. First decides whether it should begin to end."""
        now = time.monotonic()
        if self.heart.is_dead or boottime() > self.heart.deadline:
            self.ending = Ending.LEASE_LOST
            return True
        if self.ending is None:
            if self._is_asked_to_stop(now):
                self._begin_to_end(Ending.DRAINED, now)
            elif self.lanes_clerk.losses or self.records_clerk.losses:
                # What the database lost of our lanes' rows cannot be known: a new run begins with none.
                self._begin_to_end(Ending.DATABASE_LOST, now)
            elif self.heart.is_clock_off:
                logger.error("this machine's clock is off", extra={"seconds": self.heart.clock_offset})
                self._begin_to_end(Ending.CLOCK_OFF, now)
            elif now - self.began > HAND_OVER_SECONDS or self.done > HAND_OVER_DELIVERIES:
                self._begin_to_end(Ending.HANDED_OVER, now)
            elif now - self.last_work > self.dry_seconds and not self.book.lanes:
                self._begin_to_end(Ending.DRY, now)
            return False
        is_idle = not self.book.in_air and not self.unrecorded and not self.book.lanes
        if is_idle and not self.lanes_clerk.is_busy and not self.records_clerk.is_busy:
            return True
        return now > self.drain_until

    def _may_go_on(self) -> bool:
        """Whether the lanes are ours still: after a long stop of this process they are someone else's."""
        return boottime() <= self.heart.deadline

    def _begin_to_end(self, ending: Ending, now: float) -> None:
        """Take nothing more, drop what was not sent yet; what is in the air is waited for."""
        self.ending = ending
        self.drain_until = now + self.drain_seconds
        self.heart.is_draining = True
        for lane in self.book.lanes.values():
            self._drop(lane)

    def _is_asked_to_stop(self, now: float) -> bool:
        """Readable, or at its end: the worker's main process shuts down, or is gone. Not read: others look, too."""
        if self.stop_fd is None or now < self.next_stop_look:
            return False
        self.next_stop_look = now + STOP_LOOK_SECONDS
        look = select.poll()
        look.register(self.stop_fd, select.POLLIN)
        return bool(look.poll(0))

    def _pause(self) -> float:
        """How long the next poll may wait: until a lane may be taken or a batch is due."""
        if self.lanes_clerk.has_news or self.records_clerk.has_news:
            # Of a job that ended in the middle of the turn.
            return 0.0
        now = time.monotonic()
        until = now + 0.25
        if self.book.paced:
            until = min(until, self.book.paced[0][0])
        if self.ending is None and not self.heart.is_sending_stopped and not self.lanes_clerk.is_busy:
            until = min(until, self.next_take)
        if self.results and not self.records_clerk.is_busy:
            until = min(until, self.oldest_result + BATCH_SECONDS)
        return max(0.0, until - now)

    def _end(self) -> None:
        """Give back what can be given back. In the air past the deadline: aborted, and repeated by the next holder."""
        self.transport.abort_all()
        self.transport.close()
        self._record_the_rest()
        self.lanes_clerk.stop()
        self.records_clerk.stop()
        self.heart.stop()
        if self.heart.sign_off() or self.ending is Ending.HANDED_OVER:
            # Who published since our last look saw a dispatcher alive and sent no nudge.
            nudge()
        self.hub.close()
        counters.add(f"dispatcher_runs:{'failed' if self.ending is None else self.ending.name.lower()}")
        logger.info("dispatcher ended", extra={"ending": self.ending, "deliveries": self.done})

    def _collect(self) -> None:
        self.hub.go_on()
        self.lanes_clerk.collect()
        self.records_clerk.collect()

    # --- send ---------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Start what may start: tenants in turn, lanes in turn, until no one may."""
        book = self.book
        if self.ending is not None or self.heart.is_sending_stopped:
            return
        now = time.time() + self.heart.clock_offset
        for number in range(1, STARTS_A_TURN + 1):
            if number % JOBS_EVERY == 0:
                self.hub.go_on()
            if self.unrecorded >= MOST_UNRECORDED or self.result_bytes >= MOST_UNRECORDED_BYTES:
                return
            if boottime() > self.heart.deadline:
                # Stopped in the middle of this for longer than the lease: the lanes are someone else's by now.
                return
            lane = book.next_lane()
            if lane is None:
                return
            if lane.config.batch is not None:
                self._send_batch(lane, lane.config.batch, now)
                continue
            owed = lane.queue[0]
            payload = book.payloads.by_key.get(owed.payload_key)
            if payload is None:
                lane.is_hungry = True
                self.hungry.add(lane)
                continue
            lane.queue.popleft()
            book.started(lane, owed)
            self._start(lane, owed, payload, now)

    def _send_batch(self, lane: HeldLane, rule: BatchRule, now: float) -> None:
        """What goes together, in one request; or look again a little later."""
        payloads = self.book.payloads.by_key
        at = time.monotonic()
        together = batches.ready(
            lane.queue,
            rule,
            now=now,
            is_all_here=lane.is_dry,
            is_present=lambda owed: owed.payload_key in payloads,
            is_patient=lane.impatient_at is None or at < lane.impatient_at,
        )
        if isinstance(together, float):
            if not together and lane.impatient_at is None:
                lane.impatient_at = at + BATCH_PATIENCE_SECONDS
            # What is missing is fetched and loaded meanwhile.
            self.hungry.add(lane)
            self.attention.add(lane)
            self.book.gather(lane, together or BATCH_LOOK_SECONDS)
            return
        lane.is_gathering, lane.impatient_at, lane.cleared_at = False, None, None
        going = {owed.id for owed in together}
        lane.queue = deque(owed for owed in lane.queue if owed.id not in going)
        # An event whose payload was erased meanwhile ends by itself.
        sendable = [owed for owed in together if payloads[owed.payload_key].data is not None]
        for owed in together:
            if payloads[owed.payload_key].data is None:
                self.book.started(lane, owed)
                self._start(lane, owed, payloads[owed.payload_key], now)
        if sendable:
            first, *others = sendable
            self.book.started(lane, first)
            self.book.joined(lane, others)
            pairs = [(owed, payloads[owed.payload_key]) for owed in others]
            self._start(lane, first, payloads[first.payload_key], now, others=pairs)

    def _mark_slow(self) -> None:
        """Transfers older than a second count against their half of the slots."""
        before = time.monotonic() - SLOW_SECONDS
        flights = self.flights
        while flights and (flights[0].is_over or flights[0].started < before):
            flight = flights.popleft()
            if not flight.is_over:
                flight.is_slow = True
                self.book.hangs(flight.lane)
                self.attention.add(flight.lane)

    def _start(
        self,
        lane: HeldLane,
        owed: Owed,
        payload: Payload,
        now: float,
        *,
        others: Sequence[tuple[Owed, Payload]] = (),
    ) -> None:
        self.book.payloads.use(payload)
        flight = Flight(lane, owed, payload, time.monotonic())
        if others:
            flight.others = others
            for _, other in others:
                self.book.payloads.use(other)
        self.flights.append(flight)
        if len(lane.queue) < lane.ahead:
            self.attention.add(lane)
        try:
            request = self.prepare(flight, now=now, user_agent_line=self.user_agent_line)
        except Exception:  # one delivery's trouble is that delivery's attempt
            logger.exception("a delivery could not be prepared", extra={"delivery_id": owed.id.hex()})
            request = Outcome.INTERNAL_ERROR, "the request could not be prepared"
        if isinstance(request, OutgoingRequest):
            client = lane.config.token_client
            if client is None:
                self.transport.start(request)
            else:
                flight.request = request
                self._start_with_token(flight, client)
        else:
            outcome, detail = request
            self._finish(flight, no_answer(flight, outcome, detail), outcome)

    # --- access tokens ------------------------------------------------------------------------------------------------

    def _start_with_token(self, flight: Flight, client: TokenClient) -> None:
        """Send it as soon as there is a token; it is in the air meanwhile, and waits for no longer than a time-out."""
        token = self.tokens.known(client)
        match token:
            case None:
                asking = self.tokens.wait(client, flight)
                if asking is not None:
                    self.transport.start(asking)
            case TokenFailure(outcome, detail, is_platform_fault):
                answer = no_answer(flight, outcome, detail, is_platform_fault=is_platform_fault)
                self._finish(flight, answer, outcome)
            case str():
                flight.token = token
                request = flight.request
                assert request is not None
                line = f"authorization: Bearer {token}"
                self.transport.start(replace(request, headers=[*request.headers, line]))

    def _token_came(self, client: TokenClient, answer: Answer) -> None:
        for flight in self.tokens.came(client, answer):
            self._start_with_token(flight, client)

    def _is_sent_again(self, flight: Flight) -> bool:
        """The receiver refused its token: once, it is sent again with a new one, as the same attempt."""
        client, token = flight.lane.config.token_client, flight.token
        if client is None or flight.is_second or self.ending is not None:
            return False
        flight.is_second = True
        self.tokens.refused(client, token)
        self._start_with_token(flight, client)
        return True

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answered(self, answer: Answer) -> None:
        if answer.tag.__class__ is TokenTag:
            self._token_came(answer.tag.client, answer)
            return
        flight: Flight = answer.tag
        try:
            self._judge(flight, answer)
        except Exception:  # an answer that we cannot read is the end of that attempt, not of everybody's
            if flight.is_over:
                # In the middle of counting it: what is in memory is wrong now.
                raise
            logger.exception("an answer could not be judged", extra={"delivery_id": flight.owed.id.hex()})
            unread = no_answer(flight, Outcome.INTERNAL_ERROR, "the answer could not be read")
            self._finish(flight, unread, Outcome.INTERNAL_ERROR)

    def _judge(self, flight: Flight, answer: Answer) -> None:
        if answer.failure is not None:
            outcome = answer.failure
        elif answer.status_code in flight.lane.config.success:
            outcome = Outcome.SUCCEEDED
        elif answer.status_code == UNAUTHORIZED and flight.lane.config.has_auth:
            if self._is_sent_again(flight):
                return
            outcome = Outcome.CREDENTIALS_FAILED
            answer.detail = "The receiver refused the endpoint's credentials."
        else:
            outcome = Outcome.HTTP_ERROR
        self._finish(flight, answer, outcome)

    def _finish(self, flight: Flight, answer: Answer, outcome: Outcome) -> None:
        """The attempt is over: free its slot, decide what follows, and queue the result for recording."""
        lane, owed = flight.lane, flight.owed
        is_good = outcome is Outcome.SUCCEEDED
        # First what the receiver's bytes decide: if they cannot be read, nothing was counted yet.
        wish = wish_of(answer.response_headers)
        wait = None
        if not is_good and wish is None:
            wait = (
                PLATFORM_FAULT_WAIT
                if answer.is_platform_fault
                else wait_of(lane.config, owed, answer, outcome, jitter=self.random.random())
            )
        flight.is_over = True
        self.book.answered(
            lane, is_good=is_good, is_timeout=outcome is Outcome.TIMEOUT, was_slow=flight.is_slow
        )
        self.book.payloads.done_with(flight.payload)
        for _, other in flight.others:
            self.book.payloads.done_with(other)
        if wish is not None:
            answer.detail = answer.detail or WISHES[wish]
        # By earlier settings, it says nothing of how the endpoint does now; of another receiver, nothing at all.
        current = self.book.lanes.get(lane.endpoint_id, lane) if lane.is_dropped else lane
        is_heard = current is lane or current.config.destination.url == lane.config.destination.url
        if wish is Wish.DISABLE and is_heard:
            self.stopped[lane.endpoint_id] = self.on_refused
        elif answer.status_code == GONE and outcome is Outcome.HTTP_ERROR and is_heard:
            self.stopped[lane.endpoint_id] = self.on_gone
        if is_good:
            if lane.health is not None and current is lane:
                self._recovered(lane)
        elif not answer.is_platform_fault and is_charged(outcome) and current is lane:
            self._failed(flight, answer)
        if not self.results:
            self.oldest_result = time.monotonic()
        if wait is not None:
            if lane.config.batch is not None:
                wait += batches.SPREAD_SECONDS * self.random.random()
            lane.retry_at = min(lane.retry_at, time.monotonic() + wait)
        kept = [result_of(flight, owed, flight.payload, answer, outcome, wait)]
        if flight.others:
            kept += [
                result_of(flight, other, carried, answer, outcome, wait) for other, carried in flight.others
            ]
        self.results += kept
        self.result_lanes += [lane] * len(kept)
        self.result_bytes += len(kept) * (len(answer.response_body) + len(answer.response_headers))
        lane.unrecorded += len(kept)
        self.unrecorded += len(kept)
        if lane.lines:
            # Recorded in this order, so the next needs not wait for it.
            if is_good or (wait is None and not is_by_hand(owed)):
                kept[0].is_followed = self.book.head_ended(lane, owed.id)
            else:
                self.book.drop_line(lane, owed.id)
        # It may wait behind slower ones to be looked at; what it carried must not.
        del flight.payload
        flight.others, flight.request = (), None

    # --- health -------------------------------------------------------------------------------------------------------

    def _failed(self, flight: Flight, answer: Answer) -> None:
        """Count it, and hold the lane if it is time."""
        lane = flight.lane
        now = time.time() + self.heart.clock_offset
        if lane.health is None:
            lane.health = Health(failing_since=now, failed_at=now)
        lane.is_health_new = True
        was_open = lane.health.opened_at is not None
        hold = lane.health.failed(
            now=now,
            is_own=not flight.payload.type.startswith(OPERATIONAL_PREFIXES),
            status_code=answer.status_code,
            retry_after=None
            if answer.status_code is None
            else retry_after_seconds(answer.status_code, answer.response_headers, datetime.now(UTC)),
            may_hold=lane.held_until is None,
            jitter=self.random.random(),
            rules=self.health_rules,
        )
        if hold is not None:
            reason, seconds = hold
            self.book.hold_back(lane, reason=reason, until=time.monotonic() + seconds)
            self.attention.add(lane)
        if lane.health.opened_at is not None and not was_open:
            self._tell(lane, Kind.ENDPOINT_FAILING, lane.health)

    def _recovered(self, lane: HeldLane) -> None:
        """A good answer: whatever was counted is over, and so is the wait."""
        assert lane.health is not None
        before, lane.health = lane.health, None
        lane.is_health_new = True
        if lane.hold_reason == Hold.CIRCUIT.value:
            lane.held_until = lane.hold_reason = None
        if before.opened_at is not None:
            self._tell(lane, Kind.ENDPOINT_RECOVERED, before)

    def _tell(self, lane: HeldLane, kind: Kind, health: Health) -> None:
        self.transitions.append(
            Transition(
                id=ids.new_id().bytes,
                tenant_id=lane.config.tenant_id,
                kind=kind,
                data={"failing_since": health.failing_since, "failures": health.failures},
                is_quiet=not health.is_own,
                lane=lane.health_to_keep(),
            )
        )

    # --- record -------------------------------------------------------------------------------------------------------

    def _record(self, *, is_last: bool = False) -> None:
        """Hand a batch to the records clerk, if it is free and the batch is worth it. At the end every batch is."""
        if not self.results or self.records_clerk.is_busy:
            return
        is_due = (
            is_last
            or len(self.results) >= BATCH_RESULTS
            or time.monotonic() - self.oldest_result >= BATCH_SECONDS
            or not self.book.in_air
        )
        if not is_due:
            return
        if len(self.results) > MOST_A_BATCH:
            self._let_small_tenants_ahead()
        cut = whole(self.results, MOST_A_BATCH)
        batch, batch_lanes = self.results[:cut], self.result_lanes[:cut]
        # Now: of what the database refuses, the result is made bare.
        size = sum(len(result.response_body) + len(result.response_headers) for result in batch)
        stopped, transitions = self.stopped, self.transitions
        self.results, self.result_lanes = self.results[cut:], self.result_lanes[cut:]
        self.stopped, self.transitions = {}, []

        def job(connection: Connection, is_repeat: bool) -> None:
            began = time.monotonic()
            record(connection, batch, is_retry=is_repeat)
            tally(batch, clock_offset=self.heart.clock_offset, seconds=time.monotonic() - began)
            if self.traces is not None:
                self.traces.recorded(batch)
            if transitions:
                keep_transitions(connection, me=self.me, transitions=transitions)
            for endpoint_id, tell in stopped.items():
                try:
                    outside(partial(tell, UUID(bytes=endpoint_id)))
                except Exception:  # the next answer says it again
                    logger.exception("an endpoint that wants no more could not be disabled")

        def recorded(_: None) -> None:
            self.done += len(batch)
            self.heart.done = self.done
            self.unrecorded -= len(batch)
            self.result_bytes -= size
            for result, lane in zip(batch, batch_lanes, strict=True):
                self.book.recorded(lane, result.delivery_id)
                if result.line is not None:
                    # With new settings another goes on, which has not read ahead of this one.
                    current = self.book.lanes.get(lane.endpoint_id, lane)
                    if not result.is_followed or current is not lane:
                        # Its successor is due now.
                        current.is_dry = False
                        current.cursor_since = 0.0
                        self.attention.add(current)
                self.attention.add(lane)

        self.records_clerk.give(job, recorded)

    def _record_the_rest(self) -> None:
        """What was answered before the end: what is not written down would repeat."""
        until = time.monotonic() + LAST_RECORDS_SECONDS
        clerk = self.records_clerk
        try:
            while (
                (self.results or clerk.is_busy)
                and not clerk.failure
                and not self.heart.is_dead
                and boottime() < self.heart.deadline
                and time.monotonic() < until
            ):
                clerk.collect()
                self._record(is_last=True)
                self.hub.go_on(0.002)
        except Exception:  # the end goes on, whatever else was wrong with the run
            logger.exception("the last results could not be recorded")

    def _let_small_tenants_ahead(self) -> None:
        """Half of the next batch is what waits longest; the other half is those with the fewest lanes."""
        half = whole(self.results, MOST_A_BATCH // 2)
        later = sorted(
            zip(self.results[half:], self.result_lanes[half:], strict=True), key=lambda it: it[1].share.lanes
        )
        self.results[half:] = [result for result, _ in later]
        self.result_lanes[half:] = [lane for _, lane in later]

    # --- rounds -------------------------------------------------------------------------------------------------------

    def _next_round(self) -> None:
        """Decide what the lanes clerk does next, if it is free and there is something."""
        if self.lanes_clerk.is_busy:
            return
        now = time.monotonic()
        book = self.book
        book.is_piling_up = self.heart.is_piling_up
        is_taking = self.ending is None and not self.heart.is_sending_stopped and now >= self.next_take
        is_checking = now >= self.next_check and bool(book.lanes)
        # Now and then at all lanes, for what time alone changes.
        is_patrol = now >= self.next_patrol
        releasing: list[HeldLane] = []
        loading: list[HeldLane] = []
        clearing: list[HeldLane] = []
        waiting: list[bytes] = []
        later: list[HeldLane] = []
        for lane in list(book.lanes.values() if is_patrol else self.attention):
            match need_of(
                lane, now=now, book=book, others_wait=self.others_wait, is_ending=self.ending is not None
            ):
                case Need.RELEASE:
                    releasing.append(lane)
                case Need.LOAD:
                    loading.append(lane)
                case Need.CLEAR:
                    clearing.append(lane)
                case Need.WAKE:
                    waiting.append(lane.endpoint_id)
                case Need.LATER:
                    later.append(lane)
                case Need.NOTHING:
                    pass
        self.attention.clear()
        self.attention.update(later)
        self.attention.update(book.held_back)
        book.held_back.clear()
        # As many as were taken, or ever more would be held.
        leaving = book.leave(releasing, at_most=max(self.lanes_a_round, self.last_taken))
        self.attention.update(lane for lane in releasing if not lane.is_leaving)
        releasing = leaving
        if not is_patrol:
            waiting.clear()
        changed = [
            lane for lane in self.changed if lane.has_in_air and book.lanes.get(lane.endpoint_id) is lane
        ]
        self.changed = []
        has_work = is_taking or is_checking or bool(releasing or loading or clearing or waiting or changed)
        if not has_work and not self.hungry:
            return
        room = book.payloads.room(book.weights)
        fetch = missing(self.hungry, book=book, room=room)
        if not has_work and not fetch:
            return
        keeping = [lane for lane in (book.lanes.values() if is_checking else releasing) if lane.is_health_new]
        plan = Round(
            healths=[lane.health_to_keep() for lane in keeping],
            release=[lane.release(now, is_piling_up=book.is_piling_up) for lane in releasing],
            clear=[lane.release(now) for lane in clearing],
            wanted=wanted([*loading, *clearing], book=book, now=now),
            held=[
                key
                for lane in (*loading, *clearing)
                # What follows in a line falls due behind the cursor.
                if lane.after_id == NO_ID or lane.is_cursor_back or lane.is_in_lines or book.is_piling_up
                for key in lane.in_memory()
            ],
            take=min(self.lanes_a_round, book.free_lanes()) if is_taking and book.free_loads() > 0 else 0,
            full_tenants=book.full_tenants() if is_taking else [],
            busy_tenants=book.busy_tenants() if is_taking and not self.was_of_others else [],
            after_tenant=self.after_tenant,
            look_for_woken=waiting,
            check=is_checking,
            waiting_long=book.waiting_since(now - CHECK_SECONDS) if is_checking else [],
            changed={lane.endpoint_id: (lane, list(lane.flying)) for lane in changed},
            fetch=fetch,
            room=room,
            tenants={lane.endpoint_id: lane.share.tenant_id for lane in (*loading, *clearing)},
            free_loads=book.free_loads(),
            began=now,
            is_piling_up=book.is_piling_up,
            owed_from=stale(book.lanes.values(), book=book) if is_checking else {},
        )
        if is_patrol:
            self.next_patrol = now + PATROL_SECONDS
        if is_checking:
            self.next_check = now + CHECK_SECONDS
            book.payloads.unpin_stale(before=now - 60)
        if is_taking:
            self.next_take = now + (EAGER_PAUSE if now - self.last_work < EAGER_SECONDS else PATIENT_PAUSE)
        for lane in keeping:
            lane.is_health_new = False
        for endpoint_id, owed_from in plan.owed_from.items():
            book.lanes[endpoint_id].kept_owed_from = owed_from
        for lane in releasing:
            book.let_go(lane)
        for lane in (*loading, *clearing):
            lane.is_loading = True
        self.heart.has_room = book.free_slots() > self.capacity // 8 and book.free_loads() > 0
        self.lanes_clerk.give(
            lambda connection, _: self.round_worker.work(
                connection, plan, lambda: self.lanes_clerk.tell(self._round_came, plan)
            ),
            lambda _: self._round_done(plan),
        )

    def _round_done(self, plan: Round) -> None:
        """What it gave back is given back, too."""
        seconds = time.monotonic() - plan.began
        self.lanes_a_round = lanes_a_round(self.lanes_a_round, plan, seconds=seconds)
        counters.observe("round_seconds", [seconds])

    def _round_came(self, plan: Round) -> None:
        """Back in the loop: put what the round brought into the book."""
        now = time.monotonic()
        book = self.book
        if not plan.is_of_others:
            # Else from the same tenant on again, for all: or one that was not asked would be before it each time.
            self.after_tenant = plan.after_tenant
        self.last_taken = len(plan.taken)
        if plan.take:
            if len(plan.taken) >= plan.take or book.free_loads() <= 0:
                self.others_wait = True
            elif not plan.is_of_others:
                self.others_wait = False
            book.passed_over = plan.passed_over
            self.was_of_others = plan.is_of_others
        for taken in plan.taken:
            config = plan.configs.get(taken.endpoint_id)
            if config is None:
                continue
            lane = book.hold(
                endpoint_id=taken.endpoint_id,
                tenant_id=taken.tenant_id,
                config=config,
                slots=taken.slots,
                now=now,
            )
            lane.cursor_since = plan.began
            lane.owed_from = lane.kept_owed_from = taken.owed_from
            lane.resets, lane.health = taken.resets, taken.health()
            if taken.is_probed:
                # Half-open: one at a time, until one succeeds.
                lane.slots = 1.0
            if config.rate_limit is not None:
                lane.tokens, lane.tokens_at = (
                    taken.tokens + (taken.seconds_since or 0.0) * config.rate_limit,
                    now,
                )
            if taken.endpoint_id in plan.ended:
                lane.is_dropped = True
                lane.is_unfinished = plan.ended[taken.endpoint_id] >= lanes.END_BATCH
                self.attention.add(lane)
        for row in plan.payload_rows:
            book.payloads.put(payload_of(row, now))
        self._loaded(plan)
        for endpoint_id, seconds in plan.planned.items():
            if (held := book.lanes.get(endpoint_id)) is not None:
                held.retry_at = min(held.retry_at, now + seconds)
        for endpoint_id in plan.woken:
            if (held := book.lanes.get(endpoint_id)) is not None:
                held.is_dry = False
                held.cleared_at = None
                held.cursor_since = 0.0
                self.attention.add(held)
        for endpoint_id, (before, _) in plan.changed.items():
            config = plan.changed_configs.get(endpoint_id)
            if config is not None and book.lanes.get(endpoint_id) is before:
                if plan.ended.get(endpoint_id, 0) >= lanes.END_BATCH:
                    self.changed.append(before)
                self._changed(before, config)
        if plan.checked is not None:
            book.weigh(plan.weights)
            self._checked(plan.checked)
        if plan.ended_meanwhile:
            for lane in book.lanes.values():
                book.forget(lane, plan.ended_meanwhile)
                self.attention.add(lane)
        for hungry in list(self.hungry):
            if not hungry.queue or hungry.queue[0].payload_key in book.payloads.by_key:
                hungry.is_hungry = False
                self.hungry.discard(hungry)
                book.offer(hungry)
        if plan.taken or plan.owed or plan.promoted:
            self.last_work = now
            self.next_take = 0.0

    def _loaded(self, plan: Round) -> None:
        by_lane: dict[bytes, list[Owed]] = {}
        # By the database's clock, when the round began.
        looked_at = datetime.fromtimestamp(
            time.time() + self.heart.clock_offset - (time.monotonic() - plan.began), UTC
        )
        for owed in plan.owed:
            by_lane.setdefault(owed.endpoint_id, []).append(owed)
        for endpoint_id, count in plan.counts.items():
            lane = self.book.lanes.get(endpoint_id)
            if lane is None:
                continue
            lane.is_loading = False
            self.attention.add(lane)
            owed_here = by_lane.get(endpoint_id, [])
            # Told meanwhile to begin again, it was looked for too early.
            lane.is_dry = len(owed_here) < count and lane.cursor_since > 0.0
            if owed_here:
                lane.loaded_at = time.monotonic()
                lane.after_due, lane.after_id = owed_here[-1].due, owed_here[-1].id
                lane.newest = max(lane.newest, (lane.after_due, lane.after_id))
                if self.ending is None and not lane.is_dropped:
                    self.book.add(lane, owed_here)
                    for owed in owed_here if plan.followers else ():
                        if (followers := plan.followers.get(owed.id)) is not None:
                            self.book.follow(lane, owed, followers)
                    if lane.slow:
                        self.book.shorten(lane)
            if (
                self.book.is_piling_up
                and lane.cursor_since == plan.began
                and not lane.is_dropped
                and self.ending is None
            ):
                lane.looked_from_beginning(looked_at)

    def _checked(self, rows: list[Row]) -> None:
        """What people changed: lanes that are paused, changed or not ours any more give back what was not sent."""
        mine = {row[0]: (row[1], row[2]) for row in rows}
        if self.heart.is_sending_stopped:
            mine = {}
        for lane in list(self.book.lanes.values()):
            facts = mine.get(lane.endpoint_id)
            # A pause is over, or the stop of all sending.
            may_go_on = lane.is_dropped and lane.held_until is None and self.ending is None
            if facts is None:
                # Taken in this very round; or lost, or all sending is stopped.
                if time.monotonic() - lane.taken_at > lease.RENEW_SECONDS:
                    self._drop(lane)
            elif facts[1]:
                self._drop(lane)
            elif facts[0] != lane.config.version or may_go_on:
                self._drop(lane)
                if lane.has_in_air:
                    # Else it goes back in the next round, and comes again with them.
                    self.changed.append(lane)

    def _changed(self, lane: HeldLane, config: EndpointConfig) -> None:
        """Its new settings are here, and requests by the old ones may hang for half a minute more."""
        is_sending = self.ending is None and not self.heart.is_sending_stopped
        if is_sending and config.cancel_reason is None and lane.held_until is None:
            self.attention.add(self.book.succeed(lane, config=config, now=time.monotonic()))

    def _drop(self, lane: HeldLane) -> None:
        """Nothing more starts; given back when the last result is recorded."""
        lane.is_dropped = True
        self.attention.add(lane)
        self.book.drop_queue(lane)


def whole(results: Sequence[Result], at: int) -> int:
    """Where to cut so that what went out together is recorded together, and comes due together again."""
    while (
        0 < at < len(results) and results[at].group is not None and results[at].group == results[at - 1].group
    ):
        at += 1
    return at


def raise_descriptor_limit() -> int:
    """Raise the soft limit as far as it goes; returns how many requests may be in the air with it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # In the air, and as many idle connections kept for the next request.
    return max(16, (wanted - DESCRIPTORS_SPARE) // 2)
