"""Portal links: made and ended by the API, redeemed by the portal's pages.

A link is used once. From then on it is the session that it made: of one tenant and one role, for twelve hours, over
with the link, or when the tenant is suspended or deleted.
"""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from tenants import access, ids
from tenants.models import PortalLink, Tenant
from tenants.services import audit
from tenants.services.audit import Actor

SESSION: Final = timedelta(hours=12)
"""How long a session lasts that a link made."""


class LinkNotUsable(Exception):
    """Unknown, used, expired, ended, or of a tenant that is suspended or deleted. Which of these is not said."""


def create_link(
    *,
    actor: Actor,
    tenant: Tenant,
    role: str,
    expires_in: timedelta,
    email: str = "",
    return_url: str = "",
) -> tuple[PortalLink, str]:
    """The link's row, and its token, of which only the hash is kept."""
    token = secrets.token_urlsafe(32)
    with transaction.atomic():
        link = PortalLink.objects.for_tenant(tenant).create(
            tenant=tenant,
            hash=access.hash_of(token),
            role=role,
            email=email,
            return_url=return_url,
            expires_at=timezone.now() + expires_in,
        )
        audit.record(
            actor=actor,
            tenant=tenant,
            action="portal_link.created",
            target=ids.to_text(ids.PORTAL_LINK, link.id),
            after={"role": role, "email": email},
        )
    return link, token


def end_link(*, actor: Actor, tenant: Tenant, link_id: UUID) -> None:
    """The link and its sessions are over. Raises access.NotFound."""
    with transaction.atomic():
        changed = (
            PortalLink.objects.for_tenant(tenant)
            .filter(id=link_id, ended_at__isnull=True)
            .update(ended_at=Now())
        )
        if not changed:
            raise access.NotFound
        audit.record(
            actor=actor,
            tenant=tenant,
            action="portal_link.ended",
            target=ids.to_text(ids.PORTAL_LINK, link_id),
        )


def end_sessions(*, tenant: Tenant) -> None:
    """Of links that were used; inside the caller's transaction. They do not come back when the tenant does."""
    PortalLink.objects.for_tenant(tenant).filter(used_at__isnull=False, ended_at__isnull=True).update(
        ended_at=Now()
    )


# --- redeeming --------------------------------------------------------------------------------------------------------


def find_link(token: str) -> PortalLink:
    """One that can be used, with its tenant. Raises LinkNotUsable."""
    link: PortalLink | None = (
        PortalLink.unscoped.filter(
            hash=access.hash_of(token),
            used_at__isnull=True,
            ended_at__isnull=True,
            expires_at__gt=timezone.now(),
            tenant__status=Tenant.Status.ACTIVE,
            tenant__deleted_at__isnull=True,
        )
        .select_related("tenant__look")
        .defer("tenant__look__logo")
        .first()
    )
    if link is None:
        raise LinkNotUsable
    return link


def use_link(*, token: str, remote_ip: str | None, request_id: str) -> PortalLink:
    """Use it up. Of two who do so at once, one gets in. Raises LinkNotUsable."""
    link = find_link(token)
    with transaction.atomic():
        is_first = (
            PortalLink.objects.for_tenant(link.tenant)
            .filter(id=link.id, used_at__isnull=True, ended_at__isnull=True)
            .update(used_at=Now())
        )
        if not is_first:
            raise LinkNotUsable
        audit.record(
            actor=actor_of(link, remote_ip=remote_ip, request_id=request_id),
            tenant=link.tenant,
            action="portal_link.used",
            target=ids.to_text(ids.PORTAL_LINK, link.id),
            after={"role": link.role},
        )
    return link


def sessions_of(link_ids: Sequence[UUID]) -> list[PortalLink]:
    """Those whose session still lasts, with their tenants, the latest first. The ids are from a browser's own session."""
    if not link_ids:
        return []
    return list(
        PortalLink.unscoped.filter(
            id__in=link_ids,
            used_at__gt=timezone.now() - SESSION,
            ended_at__isnull=True,
            tenant__status=Tenant.Status.ACTIVE,
            tenant__deleted_at__isnull=True,
        )
        .select_related("tenant__look")
        .defer("tenant__look__logo")
        .order_by("-used_at", "-id")
    )


def link_that_was(link_ids: Sequence[UUID], *, slug: str) -> PortalLink | None:
    """Of a browser's own session, whether it still lasts or not: whose pages it showed."""
    return (
        PortalLink.unscoped.filter(id__in=link_ids, tenant__slug=slug)
        .select_related("tenant__look")
        .defer("tenant__look__logo")
        .first()
    )


def actor_of(link: PortalLink, *, remote_ip: str | None, request_id: str) -> Actor:
    return Actor("link", ids.to_text(ids.PORTAL_LINK, link.id), link.email, remote_ip, request_id)
