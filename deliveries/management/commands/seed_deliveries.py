"""Fill a database with a made-up past: `manage.py seed_deliveries --deliveries 10000000`.

For whoever wants to see pages, statistics and sweeps with as much history as they will have one day.
"""

import sys
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management import CommandError

from deliveries.bench.history import PREFIX, Plan, seed, strangers
from tenants.management.tables import TablesCommand

BAR = 30
"""Characters."""


class Command(TablesCommand):
    help = "Fill the database with made-up history. Goes on with the next week if it was stopped."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--deliveries", type=int, default=1_000_000, help="how many (1,000,000)")
        parser.add_argument("--tenants", type=int, default=50, help="of how many tenants (50)")
        parser.add_argument("--endpoints", type=int, default=500, help="of all tenants together (500)")
        parser.add_argument("--days", type=int, default=56, help="over how many days until now (56)")
        parser.add_argument(
            "--yes", action="store_true", help="even though the database has tenants that somebody uses"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_odd(options)
        others = strangers()
        if others and not options["yes"]:
            raise CommandError(
                f"This database has {others} tenants that this command did not make, so somebody may be using it. "
                "Take another one, or say --yes: nothing of theirs is changed, but what their charts tell of history "
                "that is gone is forgotten."
            )
        names = ("deliveries", "tenants", "endpoints", "days")
        plan = Plan(**{name: options[name] for name in names}, now=datetime.now(UTC))
        begun = time.monotonic()
        made = seed(plan, report=Bar(self.stderr, is_live=sys.stderr.isatty()))
        seconds = time.monotonic() - begun
        self.stdout.write(
            f"{made:,} deliveries in {seconds:.0f} s, of tenants {PREFIX}0000 to {PREFIX}{plan.tenants - 1:04}."
            if made
            else "Nothing to do: all of these weeks are filled already."
        )


def refuse_odd(options: dict[str, Any]) -> None:
    bounds = {
        "deliveries": (1, 1_000_000_000),
        "tenants": (1, 9_999),
        "endpoints": (options["tenants"], 100_000),
        "days": (1, 335),
    }
    for name, (low, high) in bounds.items():
        if not low <= options[name] <= high:
            raise CommandError(f"--{name} must be between {low:,} and {high:,}.")


class Bar:
    """One line that is drawn again on a terminal; elsewhere a line now and then."""

    def __init__(self, stream: Any, *, is_live: bool) -> None:
        self.stream = stream
        self.is_live = is_live
        self.begun: dict[bool, float] = {}
        self.shown_at = 0.0
        self.words = ""

    def __call__(self, words: str, done: int, total: int) -> None:
        now = time.monotonic()
        is_new = words != self.words
        if not is_new and now - self.shown_at < (0.2 if self.is_live else 10):
            return
        if is_new and self.words and self.is_live:
            self.stream.write("")
        self.words, self.shown_at = words, now
        line = (
            words if not total else f"[{'█' * (BAR * done // total):<{BAR}}] {done:,} of {total:,}  {words}"
        )
        self.stream.write(f"\r\x1b[K{line}" if self.is_live else line, ending="" if self.is_live else "\n")
        self.stream.flush()
