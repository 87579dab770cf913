"""Accounts of operators, and what operators do to accounts of others. Called by the admin and by `create_operator`."""

import secrets

from django.contrib.auth.models import Permission
from django.db import transaction

from tenants import ids
from tenants.models import User
from tenants.services import audit
from tenants.services.audit import Actor


class LastOperator(Exception):
    """Nobody with all rights would be left."""


def make_operator(*, actor: Actor, email: str, may_change: bool) -> tuple[User, str | None]:
    """The account, made or raised, and the password if it is new. `may_change`: all rights, else those to look."""
    password = None
    with transaction.atomic():
        user = User.objects.select_for_update().filter(email=email).first()
        if user is None:
            password = secrets.token_urlsafe(12)
            user = User.objects.create_user(email, password)
        user.is_staff, user.is_superuser, user.is_active = True, may_change, True
        user.save(update_fields=["is_staff", "is_superuser", "is_active"])
        user.user_permissions.set(
            []
            if may_change
            else Permission.objects.filter(
                codename__startswith="view_", content_type__app_label__in=["tenants", "deliveries"]
            )
        )
        _record(actor, user, "operator.made", {"email": email, "may_change": may_change})
    return user, password


def close_account(*, actor: Actor, user: User) -> None:
    """Its sessions are over with the next click; its memberships stay. Raises LastOperator."""
    with transaction.atomic():
        others = User.objects.select_for_update().filter(is_superuser=True, is_staff=True, is_active=True)
        if user.is_superuser and not [each for each in others.order_by("id") if each.id != user.id]:
            raise LastOperator
        if User.objects.filter(id=user.id, is_active=True).update(is_active=False):
            _record(actor, user, "account.closed", None)


def open_account(*, actor: Actor, user: User) -> None:
    with transaction.atomic():
        if User.objects.filter(id=user.id, is_active=False).update(is_active=True):
            _record(actor, user, "account.opened", None)


def _record(actor: Actor, user: User, action: str, after: dict[str, object] | None) -> None:
    audit.record(actor=actor, tenant=None, action=action, target=ids.to_text(ids.USER, user.id), after=after)
