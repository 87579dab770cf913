"""`webhook-hops`, as whoever sends it writes it."""

import pytest

from deliveries.pipeline.hops import MAX_HOPS, hops_of


@pytest.mark.parametrize(
    ("header", "hops"),
    [
        ("", 0),
        ("0", 0),
        ("4", 4),
        ("5", 5),
        ("999", 999),
        ("0004", 4),
        ("00000", 0),
        ("1000", MAX_HOPS),
        ("9" * 5000, MAX_HOPS),
        ("-1000", 0),
        ("1e9", 0),
        ("many", 0),
        ("\u0661" * 4, 0),
    ],
)
def test_hops(header: str, hops: int) -> None:
    assert hops_of(header) == hops
