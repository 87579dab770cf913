"""Making and ending portal links. Called by the API; the portal's pages redeem them."""

import hashlib
import secrets
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from tenants import access, ids
from tenants.models import PortalLink, Tenant
from tenants.services import audit
from tenants.services.audit import Actor


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
            hash=hash_of(token),
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


def hash_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
