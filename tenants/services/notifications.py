"""What members want to be told of by e-mail. Set on the portal's page; asked by whoever sends."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from django.db import transaction

from tenants import ids
from tenants.models import Member, NotificationPreference, Tenant, User
from tenants.services import audit
from tenants.services.audit import Actor

Digest = NotificationPreference.Digest


class About(Enum):
    """What happened to an endpoint."""

    FAILING = "failing"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one person wants to be told of one tenant."""

    failing: bool
    disabled: bool
    digest: Digest


DEFAULT: Final = Wanted(failing=True, disabled=True, digest=Digest.NEVER)
"""Of a member who never said: what needs an act, nothing else."""


def wanted_by(*, tenant: Tenant, user: User) -> Wanted:
    row = NotificationPreference.objects.for_tenant(tenant).filter(user=user).first()
    return DEFAULT if row is None else _wanted(row)


def set_wanted(*, actor: Actor, tenant: Tenant, user: User, wanted: Wanted) -> None:
    with transaction.atomic():
        rows = NotificationPreference.objects.for_tenant(tenant)
        old = rows.select_for_update().filter(user=user).first()
        fields = {
            "wants_failing": wanted.failing,
            "wants_disabled": wanted.disabled,
            "digest": wanted.digest,
        }
        rows.update_or_create(user=user, defaults=fields, create_defaults={**fields, "tenant": tenant})
        before, after = audit.changes(_facts(DEFAULT if old is None else _wanted(old)), _facts(wanted))
        if after:
            audit.record(
                actor=actor,
                tenant=tenant,
                action="notifications.changed",
                target=ids.to_text(ids.USER, user.id),
                before=before,
                after=after,
            )


def people_to_tell(*, tenant: Tenant, about: About) -> list[User]:
    """Active members who want to know, by e-mail address."""
    return [user for user, wanted in _members(tenant) if _wants(wanted, about)]


def digest_readers(*, tenant: Tenant, digest: Digest) -> list[User]:
    return [user for user, wanted in _members(tenant) if wanted.digest == digest]


def _members(tenant: Tenant) -> list[tuple[User, Wanted]]:
    preferences = {row.user_id: _wanted(row) for row in NotificationPreference.objects.for_tenant(tenant)}
    members = Member.objects.for_tenant(tenant).filter(user__is_active=True).select_related("user")
    return [
        (member.user, preferences.get(member.user_id, DEFAULT)) for member in members.order_by("user__email")
    ]


def _wants(wanted: Wanted, about: About) -> bool:
    return wanted.failing if about is About.FAILING else wanted.disabled


def _wanted(row: NotificationPreference) -> Wanted:
    return Wanted(row.wants_failing, row.wants_disabled, Digest(row.digest))


def _facts(wanted: Wanted) -> dict[str, bool | str]:
    return {"failing": wanted.failing, "disabled": wanted.disabled, "digest": wanted.digest.value}
