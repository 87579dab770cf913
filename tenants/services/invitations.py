"""Invitations: made on the members page, sent by a worker, accepted on the page that the e-mail leads to.

The token is random and signed, so that a forged one costs no query; the database has its hash. It is made when the
e-mail is, which makes an earlier e-mail's worthless. One invitation of an address is open at a time.
"""

import logging
import secrets
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.core.signing import BadSignature, Signer
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from tenants import access, counting, ids, mail
from tenants.models import Invitation, Member, Tenant, User
from tenants.scoping import TenantQuerySet
from tenants.services import audit, members
from tenants.services.audit import Actor
from tenants.services.messages import announce

logger = logging.getLogger(__name__)

LASTS: Final = timedelta(days=7)
"""How long its link works. Sent again, it begins anew."""

SIGNER: Final = Signer(salt="tenants.invitation")

MOST_OPEN: Final = 100
"""Of a tenant: nobody uses the platform to write to the world."""


class AlreadyMember(Exception):
    """The person belongs to the tenant."""


class AlreadyInvited(Exception):
    """An invitation of this address is open."""


class TooManyOpen(Exception):
    """Some must be accepted, or ended, first."""


class InvitationNotUsable(Exception):
    """Forged, unknown, used, expired, ended, or of a tenant that is gone. Which of these is not said."""


class WrongAccount(Exception):
    """It is for somebody else than who is signed in."""


def open_invitations(tenant: Tenant) -> "TenantQuerySet[Invitation]":
    """Also those that expired: an admin ends them, or sends them again."""
    rows: TenantQuerySet[Invitation] = Invitation.objects.for_tenant(tenant)
    return rows.filter(accepted_at__isnull=True, ended_at__isnull=True)


def invite(*, actor: Actor, tenant: Tenant, email: str, role: Member.Role, language: str) -> Invitation:
    """Raises AlreadyMember, AlreadyInvited, TooManyOpen, counting.TooManyInvitations.

    Says nothing of whether the address has an account.
    """
    email = email.strip().lower()
    if Member.objects.for_tenant(tenant).filter(user__email=email).exists():
        raise AlreadyMember
    if open_invitations(tenant).count() >= MOST_OPEN:
        raise TooManyOpen
    counting.check_invitation(tenant_id=tenant.id, email=email)
    with transaction.atomic():
        try:
            with transaction.atomic():
                invitation: Invitation = Invitation.objects.for_tenant(tenant).create(
                    tenant=tenant,
                    email=email,
                    role=role,
                    language=language,
                    invited_by=actor.label or actor.id,
                    expires_at=timezone.now() + LASTS,
                )
        except IntegrityError:
            raise AlreadyInvited from None
        _record(actor, invitation, "invitation.created", {"email": email, "role": role.value})
        transaction.on_commit(lambda: announce("tenants.send_invitations"))
    return invitation


def send_again(*, actor: Actor, tenant: Tenant, invitation_id: UUID) -> None:
    """With a new token and all of its time. Raises access.NotFound, counting.TooManyInvitations."""
    with transaction.atomic():
        invitation = open_invitations(tenant).select_for_update().filter(id=invitation_id).first()
        if invitation is None:
            raise access.NotFound
        counting.check_invitation(tenant_id=tenant.id, email=invitation.email)
        invitation.sent_at, invitation.hash = None, None
        invitation.expires_at = timezone.now() + LASTS
        invitation.save(update_fields=["sent_at", "hash", "expires_at"])
        _record(actor, invitation, "invitation.sent_again", None)
        transaction.on_commit(lambda: announce("tenants.send_invitations"))


def end(*, actor: Actor, tenant: Tenant, invitation_id: UUID) -> None:
    """Raises access.NotFound."""
    with transaction.atomic():
        invitation = open_invitations(tenant).select_for_update().filter(id=invitation_id).first()
        if invitation is None:
            raise access.NotFound
        invitation.ended_at = Now()
        invitation.save(update_fields=["ended_at"])
        _record(actor, invitation, "invitation.ended", None)


# --- sending, in a worker ---------------------------------------------------------------------------------------------


def unsent() -> list[UUID]:
    return list(
        Invitation.unscoped.filter(
            sent_at__isnull=True,
            accepted_at__isnull=True,
            ended_at__isnull=True,
            expires_at__gt=timezone.now(),
            tenant__deleted_at__isnull=True,
        )
        .order_by("id")
        .values_list("id", flat=True)[:100]
    )


def send(*, invitation_id: UUID) -> None:
    """Of two workers one sends. If the mail server does not take it, the sweep tries again."""
    with transaction.atomic():
        invitation = (
            Invitation.unscoped.select_for_update(of=("self",), skip_locked=True)
            .select_related("tenant")
            .filter(id=invitation_id, sent_at__isnull=True, accepted_at__isnull=True, ended_at__isnull=True)
            .first()
        )
        if invitation is None:
            return
        token = new_token()
        invitation.hash, invitation.sent_at = access.hash_of(token), Now()
        invitation.save(update_fields=["hash", "sent_at"])
    try:
        mail.send(
            to=invitation.email,
            template="invitation",
            language=invitation.language,
            tenant=invitation.tenant.name,
            invited_by=invitation.invited_by,
            days=LASTS.days,
            path=f"/portal/invitation/{token}",
        )
    except OSError as error:
        Invitation.unscoped.filter(id=invitation_id, hash=access.hash_of(token)).update(sent_at=None)
        logger.warning(
            "invitation not sent",
            extra={"invitation_id": str(invitation_id), "error": type(error).__name__},
        )


# --- accepting --------------------------------------------------------------------------------------------------------


def find(token: str) -> Invitation:
    """One that can be accepted, with its tenant. Raises InvitationNotUsable."""
    try:
        SIGNER.unsign(token)
    except BadSignature:
        raise InvitationNotUsable from None
    invitation: Invitation | None = (
        Invitation.unscoped.filter(
            hash=access.hash_of(token),
            accepted_at__isnull=True,
            ended_at__isnull=True,
            expires_at__gt=timezone.now(),
            tenant__deleted_at__isnull=True,
        )
        .select_related("tenant")
        .first()
    )
    if invitation is None:
        raise InvitationNotUsable
    return invitation


def has_account(invitation: Invitation) -> bool:
    """Said to nobody but the holder of its token, who reads the address's mail."""
    return User.objects.filter(email=invitation.email).exists()


def accept_as(*, actor: Actor, invitation: Invitation, user: User) -> Member:
    """Raises WrongAccount, InvitationNotUsable (somebody was faster)."""
    if user.email != invitation.email:
        raise WrongAccount
    with transaction.atomic():
        _use_up(invitation)
        return members.set_member(
            actor=actor, tenant=invitation.tenant, user=user, role=Member.Role(invitation.role)
        )


def accept_as_new(
    *, invitation: Invitation, name: str, password: str, language: str, remote_ip: str | None, request_id: str
) -> User:
    """Makes the account. Raises InvitationNotUsable."""
    with transaction.atomic():
        _use_up(invitation)
        try:
            with transaction.atomic():
                user = User.objects.create_user(invitation.email, password, name=name, language=language)
        except IntegrityError:
            # Made meanwhile by another invitation: to be accepted after signing in.
            raise InvitationNotUsable from None
        actor = Actor("person", ids.to_text(ids.USER, user.id), user.email, remote_ip, request_id)
        members.set_member(
            actor=actor, tenant=invitation.tenant, user=user, role=Member.Role(invitation.role)
        )
    return user


def _use_up(invitation: Invitation) -> None:
    is_first = (
        Invitation.objects.for_tenant(invitation.tenant_id)
        .filter(id=invitation.id, hash=invitation.hash, accepted_at__isnull=True, ended_at__isnull=True)
        .update(accepted_at=Now())
    )
    if not is_first:
        raise InvitationNotUsable


# --- parts ------------------------------------------------------------------------------------------------------------


def new_token() -> str:
    return SIGNER.sign(secrets.token_urlsafe(32))


def _record(actor: Actor, invitation: Invitation, action: str, after: dict[str, str] | None) -> None:
    audit.record(
        actor=actor,
        tenant=invitation.tenant_id,
        action=action,
        target=ids.to_text(ids.INVITATION, invitation.id),
        after=after,
    )
