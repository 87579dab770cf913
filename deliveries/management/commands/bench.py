"""How fast it is here, and whether anything is lost: `manage.py bench`.

Makes a database of its own on the configured server, measures there in processes of their own, prints the figures, and
removes what it made. `--scenario` measures more than the one line of the API's contract (docs/performance.md).
"""

import json
import signal
import subprocess
import sys
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management import CommandError
from django.core.management.base import BaseCommand

from deliveries.bench.children import end_with_parent
from deliveries.bench.report import Line, bench_table, scenario_table
from deliveries.bench.stage import Stage, StageUnavailable, own_stage

SCENARIOS: dict[str, list[dict[str, Any]]] = {
    "publish": [{"scenario": "publish"}],
    "sharing": [{"scenario": "single", "is_shared": is_shared} for is_shared in (True, False)],
    "deliver": [{"scenario": "deliver", "endpoints": count} for count in (1, 50, 5000, 20_000)],
    "latency": [{"scenario": "latency"}],
    "tls": [{"scenario": "tls"}],
    "order": [{"scenario": "order"}],
    "dead": [{"scenario": "dead"}],
    "incoming": [{"scenario": "incoming"}],
    "messages": [{"scenario": "messages", "has_room": has_room} for has_room in (True, False)],
    "full-tables": [{"scenario": "tables"}],
    "isolation": [
        {"scenario": "isolation", "trouble": trouble} for trouble in ("backlog", "many", "hanging", "names")
    ],
    "memory": [
        {"scenario": "memory"},
        {"scenario": "memory", "deliveries": 30_000, "payload": 262_144, "answer": 16_384},
    ],
}


class Command(BaseCommand):
    help = "Measure publishing and delivering on the configured database and broker."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--events", type=int, default=40_000, help="how many events (40,000)")
        parser.add_argument("--endpoints", type=int, default=50, help="over how many endpoints (50)")
        parser.add_argument("--payload", type=int, default=1024, help="bytes of each event's data (1,024)")
        parser.add_argument(
            "--finished",
            type=int,
            default=1_000_000,
            help="how many finished deliveries the tables of --scenario full-tables have (1,000,000)",
        )
        parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
        parser.add_argument(
            "--scenario",
            choices=["all", *SCENARIOS],
            help="measure what docs/performance.md lists instead; takes minutes",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_odd(options)
        signal.signal(signal.SIGTERM, exit_in_order)
        try:
            with own_stage() as stage:
                stage.migrate()
                if options["scenario"] is None:
                    self.measure_once(stage, options)
                else:
                    self.measure_scenarios(stage, options)
        except StageUnavailable as error:
            raise CommandError(str(error)) from None

    def measure_once(self, stage: Stage, options: dict[str, Any]) -> None:
        wanted = {name: options[name] for name in ("events", "endpoints", "payload")}
        figures = run(stage, stage.name, {"scenario": "bench"} | wanted)
        self.stdout.write(json.dumps(figures) if options["json"] else bench_table(figures))

    def measure_scenarios(self, stage: Stage, options: dict[str, Any]) -> None:
        names = list(SCENARIOS) if options["scenario"] == "all" else [options["scenario"]]
        lines: list[Line] = []
        failures = []
        for step in steps(names, finished=options["finished"]):
            self.stderr.write(", ".join(f"{key} {value}" for key, value in step.items()))
            try:
                with stage.copy() as database:
                    made = [Line(**_fields(line)) for line in run(stage, database, step)["lines"]]
            except CommandError as error:
                self.stderr.write(str(error))
                failures.append(str(error))
                continue
            self.stderr.write(scenario_table(made))
            failures += [f"Not met: {line.name.strip()}" for line in made if not line.is_good]
            lines += made
        if options["json"]:
            self.stdout.write(json.dumps({"lines": [line.as_json() for line in lines]}))
        else:
            self.stdout.write(scenario_table(lines))
        if failures:
            raise CommandError("\n".join(failures))


def steps(names: list[str], *, finished: int) -> list[dict[str, Any]]:
    """What to run one after the other: the scenario and its parameters."""
    more = {"tables": {"finished": finished}}
    return [step | more.get(step["scenario"], {}) for name in names for step in SCENARIOS[name]]


def _fields(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "is_good"}


def refuse_odd(options: dict[str, Any]) -> None:
    bounds = {
        "events": (1, 10_000_000),
        "endpoints": (1, 100_000),
        "payload": (64, 262_144),
        "finished": (1, 100_000_000),
    }
    for name, (low, high) in bounds.items():
        if not low <= options[name] <= high:
            raise CommandError(f"--{name} must be between {low} and {high}.")


def exit_in_order(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal handlers are called
    sys.exit(128 + number)


def run(stage: Stage, database: str, step: dict[str, Any]) -> dict[str, Any]:
    """One measurement in a process of its own. What it says on standard error goes through."""
    child = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "deliveries.bench", json.dumps(step)],
        env=stage.environment(database),
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call
    )
    try:
        output, _ = child.communicate()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if child.returncode != 0:
        raise CommandError("The measurement failed; nothing of it counts. See above.")
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    return figures
