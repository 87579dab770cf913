"""Encrypts everything again under the first of the encryption keys, so that the others can be removed."""

import json
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from tenants.management.tables import TablesCommand
from tenants.services import audit
from tenants.services.audit import COMMAND
from webhooks_platform.key_rotation import rotate


class Command(TablesCommand):
    help = (
        "Encrypts stored secrets again under the first key of WEBHOOKS_ENCRYPTION_KEYS. "
        "The platform may go on meanwhile; can be run again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count only, by key")
        parser.add_argument("--json", action="store_true", help="one line of JSON, and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        first = settings.WEBHOOKS_ENCRYPTION_KEYS[0][0]
        done = rotate(dry_run=options["dry_run"])
        if done.changed:
            audit.record(
                actor=COMMAND,
                tenant=None,
                action="encryption_keys.rotated",
                target=first,
                after={"changed": done.changed},
            )
        facts = {
            "key": first,
            "changed": done.changed,
            "current": done.current,
            "by_other_keys": done.by_other_keys,
            "failed": done.failed,
        }
        if options["json"]:
            self.stdout.write(json.dumps(facts))
        elif options["dry_run"]:
            others = ", ".join(f"{count} by {name!r}" for name, count in sorted(done.by_other_keys.items()))
            self.stdout.write(f"Encrypted by {first!r}: {done.current}. By other keys: {others or 'none'}.")
        else:
            self.stdout.write(
                f"Encrypted again by {first!r}: {done.changed}; {done.current} were already. "
                "Once all processes run with this key first, and a day has passed, the others can be removed."
            )
        if done.failed:
            lines = "\n".join(done.failed[:20])
            raise CommandError(
                f"{len(done.failed)} values could not be opened; put the key that made them back into "
                f"WEBHOOKS_ENCRYPTION_KEYS and run this again:\n{lines}"
            )
