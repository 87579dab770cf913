"""Scheduled work on tenants. Thin: each calls one service."""

from uuid import UUID

from celery import shared_task

from tenants import counting
from tenants.clock import database_now
from tenants.services import accounts, erasure, forgetting, invitations


@shared_task(name="tenants.erase_deleted", ignore_result=True)
def erase_deleted() -> None:
    """Each day: the rows of tenants deleted 30 days ago."""
    erasure.erase_deleted_tenants(now=database_now())


@shared_task(name="tenants.forget_counters", ignore_result=True)
def forget_counters() -> None:
    """Each hour: counters of rate limits whose minute is long over."""
    counting.forget_counters()


@shared_task(name="tenants.forget_old", ignore_result=True)
def forget_old() -> None:
    """Each day: links, invitations and sessions that ended long ago."""
    forgetting.forget_old(now=database_now())


@shared_task(name="tenants.send_invitations", ignore_result=True)
def send_invitations() -> None:
    """Each minute, and at once when one is made: those whose e-mail was not sent yet."""
    for invitation_id in invitations.unsent():
        invitations.send(invitation_id=UUID(str(invitation_id)))


@shared_task(name="tenants.send_password_reset", ignore_result=True)
def send_password_reset(email: str, language: str) -> None:
    """For an address that somebody typed: whether there is such an account is found out here, not in the page."""
    accounts.send_password_reset(email=email, language=language)
