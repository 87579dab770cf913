"""The Celery tasks of delivery: dispatchers on a queue of their own, and the sweeps that repair what a crash left.

Thin: each calls one function of the pipeline. The time that decides what is too old is the database's.
"""

import gc
import logging
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from celery import shared_task
from celery.signals import (
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_shutting_down,
)
from django.conf import settings
from django.db import connection

from deliveries import health_tasks, job_tasks
from deliveries.models import Endpoint
from deliveries.pipeline import counters, partitions, retention, rollups, sweeps
from deliveries.pipeline.dispatch import Dispatcher, Ending
from deliveries.services import arrivals, polling, sources, traces
from deliveries.services.endpoint_deletion import forget_deleted
from deliveries.services.outgoing import open_configured_transport
from deliveries.services.stopping import disable_by_answer
from tenants.clock import database_now

__all__ = [
    "correct_backlog",
    "dispatch",
    "expire",
    "forget_incoming",
    "health_tasks",
    "job_tasks",
    "make_partitions",
    "open_configured_transport",
    "repair",
    "sweep",
]
"""Celery looks for tasks in this module; those of health and jobs come along."""

logger = logging.getLogger(__name__)

GARBAGE_AFTER = 20_000
"""New objects until the collector looks at the young ones. A dispatcher makes thousands a second that are waited for, hardly
any in circles: at Python's 700 to look at them took a twentieth of its time."""

_stop_pipe: tuple[int, int] | None = None
"""Made by the worker's main process before it forks: its children read one end, and it writes when it shuts down.

Celery tells only the main process of a warm shutdown, which then waits for its tasks; a dispatcher must hear of it.
"""

_is_child = False
"""Of a pool of processes. In other pools a task's process is the main one, with signals of its own."""


@worker_init.connect
def make_stop_pipe(**_: object) -> None:
    global _stop_pipe  # noqa: PLW0603 - one per worker, inherited by fork
    _stop_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)


@worker_process_init.connect
def keep_one_end(**_: object) -> None:
    """With the main process killed, the pipe is then at its end, which says stop as well."""
    global _is_child  # noqa: PLW0603 - set once, after the fork
    _is_child = True
    if _stop_pipe is not None:
        os.close(_stop_pipe[1])


@worker_process_shutdown.connect
def write_counts(**_: object) -> None:
    """The last seconds' counts and spans; such a process ends without saying so to anybody else."""
    counters.write()
    traces.flush()


@worker_shutting_down.connect
def tell_dispatchers(**_: object) -> None:
    if _stop_pipe is not None:
        # Never read empty: every child sees it, for as long as it looks.
        os.write(_stop_pipe[1], b"stop")


@contextmanager
def stop_fd() -> Iterator[int | None]:
    """Readable when this process should drain: the main process shuts down or is gone, or SIGTERM came here as well.

    Children of the pool die of SIGTERM otherwise, with what is in the air; who stops a service often tells all of its
    processes at once.
    """
    if _stop_pipe is None or not _is_child:
        yield None if _stop_pipe is None else _stop_pipe[0]
        return
    terminated = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    with select.epoll() as either:
        either.register(_stop_pipe[0], select.EPOLLIN)
        either.register(terminated, select.EPOLLIN)
        before = signal.signal(signal.SIGTERM, lambda *_: os.eventfd_write(terminated, 1))
        try:
            yield either.fileno()
        finally:
            signal.signal(signal.SIGTERM, before)
            os.close(terminated)


def gone(endpoint_id: UUID) -> None:
    _disable(endpoint_id, Endpoint.DisabledReason.GONE)


def refused(endpoint_id: UUID) -> None:
    _disable(endpoint_id, Endpoint.DisabledReason.RECEIVER)


def _disable(endpoint_id: UUID, reason: Endpoint.DisabledReason) -> None:
    """Called in a thread of its own, which must not end with a connection of Django's."""
    try:
        disable_by_answer(endpoint_id=endpoint_id, reason=reason)
    finally:
        connection.close()


@shared_task(name="deliveries.dispatch", ignore_result=True, acks_late=False)
def dispatch() -> str:
    """Deliver until there is nothing to do. Ends at once if enough dispatchers are alive."""
    if sweeps.enough_dispatchers(settings.WEBHOOKS_DISPATCHERS):
        return Ending.ENOUGH
    # What was imported stays: a collection that looks at all of it again stops the loop for a tenth of a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)
    with stop_fd() as fd:
        dispatcher = Dispatcher(
            open_transport=open_configured_transport,
            capacity=settings.WEBHOOKS_MAX_IN_FLIGHT,
            on_gone=gone,
            on_refused=refused,
            user_agent=settings.WEBHOOKS_USER_AGENT,
            stop_fd=fd,
            at_most=settings.WEBHOOKS_DISPATCHERS,
            traces=traces.attempt_traces(),
        )
        ending: Ending = dispatcher.run()
    return ending.value


@shared_task(name="deliveries.sweep", ignore_result=True)
def sweep() -> None:
    """Each second: take over from the dead, and start a dispatcher if lanes are ready and none has room."""
    sweeps.sweep(wanted=settings.WEBHOOKS_DISPATCHERS)


@shared_task(name="deliveries.repair", ignore_result=True)
def repair() -> None:
    """Each 30 s: wake lanes whose wake was lost, and forget the secrets of what was deleted."""
    sweeps.repair(now=database_now())
    forget_deleted()


@shared_task(name="deliveries.make_partitions", ignore_result=True)
def make_partitions() -> None:
    """Each hour: partitions ahead."""
    partitions.ensure_partitions(now=database_now())


@shared_task(name="deliveries.retention", ignore_result=True)
def retention_slice() -> None:
    """Every 20 s: two seconds of what tenants keep no longer."""
    retention.let_go(now=database_now())


@shared_task(name="deliveries.roll_up", ignore_result=True)
def roll_up() -> None:
    """Every 20 s: what charts and statistics read."""
    rollups.roll_up(now=database_now())


@shared_task(name="deliveries.drop_partitions", ignore_result=True)
def drop_partitions() -> None:
    """Each hour: weeks older than the longest retention."""
    retention.drop_partitions(now=database_now())


@shared_task(name="deliveries.expire", ignore_result=True)
def expire() -> None:
    """Each hour: idempotency records past their day, and deliveries that waited longer than they are kept."""
    sweeps.expire_idempotency()
    sweeps.expire_pending(now=database_now())


@shared_task(name="deliveries.correct_backlog", ignore_result=True)
def correct_backlog() -> None:
    """Every 10 min: the backlog that metrics estimate, put right while it is small."""
    sweeps.correct_backlog()


@shared_task(name="deliveries.forget_incoming", ignore_result=True)
def forget_incoming() -> None:
    """Each hour: requests to sources that are past their days, inspectors whose time is over, old items of polls."""
    arrivals.forget_requests(now=database_now())
    sources.end_inspectors()
    polling.forget()
