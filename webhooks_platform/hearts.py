"""What beats in a worker and in beat: loaded there alone, by the names that `celery.py` gives Celery."""

from typing import Any

from celery import bootsteps
from django_celery_beat.schedulers import DatabaseScheduler

from webhooks_platform import heartbeat


class WorkerHeart(bootsteps.StartStopStep):
    """Beats by the timer of the main loop, which does not turn while the broker is away: see PromptConnection."""

    requires = ("celery.worker.components:Timer",)

    def start(self, parent: Any) -> None:
        heartbeat.begin()
        parent.timer.call_repeatedly(heartbeat.SECONDS, heartbeat.beat)


class BeatingScheduler(DatabaseScheduler):  # type: ignore[misc] # django-celery-beat has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        heartbeat.begin()
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        heartbeat.beat()
        return float(super().tick(*args, **kwargs))
