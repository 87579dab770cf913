"""`manage.py sending stop|resume --reason TEXT`: the switch for all sending, for when the admin cannot be reached."""

from argparse import ArgumentParser
from typing import Any

from django.core.management import CommandError

from tenants.management.tables import TablesCommand
from tenants.services import platform
from tenants.services.audit import COMMAND


class Command(TablesCommand):
    help = "Stop all sending of all tenants, or let it go on. Publishing goes on, deliveries wait."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=("stop", "resume"))
        parser.add_argument("--reason", required=True, help="for the audit log")

    def handle(self, *args: Any, **options: Any) -> None:
        reason = readable(options["reason"])
        if not reason:
            raise CommandError("--reason must say something.")
        if options["what"] == "stop":
            is_changed = platform.stop_sending(actor=COMMAND, reason=reason)
            said = "Nothing is sent any more, five seconds from now."
        else:
            is_changed = platform.resume_sending(actor=COMMAND, reason=reason)
            said = "What waited is being sent."
        self.stdout.write(said if is_changed else "It was so already.")


def readable(text: str) -> str:
    """Of a terminal that speaks no UTF-8, what the database can keep: this is no moment to ask for other letters."""
    return text.encode("utf-8", "replace").decode().strip()
