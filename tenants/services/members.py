"""People and the tenants that they belong to. Called by the portal and by `add_member`."""

from typing import cast
from uuid import UUID

from django.db import transaction

from tenants import access, ids
from tenants.models import Member, Tenant, User
from tenants.scoping import TenantQuerySet
from tenants.services import audit
from tenants.services.audit import Actor


class LastAdmin(Exception):
    """Nobody would be left who may let others in."""


def memberships_of(user: User) -> list[Member]:
    """With their tenants, by name."""
    rows = (
        user.memberships.filter(tenant__deleted_at__isnull=True)
        .select_related("tenant__look")
        .defer("tenant__look__logo")
    )
    return list(rows.order_by("tenant__name", "id"))


def membership_in(*, user: User, slug: str) -> Member:
    """With its tenant. Raises access.NotFound, for a tenant that does not exist and for one that is not the person's."""
    rows = user.memberships.filter(tenant__deleted_at__isnull=True, tenant__slug=slug)
    member = rows.select_related("tenant__look").defer("tenant__look__logo").first()
    if member is None:
        raise access.NotFound
    return member


def members_of(tenant: Tenant) -> "TenantQuerySet[Member]":
    """With their people."""
    rows: TenantQuerySet[Member] = Member.objects.for_tenant(tenant)
    return rows.select_related("user")


def get_member(*, tenant: Tenant, member_id: UUID) -> Member:
    """Raises access.NotFound."""
    member = members_of(tenant).filter(id=member_id).first()
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


def change_role(*, actor: Actor, tenant: Tenant, member_id: UUID, role: Member.Role) -> Member:
    """Raises access.NotFound, LastAdmin."""
    with transaction.atomic():
        member = _locked(tenant, member_id, keeps_admin=role == Member.Role.ADMIN)
        if member.role != role:
            before, member.role = member.role, role
            member.save(update_fields=["role"])
            _record(actor, member, "member.changed", before={"role": before}, after={"role": role.value})
    return member


def remove_member(*, actor: Actor, tenant: Tenant, member_id: UUID) -> Member:
    """Felt with the person's next request. Raises access.NotFound, LastAdmin."""
    with transaction.atomic():
        member = _locked(tenant, member_id, keeps_admin=False)
        _record(actor, member, "member.removed", before={"role": member.role, "email": member.user.email})
        Member.objects.for_tenant(tenant).filter(id=member.id).delete()
    return member


def _locked(tenant: Tenant, member_id: UUID, *, keeps_admin: bool) -> Member:
    """The admins are locked first, in order: of two who demote each other, the second one is the last."""
    admins = list(
        Member.objects.for_tenant(tenant)
        .select_for_update()
        .filter(role=Member.Role.ADMIN)
        .order_by("id")
        .values_list("id", flat=True)
    )
    member = members_of(tenant).select_for_update(of=("self",)).filter(id=member_id).first()
    if member is None:
        raise access.NotFound
    if not keeps_admin and admins == [member.id]:
        raise LastAdmin
    return member


def _record(actor: Actor, member: Member, action: str, **facts: dict[str, str]) -> None:
    audit.record(
        actor=actor,
        tenant=member.tenant_id,
        action=action,
        target=ids.to_text(ids.USER, member.user_id),
        **facts,
    )
