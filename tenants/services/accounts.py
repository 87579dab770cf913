"""A person's own account: its password, and how it comes back when the password is forgotten. Called by the portal."""

import logging

from django.contrib.auth.tokens import default_token_generator
from django.db import transaction

from tenants import ids, mail
from tenants.models import User
from tenants.services import audit
from tenants.services.audit import Actor
from tenants.services.messages import announce

logger = logging.getLogger(__name__)


class LinkNotUsable(Exception):
    """Forged, expired, used, or of an account that is gone. Which of these is not said."""


def ask_for_reset(*, email: str, language: str) -> None:
    """The same for an address that has an account and one that has none, in words and in time."""
    announce("tenants.send_password_reset", email, language)


def send_password_reset(*, email: str, language: str) -> None:
    """In a worker. The token is signed, and good until the password changes, somebody signs in, or an hour is over."""
    user = User.objects.filter(email=email.strip().lower(), is_active=True).first()
    if user is None:
        return
    path = f"/portal/reset/{ids.to_text(ids.USER, user.id)}/{default_token_generator.make_token(user)}"
    mail.send(to=user.email, template="password_reset", language=user.language or language, path=path)


def user_of_reset(*, user_text: str, token: str) -> User:
    """Raises LinkNotUsable."""
    try:
        user_id = ids.from_text(ids.USER, user_text)
    except ids.InvalidId:
        raise LinkNotUsable from None
    user = User.objects.filter(id=user_id, is_active=True).first()
    if user is None or not default_token_generator.check_token(user, token):
        raise LinkNotUsable
    return user


def set_password(*, actor: Actor, user: User, password: str) -> None:
    """Ends every session of the account, also that of the caller, who may keep its own."""
    with transaction.atomic():
        user.set_password(password)
        user.save(update_fields=["password"])
        audit.record(
            actor=actor, tenant=None, action="account.password_set", target=ids.to_text(ids.USER, user.id)
        )


def change_account(*, user: User, name: str) -> None:
    User.objects.filter(id=user.id).update(name=name)


def choose_language(*, user: User, language: str) -> None:
    User.objects.filter(id=user.id).update(language=language)
