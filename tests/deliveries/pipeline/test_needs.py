"""What the lanes thread should do next about a lane, with numbers."""

import pytest

from deliveries.pipeline.book import TURN_SECONDS, Book, HeldLane
from deliveries.pipeline.needs import Need, need_of
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
