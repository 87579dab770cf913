"""`manage.py add_member SLUG EMAIL [--role developer]`: a person into a tenant's portal, with a password if new."""

import json
import secrets
from argparse import ArgumentParser
from typing import Any

from tenants.management.people import email_of
from tenants.management.tables import TablesCommand
from tenants.management.tenants import tenant_of
from tenants.models import Member, User
from tenants.services.audit import COMMAND
from tenants.services.members import set_member


class Command(TablesCommand):
    help = "Let a person into a tenant's portal, or change the role."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("email")
        parser.add_argument("--role", choices=Member.Role.values, default=Member.Role.DEVELOPER.value)
        parser.add_argument("--json", action="store_true", help="print one line of JSON alone")

    def handle(self, *args: Any, **options: Any) -> None:
        email = email_of(options["email"])
        tenant = tenant_of(options["slug"])
        user = User.objects.filter(email=email).first()
        password = None
        if user is None:
            password = secrets.token_urlsafe(12)
            user = User.objects.create_user(email, password)
        member = set_member(actor=COMMAND, tenant=tenant, user=user, role=Member.Role(options["role"]))
        if options["json"]:
            line = {"tenant": tenant.slug, "email": email, "role": member.role, "password": password}
            self.stdout.write(json.dumps(line))
            return
        self.stdout.write(f"{email} is {member.role} of {tenant.slug}.")
        if password is not None:
            self.stdout.write(f"Password: {password} (shown this once)")
