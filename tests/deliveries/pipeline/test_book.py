"""Who may start next, with numbers: slots and loads, shared by tenants, then lanes."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deliveries.pipeline import book as book_module
from deliveries.pipeline.book import (
    BUSY_LANES,
    LATEST_COMMIT,
    MAX_LOADED,
    Book,
    HeldLane,
)
from deliveries.pipeline.endpoints import EndpointConfig
from deliveries.pipeline.lanes import Owed
from deliveries.pipeline.transport import Destination
from tenants.ids import new_id

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def a_tenant() -> bytes:
    return new_id().bytes


def hold(
    book: Book,
    tenant_id: bytes,
    *,
    owed: int,
    slots: float = 10.0,
    max_in_flight: int = 10,
    is_quick: bool = True,
) -> HeldLane:
    """A lane with so many deliveries loaded."""
    endpoint_id = new_id().bytes
    config = EndpointConfig(
        endpoint_id=endpoint_id,
        tenant_id=tenant_id,
        version=1,
        cancel_reason=None,
        destination=Destination(
            url="http://127.0.0.1:9/",
            scheme="http",
            host="127.0.0.1",
            port=9,
            tenant_id=new_id(),
            timeout_seconds=15.0,
        ),
        is_literal_address=True,
        method="POST",
        format="standard",
        header_lines=[],
        masked_lines=[],
        keys=[],
        success=frozenset([200]),
        retry_schedule=None,
        max_in_flight=max_in_flight,
        rate_limit=None,
        broken=None,
    )
    lane = book.hold(endpoint_id=endpoint_id, tenant_id=tenant_id, config=config, slots=slots, now=0.0)
    lane.is_quick = is_quick
    book.add(lane, [an_owed(endpoint_id) for _ in range(owed)])
    return lane


def an_owed(endpoint_id: bytes, **fields: Any) -> Owed:
    values: dict[str, Any] = {
        "endpoint_id": endpoint_id,
        "id": new_id().bytes,
        "event_id": new_id().bytes,
        "attempt_count": 0,
        "schedule_step": 0,
        "trigger": "automatic",
        "size": 2,
        "has_body": False,
        "is_automatic_due": True,
        "manual_requested_at": None,
        "due": NOW,
        "preparation_error": None,
        "ordering_key": None,
    }
    return Owed(**(values | fields))


def start(book: Book, most: int = 100_000) -> list[HeldLane]:
    """Start what may start; the lanes in that order."""
    started: list[HeldLane] = []
    while len(started) < most and (lane := book.next_lane()) is not None:
        book.started(lane, lane.queue.popleft())
        started.append(lane)
    return started


def answer(book: Book, lane: HeldLane, *, is_good: bool = True, was_slow: bool = False) -> None:
    book.answered(lane, is_good=is_good, is_timeout=False, was_slow=was_slow)


def test_tenants_take_turns_and_within_a_tenant_its_lanes() -> None:
    book = Book(capacity=1000)
    first, second = a_tenant(), a_tenant()
    many = [hold(book, first, owed=10) for _ in range(3)]
    one = hold(book, second, owed=10)

    order = start(book, 8)

    assert order == [many[0], one, many[1], one, many[2], one, many[0], one]


@pytest.mark.parametrize(("tenants", "share"), [(1, 50), (2, 33), (3, 25), (9, 10)])
def test_greedy_tenants_leave_as_much_free_as_each_of_them_has(tenants: int, share: int) -> None:
    book = Book(capacity=100)
    for _ in range(tenants):
        tenant = a_tenant()
        for _ in range(30):
            hold(book, tenant, owed=10)

    start(book)

    in_air = [each.in_air for each in book.shares.values()]
    # Slots are whole: whoever comes first has one more.
    assert all(share <= each <= share + 1 for each in in_air)
    assert book.in_air == sum(in_air)
    assert book.free_slots() >= share - tenants


def test_a_tenant_of_weight_three_has_three_times_what_another_has() -> None:
    book = Book(capacity=100)
    heavy, light = a_tenant(), a_tenant()
    book.weigh({heavy: 3})
    for tenant in (light, heavy):
        hold(book, tenant, owed=200, slots=200.0, max_in_flight=200)

    start(book)

    in_air = {tenant: share.in_air for tenant, share in book.shares.items()}
    assert (in_air[heavy], in_air[light]) == (60, 20)


def test_a_tenant_of_weight_three_starts_three_requests_in_its_turn() -> None:
    book = Book(capacity=1000)
    heavy, light = a_tenant(), a_tenant()
    for tenant in (light, heavy):
        for _ in range(3):
            hold(book, tenant, owed=10)
    book.weigh({heavy: 3})

    order = [lane.share.tenant_id for lane in start(book, 16)]

    assert Counter(order[4:]) == {heavy: 9, light: 3}
    assert Counter(order[8:12]) == {heavy: 3, light: 1}


def test_a_tenant_that_comes_late_starts_at_once() -> None:
    book = Book(capacity=100)
    greedy = a_tenant()
    for _ in range(100):
        hold(book, greedy, owed=10)
    start(book)
    late = hold(book, a_tenant(), owed=3)

    assert start(book) == [late] * 3


def test_an_answer_lets_the_tenant_go_on() -> None:
    book = Book(capacity=10)
    lane = hold(book, a_tenant(), owed=20, slots=10, max_in_flight=10)
    assert len(start(book)) == 5

    book.answered(lane, is_good=True, is_timeout=False, was_slow=False)

    assert len(start(book)) == 1


def test_a_lane_begins_with_few_requests_grows_with_answers_and_halves_on_time_outs() -> None:
    book = Book(capacity=1000)
    lane = hold(book, a_tenant(), owed=100, slots=2.0, max_in_flight=5)
    sizes = [len(start(book))]
    for _ in range(3):
        for _ in range(lane.in_air):
            book.answered(lane, is_good=True, is_timeout=False, was_slow=False)
        sizes.append(len(start(book)))
    for _ in range(2):
        book.hangs(lane)
        book.answered(lane, is_good=False, is_timeout=True, was_slow=True)
    book.answered(lane, is_good=False, is_timeout=False, was_slow=False)
    after_failures = lane.limit

    assert sizes == [2, 4, 5, 5]
    assert lane.slots == pytest.approx(5 / 4)
    assert after_failures == 1
    assert book.next_lane() is None


def test_lanes_that_have_not_answered_have_half_of_the_slots_together() -> None:
    """Each tenant on its own is within its share; all of them together must leave half to those who answer."""
    book = Book(capacity=100)
    untried = [hold(book, a_tenant(), owed=5, slots=2.0, is_quick=False) for _ in range(100)]
    first = start(book)
    quick = hold(book, a_tenant(), owed=30, slots=30.0, max_in_flight=30)

    second = start(book)

    assert len(first) == book.in_doubt == 50
    assert set(first) <= set(untried)
    # One tenant has no more than is free.
    assert second == [quick] * 25


def test_tenants_whose_endpoints_hang_leave_room_for_an_endpoint_that_nobody_knows_yet() -> None:
    """Each finds less than the one before it: sharing out what is left would leave nothing after six of them."""
    book = Book(capacity=2048)
    hanging = []
    for _ in range(20):
        tenant = a_tenant()
        for _ in range(130):
            hold(book, tenant, owed=5, slots=5.0, is_quick=False)
        hanging.append(len(start(book)))
    new = [hold(book, a_tenant(), owed=2, slots=2.0, is_quick=False) for _ in range(8)]

    started = start(book)
    for lane in new:
        answer(book, lane)

    assert hanging[:6] == [625, 183, 77, 40, 23, 15]
    assert sum(hanging) == 1012
    assert started == new
    assert start(book) == new


def test_twenty_tenants_that_hang_at_once_have_the_same() -> None:
    book = Book(capacity=2048)
    for _ in range(20):
        tenant = a_tenant()
        for _ in range(30):
            hold(book, tenant, owed=5, slots=2.0, is_quick=False)

    start(book)

    assert {share.in_doubt for share in book.shares.values()} == {45, 46}


def test_one_tenant_alone_may_have_six_tenths_of_that_half() -> None:
    book = Book(capacity=200)
    tenant = a_tenant()
    for _ in range(50):
        hold(book, tenant, owed=5, slots=2.0, is_quick=False)

    assert len(start(book)) == 61


def test_a_tenant_of_weight_three_may_have_more_of_that_half() -> None:
    book = Book(capacity=100)
    heavy, light = a_tenant(), a_tenant()
    book.weigh({heavy: 3})
    for tenant in (light, heavy):
        hold(book, tenant, owed=200, slots=200.0, max_in_flight=200, is_quick=False)

    start(book)

    in_doubt = {tenant: share.in_doubt for tenant, share in book.shares.items()}
    assert (in_doubt[heavy], in_doubt[light]) == (30, 10)


def test_lanes_that_answer_go_on_past_those_of_their_tenant_that_were_set_aside() -> None:
    book = Book(capacity=60)
    tenant = a_tenant()
    untried = [hold(book, tenant, owed=1, is_quick=False) for _ in range(30)]
    started = start(book)
    quick = hold(book, tenant, owed=5)

    assert started == untried[:19]
    assert start(book) == [quick] * 5


def test_each_answer_lets_one_go_on_that_was_set_aside_and_then_its_endpoint_is_known() -> None:
    book = Book(capacity=60)
    lanes = [hold(book, a_tenant(), owed=3, slots=1.0, is_quick=False) for _ in range(40)]
    started = start(book)

    answer(book, lanes[0])
    after_one = start(book)
    answer(book, lanes[1], is_good=False)
    after_a_failure = start(book)

    assert started == lanes[:30]
    # Its own next request is that of a quick lane, and takes none of their room.
    assert after_one == [lanes[30], lanes[0], lanes[0]]
    assert after_a_failure == [lanes[31]]
    assert (lanes[0].is_quick, lanes[1].is_quick, book.in_doubt) == (True, False, 30)


def test_a_lane_that_was_set_aside_goes_on_when_another_of_its_requests_is_answered() -> None:
    book = Book(capacity=4)
    tenant, other = a_tenant(), a_tenant()
    lane = hold(book, tenant, owed=3, slots=3.0, is_quick=False)
    hanging = hold(book, other, owed=1, slots=1.0, is_quick=False)
    started = start(book)

    answer(book, lane)

    assert started == [lane, hanging]
    assert start(book) == [lane, lane]
    assert (lane.is_quick, book.in_doubt, len(lane.share.set_aside)) == (True, 1, 0)


def test_a_quick_lane_that_begins_to_hang_counts_with_all_it_has_in_the_air() -> None:
    book = Book(capacity=40)
    lane = hold(book, a_tenant(), owed=20, slots=8.0, max_in_flight=8)
    start(book)
    before = book.in_doubt

    book.hangs(lane)
    hanging = book.in_doubt
    answer(book, lane)
    beside_one_that_hangs = lane.is_quick
    answer(book, lane, was_slow=True)
    after_a_slow_answer = lane.is_quick
    answer(book, lane)

    assert (before, hanging) == (0, 8)
    assert (beside_one_that_hangs, after_a_slow_answer, lane.is_quick) == (False, False, True)
    assert (book.in_doubt, lane.share.in_doubt, lane.slow) == (0, 0, 0)


def test_one_that_hangs_keeps_no_more_than_it_can_use_soon_and_loads_the_others_again() -> None:
    book = Book(capacity=100)
    lane = hold(book, a_tenant(), owed=40, slots=3.0)
    first = [owed.id for owed in lane.queue]
    assert start(book) == [lane] * 3

    lane.is_loading = True
    book.hangs(lane)
    assert len(lane.queue) == 37
    lane.is_loading, lane.is_dry, lane.cursor_since = False, True, 1.0
    book.hangs(lane)

    assert [owed.id for owed in lane.queue] == first[3:9]
    assert (book.loaded, lane.share.loaded, lane.is_dry, lane.cursor_since) == (6, 6, False, 0.0)


def test_a_lane_that_is_let_go_is_not_kept_among_those_set_aside() -> None:
    book = Book(capacity=4)
    lanes = [hold(book, a_tenant(), owed=1, is_quick=False) for _ in range(4)]
    start(book)

    for lane in lanes[2:]:
        book.let_go(lane)
    answer(book, lanes[0])

    assert start(book) == []
    assert not any(share.set_aside for share in [lane.share for lane in lanes])


def test_lanes_and_loads_of_a_greedy_tenant_end_when_it_has_as_many_as_are_free() -> None:
    book = Book(capacity=100_000)
    greedy, modest = a_tenant(), a_tenant()
    hold(book, modest, owed=1)
    for _ in range(7):
        hold(book, greedy, owed=MAX_LOADED // 16)
    before = book.full_tenants()
    hold(book, greedy, owed=MAX_LOADED // 16)

    assert before == []
    assert book.full_tenants() == [greedy]


def test_with_more_lanes_than_it_may_hold_none_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A take asks for so many, and none is the one number for which it is not made."""
    monkeypatch.setattr(book_module, "MAX_LANES", 2)
    book = Book(capacity=100)
    for _ in range(3):
        hold(book, a_tenant(), owed=0)

    assert book.free_lanes() == 0


def test_busy_are_those_with_many_lanes_that_are_an_eighth_of_all() -> None:
    book = Book(capacity=100)
    busy, quiet = a_tenant(), a_tenant()
    for _ in range(BUSY_LANES - 1):
        hold(book, busy, owed=1)
    hold(book, quiet, owed=1)
    before = book.busy_tenants()
    hold(book, busy, owed=1)
    with_many = book.busy_tenants()
    for _ in range(BUSY_LANES * 8):
        hold(book, a_tenant(), owed=1)

    assert (before, with_many, book.busy_tenants()) == ([], [busy], [])


def test_letting_go_forgets_everything_of_a_lane() -> None:
    book = Book(capacity=100)
    tenant = a_tenant()
    lane = hold(book, tenant, owed=10)

    book.let_go(lane)

    assert (book.loaded, book.lanes, book.shares) == (0, {}, {})
    assert book.next_lane() is None


def test_a_lane_that_was_dropped_or_waits_for_its_payload_starts_nothing() -> None:
    book = Book(capacity=100)
    dropped, hungry, fine = (hold(book, a_tenant(), owed=1) for _ in range(3))
    dropped.is_dropped = True
    hungry.is_hungry = True

    assert start(book) == [fine]

    hungry.is_hungry = False
    book.offer(hungry)
    assert start(book) == [hungry]


def test_a_retry_in_the_air_stays_in_memory_when_the_attempt_before_it_is_recorded() -> None:
    """The record commits, a load finds the retry due and starts it, and only then the loop hears of the record.

    Forgotten then, it would be loaded again and sent a third time beside the second.
    """
    book = Book(capacity=100)
    lane = hold(book, a_tenant(), owed=1)
    (owed,) = lane.queue
    start(book)
    book.answered(lane, is_good=False, is_timeout=False, was_slow=False)
    lane.unrecorded += 1
    book.add(lane, [an_owed(lane.endpoint_id, id=owed.id, attempt_count=1)])
    start(book)

    book.recorded(lane, owed.id)
    between = lane.in_memory()
    book.answered(lane, is_good=True, is_timeout=False, was_slow=False)
    lane.unrecorded += 1
    book.recorded(lane, owed.id)

    assert between == [owed.id]
    assert lane.in_memory() == []
    assert lane.flying_due == {}
    assert lane.unrecorded == 0


def test_nothing_is_owed_before_the_oldest_in_memory_and_what_may_be_committing_still() -> None:
    book = Book(capacity=100)
    lane = hold(book, a_tenant(), owed=0)
    old, older, oldest = (an_owed(lane.endpoint_id, due=NOW - timedelta(minutes=n)) for n in (1, 2, 3))
    lane.config = replace(lane.config, max_in_flight=1)

    lane.looked_from_beginning(NOW)
    assert lane.owed_from == NOW - LATEST_COMMIT
    book.add(lane, [oldest, older, old])
    start(book)
    lane.looked_from_beginning(NOW)
    assert lane.owed_from == oldest.due
    # Recorded: whatever becomes of it is due later.
    book.answered(lane, is_good=True, is_timeout=False, was_slow=False)
    lane.unrecorded += 1
    book.recorded(lane, oldest.id)
    lane.looked_from_beginning(NOW)
    assert lane.owed_from == older.due


# --- lanes that go back -----------------------------------------------------------------------------------------------


def hold_done(book: Book, tenant_id: bytes, *, taken_at: float = 0.0) -> HeldLane:
    lane = hold(book, tenant_id, owed=0)
    lane.is_dry, lane.taken_at = True, taken_at
    return lane


def test_lanes_of_small_tenants_go_back_first_and_then_those_that_were_taken_first() -> None:
    book = Book(capacity=100)
    large, small = a_tenant(), a_tenant()
    late, early, middle = (hold_done(book, large, taken_at=at) for at in (3.0, 1.0, 2.0))
    only = hold_done(book, small, taken_at=9.0)

    assert book.leave([late, early, middle, only], at_most=2) == [only, early]
    assert book.leave([], at_most=1) == [middle]
    assert book.leave([], at_most=5) == [late]
    assert book.leave([], at_most=5) == []


def test_one_whose_turn_is_over_does_not_wait_to_go_back_but_may_have_another() -> None:
    book = Book(capacity=100)
    tenant = a_tenant()
    done = hold_done(book, tenant, taken_at=2.0)
    first, last = hold(book, tenant, owed=0), hold(book, tenant, owed=0)
    first.taken_at, last.taken_at = 1.0, 3.0

    assert book.leave([done, first, last], at_most=1) == [first]
    assert [lane.is_leaving for lane in (done, first, last)] == [True, True, False]
    assert book.leave([], at_most=5) == [done]


def test_one_that_was_dropped_waits_like_one_that_is_done() -> None:
    book = Book(capacity=100)
    lane = hold(book, a_tenant(), owed=0)
    lane.is_dropped = True

    assert book.leave([lane], at_most=0) == []
    assert book.leave([], at_most=1) == [lane]
