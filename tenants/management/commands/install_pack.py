"""`manage.py install_pack [NAME] [--tenant SLUG] [--dry-run] [--json]`: event types of a trade into a catalogue."""

import json
from argparse import ArgumentParser
from typing import Any

from tenants.management.tables import TablesCommand
from tenants.management.tenants import tenant_of
from tenants.packs import all_packs
from tenants.services import packs
from tenants.services.audit import COMMAND
from tenants.services.catalogue import Imported


class Command(TablesCommand):
    help = "Install a pack of event types. Without a name: list the packs, and what of them is installed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", choices=list(all_packs()), metavar="NAME")
        parser.add_argument("--tenant", metavar="SLUG", help="into this tenant's catalogue (the shared one)")
        parser.add_argument("--dry-run", action="store_true", help="only say what would change")
        parser.add_argument("--json", action="store_true", help="print one line of JSON alone")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = None if options["tenant"] is None else tenant_of(options["tenant"])
        owner = "the shared catalogue" if tenant is None else f"the catalogue of {tenant.slug}"
        if options["name"] is None:
            found = packs.packs_of(tenant)
            if options["json"]:
                listed = [
                    {"name": each.pack.name, "version": each.pack.version, "status": each.status}
                    for each in found
                ]
                self.stdout.write(json.dumps({"packs": listed}))
                return
            self.stdout.write(f"Packs, beside {owner}:\n")
            for each in found:
                names = ", ".join(described.name for described in each.pack.types)
                self.stdout.write(f"{each.pack.name:<16} {each.status:<10} {names}")
            return
        done = packs.install_pack(
            actor=COMMAND, tenant=tenant, name=options["name"], is_dry_run=options["dry_run"]
        )
        if options["json"]:
            self.stdout.write(json.dumps(as_json(done, options["name"], is_dry_run=options["dry_run"])))
        else:
            for line in words(done, options["name"], owner, is_dry_run=options["dry_run"]):
                self.stdout.write(line)


def as_json(done: Imported, name: str, *, is_dry_run: bool) -> dict[str, Any]:
    return {
        "pack": name,
        "dry_run": is_dry_run,
        "created": done.created,
        "updated": done.updated,
        "unchanged": done.unchanged,
        "breaks_consumers": done.breaks_consumers,
    }


def words(done: Imported, name: str, owner: str, *, is_dry_run: bool) -> list[str]:
    """One line a type, and below it what is different about it."""
    if not done.created and not done.updated:
        return [f"{owner[0].upper()}{owner[1:]} has {name} as it is: nothing to change."]
    lines = [f"+ {each}" for each in done.created]
    for change in done.changes:
        lines.append(f"~ {change.name}: {', '.join(change.fields)}")
        lines += [
            f"    {'breaks receivers: ' if each.breaks_consumers else ''}{each.message}"
            for each in change.schema
        ]
    lines += [f"= {each}" for each in done.unchanged]
    verb = "Would install" if is_dry_run else "Installed"
    return [*lines, f"{verb} {name} in {owner}: {len(done.created)} new, {len(done.updated)} changed."]
