"""Browsers for tests of the portal: signed in as a new person, or let in by a link."""

import html
import re
from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.test import Client

from tenants.ids import new_id
from tenants.models import AuditEntry, Member, Tenant, User
from tenants.services.audit import COMMAND
from tenants.services.members import set_member

PASSWORD = "correct horse battery"


class QuickHasher(PBKDF2PasswordHasher):
    """Of the tests: the platform's own, with so few rounds that they take no time. Real processes can read it."""

    iterations = 10


def make_user(**fields: Any) -> User:
    return User.objects.create_user(f"{new_id().hex}@example.com", PASSWORD, **fields)


def make_member(tenant: Tenant, role: str = "developer", user: User | None = None) -> User:
    user = user or make_user()
    set_member(actor=COMMAND, tenant=tenant, user=user, role=Member.Role(role))
    return user


def browser(tenant: Tenant, role: str = "developer", **options: Any) -> Client:
    """Signed in as a new member of the tenant."""
    client = Client(**options)
    client.force_login(make_member(tenant, role))
    return client


def text_of(response: Any) -> str:
    """What a reader sees: no tags, one space between words."""
    body = re.sub(r"(?s)<(script|style|title).*?</\1>|<[^>]*>", " ", response.content.decode())
    return " ".join(html.unescape(body).split())


def actions_of(tenant: Tenant) -> list[str]:
    """The tenant's audit log, the oldest first."""
    return list(
        AuditEntry.objects.filter(tenant=tenant).order_by("created_at", "id").values_list("action", flat=True)
    )
