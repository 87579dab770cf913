from functools import partial
from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from tenants.apps import make_periodic_tasks
from tenants.clock import database_now


def make_partitions(**_: Any) -> None:
    """`migrate` leaves a database that can take events."""
    # The models are not loaded yet when this module is.
    from deliveries.pipeline.partitions import ensure_partitions  # noqa: PLC0415

    ensure_partitions(now=database_now())


SCHEDULE = {
    # name: (task, seconds between runs)
    "take over and start dispatchers": ("deliveries.sweep", 1),
    "wake forgotten lanes": ("deliveries.repair", 30),
    "make partitions ahead": ("deliveries.make_partitions", 3600),
    "expire what was kept too long": ("deliveries.expire", 3600),
    "let go what was kept long enough": ("deliveries.retention", 20),
    "drop weeks that nobody keeps": ("deliveries.drop_partitions", 3600),
    "roll up history for charts": ("deliveries.roll_up", 20),
    "correct the estimated backlog": ("deliveries.correct_backlog", 600),
    "tell what happened": ("deliveries.announce", 5),
    "disable what fails for days": ("deliveries.judge_failing", 60),
    "notify people": ("deliveries.notify", 60),
    "sum up the day for people": ("deliveries.summarise", 3600),
    "forget what was told long ago": ("deliveries.forget_announcements", 3600),
    "continue jobs": ("deliveries.continue_jobs", 10),
    "sample totals for the dashboard": ("deliveries.sample_metrics", 60),
    "erase echoes of erased payloads": ("deliveries.erase_echoes", 60),
    "forget incoming requests": ("deliveries.forget_incoming", 3600),
    "forget jobs and settings of long ago": ("deliveries.forget_old", 86_400),
    "expire files of exports": ("deliveries.expire_exports", 3600),
}


def make_schedule(**_: Any) -> None:
    """For the sweeps."""
    make_periodic_tasks(SCHEDULE)


class DeliveriesConfig(AppConfig):
    name = "deliveries"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        post_migrate.connect(make_partitions, sender=self)
        post_migrate.connect(make_schedule, sender=self)
        # Models are ready only now.
        from deliveries.pipeline import counters  # noqa: PLC0415
        from deliveries.services.tenants import follow_status  # noqa: PLC0415
        from tenants.services.messages import after_loss  # noqa: PLC0415
        from tenants.services.tenants import after_status_change  # noqa: PLC0415

        after_status_change.append(follow_status)
        after_loss.append(partial(counters.add, "broker_errors:task"))
