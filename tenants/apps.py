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
    """Rows of django-celery-beat. What an operator changed in the admin stays."""
    # The models are not loaded yet when this module is.
    from django_celery_beat.models import IntervalSchedule, PeriodicTask  # noqa: PLC0415

    for name, (task, seconds) in SCHEDULE.items():
        interval, _ = IntervalSchedule.objects.get_or_create(every=seconds, period=IntervalSchedule.SECONDS)
        PeriodicTask.objects.get_or_create(
            name=name,
            defaults={
                "task": task,
                "interval": interval,
                # See `deliveries.apps`.
                "expire_seconds": max(seconds, MOST_APART_SECONDS),
                "queue": "celery",
            },
        )


class TenantsConfig(AppConfig):
    name = "tenants"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        post_migrate.connect(make_schedule, sender=self)
