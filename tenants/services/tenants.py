"""Making, changing and ending tenants. Called by the API, the admin and `create_tenant`."""

from collections.abc import Callable
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from tenants import access, ids, validation
from tenants.models import DEFAULT_LIMITS, Tenant
from tenants.services import audit, portal_links
from tenants.services.audit import Actor
from tenants.services.versions import raise_settings_version
from tenants.validation import Collector, Invalid

after_status_change: Final[list[Callable[[Tenant], None]]] = []
"""Called in the transaction that suspended, resumed or deleted a tenant, with the row as it now is.

Lanes belong to another app, which may know this one, not the other way round: it adds itself here when it is ready.
"""

DEFAULTS: Final[dict[str, Any]] = {
    "status": Tenant.Status.ACTIVE,
    "metadata": {},
    "retention_days": 90,
    "payload_retention_days": None,
    "attempt_retention_days": None,
    "schema_validation": Tenant.SchemaValidation.ENFORCE,
    "weight": 1,
    "verify_endpoints": False,
    "limits": {},
}
"""What null resets to. The name's is the slug."""

MAX_WEIGHT: Final = 100
"""Of one tenant against others. The table holds it, too."""

MAX_PAYLOAD_BYTES: Final = 1024 * 1024
"""The highest `payload_bytes` that can be agreed: what one request may carry."""


class SlugTaken(Exception):
    """Another tenant has it, or had it: slugs of deleted tenants are not given again."""


# --- rules ------------------------------------------------------------------------------------------------------------


def limits(value: object) -> dict[str, Any]:
    """What a client may say of limits; None removes a key, so that the default holds."""
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be an object.")
    wrong = Collector()
    cleaned: dict[str, Any] = {}
    for name, limit in value.items():
        rule = _LIMITS.get(name)
        if rule is None:
            wrong.add(
                validation.shown(name),
                "unknown_field",
                f"There is no such limit; there are {', '.join(_LIMITS)}.",
            )
        else:
            cleaned[name] = None if limit is None else wrong.check(name, rule, limit)
    if wrong.errors:
        raise Invalid.of_parts(wrong.errors)
    return cleaned


_LIMITS: Final[dict[str, Callable[[object], Any]]] = {
    "endpoints": lambda value: validation.whole_number(value, low=0, high=1_000_000),
    "subscriptions_per_endpoint": lambda value: validation.whole_number(value, low=0, high=10_000),
    "payload_bytes": lambda value: validation.whole_number(value, low=1, high=MAX_PAYLOAD_BYTES),
    "events_per_second": lambda value: validation.number(value, low=0.01, high=1_000_000),
    "disable_after_days": lambda value: validation.whole_number(value, low=0, high=365),
    "disable_after_failures": lambda value: validation.whole_number(value, low=20, high=1_000_000_000),
}
assert _LIMITS.keys() == DEFAULT_LIMITS.keys()


# --- verbs ------------------------------------------------------------------------------------------------------------


def create_tenant(*, actor: Actor, slug: str, **fields: Any) -> Tenant:
    """Raises SlugTaken. A field that is None has its default."""
    tenant = Tenant(slug=slug, name=slug)
    _apply(tenant, fields, is_merging=False)
    with transaction.atomic():
        try:
            with transaction.atomic():
                tenant.save(force_insert=True)
        except IntegrityError:
            raise SlugTaken from None
        tenant.refresh_from_db()
        audit.record(
            actor=actor, tenant=tenant, action="tenant.created", target=_target(tenant), after=_facts(tenant)
        )
    return tenant


def update_tenant(*, actor: Actor, tenant: Tenant, is_merging: bool = True, **fields: Any) -> Tenant:
    """Change what is given. `is_merging`: metadata and limits merge key by key, None removing one; else they replace.

    Raises SlugTaken, InvalidContent (what merging made too large), access.NotFound (deleted meanwhile).
    """
    with transaction.atomic():
        raise_settings_version(tenant.id)
        row = Tenant.objects.filter(id=tenant.id, deleted_at__isnull=True).first()
        if row is None:
            raise access.NotFound
        before = _facts(row)
        _apply(row, fields, is_merging=is_merging)
        row.updated_at = Now()
        try:
            with transaction.atomic():
                row.save(update_fields=[*_CHANGEABLE, "updated_at"])
        except IntegrityError:
            raise SlugTaken from None
        row.refresh_from_db()
        if row.status != before["status"]:
            _tell(row)
            if row.status == Tenant.Status.SUSPENDED:
                portal_links.end_sessions(tenant=row)
        old, new = audit.changes(before, _facts(row))
        if new:
            audit.record(
                actor=actor, tenant=row, action="tenant.changed", target=_target(row), before=old, after=new
            )
        transaction.on_commit(access.forget)
    return row


def put_tenant(*, actor: Actor, slug: str, **fields: Any) -> tuple[Tenant, bool]:
    """The tenant with this slug, made or changed, and whether it was made. Raises SlugTaken for a deleted one's."""
    existing = Tenant.objects.filter(slug=slug).first()
    if existing is None:
        try:
            return create_tenant(actor=actor, slug=slug, **fields), True
        except SlugTaken:
            # Somebody made it in between.
            existing = Tenant.objects.get(slug=slug)
    if existing.deleted_at is not None:
        raise SlugTaken
    return update_tenant(actor=actor, tenant=existing, is_merging=False, **fields), False


def delete_tenant(*, actor: Actor, tenant: Tenant) -> None:
    """End it at once: keys and links stop, pending deliveries are cancelled. Its rows go 30 days later.

    Raises access.NotFound if it was deleted before.
    """
    with transaction.atomic():
        raise_settings_version(tenant.id)
        changed = Tenant.objects.filter(id=tenant.id, deleted_at__isnull=True).update(deleted_at=Now())
        if not changed:
            raise access.NotFound
        tenant.refresh_from_db()
        _tell(tenant)
        audit.record(actor=actor, tenant=tenant, action="tenant.deleted", target=_target(tenant))
        transaction.on_commit(access.forget)


def _tell(tenant: Tenant) -> None:
    for listener in after_status_change:
        listener(tenant)


# --- parts ------------------------------------------------------------------------------------------------------------

_CHANGEABLE = (
    "slug",
    "name",
    "status",
    "metadata",
    "retention_days",
    "payload_retention_days",
    "attempt_retention_days",
    "schema_validation",
    "weight",
    "verify_endpoints",
    "limits",
)


def _apply(tenant: Tenant, fields: dict[str, Any], *, is_merging: bool) -> None:
    for name, value in fields.items():
        assert name in _CHANGEABLE, name
        if name in {"metadata", "limits"} and value is not None:
            old = getattr(tenant, name) if is_merging else {}
            kept = {key: entry for key, entry in (old | value).items() if entry is not None}
            if name == "metadata":
                _check_metadata(kept)
            setattr(tenant, name, kept)
        elif value is None:
            setattr(tenant, name, tenant.slug if name == "name" else DEFAULTS[name])
        else:
            setattr(tenant, name, value)


def _check_metadata(merged: dict[str, str]) -> None:
    wrong = Collector()
    wrong.check("metadata", validation.metadata, merged)
    wrong.done()


def _facts(tenant: Tenant) -> dict[str, Any]:
    return {name: getattr(tenant, name) for name in _CHANGEABLE}


def _target(tenant: Tenant) -> str:
    return ids.to_text(ids.TENANT, tenant.id)
