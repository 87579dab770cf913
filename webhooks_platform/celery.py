"""The Celery app: two queues, no results, and a broker that may be away without anybody waiting for it.

Messages are hints: what must not be lost is in the database. Hence no results, no retries of publishing, short time
limits on the socket. The schedule lives in the database (django-celery-beat) and can be edited in the admin.
"""

import logging.config
import os
from collections.abc import Callable
from typing import Any

from celery import Celery, Task, signals
from celery.app.amqp import AMQP
from django.conf import settings
from kombu import Connection, Queue

from tenants import log_context
from webhooks_platform import heartbeat
from webhooks_platform.servers import require_servers

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webhooks_platform.settings")
# Celery would run Django's checks, ignore what they find, and keep what they load: every page, 30 MB a process.
os.environ.setdefault("CELERY_SKIP_CHECKS", "true")

BROKER_SECONDS = 1
"""How long a socket to the broker may be silent when it should answer. A broker that accepts and never answers costs
the background thread of a publisher this much, and a worker one reconnection."""

RECONNECT_SECONDS = 1
"""Between two tries of a worker whose broker is away. Celery's own wait grows to half a minute, which would be added
to the outage."""


class PromptConnection(Connection):
    def ensure_connection(
        self, *args: Any, callback: Callable[[], object] | None = None, **kwargs: Any
    ) -> Any:
        pace = {"interval_start": RECONNECT_SECONDS, "interval_step": 0, "interval_max": RECONNECT_SECONDS}

        def still_trying() -> None:
            heartbeat.beat()
            if callback is not None:
                callback()

        return super().ensure_connection(*args, **(pace | kwargs | {"callback": still_trying}))


class PromptAMQP(AMQP):
    Connection = PromptConnection


app = Celery("webhooks_platform", amqp=PromptAMQP)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    # Dispatchers run for minutes; in a queue of their own they do not keep the sweeps waiting.
    task_queues=[Queue("celery"), Queue("dispatch")],
    task_default_queue="celery",
    task_create_missing_queues=False,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_publish_retry=False,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    # Of tasks that acknowledge late; ours do not, and a dispatcher goes on without the broker.
    worker_cancel_long_running_tasks_on_connection_loss=True,
    broker_connection_timeout=BROKER_SECONDS,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "socket_timeout": BROKER_SECONDS,
        "socket_connect_timeout": BROKER_SECONDS,
        "socket_keepalive": True,
        # Of a publisher: try once. Workers have a loop of their own around this.
        "max_retries": 0,
        "interval_start": 0,
        "interval_step": 0,
        "interval_max": 0,
    },
    beat_scheduler="webhooks_platform.hearts:BeatingScheduler",
    beat_max_loop_interval=5,
    timezone="UTC",
    enable_utc=True,
)
app.steps["worker"].add("webhooks_platform.hearts:WorkerHeart")
app.autodiscover_tasks()


@signals.setup_logging.connect
def setup_logging(*, loglevel: int | None = None, **_: object) -> None:
    """Workers and beat log as everything else does; `--loglevel` is for what Celery itself has to say.

    It is the first that either does, and so the place to end if there are no servers.
    """
    require_servers()
    logging.config.dictConfig(settings.LOGGING)
    logging.getLogger("celery").setLevel(loglevel or logging.WARNING)


@signals.task_prerun.connect
def name_task(*, task: Task[Any, Any], **_: object) -> None:
    log_context.task.set(str(task.name))
