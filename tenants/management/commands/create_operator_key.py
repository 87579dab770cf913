"""Makes an API key for operators of the platform."""

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenants import validation
from tenants.management.tables import TablesCommand
from tenants.services import keys
from tenants.services.audit import COMMAND
from tenants.validation import InvalidContent


class Command(TablesCommand):
    help = "Makes an operator key, good for every tenant. It is shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what it is for")
        parser.add_argument("--json", action="store_true", help="one line of JSON, and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            name = validation.name(options["name"])
        except InvalidContent as invalid:
            raise CommandError(f"The name: {invalid.errors[0].message}") from None
        _, key = keys.create_operator_key(actor=COMMAND, name=name)
        self.stdout.write(
            json.dumps({"api_key": key}) if options["json"] else f"Operator key, shown this once: {key}"
        )
