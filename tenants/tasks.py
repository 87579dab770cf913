"""Scheduled work on tenants. Thin: each calls one service."""

from datetime import UTC, datetime

from celery import shared_task

from tenants import access
from tenants.services import erasure


@shared_task(name="tenants.erase_deleted", ignore_result=True)
def erase_deleted() -> None:
    """Each day: the rows of tenants deleted 30 days ago."""
    erasure.erase_deleted_tenants(now=datetime.now(UTC))


@shared_task(name="tenants.forget_counters", ignore_result=True)
def forget_counters() -> None:
    """Each hour: counters of rate limits whose minute is long over."""
    access.forget_counters()
