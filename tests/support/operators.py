"""Operators in a browser: with all rights, with the right to look, and with none."""

from typing import Any

from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from tenants.models import AuditEntry, SecondFactor, User
from tests.support.portal import make_user


def operator(**options: Any) -> Client:
    """With all rights."""
    return signed_in(make_operator(), **options)


def make_operator() -> User:
    return with_second_factor(make_user(is_staff=True, is_superuser=True))


def looker(**options: Any) -> Client:
    """May see everything and do nothing."""
    user = with_second_factor(make_user(is_staff=True))
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    return signed_in(user, **options)


def without_rights() -> Client:
    return signed_in(with_second_factor(make_user(is_staff=True)))


def with_second_factor(user: User) -> User:
    """As the settings want it of operators."""
    SecondFactor.objects.create(user=user, encrypted=b"never opened", confirmed_at=timezone.now())
    return user


def signed_in(user: User, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(user)
    return client


def platform_actions() -> list[str]:
    """The part of the audit log that is of no tenant, the latest last."""
    return list(AuditEntry.objects.filter(tenant=None).order_by("id").values_list("action", flat=True))
