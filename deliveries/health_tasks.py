"""The Celery tasks of health: what is told of endpoints that fail, and what is done about them."""

from celery import shared_task

from deliveries.services import announcements, failing, notice_sending, notices, summaries
from deliveries.services.outgoing import open_configured_transport
from tenants.clock import database_now


@shared_task(name="deliveries.announce", ignore_result=True)
def announce() -> None:
    """Every 5 s: operational events of what happened."""
    announcements.publish_waiting()


@shared_task(name="deliveries.judge_failing", ignore_result=True)
def judge_failing() -> None:
    """Every minute: warn of endpoints that do nothing but fail, and disable them in the end."""
    failing.judge_failing(now=database_now())


@shared_task(name="deliveries.notify", ignore_result=True)
def notify() -> None:
    """Every minute: notices to people, of what happened."""
    notices.gather(now=database_now())
    notice_sending.send_waiting(now=database_now(), open_transport=open_configured_transport)


@shared_task(name="deliveries.summarise", ignore_result=True)
def summarise() -> None:
    """Each hour: the daily and weekly summaries that are due."""
    summaries.make_summaries(now=database_now())


@shared_task(name="deliveries.forget_announcements", ignore_result=True)
def forget_announcements() -> None:
    """Each hour: what was told a month ago."""
    announcements.forget_old(now=database_now())
    notices.forget_old(now=database_now())
