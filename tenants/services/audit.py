"""Who did what, written in the transaction in which it is done. Called by every service that changes something."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tenants import ids
from tenants.access import Caller
from tenants.models import AuditEntry, Tenant


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a person, key, operator, link, or the platform itself."""

    kind: str
    id: str
    label: str = ""
    remote_ip: str | None = None
    request_id: str = ""


PLATFORM = Actor("platform", "platform")
"""What nobody asked for: a sweep, an answer of a receiver."""

COMMAND = Actor("operator", "manage.py")
"""Whoever may run commands on the machine."""


def actor_of(caller: Caller, *, remote_ip: str | None, request_id: str) -> Actor:
    kind = "operator" if caller.is_operator else "key"
    return Actor(kind, ids.to_text(ids.API_KEY, caller.key_id), caller.name, remote_ip, request_id)


def record(
    *,
    actor: Actor,
    tenant: Tenant | UUID | None,
    action: str,
    target: str = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Inside the caller's transaction. Secrets are never in `before` and `after`."""
    AuditEntry.objects.create(
        tenant_id=tenant.id if isinstance(tenant, Tenant) else tenant,
        actor_kind=actor.kind,
        actor=f"{actor.id} {actor.label}".strip()[:255],
        action=action,
        target=target[:64],
        before=before,
        after=after,
        remote_ip=actor.remote_ip or None,
        request_id=actor.request_id,
    )


def changes(before: dict[str, Any], after: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Only what differs, for the audit log of a change."""
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}
