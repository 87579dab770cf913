"""Making, changing, stopping and ending endpoints. Called by the API, the portal, the admin and the dispatcher.

Every change runs in one transaction: raise the tenant's settings version (its row's lock puts the changes of a tenant in
a line, so limits hold), change, keep a snapshot for explain, write the audit entry. Lanes are woken after the commit.
"""

import re
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from deliveries import validation
from deliveries.combinations import check_together
from deliveries.models import Endpoint, EndpointSecret, Lane, Subscription, default_success_statuses
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.announce import Kind
from deliveries.pipeline.wake import let_through, wake
from deliveries.sealed import open_headers, seal_headers
from deliveries.services import credentials, health, secrets, subscriptions
from deliveries.services.ownership import Proof, prove
from deliveries.services.snapshots import keep_snapshot
from deliveries.validation import Collector, Invalid
from tenants import access, ids
from tenants.models import Tenant
from tenants.said import said
from tenants.services import audit
from tenants.services.audit import PLATFORM, Actor
from tenants.services.versions import raise_settings_version

DEFAULTS: Final[dict[str, Any]] = {
    "uid": None,
    "description": "",
    "status": Endpoint.Status.ENABLED,
    "channels": None,
    "method": Endpoint.Method.POST,
    "format": Endpoint.Format.STANDARD,
    "headers": {},
    "signature_scheme": Endpoint.SignatureScheme.HMAC_SHA256,
    "signature_template": None,
    "auth": None,
    "client_certificate": None,
    "ca_certificates": None,
    "timeout_seconds": 15,
    "rate_limit": None,
    "max_in_flight": 10,
    "ordering": Endpoint.Ordering.NONE,
    "batch": None,
    "retry_schedule": None,
    "metadata": {},
}
"""What null resets to. Beside them: `event_types` to all of the catalogue, `success_statuses` to 2xx."""

EVERYTHING: Final = ["*"]

UNDO: Final = timedelta(minutes=1)
"""So long a deletion in the portal can be undone."""

FORGOTTEN_AT_ONCE: Final = 500


class EndpointLimitReached(Exception):
    """The tenant has as many endpoints as were agreed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"The tenant may have {limit} endpoints.")


class UidTaken(Exception):
    """Another endpoint of the tenant has this uid."""


class TooLate(Exception):
    """It was deleted longer than UNDO ago, or in a way that cannot be undone: its secrets are gone."""


@dataclass(frozen=True, slots=True)
class Restored:
    endpoint: Endpoint
    is_uid_lost: bool
    """Another endpoint has it by now."""


# --- rules ------------------------------------------------------------------------------------------------------------


def url(value: object) -> str:
    """What `validation.url` takes, by the guard of the settings, and of the platform's own public host only sources."""
    guard = AddressGuard(settings.WEBHOOKS_ALLOWED_NETWORKS, settings.WEBHOOKS_OWN_PORTS)
    cleaned = validation.url(value, guard)
    is_own = settings.WEBHOOKS_PUBLIC_URL and _host(cleaned) == _host(settings.WEBHOOKS_PUBLIC_URL)
    if is_own and not _SOURCE.fullmatch(cleaned.partition("://")[2].partition("/")[2]):
        raise Invalid("own_host", "Must not be the platform itself: events would go in circles.")
    return cleaned


_SOURCE = re.compile(r"in/[A-Za-z0-9_-]{43}(\?.*)?", re.ASCII)
"""The path of a source or an inspector. Circles are ended by counting their hops."""


def _host(text: str) -> str:
    return text.partition("://")[2].partition("/")[0].partition("?")[0].lower()


# --- finding ----------------------------------------------------------------------------------------------------------


def endpoints_of(tenant: Tenant) -> "QuerySet[Endpoint]":
    """Those that were not deleted, with their lane, and their subscriptions, the oldest first."""
    rows: QuerySet[Endpoint] = Endpoint.objects.for_tenant(tenant).filter(deleted_at__isnull=True)
    own = Subscription.objects.for_tenant(tenant).order_by("id")
    return rows.select_related("lane", "tenant").prefetch_related(Prefetch("subscriptions", queryset=own))


def get_endpoint(*, tenant: Tenant, reference: str) -> Endpoint:
    """By id or uid. Raises access.NotFound, without a query for what is neither."""
    rows = endpoints_of(tenant)
    if reference.startswith(f"{ids.ENDPOINT}_"):
        try:
            endpoint = rows.filter(id=ids.from_text(ids.ENDPOINT, reference)).first()
        except ids.InvalidId:
            raise access.NotFound from None
    else:
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


def is_uid(text: str) -> bool:
    try:
        validation.uid(text)
    except Invalid:
        return False
    return True


# --- making and changing ----------------------------------------------------------------------------------------------


def prove_new(*, tenant: Tenant, url: str | None, **fields: Any) -> Proof | None:
    """For `create_endpoint` and `put_endpoint`, called before them. None: the tenant does not ask for it, or no URL.

    Raises InvalidContent.
    """
    if not tenant.verify_endpoints or url is None:
        return None
    candidate = Endpoint(id=ids.new_id(), tenant=tenant, url=url)
    _apply(candidate, _shown_to_receivers(fields), is_merging=False)
    return prove(candidate)


def prove_change(*, endpoint: Endpoint, is_merging: bool = True, **fields: Any) -> Proof | None:
    """For `update_endpoint`, as above. None: its URL stays."""
    url = fields.get("url", endpoint.url)
    if not url or url == endpoint.url or not endpoint.tenant.verify_endpoints:
        return None
    candidate = copy(endpoint)
    candidate.url = url
    _apply(candidate, _shown_to_receivers(fields), is_merging=is_merging)
    return prove(candidate)


def _shown_to_receivers(fields: dict[str, Any]) -> dict[str, Any]:
    """What of an endpoint's settings a challenge needs."""
    wanted = ("method", "headers", "auth", "client_certificate", "ca_certificates", "success_statuses")
    return {name: value for name, value in fields.items() if name in wanted}


def _check_proof(tenant: Tenant, url: str, proof: Proof | None) -> None:
    if tenant.verify_endpoints and (proof is None or proof.url != url):
        _refuse("url", "not_verified", "The endpoint did not prove that it wants webhooks.")


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
    limit = tenant.effective_limits["endpoints"]
    if limit is not None and endpoints_of(tenant).count() >= limit:
        raise EndpointLimitReached(limit)
    if url is not None:
        _check_proof(tenant, url, proof)
    kind = fields.pop("kind", None) or Endpoint.Kind.HTTP
    endpoint = Endpoint(id=ids.new_id(), tenant=tenant, kind=kind, url=url or "", version=version)
    _apply(endpoint, fields, is_merging=False)
    _check_uid(endpoint)
    endpoint.save(force_insert=True)
    Lane.objects.for_tenant(tenant).bulk_create(
        [Lane(endpoint=endpoint, tenant=tenant, is_paused=_is_held(endpoint))]
    )
    secrets.make_secret(endpoint, secret=secret)
    subscriptions.set_patterns(
        tenant=tenant, endpoint=endpoint, patterns=EVERYTHING if event_types is None else event_types
    )
    return _done(actor, endpoint, version=version, action="endpoint.created", before={})


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
        row = _under_lock(endpoint)
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
        _refuse("secret", "not_changeable", "The secret of an endpoint is changed by secret/rotate.")
    has_patterns = "event_types" in fields
    patterns = fields.pop("event_types", None)
    if fields.pop("kind", row.kind) != row.kind:
        _refuse("kind", "not_changeable", "The kind of an endpoint stays as it is.")
    if "url" in fields:
        url = fields.pop("url") or ""
        if url and url != row.url:
            _check_proof(row.tenant, url, proof)
        row.url = url
    _apply(row, fields, is_merging=is_merging)
    _check_uid(row)
    row.version = version
    row.updated_at = Now()
    row.save(update_fields=[*_COLUMNS, "version", "updated_at"])
    if row.status != before["status"]:
        _switched(row)
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
    return _done(actor, row, version=version, action="endpoint.changed", before=before)


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


def delete_endpoint(*, actor: Actor, endpoint: Endpoint, is_undoable: bool = False) -> None:
    """Soft: it is gone for clients, what is pending ends as cancelled, history still names it. Its secrets go.

    `is_undoable`: for UNDO they stay, so that `restore_endpoint` can bring it back. Raises access.NotFound.
    """
    with transaction.atomic():
        version = raise_settings_version(endpoint.tenant_id)
        row = _under_lock(endpoint)
        row.deleted_at = Now()
        row.version = version
        if is_undoable:
            row.restorable_until = Now() + UNDO
            row.save(update_fields=["deleted_at", "restorable_until", "version"])
        else:
            row.sensitive_headers_encrypted = None
            credentials.forget(row)
            row.save(
                update_fields=[
                    "deleted_at",
                    "version",
                    "sensitive_headers_encrypted",
                    *credentials.SEALED_COLUMNS,
                ]
            )
            EndpointSecret.objects.for_tenant(row.tenant_id).filter(endpoint=row).delete()
        row.refresh_from_db(fields=["deleted_at"])
        _hold_lane(row)
        keep_snapshot(row, version=version)
        audit.record(
            actor=actor,
            tenant=row.tenant_id,
            action="endpoint.deleted",
            target=ids.to_text(ids.ENDPOINT, row.id),
            before=facts(row),
        )
        let_through([row.id])
        _wake(row.id)


def restorable(*, tenant: Tenant, reference: str) -> Endpoint | None:
    """What was deleted under this id less than UNDO ago, and can come back."""
    try:
        endpoint_id = ids.from_text(ids.ENDPOINT, reference)
    except ids.InvalidId:
        return None
    rows: QuerySet[Endpoint] = Endpoint.objects.for_tenant(tenant)
    rows = rows.select_related("tenant").filter(id=endpoint_id, deleted_at__isnull=False)
    return rows.filter(restorable_until__gt=Now()).first()


def restore_endpoint(*, actor: Actor, tenant: Tenant, reference: str) -> Restored:
    """Undo a deletion: the endpoint as it was, with its secrets.

    What was pending has been cancelled meanwhile, and what was published made nothing: it is remembered as missed.
    A uid that another endpoint took goes. Raises access.NotFound, TooLate, EndpointLimitReached.
    """
    with transaction.atomic():
        version = raise_settings_version(tenant.id)
        tenant = Tenant.objects.get(id=tenant.id)
        row = restorable(tenant=tenant, reference=reference)
        if row is None:
            if endpoint_exists(tenant=tenant, reference=reference):
                raise TooLate
            raise access.NotFound
        limit = tenant.effective_limits["endpoints"]
        if limit is not None and endpoints_of(tenant).count() >= limit:
            raise EndpointLimitReached(limit)
        uid = row.uid
        if uid is not None and endpoints_of(tenant).filter(uid=uid).exists():
            row.uid = None
        if row.status == Endpoint.Status.ENABLED and row.missed_since is None:
            row.missed_since = row.deleted_at
        row.deleted_at = row.restorable_until = None
        row.version = version
        row.updated_at = Now()
        row.save(
            update_fields=["uid", "missed_since", "deleted_at", "restorable_until", "version", "updated_at"]
        )
        _hold_lane(row)
        _done(actor, row, version=version, action="endpoint.restored", before={"uid": uid})
        return Restored(row, is_uid_lost=row.uid != uid)


def endpoint_exists(*, tenant: Tenant, reference: str) -> bool:
    """Or did."""
    try:
        endpoint_id = ids.from_text(ids.ENDPOINT, reference)
    except ids.InvalidId:
        return False
    return bool(Endpoint.objects.for_tenant(tenant).filter(id=endpoint_id).exists())


def forget_deleted() -> None:
    """What cannot be restored any more loses its secrets. A sweep."""
    with transaction.atomic():
        over = Endpoint.unscoped.select_for_update(skip_locked=True).filter(restorable_until__lte=Now())
        endpoint_ids = [row.id for row in over.order_by("id")[:FORGOTTEN_AT_ONCE]]
        EndpointSecret.unscoped.filter(endpoint_id__in=endpoint_ids).delete()
        Endpoint.unscoped.filter(id__in=endpoint_ids).update(
            restorable_until=None,
            sensitive_headers_encrypted=None,
            **dict.fromkeys(credentials.SEALED_COLUMNS),
        )


# --- stopping and starting --------------------------------------------------------------------------------------------


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
        row = _under_lock(endpoint)
        if row.is_paused == is_paused:
            return row
        row.is_paused = is_paused
        row.save(update_fields=["is_paused"])
        is_held = _is_held(row)
        Lane.objects.for_tenant(row.tenant_id).filter(endpoint=row).update(is_paused=is_held)
        audit.record(
            actor=actor,
            tenant=row.tenant_id,
            action="endpoint.paused" if is_paused else "endpoint.continued",
            target=ids.to_text(ids.ENDPOINT, row.id),
        )
        if not is_held:
            _wake(row.id)
    return row


def _switch(
    *, actor: Actor, endpoint: Endpoint, status: Endpoint.Status, reason: Endpoint.DisabledReason | None
) -> Endpoint:
    with transaction.atomic():
        version = raise_settings_version(endpoint.tenant_id)
        row = _under_lock(endpoint)
        if row.status == status:
            # Nothing to do, and the reason for which it was disabled first stands.
            return row
        before = facts(row)
        row.status = status
        row.disabled_reason = reason
        row.version = version
        row.updated_at = Now()
        row.save(update_fields=["status", "disabled_reason", "version", "updated_at"])
        _switched(row)
        action = "endpoint.enabled" if reason is None else "endpoint.disabled"
        return _done(actor, row, version=version, action=action, before=before)


def _is_held(row: Endpoint) -> bool:
    """Whether its lane rests. One of kind poll always does, until what is pending is to end: then a dispatcher ends it."""
    is_polled = row.kind == Endpoint.Kind.POLL
    is_live = row.status == Endpoint.Status.ENABLED and row.deleted_at is None
    is_suspended = row.tenant.status == Tenant.Status.SUSPENDED
    return row.is_paused or is_suspended or (is_polled and is_live)


def _hold_lane(row: Endpoint) -> None:
    """After a change that may let the lane of an endpoint of kind poll rest, or end it."""
    if row.kind == Endpoint.Kind.POLL:
        Lane.objects.for_tenant(row.tenant_id).filter(endpoint=row).update(is_paused=_is_held(row))


def _switched(row: Endpoint) -> None:
    """Enabled or disabled just now: tell, remember from when on it misses something, and forget how it failed."""
    is_enabled = row.status == Endpoint.Status.ENABLED
    _hold_lane(row)
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
        # What is pending behind an open circuit ends now, not when its wait is over.
        let_through([row.id])


# --- parts ------------------------------------------------------------------------------------------------------------

_COLUMNS: Final = (
    "kind",
    "url",
    "uid",
    "description",
    "status",
    "disabled_reason",
    "channels",
    "method",
    "format",
    "headers",
    "sensitive_headers",
    "sensitive_headers_encrypted",
    "signature_scheme",
    "signature_template",
    "template_secret_encrypted",
    "auth",
    "auth_encrypted",
    "client_certificate",
    "client_key_encrypted",
    "ca_certificates",
    "success_statuses",
    "timeout_seconds",
    "rate_limit",
    "max_in_flight",
    "ordering",
    "batch",
    "retry_schedule",
    "metadata",
)


def _under_lock(endpoint: Endpoint) -> Endpoint:
    """The row as it is now that the tenant's version is locked. Raises access.NotFound."""
    row = endpoints_of(endpoint.tenant).filter(id=endpoint.id).select_related("tenant").first()
    if row is None:
        raise access.NotFound
    return row


def _apply(endpoint: Endpoint, fields: dict[str, Any], *, is_merging: bool) -> None:
    """Raises InvalidContent for what merging made too large."""
    wrong = Collector()
    for name, value in fields.items():
        match name:
            case "headers":
                _apply_headers(endpoint, value, is_merging=is_merging, wrong=wrong)
            case "metadata":
                old = endpoint.metadata if is_merging and value is not None else {}
                merged = {key: entry for key, entry in (old | (value or {})).items() if entry is not None}
                wrong.check("metadata", validation.metadata, merged)
                endpoint.metadata = merged
            case "signature_template":
                credentials.apply_template(endpoint, value, wrong)
            case "auth":
                credentials.apply_auth(endpoint, value, wrong)
            case "client_certificate":
                credentials.apply_client_certificate(endpoint, value, wrong)
            case "status":
                _apply_status(endpoint, DEFAULTS["status"] if value is None else value)
            case "success_statuses":
                endpoint.success_statuses = default_success_statuses() if value is None else value
            case _:
                assert name in DEFAULTS, name
                setattr(endpoint, name, DEFAULTS[name] if value is None else value)
    check_together(endpoint, wrong, header_lines=[*endpoint.headers, *endpoint.sensitive_headers])
    wrong.done()


def _apply_status(endpoint: Endpoint, status: str) -> None:
    if endpoint.status != status:
        endpoint.status = status
        is_enabled = status == Endpoint.Status.ENABLED
        endpoint.disabled_reason = None if is_enabled else Endpoint.DisabledReason.MANUAL


def _apply_headers(
    endpoint: Endpoint, changes: dict[str, str | None] | None, *, is_merging: bool, wrong: Collector
) -> None:
    """Names that differ in case alone are the same header. Sensitive ones are kept encrypted."""
    old = all_headers(endpoint) if is_merging and changes is not None else {}
    changes = changes or {}
    replaced = {name.lower() for name in changes}
    merged = {name: value for name, value in old.items() if name.lower() not in replaced}
    merged |= {name: value for name, value in changes.items() if value is not None}
    if len(merged) > validation.MAX_HEADERS:
        wrong.add(
            "headers", "too_long", said("Must have at most %(most)s headers.", most=validation.MAX_HEADERS)
        )
        return
    sensitive = {name: value for name, value in merged.items() if validation.is_sensitive_header(name)}
    endpoint.headers = {name: value for name, value in merged.items() if name not in sensitive}
    endpoint.sensitive_headers = sorted(sensitive)
    endpoint.sensitive_headers_encrypted = (
        seal_headers(tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id, headers=sensitive)
        if sensitive
        else None
    )


def all_headers(endpoint: Endpoint) -> dict[str, str]:
    """Sensitive ones decrypted."""
    headers: dict[str, str] = dict(endpoint.headers)
    if endpoint.sensitive_headers_encrypted is not None:
        headers |= open_headers(
            tenant_id=endpoint.tenant_id,
            endpoint_id=endpoint.id,
            sealed=bytes(endpoint.sensitive_headers_encrypted),
        )
    return headers


def _check_uid(endpoint: Endpoint) -> None:
    """Under the tenant's lock, so nobody takes it in between; the unique constraint stands behind it."""
    if endpoint.uid is None:
        return
    others = Endpoint.objects.for_tenant(endpoint.tenant_id).filter(uid=endpoint.uid, deleted_at__isnull=True)
    if others.exclude(id=endpoint.id).exists():
        raise UidTaken


def _refuse(field: str, code: str, message: str) -> None:
    wrong = Collector()
    wrong.add(field, code, message)
    wrong.done()


def _done(actor: Actor, endpoint: Endpoint, *, version: int, action: str, before: dict[str, Any]) -> Endpoint:
    """The end of every change: the row as it now is, its snapshot, the audit entry, the wake."""
    row = endpoints_of(endpoint.tenant).select_related("tenant").get(id=endpoint.id)
    keep_snapshot(row, version=version)
    old, new = audit.changes(before, facts(row))
    audit.record(
        actor=actor,
        tenant=row.tenant_id,
        action=action,
        target=ids.to_text(ids.ENDPOINT, row.id),
        before=old or None,
        after=new or None,
    )
    if before:
        _wake(row.id)
    return row


def facts(endpoint: Endpoint) -> dict[str, Any]:
    """For the audit log: settings, without the values of sensitive headers and without credentials in the URL."""
    found = {name: getattr(endpoint, name) for name in _COLUMNS if not name.endswith("_encrypted")}
    found["url"] = validation.mask_url(endpoint.url)
    found["event_types"] = patterns_of(endpoint)
    return found


def patterns_of(endpoint: Endpoint) -> list[str]:
    """The shorthand `event_types`: each pattern once, in the order of the subscriptions."""
    return list(dict.fromkeys(each.event_type for each in endpoint.subscriptions.all()))


def _wake(endpoint_id: UUID) -> None:
    transaction.on_commit(lambda: wake([(endpoint_id, None)]))
