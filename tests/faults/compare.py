"""What a fault costs those who have no part in it, on a machine that may be busy with other things.

A second platform without the fault stands beside, and the two are measured in turn, so that whatever else goes on slows
both. The median of the ratios says what the fault did. Where that is not as it should be, they are measured as often once
more before anybody is told so.
"""

import statistics
from dataclasses import dataclass

from deliveries.bench.world import World
from tests.faults.size import ROUNDS
from tests.support.platform import Place


@dataclass(frozen=True)
class Comparison:
    alone: float
    """Deliveries a second, the median."""
    beside: float
    ratio: float

    def __str__(self) -> str:
        return f"{self.alone:.0f}/s without, {self.beside:.0f}/s with it, ratio {self.ratio:.2f}"


def compare(
    quiet: Place, quiet_world: World, faulty: Place, faulty_world: World, *, least: float
) -> Comparison:
    pairs: list[tuple[float, float]] = []
    for _ in range(2):
        pairs += [
            (quiet.deliveries_per_second(quiet_world), faulty.deliveries_per_second(faulty_world))
            for _ in range(ROUNDS)
        ]
        compared = _compared(pairs)
        if compared.ratio > least:
            break
    return compared


def _compared(pairs: list[tuple[float, float]]) -> Comparison:
    return Comparison(
        alone=statistics.median(alone for alone, _ in pairs),
        beside=statistics.median(beside for _, beside in pairs),
        ratio=statistics.median(beside / alone for alone, beside in pairs),
    )
