from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.ids import InvalidId, Minter, floor_of, from_text, new_id, time_of, to_text

AT = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
AT_US = 1_772_366_400_123_456


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # The published vectors of the TypeID specification.
        ("00000000000000000000000000", "00000000-0000-0000-0000-000000000000"),
        ("00000000000000000000000001", "00000000-0000-0000-0000-000000000001"),
        ("0000000000000000000000000a", "00000000-0000-0000-0000-00000000000a"),
        ("0000000000000000000000000g", "00000000-0000-0000-0000-000000000010"),
        ("00000000000000000000000010", "00000000-0000-0000-0000-000000000020"),
        ("7zzzzzzzzzzzzzzzzzzzzzzzzz", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ("0123456789abcdefghjkmnpqrs", "0110c853-1d09-52d8-d73e-1194e95b5f19"),
        ("01h455vb4pex5vsknk084sn02q", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ],
)
def test_the_published_vectors_hold(text: str, value: str) -> None:
    assert to_text("evt", UUID(value)) == f"evt_{text}"
    assert from_text("evt", f"evt_{text}") == UUID(value)


@given(st.uuids(), st.uuids())
def test_text_returns_to_its_id_and_sorts_like_it(one: UUID, other: UUID) -> None:
    assert from_text("ep", to_text("ep", one)) == one
    assert (to_text("ep", one) < to_text("ep", other)) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "evt",
        "evt_",
        "01h455vb4pex5vsknk084sn02q",
        "_01h455vb4pex5vsknk084sn02q",
        "ep_01h455vb4pex5vsknk084sn02q",
        "EVT_01h455vb4pex5vsknk084sn02q",
        "evt_01H455VB4PEX5VSKNK084SN02Q",
        "evt_01h455vb4pex5vsknk084sn02",
        "evt_01h455vb4pex5vsknk084sn02qq",
        "evt_01h455vb4pex5vsknk084sn02l",
        "evt_81h455vb4pex5vsknk084sn02q",
        "evt_01h455vb4pex5vsknk084sn02q\n",
        "evt_01h455vb4pex5vsknk084sn02\u0663",
        "evt_01h455vb4pex5vsknk084sn0_q",
        "evt_evt_1h455vb4pex5vsknk084s",
        "evt_ 1h455vb4pex5vsknk084sn02q",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidId):
        from_text("evt", text)


def test_new_ids_rise_and_know_their_time() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=2)

    ids = [new_id() for _ in range(1000)]

    assert all(one < other for one, other in pairwise(ids))
    assert {one.version for one in ids} == {7}
    assert before <= time_of(ids[0]) <= datetime.now(UTC)


def test_a_floor_parts_the_ids_of_its_millisecond_from_earlier_ones() -> None:
    last_of_the_one_before = Minter(AT_US - 457).next()
    first = Minter(AT_US - 456).next()

    assert last_of_the_one_before < floor_of(AT) <= first
    assert time_of(floor_of(AT)) == AT
    assert time_of(first) == AT


def test_times_off_the_scale_give_the_outermost_bounds() -> None:
    assert floor_of(datetime(1, 1, 1, tzinfo=UTC)) == UUID(int=0)
    assert floor_of(datetime.max.replace(tzinfo=UTC)).int >> 80 == 253_402_300_799_999
    assert time_of(UUID(int=2**128 - 1)) == datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)


def test_ids_of_a_minter_rise_beyond_its_counter_and_stay_below_the_next_microsecond() -> None:
    minter = Minter(AT_US)

    ids = [minter.next() for _ in range(4 * 65_536)]

    assert all(one.int < other.int for one, other in pairwise(ids))
    assert ids[-1] < Minter(AT_US + 1).next()
    assert time_of(ids[-1]) == AT
    assert ids[-1].version == 7
    assert ids[-1].variant == "specified in RFC 4122"


@given(st.integers(0, 2**50), st.integers(1, 10_000_000))
def test_a_later_minter_makes_larger_ids(at_us: int, later: int) -> None:
    assert Minter(at_us).next() < Minter(at_us + later).next()


def test_minters_of_the_same_moment_make_different_ids() -> None:
    assert len({Minter(AT_US).next() for _ in range(1000)}) == 1000
