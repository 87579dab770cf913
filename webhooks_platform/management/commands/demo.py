"""A story that runs: `manage.py demo appointment`. Without a name: which stories there are.

Real processes on a database of their own, next to the configured one; nothing is left when it is over.
"""

import signal
import sys
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from django.core.management import CommandError
from django.core.management.base import BaseCommand

from deliveries.bench.children import ChildDied
from deliveries.bench.platform import NotReady
from deliveries.bench.stage import StageUnavailable
from webhooks_platform.demo.place import own_place
from webhooks_platform.demo.stage import NARRATOR, StoryFailed
from webhooks_platform.demo.stories import STORIES, Story, perform
from webhooks_platform.processes import COLOURS, Supervisor

PACE_SECONDS = 1.0
LONGEST_PACE_SECONDS = 60.0


class Command(BaseCommand):
    help = "Play a story that shows what webhooks do. Without a name: list the stories."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", choices=list(STORIES), metavar="NAME", help=", ".join(STORIES))
        parser.add_argument(
            "--pace", type=float, default=PACE_SECONDS, help="seconds to read before each chapter (1)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["name"] is None:
            self.stdout.write("Stories, each played by `manage.py demo NAME`:\n")
            for name, story in STORIES.items():
                self.stdout.write(f"  {name:<12} {story.summary}")
            return
        if not 0 <= options["pace"] <= LONGEST_PACE_SECONDS:
            raise CommandError(f"--pace must be between 0 and {LONGEST_PACE_SECONDS:g}.")
        signal.signal(signal.SIGTERM, exit_in_order)
        try:
            play(STORIES[options["name"]], options["name"], pace=options["pace"])
        except (StageUnavailable, NotReady, ChildDied, StoryFailed) as error:
            raise CommandError(str(error)) from None


def exit_in_order(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as handlers are called
    """So that nothing is left behind."""
    sys.exit(128 + number)


def play(story: Story, name: str, *, pace: float) -> None:
    printer = Supervisor({})
    colours: dict[str, int] = {NARRATOR: 1}

    def say(who: str, line: str) -> None:
        colour = colours.setdefault(who, COLOURS[len(colours) % len(COLOURS)])
        printer.say(who, line, colour)

    say(NARRATOR, story.title.upper())
    say(NARRATOR, "")
    say(
        NARRATOR,
        "Starting a platform for this story: a database, a web server that takes events in, a worker that",
    )
    say(NARRATOR, "sends them out. It takes some seconds, and is gone when the story is over.")
    say(NARRATOR, "")
    with own_place() as place:
        perform(story, place=place, tenant=name, say=say, pace=pace)
