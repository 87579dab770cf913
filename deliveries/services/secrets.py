"""The signing secrets of endpoints: made, shown, rotated. Called by the endpoint services, the API and the portal.

All live ones sign. The current one has no end; those before it end when their overlap does.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from deliveries.models import Endpoint, EndpointSecret
from deliveries.pipeline.signing import (
    InvalidSecret,
    ed25519_key,
    generate_private_key,
    generate_secret,
    parse_secret,
    public_key_text,
    secret_text,
)
from deliveries.sealed import open_secret, seal_secret
from deliveries.services.snapshots import keep_snapshot, mark_changed
from deliveries.validation import Invalid
from tenants import access, ids
from tenants.said import said
from tenants.services import audit
from tenants.services.audit import Actor

MAX_LIVE: Final = 5
"""Each adds a signature to every request."""

DEFAULT_OVERLAP: Final = timedelta(days=1)
"""How long an earlier secret goes on signing, unless it is said otherwise."""
MAX_OVERLAP: Final = timedelta(days=7)


class SecretLimitReached(Exception):
    """As many secrets are live as may be: end the earlier ones, or wait for an overlap to end."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a client may know of the current secret. Of Ed25519 the private key never comes out."""

    secret: str | None
    public_key: str | None


def secret(value: object) -> bytes:
    """The rule for a secret that a client brings."""
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text.")
    try:
        return parse_secret(value)
    except InvalidSecret as error:
        raise Invalid("invalid_secret", said("A secret %(reason)s.", reason=str(error))) from None


# --- reading ----------------------------------------------------------------------------------------------------------


def read_secret(*, actor: Actor, endpoint: Endpoint) -> Shown:
    """Each reading is audited."""
    with transaction.atomic():
        audit.record(
            actor=actor,
            tenant=endpoint.tenant_id,
            action="secret.read",
            target=ids.to_text(ids.ENDPOINT, endpoint.id),
        )
        return _shown(_current(endpoint))


def is_current(endpoint: Endpoint, *, secret: bytes) -> bool:
    current = _current(endpoint)
    return current.scheme == Endpoint.SignatureScheme.HMAC_SHA256 and hmac.compare_digest(
        _opened(current), secret
    )


def ending(*, endpoint: Endpoint, now: datetime) -> list[EndpointSecret]:
    """Those before the current one that still sign, the last to end first. Their values stay closed."""
    rows: QuerySet[EndpointSecret] = EndpointSecret.objects.for_tenant(endpoint.tenant_id)
    return list(rows.filter(endpoint=endpoint, expires_at__gt=now).order_by("-expires_at", "-id"))


# --- making and rotating ----------------------------------------------------------------------------------------------


def make_secret(endpoint: Endpoint, *, secret: bytes | None) -> EndpointSecret:
    """A new current one, by the endpoint's scheme. Inside the caller's transaction. Raises InvalidContent."""
    plain, public_key = secret, None
    if endpoint.signature_scheme == Endpoint.SignatureScheme.ED25519:
        if secret is not None:
            raise Invalid(
                "not_allowed", "With ed25519 the key is made here, and none can be brought.", at="secret"
            )
        plain = generate_private_key()
        public_key = ed25519_key(plain).private.public_key().public_bytes_raw()
    elif plain is None:
        plain = parse_secret(generate_secret())
    made = EndpointSecret(
        tenant_id=endpoint.tenant_id,
        endpoint=endpoint,
        scheme=endpoint.signature_scheme,
        encrypted=seal_secret(tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id, secret=plain),
        public_key=public_key,
    )
    made.save(force_insert=True)
    return made


def add_secret(endpoint: Endpoint, *, secret: bytes | None, overlap: timedelta) -> EndpointSecret:
    """A new current one; those before it sign until the overlap ends, or with none end at once.

    Inside the caller's transaction, under the tenant's lock. Raises SecretLimitReached, InvalidContent.
    """
    rows: QuerySet[EndpointSecret] = EndpointSecret.objects.for_tenant(endpoint.tenant_id).filter(
        endpoint=endpoint
    )
    if overlap:
        rows.filter(expires_at__lte=Now()).delete()
        rows.filter(expires_at__isnull=True).update(expires_at=timezone.now() + overlap)
        if rows.count() >= MAX_LIVE:
            raise SecretLimitReached
    else:
        rows.delete()
    return make_secret(endpoint, secret=secret)


def rotate_secret(
    *, actor: Actor, endpoint: Endpoint, secret: bytes | None = None, overlap: timedelta = DEFAULT_OVERLAP
) -> Shown:
    """Raises SecretLimitReached, InvalidContent, access.NotFound (deleted meanwhile)."""
    with transaction.atomic():
        version = mark_changed(endpoint)
        endpoint.refresh_from_db()
        made = add_secret(endpoint, secret=secret, overlap=overlap)
        keep_snapshot(endpoint, version=version)
        audit.record(
            actor=actor,
            tenant=endpoint.tenant_id,
            action="secret.rotated",
            target=ids.to_text(ids.ENDPOINT, endpoint.id),
            after={"overlap_seconds": int(overlap.total_seconds())},
        )
        return _shown(made)


# --- parts ------------------------------------------------------------------------------------------------------------


def _current(endpoint: Endpoint) -> EndpointSecret:
    rows: QuerySet[EndpointSecret] = EndpointSecret.objects.for_tenant(endpoint.tenant_id)
    current = rows.filter(Q(expires_at__isnull=True), endpoint=endpoint).order_by("-id").first()
    if current is None:
        # Deleted since the caller found it.
        raise access.NotFound
    return current


def _opened(row: EndpointSecret) -> bytes:
    return open_secret(tenant_id=row.tenant_id, endpoint_id=row.endpoint_id, sealed=bytes(row.encrypted))


def _shown(row: EndpointSecret) -> Shown:
    if row.scheme == Endpoint.SignatureScheme.ED25519:
        return Shown(secret=None, public_key=public_key_text(ed25519_key(_opened(row))))
    return Shown(secret=secret_text(_opened(row)), public_key=None)
