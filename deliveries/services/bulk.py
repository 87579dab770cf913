"""What operators do to many things at once: in the background, one after the other, resumable. Called by the admin.

Every action of the admin is one of these, also that on a single object: the page that asks, the audit log and the report
of what could not be done are then the same for all. Each thing that is done and the place that was reached are one
transaction, so a worker that is killed loses nothing and repeats nothing. The row's lock keeps two workers apart.

    begin      the row, and a first slice of work at once: what is small is done when the page answers
    work       a slice of about a second, one target after the other
    continue   by `deliveries/job_tasks.py`: the task sends itself again, and a sweep finds actions whose worker is gone
"""

import logging
import time
from typing import Any, Final
from uuid import UUID

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F
from django.db.models.functions import Now

from deliveries.models import BulkAction
from deliveries.services import slices
from deliveries.services.bulk_actions import ACTIONS, Call, Refused
from deliveries.services.bulk_selection import chosen, count
from deliveries.services.deliveries import EndpointStopped, NotPending, PayloadErased
from deliveries.services.jobs import JobEnded, JobRunning
from deliveries.services.missed import NothingMissed
from deliveries.services.slices import SLICE_SECONDS, Progress
from tenants import access
from tenants.clock import database_now
from tenants.services import audit
from tenants.services.audit import Actor
from tenants.services.messages import announce
from tenants.services.operators import LastOperator
from tenants.validation import InvalidContent

logger = logging.getLogger(__name__)

MOST_PROBLEMS: Final = 200
"""Of those that it could not be done to, so many are named. All are counted."""


class NothingChosen(Exception):
    """The selection finds nothing."""


def begin(*, actor: Actor, name: str, selection: dict[str, Any], how: dict[str, Any]) -> BulkAction:
    """Small ones are done when this returns. Raises NothingChosen."""
    action = ACTIONS[name]
    total = count(action, selection)
    if total == 0:
        raise NothingChosen
    with transaction.atomic():
        row = BulkAction.objects.create(
            action=name,
            selection=selection,
            arguments=how,
            actor_id=actor.id,
            actor_label=actor.label,
            remote_ip=actor.remote_ip,
            request_id=actor.request_id,
            total=total,
        )
        if total > 1:
            # Each of them has an entry in its own tenant's log as well.
            audit.record(
                actor=actor,
                tenant=None,
                action=f"bulk.{name}",
                target=str(row.id),
                after={"selection": selection, "how": how, "total": total},
            )
    if work(bulk_id=row.id) is Progress.AT_ONCE:
        announce("deliveries.run_bulk", str(row.id))
    row.refresh_from_db()
    return row


def work(*, bulk_id: UUID, seconds: float = SLICE_SECONDS) -> Progress:
    """A slice. Can be called by anybody, at any time, for any action."""
    until = time.monotonic() + seconds
    while True:
        progress = _step(bulk_id)
        if progress is not Progress.AT_ONCE or time.monotonic() >= until:
            return progress


def stale() -> list[UUID]:
    """Running, and nobody works on them."""
    return slices.stale(BulkAction.objects.all())


def _step(bulk_id: UUID) -> Progress:
    """One transaction: the next target, and the place that was reached."""
    with transaction.atomic():
        rows = BulkAction.objects.select_for_update(skip_locked=True)
        row = rows.filter(id=bulk_id, status=BulkAction.Status.RUNNING).first()
        if row is None:
            # Another works on it and goes on by itself, or it has ended.
            return Progress.ENDED
        action = ACTIONS[row.action]
        waiting = chosen(action, row.selection)
        target = (waiting if row.cursor is None else waiting.filter(id__gt=row.cursor)).first()
        mine = BulkAction.objects.filter(id=bulk_id)
        if target is None:
            mine.update(status=BulkAction.Status.DONE, completed_at=Now(), heartbeat_at=Now())
            return Progress.ENDED
        why = None
        has_more = False
        try:
            with transaction.atomic():
                has_more = bool(action.verb(Call(_actor(row), target, row.arguments, database_now())))
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:  # noqa: BLE001 - one that cannot be done must not keep the others
            why = _why(error, row)
        if why is not None:
            problems = [*row.problems, [str(target.pk), why]][:MOST_PROBLEMS]
            reasons = row.reasons | {why: row.reasons.get(why, 0) + 1}
            mine.update(problems=problems, reasons=reasons, refused=F("refused") + 1)
        elif not has_more:
            mine.update(done=F("done") + 1)
        mine.update(heartbeat_at=Now(), **({} if has_more else {"cursor": target.pk}))
    return Progress.AT_ONCE


def _actor(row: BulkAction) -> Actor:
    return Actor("operator", row.actor_id, row.actor_label, row.remote_ip, row.request_id)


def _why(error: Exception, row: BulkAction) -> str:
    """For people; what nobody foresaw is in the log."""
    match error:
        case access.NotFound():
            return "It is gone."
        case PayloadErased():
            return "Its payload is erased."
        case NotPending() | JobEnded():
            return "It has ended already."
        case JobRunning():
            return "A job for it is running."
        case NothingMissed():
            return "It missed nothing, or somebody took care of it."
        case LastOperator():
            return "Nobody with all rights would be left."
        case EndpointStopped() | Refused():
            return str(error)
        case InvalidContent():
            return error.errors[0].message
        case _:
            logger.error(
                "a bulk action failed on one of its targets", extra={"action": row.action}, exc_info=error
            )
            return f"A fault of the platform: {type(error).__name__}."
