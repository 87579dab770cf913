from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from tenants.clock import MOST_APART_SECONDS

SCHEDULE = {
    # name: (task, seconds between runs)
    "erase deleted tenants": ("tenants.erase_deleted", 86_400),
    "forget old rate counters": ("tenants.forget_counters", 3_600),
    "forget links and sessions that are over": ("tenants.forget_old", 86_400),
    "send invitations": ("tenants.send_invitations", 60),
}


def make_schedule(**kwargs: Any) -> None:  # noqa: ARG001 - a signal's arguments
    make_periodic_tasks(SCHEDULE)


def make_periodic_tasks(schedule: dict[str, tuple[str, int]]) -> None:
    """Rows of django-celery-beat. What an operator changed in the admin stays.

    A run that nobody began by the next one is not worth doing. But beat writes the time at which its message expires, and
    a worker compares it with a clock of its own.
    """
    # The models are not loaded yet when this module is.
    from django_celery_beat.models import IntervalSchedule, PeriodicTask  # noqa: PLC0415

    for name, (task, seconds) in schedule.items():
        # Nothing makes them unique: operators may make more of one length, as may two `migrate` at once.
        length = {"every": seconds, "period": IntervalSchedule.SECONDS}
        interval = IntervalSchedule.objects.filter(**length).order_by("id").first()
        PeriodicTask.objects.get_or_create(
            name=name,
            defaults={
                "task": task,
                "interval": interval or IntervalSchedule.objects.create(**length),
                "expire_seconds": max(seconds, MOST_APART_SECONDS),
                "queue": "celery",
            },
        )


class TenantsConfig(AppConfig):
    name = "tenants"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        post_migrate.connect(make_schedule, sender=self)
