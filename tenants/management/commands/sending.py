"""`manage.py sending stop|resume --reason TEXT`: the switch for all sending, for when the admin cannot be reached."""

from argparse import ArgumentParser
from typing import Any

from tenants.management.tables import TablesCommand
from tenants.services import platform
from tenants.services.audit import COMMAND


class Command(TablesCommand):
    help = "Stop all sending of all tenants, or let it go on. Publishing goes on, deliveries wait."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=("stop", "resume"))
        parser.add_argument("--reason", required=True, help="for the audit log")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["what"] == "stop":
            is_changed = platform.stop_sending(actor=COMMAND, reason=options["reason"])
            said = "Nothing is sent any more, five seconds from now."
        else:
            is_changed = platform.resume_sending(actor=COMMAND, reason=options["reason"])
            said = "What waited is being sent."
        self.stdout.write(said if is_changed else "It was so already.")
