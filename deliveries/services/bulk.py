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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F, Model, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from deliveries.models import BulkAction, Delivery, Endpoint, Event, Job
from deliveries.services import deliveries, erasing, events, hosts, jobs, stopping
from deliveries.services.deliveries import EndpointStopped, NotPending, PayloadErased
from deliveries.services.job_work import Progress
from deliveries.services.jobs import JobEnded, JobRunning, Plan
from tenants import access, ids
from tenants.models import ApiKey, Tenant, User
from tenants.services import accounts, audit, keys, operators, tenants, two_factor
from tenants.services.audit import Actor
from tenants.services.operators import LastOperator
from tenants.validation import InvalidContent

logger = logging.getLogger(__name__)

SLICE_SECONDS: Final = 1.0
"""How long a task, or the page that begins an action, works before it gives way."""

STALE_SECONDS: Final = 30
"""An action that nobody has worked on for so long is taken up by the sweep."""

MOST_COUNTED: Final = 10_000
"""What is chosen is counted so far; the number then means: at least."""

MOST_PROBLEMS: Final = 200
"""Of those that it could not be done to, so many are named. All are counted."""

DRAINED_AT_ONCE: Final = 1_000
"""Deliveries cancelled in one transaction."""


class NothingChosen(Exception):
    """The selection finds nothing."""


class Refused(Exception):
    """It cannot be done to this one; the text says why."""


# --- what can be done -------------------------------------------------------------------------------------------------


class Target(Enum):
    """What an action is done to: the model's page in the admin."""

    TENANT = "tenants_tenant"
    KEY = "tenants_apikey"
    USER = "tenants_user"
    ENDPOINT = "deliveries_endpoint"
    EVENT = "deliveries_event"
    DELIVERY = "deliveries_delivery"
    JOB = "deliveries_job"
    BULK = "deliveries_bulkaction"

    @property
    def page(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Call:
    actor: Actor
    target: Any
    how: dict[str, Any]
    now: datetime


Verb = Callable[[Call], bool | None]
"""True: there is more to do to the same target."""


@dataclass(frozen=True, slots=True)
class Action:
    label: Any
    explanation: Any
    """What it will do, for the page that asks."""
    target: Target
    verb: Verb
    is_severe: bool = False


def suspend(call: Call) -> None:
    tenants.update_tenant(actor=call.actor, tenant=call.target, status=Tenant.Status.SUSPENDED)


def resume(call: Call) -> None:
    tenants.update_tenant(actor=call.actor, tenant=call.target, status=Tenant.Status.ACTIVE)


def limits(call: Call) -> None:
    tenants.update_tenant(actor=call.actor, tenant=call.target, **call.how)


def revoke_key(call: Call) -> None:
    keys.revoke_key(actor=call.actor, tenant=call.target.tenant, key_id=call.target.id)


def close_account(call: Call) -> None:
    operators.close_account(actor=call.actor, user=call.target)


def open_account(call: Call) -> None:
    operators.open_account(actor=call.actor, user=call.target)


def second_factor_off(call: Call) -> None:
    if not two_factor.is_on(call.target):
        raise Refused("It has no second factor.")
    two_factor.turn_off(actor=call.actor, user=call.target)


def send_reset(call: Call) -> None:
    user = call.target
    accounts.ask_for_reset(email=user.email, language=user.language or settings.LANGUAGE_CODE)
    audit.record(
        actor=call.actor,
        tenant=None,
        action="account.reset_sent",
        target=ids.to_text(ids.USER, user.id),
    )


def pause(call: Call) -> None:
    stopping.pause_endpoint(actor=call.actor, endpoint=call.target)


def let_go_on(call: Call) -> None:
    stopping.continue_endpoint(actor=call.actor, endpoint=call.target)


def enable(call: Call) -> None:
    stopping.enable_endpoint(actor=call.actor, endpoint=call.target)


def disable(call: Call) -> None:
    stopping.disable_endpoint(actor=call.actor, endpoint=call.target)


def drain(call: Call) -> bool:
    """In parts: a queue may be a million deliveries long."""
    cancelled = deliveries.cancel_pending(actor=call.actor, endpoint=call.target, most=DRAINED_AT_ONCE)
    return cancelled == DRAINED_AT_ONCE


def recover(call: Call) -> None:
    _make_job(call, Job.Kind.RECOVER, Job.Only.FAILED)


def replay_endpoint(call: Call) -> None:
    _make_job(call, Job.Kind.REPLAY, Job.Only.ALL)


def _make_job(call: Call, kind: Job.Kind, only: Job.Only) -> None:
    since = datetime.fromisoformat(call.how["since"])
    jobs.create_job(actor=call.actor, endpoint=call.target, plan=Plan(kind, only, since, call.now))


def retry(call: Call) -> None:
    deliveries.retry_delivery(actor=call.actor, delivery=call.target, now=call.now)


def cancel(call: Call) -> None:
    deliveries.cancel_delivery(actor=call.actor, delivery=call.target)


def replay_event(call: Call) -> None:
    event = call.target
    if not events.replay_event(actor=call.actor, tenant=event.tenant, event=event, endpoint=None):
        raise Refused("No endpoint wants it as things stand now.")


def erase(call: Call) -> None:
    erasing.erase_data(actor=call.actor, tenant=call.target.tenant, event=call.target)


def cancel_job(call: Call) -> None:
    jobs.cancel_job(actor=call.actor, job=call.target)


def stop(call: Call) -> None:
    """What is done stays done."""
    stopped = BulkAction.objects.filter(id=call.target.id, status=BulkAction.Status.RUNNING).update(
        status=BulkAction.Status.CANCELLED, completed_at=Now()
    )
    if not stopped:
        raise Refused("It has ended already.")
    audit.record(actor=call.actor, tenant=None, action="bulk.stopped", target=str(call.target.id))


ACTIONS: Final[dict[str, Action]] = {
    "suspend": Action(
        _("Suspend tenants"),
        _("Publishes are refused, deliveries are held, people who came by a link are signed out."),
        Target.TENANT,
        suspend,
        is_severe=True,
    ),
    "resume": Action(
        _("Resume tenants"),
        _("Publishes are taken again, and what was held is delivered."),
        Target.TENANT,
        resume,
    ),
    "limits": Action(
        _("Change limits, weight and retention"),
        _("From the next request on. An empty field means the default."),
        Target.TENANT,
        limits,
    ),
    "revoke-key": Action(
        _("Revoke keys"),
        _("Felt within five seconds. A key does not come back."),
        Target.KEY,
        revoke_key,
        is_severe=True,
    ),
    "close-account": Action(
        _("Close accounts"),
        _("Their sessions are over with the next click. Memberships stay, for when the account is opened."),
        Target.USER,
        close_account,
        is_severe=True,
    ),
    "open-account": Action(_("Open accounts"), _("They may sign in again."), Target.USER, open_account),
    "second-factor-off": Action(
        _("Reset the second factor"),
        _(
            "For somebody who lost the app and the recovery codes. Make sure who asks: the password alone is enough then."
        ),
        Target.USER,
        second_factor_off,
        is_severe=True,
    ),
    "send-reset": Action(
        _("Send a password reset"), _("An e-mail with a link, good for an hour."), Target.USER, send_reset
    ),
    "pause": Action(
        _("Pause endpoints"),
        _("Deliveries are made and wait; what is in the air lands. Nothing is lost."),
        Target.ENDPOINT,
        pause,
    ),
    "continue": Action(
        _("Let endpoints go on"), _("What waited is delivered, the oldest first."), Target.ENDPOINT, let_go_on
    ),
    "enable": Action(
        _("Enable endpoints"),
        _("They get what is published from now on. What they missed is sent by recover."),
        Target.ENDPOINT,
        enable,
    ),
    "disable": Action(
        _("Disable endpoints"),
        _("What is pending is cancelled, and events published meanwhile make nothing. Pausing loses less."),
        Target.ENDPOINT,
        disable,
        is_severe=True,
    ),
    "drain": Action(
        _("Drain endpoints"),
        _(
            "Everything that is pending now is cancelled; the endpoints stay enabled. Replay can send it again."
        ),
        Target.ENDPOINT,
        drain,
        is_severe=True,
    ),
    "recover": Action(
        _("Recover what failed"),
        _("Deliveries that failed since then are sent again, by one job for each endpoint."),
        Target.ENDPOINT,
        recover,
    ),
    "replay-endpoint": Action(
        _("Replay everything"),
        _("All events since then that match are sent again, also those that arrived."),
        Target.ENDPOINT,
        replay_endpoint,
    ),
    "retry": Action(_("Retry deliveries"), _("One attempt more for each, soon."), Target.DELIVERY, retry),
    "cancel": Action(
        _("Cancel deliveries"),
        _("Those that are pending are not sent."),
        Target.DELIVERY,
        cancel,
        is_severe=True,
    ),
    "replay-event": Action(
        _("Replay events"), _("New deliveries to all endpoints that match now."), Target.EVENT, replay_event
    ),
    "erase": Action(
        _("Erase payloads"),
        _("The payload, its copies and its echoes are gone for good; what is pending is cancelled."),
        Target.EVENT,
        erase,
        is_severe=True,
    ),
    "cancel-job": Action(
        _("Cancel jobs"),
        _("Nothing more is made; what was made stays."),
        Target.JOB,
        cancel_job,
        is_severe=True,
    ),
    "stop": Action(_("Stop this action"), _("What is done stays done."), Target.BULK, stop, is_severe=True),
}


# --- what it is done to -----------------------------------------------------------------------------------------------


def chosen(action: Action, selection: dict[str, Any]) -> "QuerySet[Any]":
    """By key, the first one first. A selection is a list of ids, or what filters a list."""
    match action.target:
        case Target.TENANT:
            rows: QuerySet[Any] = Tenant.objects.filter(deleted_at__isnull=True)
        case Target.KEY:
            rows = ApiKey.objects.select_related("tenant").filter(revoked_at__isnull=True)
        case Target.USER:
            rows = User.objects.all()
        case Target.ENDPOINT:
            rows = Endpoint.unscoped.filter(deleted_at__isnull=True).select_related("tenant")
            if "host" in selection:
                rows = hosts.endpoints_of_host(selection["host"]).select_related("tenant")
        case Target.EVENT:
            rows = Event.unscoped.defer("data").select_related("tenant")
        case Target.DELIVERY:
            rows = Delivery.unscoped.defer(*deliveries.BODIES)
            if "tenant" in selection:
                rows = _found_deliveries(selection)
        case Target.JOB:
            rows = Job.unscoped.all()
        case Target.BULK:
            rows = BulkAction.objects.all()
    if "ids" in selection:
        rows = rows.filter(id__in=[UUID(each) for each in selection["ids"]])
    elif not selection.keys() & {"host", "tenant"}:
        rows = rows.none()
    return rows.order_by("id")


def _found_deliveries(selection: dict[str, Any]) -> "QuerySet[Delivery]":
    """Those of a tenant that were made before the action began."""
    endpoint = selection.get("endpoint")
    return deliveries.find_deliveries(
        Tenant.objects.get(id=selection["tenant"]),
        endpoint_id=None if endpoint is None else UUID(endpoint),
        status=selection["status"],
        outcome=selection.get("outcome"),
        event_type=selection.get("event_type"),
        until=datetime.fromisoformat(selection["until"]),
    )


def count(action: Action, selection: dict[str, Any]) -> int:
    """As far as MOST_COUNTED."""
    return chosen(action, selection).values("id")[:MOST_COUNTED].count()


def examples(action: Action, selection: dict[str, Any], *, most: int) -> Sequence[Model]:
    return list(chosen(action, selection)[:most])


# --- doing it ---------------------------------------------------------------------------------------------------------


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
        announce(row.id)
    row.refresh_from_db()
    return row


def announce(bulk_id: UUID) -> None:
    """Start a worker on it. A hint: without a broker the sweep does."""
    try:
        current_app.send_task("deliveries.run_bulk", [str(bulk_id)], queue="celery", retry=False)
    except Exception as error:  # noqa: BLE001 - whatever the broker's client raises
        logger.warning("bulk action not announced", extra={"error": type(error).__name__})


def work(*, bulk_id: UUID, seconds: float = SLICE_SECONDS) -> Progress:
    """A slice. Can be called by anybody, at any time, for any action."""
    until = time.monotonic() + seconds
    while True:
        progress = _step(bulk_id)
        if progress is not Progress.AT_ONCE or time.monotonic() >= until:
            return progress


def stale() -> list[UUID]:
    """Running, and nobody works on them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM deliveries_bulkaction WHERE status = 'running'"
            " AND heartbeat_at < now() - make_interval(secs => %s) ORDER BY heartbeat_at LIMIT 100",
            [STALE_SECONDS],
        )
        return [row[0] for row in cursor.fetchall()]


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
                has_more = bool(action.verb(Call(_actor(row), target, row.arguments, timezone.now())))
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


def selection_of_deliveries(
    *,
    tenant: Tenant,
    status: str,
    endpoint_id: UUID | None,
    outcome: str | None,
    event_type: str | None,
    now: datetime,
) -> dict[str, Any]:
    found: dict[str, Any] = {"tenant": str(tenant.id), "status": status, "until": now.isoformat()}
    if endpoint_id is not None:
        found["endpoint"] = str(endpoint_id)
    if outcome:
        found["outcome"] = outcome
    if event_type:
        found["event_type"] = event_type
    return found


def shown_id(target: Target, key: UUID) -> str:
    """As the API spells it, where it does."""
    prefixes = {
        Target.TENANT: ids.TENANT,
        Target.KEY: ids.API_KEY,
        Target.USER: ids.USER,
        Target.ENDPOINT: ids.ENDPOINT,
        Target.EVENT: ids.EVENT,
        Target.DELIVERY: ids.DELIVERY,
        Target.JOB: ids.JOB,
    }
    prefix = prefixes.get(target)
    return str(key) if prefix is None else ids.to_text(prefix, key)
