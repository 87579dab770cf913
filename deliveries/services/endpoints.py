"""Finding, making and changing endpoints. Called by the API and the portal.

Each change runs as `endpoint_changes` says. Stopping is in `stopping`, deleting in `endpoint_deletion`; a tenant may ask
for a proof of `ownership` first.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from deliveries import validation
from deliveries.models import Endpoint, Lane
from deliveries.pipeline.wake import let_through
from deliveries.services import secrets, subscriptions
from deliveries.services.endpoint_changes import (
    check_limit,
    endpoints_of,
    finish,
    is_held,
    under_lock,
)
from deliveries.services.endpoint_settings import COLUMNS, EVERYTHING, apply, facts, is_uid
from deliveries.services.ownership import Proof, check_proof
from deliveries.services.stopping import switched
from deliveries.validation import Invalid
from tenants import access, ids
from tenants.models import Tenant
from tenants.services.audit import Actor
from tenants.services.versions import raise_settings_version


class UidTaken(Exception):
    """Another endpoint of the tenant has this uid."""


def get_endpoint(*, tenant: Tenant, reference: str) -> Endpoint:
    """By id or uid. Raises access.NotFound, without a query for what is neither."""
    rows = endpoints_of(tenant)
    if reference.startswith(f"{ids.ENDPOINT}_"):
        return access.find(rows, ids.ENDPOINT, reference)
    endpoint = rows.filter(uid=reference).first() if is_uid(reference) else None
    if endpoint is None:
        raise access.NotFound
    return endpoint


def named(*, tenant: Tenant, endpoint_ids: Iterable[UUID]) -> dict[UUID, Endpoint]:
    """For lists that name them, the deleted ones too. One query."""
    rows = Endpoint.objects.for_tenant(tenant).filter(id__in=set(endpoint_ids))
    return {endpoint.id: endpoint for endpoint in rows}


def address_of(endpoint: Endpoint) -> str:
    """What people know it by: its URL without credentials. One that is polled has none."""
    if endpoint.url:
        return validation.mask_url(endpoint.url)
    name = endpoint.description or endpoint.uid or ids.to_text(ids.ENDPOINT, endpoint.id)
    return _("polled: %(name)s") % {"name": name}


def create_endpoint(
    *,
    actor: Actor,
    tenant: Tenant,
    url: str | None,
    proof: Proof | None = None,
    secret: bytes | None = None,
    event_types: Sequence[str] | None = None,
    **fields: Any,
) -> Endpoint:
    """Enabled at once. Raises EndpointLimitReached, SubscriptionLimitReached, UidTaken, InvalidContent."""
    with transaction.atomic():
        version = raise_settings_version(tenant.id)
        return _create(
            actor=actor,
            tenant=tenant,
            version=version,
            url=url,
            proof=proof,
            secret=secret,
            event_types=event_types,
            fields=fields,
        )


def _create(
    *,
    actor: Actor,
    tenant: Tenant,
    version: int,
    url: str | None,
    proof: Proof | None,
    secret: bytes | None,
    event_types: Sequence[str] | None,
    fields: dict[str, Any],
) -> Endpoint:
    # As it is under the lock: the caller's may be older than a change of limits or status.
    tenant = Tenant.objects.get(id=tenant.id)
    if tenant.deleted_at is not None:
        raise access.NotFound
    check_limit(tenant)
    if url is not None:
        check_proof(tenant, url, proof)
    kind = fields.pop("kind", None) or Endpoint.Kind.HTTP
    endpoint = Endpoint(id=ids.new_id(), tenant=tenant, kind=kind, url=url or "", version=version)
    apply(endpoint, fields, is_merging=False)
    _check_uid(endpoint)
    endpoint.save(force_insert=True)
    Lane.objects.for_tenant(tenant).bulk_create(
        [Lane(endpoint=endpoint, tenant=tenant, is_paused=is_held(endpoint))]
    )
    secrets.make_secret(endpoint, secret=secret)
    subscriptions.set_patterns(
        tenant=tenant, endpoint=endpoint, patterns=EVERYTHING if event_types is None else event_types
    )
    return finish(actor, endpoint, version=version, action="endpoint.created", before={})


def update_endpoint(
    *,
    actor: Actor,
    endpoint: Endpoint,
    is_merging: bool = True,
    proof: Proof | None = None,
    secret: bytes | None = None,
    **fields: Any,
) -> Endpoint:
    """Change what is given; None resets to the default. `is_merging`: headers and metadata merge key by key.

    `secret` is only compared: a new one is for `rotate_secret`.
    Raises access.NotFound (deleted meanwhile), SubscriptionLimitReached, UidTaken, SecretLimitReached, InvalidContent.
    """
    with transaction.atomic():
        version = raise_settings_version(endpoint.tenant_id)
        row = under_lock(endpoint)
        return _update(
            actor=actor,
            row=row,
            version=version,
            is_merging=is_merging,
            proof=proof,
            secret=secret,
            fields=fields,
        )


def _update(
    *,
    actor: Actor,
    row: Endpoint,
    version: int,
    is_merging: bool,
    proof: Proof | None,
    secret: bytes | None,
    fields: dict[str, Any],
) -> Endpoint:
    before = facts(row)
    if secret is not None and not secrets.is_current(row, secret=secret):
        raise Invalid("not_changeable", "The secret of an endpoint is changed by secret/rotate.", at="secret")
    has_patterns = "event_types" in fields
    patterns = fields.pop("event_types", None)
    if fields.pop("kind", row.kind) != row.kind:
        raise Invalid("not_changeable", "The kind of an endpoint stays as it is.", at="kind")
    if "url" in fields:
        url = fields.pop("url") or ""
        if url and url != row.url:
            check_proof(row.tenant, url, proof)
        row.url = url
    apply(row, fields, is_merging=is_merging)
    _check_uid(row)
    row.version = version
    row.updated_at = Now()
    row.save(update_fields=[*COLUMNS, "version", "updated_at"])
    if row.status != before["status"]:
        switched(row)
    elif row.status == Endpoint.Status.ENABLED:
        # Perhaps this mends it: see at once.
        let_through([row.id])
    if row.signature_scheme != before["signature_scheme"]:
        # Both sign for a while, so that the receiver can change over.
        secrets.add_secret(row, secret=None, overlap=secrets.DEFAULT_OVERLAP)
    if has_patterns:
        subscriptions.set_patterns(
            tenant=row.tenant, endpoint=row, patterns=EVERYTHING if patterns is None else patterns
        )
    return finish(actor, row, version=version, action="endpoint.changed", before=before)


def put_endpoint(
    *,
    actor: Actor,
    tenant: Tenant,
    uid: str,
    url: str | None,
    proof: Proof | None = None,
    secret: bytes | None = None,
    event_types: Sequence[str] | None = None,
    has_event_types: bool = False,
    **fields: Any,
) -> tuple[Endpoint, bool]:
    """The endpoint with this uid, made or changed, and whether it was made. Raises as the two above."""
    with transaction.atomic():
        version = raise_settings_version(tenant.id)
        row = endpoints_of(tenant).filter(uid=uid).select_related("tenant").first()
        if row is None:
            made = _create(
                actor=actor,
                tenant=tenant,
                version=version,
                url=url,
                proof=proof,
                secret=secret,
                event_types=event_types,
                fields={**fields, "uid": uid},
            )
            return made, True
        changed: dict[str, Any] = {**fields, "url": url}
        if has_event_types:
            changed["event_types"] = event_types
        return _update(
            actor=actor,
            row=row,
            version=version,
            is_merging=False,
            proof=proof,
            secret=secret,
            fields=changed,
        ), False


def _check_uid(endpoint: Endpoint) -> None:
    """Under the tenant's lock, so nobody takes it in between; the unique constraint stands behind it."""
    if endpoint.uid is None:
        return
    others = Endpoint.objects.for_tenant(endpoint.tenant_id).filter(uid=endpoint.uid, deleted_at__isnull=True)
    if others.exclude(id=endpoint.id).exists():
        raise UidTaken
