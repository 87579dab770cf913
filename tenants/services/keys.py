"""Making and revoking API keys. Called by the API, the admin and the two create commands."""

import secrets
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from tenants import access, ids
from tenants.models import ApiKey, Tenant
from tenants.services import audit
from tenants.services.audit import Actor

SHOWN_LENGTH: Final = 12
"""Of a key, what people see later: `whk_` and 8 letters, too few to guess the rest from."""


class ScopesNotHeld(Exception):
    """A key may not give what it does not have."""

    def __init__(self, scopes: Collection[str]) -> None:
        self.scopes = sorted(scopes)
        super().__init__(", ".join(self.scopes))


def create_key(
    *,
    actor: Actor,
    tenant: Tenant,
    name: str,
    scopes: Collection[str],
    granted: Collection[str],
    expires_at: datetime | None = None,
    rate_limit: int | None = None,
) -> tuple[ApiKey, str]:
    """The key's row, and its text, which is kept nowhere. `granted`: what the actor has. Raises ScopesNotHeld."""
    if missing := set(scopes) - set(granted):
        raise ScopesNotHeld(missing)
    ordered = [scope for scope in ApiKey.Scope.values if scope in scopes]
    return _make(
        actor=actor, tenant=tenant, name=name, scopes=ordered, expires_at=expires_at, rate_limit=rate_limit
    )


def create_operator_key(*, actor: Actor, name: str) -> tuple[ApiKey, str]:
    return _make(actor=actor, tenant=None, name=name, scopes=[])


def _make(
    *, actor: Actor, tenant: Tenant | None, name: str, scopes: list[str], **fields: Any
) -> tuple[ApiKey, str]:
    text = "whk_" + secrets.token_urlsafe(32)
    with transaction.atomic():
        key = ApiKey.objects.create(
            tenant=tenant,
            name=name,
            prefix=text[:SHOWN_LENGTH],
            hash=access.hash_of(text),
            scopes=scopes,
            **fields,
        )
        key.refresh_from_db(fields=["created_at"])
        audit.record(
            actor=actor,
            tenant=tenant,
            action="api_key.created",
            target=ids.to_text(ids.API_KEY, key.id),
            after={"name": name, "scopes": scopes},
        )
    return key, text


def revoke_key(*, actor: Actor, tenant: Tenant | None, key_id: UUID) -> None:
    """Felt within five seconds in every process, at once in this one. Without a tenant: an operator key's.

    Raises access.NotFound.
    """
    with transaction.atomic():
        changed = ApiKey.objects.filter(id=key_id, tenant=tenant, revoked_at__isnull=True).update(
            revoked_at=Now()
        )
        if not changed:
            raise access.NotFound
        audit.record(
            actor=actor, tenant=tenant, action="api_key.revoked", target=ids.to_text(ids.API_KEY, key_id)
        )
        transaction.on_commit(access.forget)
