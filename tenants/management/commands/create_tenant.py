"""Makes a tenant and a key with every scope for it."""

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from tenants import access, ids, validation
from tenants.management.tables import TablesCommand
from tenants.services import keys, tenants
from tenants.services.audit import COMMAND
from tenants.services.tenants import SlugTaken
from tenants.validation import InvalidContent


class Command(TablesCommand):
    help = "Makes a tenant and an API key with every scope. The key is shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="1 to 63 of a-z, 0-9 and -, unique")
        parser.add_argument("--name", default="", help="what people call it; the slug if left out")
        parser.add_argument("--json", action="store_true", help="one line of JSON, and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        slug, name = options["slug"], options["name"]
        try:
            slug = validation.slug(slug)
            name = validation.name(name) if name else slug
            with transaction.atomic():
                tenant = tenants.create_tenant(actor=COMMAND, slug=slug, name=name)
                _, key = keys.create_key(
                    actor=COMMAND,
                    tenant=tenant,
                    name="made by create_tenant",
                    scopes=access.ALL_SCOPES,
                    granted=access.ALL_SCOPES,
                )
        except InvalidContent as invalid:
            raise CommandError(f"{slug!r}: {invalid.errors[0].message}") from None
        except SlugTaken:
            raise CommandError(f"The slug {slug!r} is, or was, another tenant's.") from None
        made = {"tenant": ids.to_text(ids.TENANT, tenant.id), "slug": tenant.slug, "api_key": key}
        if options["json"]:
            self.stdout.write(json.dumps(made))
        else:
            self.stdout.write(f"Tenant {tenant.slug}: {made['tenant']}\nAPI key, shown this once: {key}")
