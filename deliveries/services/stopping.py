"""Stopping endpoints and letting them go on. Called by the API, the portal, the admin, sweeps and the dispatcher."""

from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from deliveries.models import Endpoint
from deliveries.pipeline.announce import Kind
from deliveries.pipeline.wake import end_holds
from deliveries.services import health
from deliveries.services.endpoint_changes import finish, hold_lane, is_held, under_lock, wake_after_commit
from deliveries.services.endpoint_settings import facts
from tenants import access, ids
from tenants.services import audit
from tenants.services.audit import PLATFORM, Actor
from tenants.services.versions import raise_settings_version


def enable_endpoint(*, actor: Actor, endpoint: Endpoint) -> Endpoint:
    """Starts afresh: what was cancelled stays so, recover and replay send it. Raises access.NotFound."""
    return _switch(actor=actor, endpoint=endpoint, status=Endpoint.Status.ENABLED, reason=None)


def disable_endpoint(
    *,
    actor: Actor,
    endpoint: Endpoint,
    reason: Endpoint.DisabledReason = Endpoint.DisabledReason.MANUAL,
) -> Endpoint:
    """What is pending ends as cancelled; events published meanwhile make nothing. Raises access.NotFound."""
    return _switch(actor=actor, endpoint=endpoint, status=Endpoint.Status.DISABLED, reason=reason)


def disable_by_answer(*, endpoint_id: UUID, reason: Endpoint.DisabledReason) -> None:
    """The receiver wants no more: it answered 410 (`gone`), or said so in a header (`receiver`).

    Called by the dispatcher; nothing to do if it is stopped already.
    """
    endpoint = Endpoint.unscoped.filter(id=endpoint_id, deleted_at__isnull=True).first()
    if endpoint is not None and endpoint.status == Endpoint.Status.ENABLED:
        try:
            disable_endpoint(actor=PLATFORM, endpoint=endpoint, reason=reason)
        except access.NotFound:
            return


def pause_endpoint(*, actor: Actor, endpoint: Endpoint) -> Endpoint:
    """Of operators: deliveries are made and wait, what is in the air lands. Raises access.NotFound."""
    return _hold(actor=actor, endpoint=endpoint, is_paused=True)


def continue_endpoint(*, actor: Actor, endpoint: Endpoint) -> Endpoint:
    """What waited is delivered, unless the tenant is suspended. Raises access.NotFound."""
    return _hold(actor=actor, endpoint=endpoint, is_paused=False)


def _hold(*, actor: Actor, endpoint: Endpoint, is_paused: bool) -> Endpoint:
    with transaction.atomic():
        # Its lock keeps a suspension of the tenant, which pauses lanes as well, before or behind this.
        raise_settings_version(endpoint.tenant_id)
        row = under_lock(endpoint)
        if row.is_paused == is_paused:
            return row
        row.is_paused = is_paused
        row.save(update_fields=["is_paused"])
        hold_lane(row)
        audit.record(
            actor=actor,
            tenant=row.tenant_id,
            action="endpoint.paused" if is_paused else "endpoint.continued",
            target=ids.to_text(ids.ENDPOINT, row.id),
        )
        if not is_held(row):
            wake_after_commit(row.id)
    return row


def _switch(
    *, actor: Actor, endpoint: Endpoint, status: Endpoint.Status, reason: Endpoint.DisabledReason | None
) -> Endpoint:
    with transaction.atomic():
        version = raise_settings_version(endpoint.tenant_id)
        row = under_lock(endpoint)
        if row.status == status:
            # Nothing to do, and the reason for which it was disabled first stands.
            return row
        before = facts(row)
        row.status = status
        row.disabled_reason = reason
        row.version = version
        row.updated_at = Now()
        row.save(update_fields=["status", "disabled_reason", "version", "updated_at"])
        switched(row)
        action = "endpoint.enabled" if reason is None else "endpoint.disabled"
        return finish(actor, row, version=version, action=action, before=before)


def switched(row: Endpoint) -> None:
    """Enabled or disabled just now: tell, remember from when on it misses something, and forget how it failed."""
    is_enabled = row.status == Endpoint.Status.ENABLED
    hold_lane(row)
    if not is_enabled and row.missed_since is None:
        is_failing = row.disabled_reason == Endpoint.DisabledReason.FAILING
        row.missed_since = row.lane.failing_since if is_failing else Now()
        row.save(update_fields=["missed_since"])
        row.refresh_from_db(fields=["missed_since"])
    health.tell(
        row,
        kind=Kind.ENDPOINT_ENABLED if is_enabled else Kind.ENDPOINT_DISABLED,
        # Of what it failed with, nobody but the platform's own events may have been in it.
        is_quiet=row.disabled_reason == Endpoint.DisabledReason.FAILING and not row.lane.is_own_failing,
    )
    if is_enabled:
        health.wipe(row)
    else:
        # What is pending ends now, not when its lane's wait is over.
        end_holds([row.id])
