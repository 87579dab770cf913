"""People and the tenants that they belong to. Called by the portal and by `add_member`."""

from typing import cast

from django.db import transaction

from tenants import access, ids
from tenants.models import Member, Tenant, User
from tenants.services import audit
from tenants.services.audit import Actor


def memberships_of(user: User) -> list[Member]:
    """With their tenants, by name."""
    rows = user.memberships.filter(tenant__deleted_at__isnull=True).select_related("tenant")
    return list(rows.order_by("tenant__name", "id"))


def membership_in(*, user: User, slug: str) -> Member:
    """With its tenant. Raises access.NotFound, for a tenant that does not exist and for one that is not the person's."""
    rows = user.memberships.filter(tenant__deleted_at__isnull=True, tenant__slug=slug)
    member = rows.select_related("tenant").first()
    if member is None:
        raise access.NotFound
    return member


def set_member(*, actor: Actor, tenant: Tenant, user: User, role: Member.Role) -> Member:
    """The person has this role from now on, whether a member already or not."""
    with transaction.atomic():
        rows = Member.objects.for_tenant(tenant)
        before = rows.filter(user=user).values_list("role", flat=True).first()
        member, _ = rows.update_or_create(
            user=user, defaults={"role": role}, create_defaults={"role": role, "tenant": tenant}
        )
        if before != role:
            audit.record(
                actor=actor,
                tenant=tenant,
                action="member.added" if before is None else "member.changed",
                target=ids.to_text(ids.USER, user.id),
                before=None if before is None else {"role": before},
                after={"role": role.value, "email": user.email},
            )
    return cast("Member", member)
