"""What holds for the whole platform: the kill switch of all sending. Called by the admin."""

from django.db import transaction

from tenants.models import PlatformState
from tenants.services import audit
from tenants.services.audit import Actor


def is_sending_stopped() -> bool:
    return PlatformState.objects.filter(is_sending_stopped=True).exists()


def stop_sending(*, actor: Actor, reason: str) -> bool:
    """No attempt begins any more, within five seconds; publishing goes on. Whether it was going on until now."""
    return _switch(actor=actor, is_stopped=True, reason=reason)


def resume_sending(*, actor: Actor, reason: str) -> bool:
    """What waited is delivered. Whether it was stopped until now."""
    return _switch(actor=actor, is_stopped=False, reason=reason)


def _switch(*, actor: Actor, is_stopped: bool, reason: str) -> bool:
    with transaction.atomic():
        is_changed = bool(
            PlatformState.objects.filter(is_sending_stopped=not is_stopped).update(
                is_sending_stopped=is_stopped
            )
        )
        if is_changed:
            audit.record(
                actor=actor,
                tenant=None,
                action="platform.sending_stopped" if is_stopped else "platform.sending_resumed",
                after={"reason": reason},
            )
    return is_changed
