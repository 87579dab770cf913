"""What operators can do to many things at once, action by action, in the words that they read. Done by `bulk`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from django.conf import settings
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from deliveries.models import BulkAction, Job
from deliveries.services import deliveries, erasing, events, jobs, missed, stopping
from deliveries.services.jobs import Plan
from tenants import ids
from tenants.models import Tenant
from tenants.services import accounts, audit, keys, operators, tenants, two_factor
from tenants.services.audit import Actor

DRAINED_AT_ONCE: Final = 1_000
"""Deliveries cancelled in one transaction."""


class Refused(Exception):
    """It cannot be done to this one; the text says why."""


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


def send_missed(call: Call) -> None:
    missed.send_missed(actor=call.actor, endpoint=call.target, now=call.now)


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
        _(
            "From the next request on. An empty field means the default; of several tenants, that each stays as it is."
        ),
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
        _(
            "They get what is published from now on. What they missed is sent afterwards, by an action of its own."
        ),
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
    "send-missed": Action(
        _("Send what was missed"),
        _(
            "What was published while they were disabled, and what was cancelled then, is sent now: by one job for each endpoint."
        ),
        Target.ENDPOINT,
        send_missed,
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
