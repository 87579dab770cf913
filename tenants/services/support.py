"""Operators in a tenant's portal: begun in the admin, known to the portal, over after half an hour.

Looking is all there is, unless a reason is given; then what a developer of the tenant may do, too. Secrets, keys and
members stay closed either way. The tenant reads in its own audit log who came, why, and what was done.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from tenants import access, ids
from tenants.models import Member, SupportSession, Tenant, User
from tenants.services import audit
from tenants.services.audit import Actor

LASTS: Final = timedelta(minutes=30)
"""How long an operator looks through a tenant's eyes before it has to be asked for again."""

SESSION_KEY: Final = "support"
"""Of the browser's session: the ids of support sessions that it began."""

MOST_AT_ONCE: Final = 5
"""Tenants that one browser looks into; of more, the first ones go."""

CLOSED: Final = re.compile(
    "secret|rotate|key|member|invitation|token|credential|source-new|inspector-new|channel|notifications|portal-settings"
)
"""In the name of a page: it shows or changes what lets somebody in. Support gets none of these, whatever the reason.

A new source shows its URL, which is its key; that of a chat's channel is one, too. What an operator is told of a tenant
is not a member's choice.
"""


def begin(*, actor: Actor, user: User, tenant: Tenant, reason: str, now: datetime) -> SupportSession:
    """Raises access.NotFound for a tenant that was deleted."""
    if tenant.deleted_at is not None:
        raise access.NotFound
    with transaction.atomic():
        session: SupportSession = SupportSession.objects.for_tenant(tenant).create(
            tenant=tenant, user=user, reason=reason, expires_at=now + LASTS
        )
        audit.record(
            actor=actor,
            tenant=tenant,
            action="support.signed_in",
            target=ids.to_text(ids.USER, user.id),
            after={
                "role": role_of(session).value,
                "reason": reason or None,
                "until": session.expires_at.isoformat(),
            },
        )
    return session


def end(*, actor: Actor, user: User, session_id: UUID) -> None:
    """Raises access.NotFound for one that is over, or somebody else's."""
    with transaction.atomic():
        rows = SupportSession.unscoped.filter(id=session_id, user=user, ended_at__isnull=True)
        session = rows.select_for_update().first()
        if session is None:
            raise access.NotFound
        rows.update(ended_at=Now())
        audit.record(
            actor=actor,
            tenant=session.tenant_id,
            action="support.signed_out",
            target=ids.to_text(ids.USER, user.id),
        )


def session_in(*, user: User, slug: str, session_ids: Sequence[str], now: datetime) -> SupportSession | None:
    """The one that lasts, with its tenant. The ids are from the browser's own session, the account must be the same."""
    if not session_ids or not (user.is_active and user.is_staff and user.is_superuser):
        return None
    session: SupportSession | None = (
        SupportSession.unscoped.filter(
            id__in=[UUID(hex=each) for each in session_ids],
            user=user,
            tenant__slug=slug,
            tenant__deleted_at__isnull=True,
            ended_at__isnull=True,
            expires_at__gt=now,
        )
        .select_related("tenant")
        .order_by("-id")
        .first()
    )
    return session


def role_of(session: SupportSession) -> Member.Role:
    return Member.Role.DEVELOPER if session.reason else Member.Role.VIEWER


def is_closed(page: str) -> bool:
    """`page`: its name among the URLs."""
    return CLOSED.search(page) is not None
