"""The geometry of charts: what templates draw as SVG. Pure. Numbers are texts as SVG wants them, whatever the language.

Charts stretch to the width there is, so they contain shapes alone; their texts stand beside them in HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from deliveries.services.activity import Counts
from deliveries.services.condition import CANCELLED, FAILED, LATEST, PENDING, RETRYING, SUCCEEDED

HEIGHT: Final = 100
"""Of a chart, in units of its own."""

LEAST: Final = 1.5
"""Height of the smallest part of a bar: three failures among a million can be seen."""

GAP: Final = 0.18
"""Between bars, as a part of a bar's place."""

STACK: Final = ("succeeded", "cancelled", "pending", "failed")
"""From the ground up: what needs looking at is at the top."""


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    y: str
    height: str


@dataclass(frozen=True, slots=True)
class Bar:
    start: datetime
    counts: Counts
    x: str
    width: str
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class BarChart:
    bars: Sequence[Bar]
    top: int
    """What the upper edge stands for."""
    half: int | None
    """What the middle does; none where that is no whole number."""

    @property
    def is_empty(self) -> bool:
        return all(bar.counts.total == 0 for bar in self.bars)


def bar_chart(buckets: Sequence[tuple[datetime, Counts]]) -> BarChart:
    top = round_top(max(counts.total for _, counts in buckets))
    place = 100 / len(buckets)
    bars = []
    for number, (start, counts) in enumerate(buckets):
        x, width = number * place + place * GAP / 2, place * (1 - GAP)
        bars.append(Bar(start, counts, svg(x), svg(width), parts_of(counts, top)))
    return BarChart(bars, top, top // 2 if top % 2 == 0 else None)


def parts_of(counts: Counts, top: int) -> list[Part]:
    """Small parts get more than their due, which the largest gives up, so that no bar leaves the chart."""
    heights = {name: max(HEIGHT * number / top, LEAST) for name in STACK if (number := getattr(counts, name))}
    if not heights:
        return []
    largest = max(heights, key=lambda name: heights[name])
    heights[largest] -= max(sum(heights.values()) - HEIGHT, 0)
    parts = []
    ground = float(HEIGHT)
    for name, height in heights.items():
        ground -= height
        parts.append(Part(name, svg(ground), svg(height)))
    return parts


def round_top(most: int) -> int:
    """The next number of the form 1, 2 or 5 and zeros, which people read at once; two at least."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if factor * step >= max(most, 2):
                return factor * step
        step *= 10


# --- a strip of deliveries --------------------------------------------------------------------------------------------

NAMES: Final = {
    SUCCEEDED: "succeeded",
    FAILED: "failed",
    RETRYING: "failed",
    PENDING: "pending",
    CANCELLED: "cancelled",
}

HEIGHTS: Final = {"succeeded": 12, "failed": 24, "pending": 6, "cancelled": 6}
"""Not by colour alone: what failed stands out."""

STRIP_HEIGHT: Final = 24

TICK: Final = 4
"""From one delivery to the next."""


@dataclass(frozen=True, slots=True)
class Ticks:
    """All deliveries of one kind, as one path of upright strokes: a list of endpoints has a thousand of them."""

    name: str
    path: str


def strip(letters: str) -> list[Ticks]:
    """The latest deliveries side by side, the newest at the right edge."""
    paths: dict[str, list[str]] = {}
    for place, letter in enumerate(letters, start=LATEST - len(letters)):
        name = NAMES[letter]
        paths.setdefault(name, []).append(f"M{TICK * place + 2} {STRIP_HEIGHT}v-{HEIGHTS[name]}")
    return [Ticks(name, "".join(strokes)) for name, strokes in paths.items()]


# --- retries ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dot:
    """An attempt on the line of time."""

    number: int
    x: str
    seconds: int
    """After the first attempt."""


def retry_line(waits: Sequence[int]) -> list[Dot]:
    """Attempts from left to right. Each wait has its length by its logarithm: seconds and days on one line."""
    lengths = [(1 + wait).bit_length() + 1 for wait in waits]
    total = sum(lengths) or 1
    dots = [Dot(1, svg(2), 0)]
    at, seconds = 0, 0
    for number, (wait, length) in enumerate(zip(waits, lengths, strict=True), start=2):
        at += length
        seconds += wait
        dots.append(Dot(number, svg(2 + 96 * at / total), seconds))
    return dots


def svg(number: float) -> str:
    return f"{number:.2f}"
