"""The Celery tasks of health: what is told of endpoints that fail, and what is done about them."""

from datetime import UTC, datetime

from celery import shared_task

from deliveries.services import announcements, failing, notice_sending, notices, summaries
from deliveries.services.outgoing import open_configured_transport


@shared_task(name="deliveries.announce", ignore_result=True, expires=10)
def announce() -> None:
    """Every 5 s: operational events of what happened."""
    announcements.publish_waiting()


@shared_task(name="deliveries.judge_failing", ignore_result=True, expires=60)
def judge_failing() -> None:
    """Every minute: warn of endpoints that do nothing but fail, and disable them in the end."""
    failing.judge_failing(now=datetime.now(UTC))


@shared_task(name="deliveries.notify", ignore_result=True, expires=60)
def notify() -> None:
    """Every minute: notices to people, of what happened."""
    notices.gather(now=datetime.now(UTC))
    notice_sending.send_waiting(now=datetime.now(UTC), open_transport=open_configured_transport)


@shared_task(name="deliveries.summarise", ignore_result=True)
def summarise() -> None:
    """Each hour: the daily and weekly summaries that are due."""
    summaries.make_summaries(now=datetime.now(UTC))


@shared_task(name="deliveries.forget_announcements", ignore_result=True)
def forget_announcements() -> None:
    """Each hour: what was told a month ago."""
    announcements.forget_old(now=datetime.now(UTC))
    notices.forget_old(now=datetime.now(UTC))
