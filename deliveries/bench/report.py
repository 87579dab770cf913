"""The figures as a table for people. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Line:
    """One figure, and what it must be if anything was promised."""

    name: str
    figure: float
    at_least: float | None = None
    at_most: float | None = None
    more: str = ""

    @property
    def is_good(self) -> bool:
        return (self.at_least is None or self.figure >= self.at_least) and (
            self.at_most is None or self.figure <= self.at_most
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name.strip(),
            "figure": round(self.figure, 2),
            "at_least": self.at_least,
            "at_most": self.at_most,
            "is_good": self.is_good,
            "more": self.more,
        }


NAMES = {
    "events_per_second": "publishes/s, one by one",
    "batched_events_per_second": "publishes/s, batched",
    "deliveries_per_second": "deliveries/s",
    "p50": "publish → received, p50 ms",
    "p99": "publish → received, p99 ms",
    "cpu_us_per_delivery": "CPU of the dispatcher per delivery, µs",
    "memory_mb": "memory of the dispatcher at most, MB",
    "accepted": "accepted",
    "received": "received",
    "recorded": "recorded",
}


def bench_table(figures: dict[str, Any]) -> str:
    flat = {key: value for key, value in figures.items() if key != "latency_ms"} | figures["latency_ms"]
    return "\n".join(f"  {words:<40} {shown(flat[key]):>10}" for key, words in NAMES.items())


def scenario_table(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        bound = ""
        if line.at_least is not None:
            bound = f"≥ {shown(line.at_least)}"
        elif line.at_most is not None:
            bound = f"≤ {shown(line.at_most)}"
        verdict = "" if not bound else "ok" if line.is_good else "NOT MET"
        rows.append(
            f"  {line.name:<64} {shown(line.figure):>10}  {bound:<10} {verdict:<8} {line.more}".rstrip()
        )
    return "\n".join(rows)


def shown(value: float | None) -> str:
    """Fractions where they say something, thousands separated."""
    if value is None:
        return "-"
    is_whole = value == int(value) or abs(value) >= 1000
    return f"{value:,.0f}" if is_whole else f"{value:,.1f}"
