"""What the lanes clerk should do next about a lane, with numbers."""

from datetime import UTC, datetime

import pytest

from deliveries.pipeline.book import BEGINNING, LINGER_SECONDS, NO_ID, TURN_SECONDS, Book, HeldLane
from deliveries.pipeline.needs import (
    CURSOR_SECONDS,
    KEPT_A_ROUND,
    LINGER_LANES,
    LINGER_MARGIN,
    LOOK_AGAIN_SECONDS,
    PILED_CURSOR_SECONDS,
    STALE_OWED_FROM,
    Need,
    need_of,
    stale,
    wanted,
)
from tenants.ids import new_id
from tests.deliveries.pipeline.test_book import a_tenant, hold

LATER = 2 * TURN_SECONDS


def need(book: Book, lane: HeldLane, *, now: float = LATER, others_wait: bool = False) -> Need:
    return need_of(lane, now=now, book=book, others_wait=others_wait, is_ending=False)


@pytest.mark.parametrize(
    ("now", "others_wait", "is_passed_over", "expected"),
    [
        (LATER, False, False, Need.LOAD),
        (TURN_SECONDS / 2, True, True, Need.LOAD),
        # Its turn is over: it gives way to lanes that wait, also to those of its own tenant.
        (LATER, True, False, Need.RELEASE),
        (LATER, False, True, Need.RELEASE),
    ],
)
def test_a_lane_with_nothing_in_memory_gives_way_after_its_turn(
    now: float, others_wait: bool, is_passed_over: bool, expected: Need
) -> None:
    book = Book(capacity=100)
    lane = hold(book, a_tenant(), owed=0)
    book.passed_over = {lane.share.tenant_id} if is_passed_over else {a_tenant()}

    assert need(book, lane, now=now, others_wait=others_wait) is expected


@pytest.mark.parametrize(("is_passed_over", "expected"), [(False, Need.LOAD), (True, Need.NOTHING)])
def test_one_that_is_still_busy_then_gets_no_more(is_passed_over: bool, expected: Need) -> None:
    """Or hundreds of lanes would be topped up by one delivery each, and every round take long by it."""
    book = Book(capacity=100)
    lane = hold(book, a_tenant(), owed=3)
    book.passed_over = {lane.share.tenant_id} if is_passed_over else set()

    assert need(book, lane) is expected


@pytest.mark.parametrize(("is_passed_over", "expected"), [(False, Need.NOTHING), (True, Need.LOAD)])
def test_new_work_of_a_small_tenant_is_looked_for_while_its_results_wait_behind_those_of_a_large_one(
    is_passed_over: bool, expected: Need
) -> None:
    book = Book(capacity=100)
    large = a_tenant()
    for _ in range(10):
        hold(book, large, owed=1)
    lane = hold(book, a_tenant(), owed=0)
    lane.is_dry, lane.unrecorded = True, 1
    book.passed_over = {large} if is_passed_over else set()

    assert need(book, lane) is expected


def hold_dry(book: Book) -> HeldLane:
    lane = hold(book, a_tenant(), owed=0)
    lane.is_dry, lane.loaded_at, lane.looked_at = True, LATER, LATER
    return lane


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (LOOK_AGAIN_SECONDS / 2, Need.LATER),
        (LOOK_AGAIN_SECONDS * 2, Need.LOAD),
        (LINGER_SECONDS / 2, Need.LOAD),
        (LINGER_SECONDS + 0.1, Need.RELEASE),
    ],
)
def test_where_versions_pile_up_a_lane_that_is_done_stays_and_is_looked_at(
    seconds: float, expected: Need
) -> None:
    book = Book(capacity=100)
    lane = hold_dry(book)

    assert need(book, lane, now=LATER + seconds) is Need.RELEASE
    book.is_piling_up = True
    assert need(book, lane, now=LATER + seconds) is expected


def test_one_that_waits_to_go_back_needs_nothing_more() -> None:
    book = Book(capacity=100)
    lane = hold_dry(book)
    book.leave([lane], at_most=0)

    assert need(book, lane) is Need.NOTHING


def test_it_goes_back_if_others_wait_or_it_has_to() -> None:
    book = Book(capacity=100)
    book.is_piling_up = True
    now = LATER + LINGER_SECONDS / 2

    assert need(book, hold_dry(book), now=now, others_wait=True) is Need.RELEASE
    assert need_of(hold_dry(book), now=now, book=book, others_wait=False, is_ending=True) is Need.RELEASE
    for name, value in {
        "is_dropped": True,
        "is_unfinished": True,
        "cleared_at": 1.0,
        "held_until": 9.0,
    }.items():
        lane = hold_dry(book)
        setattr(lane, name, value)
        assert need(book, lane, now=now) is Need.RELEASE, name
    for _ in range(LINGER_LANES):
        lane = hold_dry(book)
    assert need(book, lane, now=now) is Need.RELEASE


def test_there_loads_begin_again_less_often_and_a_little_before_the_last_one() -> None:
    book = Book(capacity=100)
    lane = hold_dry(book)
    due, last = datetime.now(UTC), new_id().bytes
    lane.after_due, lane.after_id, lane.cursor_since = due, last, 100.0

    book.is_piling_up = True
    seen = []
    for seconds in (-1, 1):
        (one,) = wanted([lane], book=book, now=100.0 + PILED_CURSOR_SECONDS + seconds)
        seen.append((one.after_due, one.after_id, lane.cursor_since))
    again = 100.0 + PILED_CURSOR_SECONDS + 1
    assert seen == [(due - LINGER_MARGIN, NO_ID, 100.0), (BEGINNING, NO_ID, again)]
    # Where it was is not forgotten.
    (one,) = wanted([lane], book=book, now=100.0 + PILED_CURSOR_SECONDS + 2)
    assert (one.after_due, one.after_id) == (due - LINGER_MARGIN, NO_ID)

    book.is_piling_up = False
    (one,) = wanted([lane], book=book, now=lane.cursor_since + CURSOR_SECONDS / 2)
    assert (one.after_due, one.after_id) == (due, last)
    (one,) = wanted([lane], book=book, now=lane.cursor_since + CURSOR_SECONDS * 2)
    assert (one.after_due, one.after_id) == (BEGINNING, NO_ID)


def test_there_they_begin_where_it_is_known_that_nothing_is_owed_before() -> None:
    book = Book(capacity=100)
    lane = hold_dry(book)
    lane.owed_from = datetime.now(UTC)

    (one,) = wanted([lane], book=book, now=LATER)
    assert (one.after_due, one.after_id) == (BEGINNING, NO_ID)
    book.is_piling_up = True
    (one,) = wanted([lane], book=book, now=LATER)
    assert (one.after_due, one.after_id) == (lane.owed_from, NO_ID)
    assert lane.release(LATER, is_piling_up=True).owed_from == lane.owed_from
    assert lane.release(LATER).owed_from is None


def test_what_a_lane_says_of_it_is_kept_now_and_then_while_versions_pile_up() -> None:
    book = Book(capacity=100)
    lane, unknown = hold_dry(book), hold_dry(book)
    lane.owed_from = datetime.now(UTC)

    assert stale([lane, unknown], book=book) == {}
    book.is_piling_up = True
    assert stale([lane, unknown], book=book) == {lane.endpoint_id: lane.owed_from}
    lane.kept_owed_from = lane.owed_from - STALE_OWED_FROM / 2
    assert stale([lane, unknown], book=book) == {}
    lane.kept_owed_from = lane.owed_from - STALE_OWED_FROM * 2
    assert stale([lane, unknown], book=book) == {lane.endpoint_id: lane.owed_from}

    many = [hold_dry(book) for _ in range(KEPT_A_ROUND + 1)]
    for lane in many:
        lane.owed_from = datetime.now(UTC)
    assert len(stale(many, book=book)) == KEPT_A_ROUND


def test_one_that_was_taken_in_the_last_round_of_a_run_goes_back_though_it_has_more() -> None:
    book = Book(capacity=100)
    lane = hold(book, a_tenant(), owed=0)

    assert need_of(lane, now=0.0, book=book, others_wait=False, is_ending=True) is Need.RELEASE
