"""`manage.py create_operator EMAIL [--look]`: an account for the admin, with a password if it is new."""

import json
from argparse import ArgumentParser
from typing import Any

from tenants.management.people import email_of
from tenants.management.tables import TablesCommand
from tenants.services import two_factor
from tenants.services.audit import COMMAND
from tenants.services.operators import make_operator


class Command(TablesCommand):
    help = "Make an operator: an account that may use the admin."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")
        parser.add_argument("--look", action="store_true", help="may see everything and change nothing")
        parser.add_argument(
            "--reset-second-factor", action="store_true", help="of somebody who lost the app and the codes"
        )
        parser.add_argument("--json", action="store_true", help="print one line of JSON alone")

    def handle(self, *args: Any, **options: Any) -> None:
        email = email_of(options["email"])
        user, password = make_operator(actor=COMMAND, email=email, may_change=not options["look"])
        if options["reset_second_factor"]:
            two_factor.turn_off(actor=COMMAND, user=user)
        if options["json"]:
            self.stdout.write(json.dumps({"email": email, "password": password}))
            return
        rights = "may see everything" if options["look"] else "may do everything"
        self.stdout.write(f"{email} is an operator and {rights} at /admin/.")
        if password is not None:
            self.stdout.write(f"Password: {password} (shown this once)")
