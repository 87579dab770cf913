"""Which events an endpoint gets: subscriptions, one by one or by the shorthand of patterns. Called by API and portal."""

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from deliveries import validation
from deliveries.expression_costs import InvalidExpression
from deliveries.expressions import Filter, Naming, Transformation, compile_filter, compile_transformation
from deliveries.models import Endpoint, Subscription
from deliveries.services.snapshots import keep_snapshot, mark_changed
from deliveries.validation import OPERATIONAL_PREFIXES, Collector, Invalid
from tenants import access, ids
from tenants.models import EventType, Tenant
from tenants.said import said
from tenants.services import audit
from tenants.services.audit import Actor

DEFAULTS: Final[dict[str, Any]] = {"filter": None, "transformation": None, "description": ""}


class SubscriptionLimitReached(Exception):
    """The endpoint has as many subscriptions as were agreed with its tenant."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"An endpoint may have {limit} subscriptions.")


# --- rules ------------------------------------------------------------------------------------------------------------


def filter_text(value: object) -> str:
    return expression_text(value, compile_filter)


def transformation_text(value: object) -> str:
    return expression_text(value, compile_transformation)


def expression_text(value: object, compiling: Callable[[str], Filter | Transformation | Naming]) -> str:
    """CEL that compiles. Raises Invalid."""
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text.")
    try:
        return compiling(value).text
    except InvalidExpression as error:
        raise Invalid("invalid_expression", str(error)) from None


def check_catalogued(*, tenant: Tenant | UUID, patterns: Sequence[str], fields: Sequence[str]) -> None:
    """Raise InvalidContent for plain types that are in no catalogue. `fields` name them, one each."""
    tenant_id = tenant if isinstance(tenant, UUID) else tenant.id
    plain = {
        pattern
        for pattern in patterns
        if not validation.is_wildcard(pattern) and not pattern.startswith(OPERATIONAL_PREFIXES)
    }
    if not plain:
        return
    known = set(
        EventType.objects.filter(Q(tenant_id=tenant_id) | Q(tenant__isnull=True), name__in=plain).values_list(
            "name", flat=True
        )
    )
    wrong = Collector()
    for pattern, field in zip(patterns, fields, strict=True):
        if pattern in plain - known:
            wrong.add(
                field,
                "unknown_event_type",
                said("There is no event type %(pattern)s in the catalogue.", pattern=pattern),
            )
    wrong.done()


# --- the shorthand ----------------------------------------------------------------------------------------------------


def set_patterns(*, tenant: Tenant, endpoint: Endpoint, patterns: Sequence[str]) -> None:
    """Add patterns that are missing, remove subscriptions whose pattern is not listed, leave the others as they are.

    Inside the caller's transaction, under the tenant's lock. Raises SubscriptionLimitReached, InvalidContent.
    """
    rows = _rows(endpoint)
    existing = set(rows.values_list("event_type", flat=True))
    missing = [(pattern, index) for index, pattern in enumerate(patterns) if pattern not in existing]
    check_catalogued(
        tenant=tenant,
        patterns=[pattern for pattern, _ in missing],
        fields=[f"event_types.{index}" for _, index in missing],
    )
    rows.exclude(event_type__in=patterns).delete()
    _check_limit(tenant, endpoint, more=len(missing))
    Subscription.objects.for_tenant(tenant).bulk_create(
        [
            Subscription(id=ids.new_id(), tenant=tenant, endpoint=endpoint, event_type=pattern)
            for pattern, _ in missing
        ]
    )


def _check_limit(tenant: Tenant, endpoint: Endpoint, *, more: int) -> None:
    limit = tenant.effective_limits["subscriptions_per_endpoint"]
    if limit is not None and more and _rows(endpoint).count() + more > limit:
        raise SubscriptionLimitReached(limit)


# --- one by one -------------------------------------------------------------------------------------------------------


def subscriptions_of(endpoint: Endpoint) -> "QuerySet[Subscription]":
    return _rows(endpoint)


def get_subscription(*, endpoint: Endpoint, reference: str) -> Subscription:
    """Raises access.NotFound."""
    return access.find(_rows(endpoint), ids.SUBSCRIPTION, reference)


def create_subscription(*, actor: Actor, endpoint: Endpoint, event_type: str, **fields: Any) -> Subscription:
    """Raises SubscriptionLimitReached, InvalidContent, access.NotFound (the endpoint was deleted meanwhile)."""
    with transaction.atomic():
        version = _begin(endpoint)
        check_catalogued(tenant=endpoint.tenant_id, patterns=[event_type], fields=["event_type"])
        _check_limit(endpoint.tenant, endpoint, more=1)
        made = Subscription(
            id=ids.new_id(), tenant_id=endpoint.tenant_id, endpoint=endpoint, event_type=event_type
        )
        _apply(made, fields)
        made.save(force_insert=True)
        made.refresh_from_db()
        _done(
            actor,
            endpoint,
            made,
            version=version,
            action="subscription.created",
            before={},
            after=facts(made),
        )
    return made


def update_subscription(
    *, actor: Actor, endpoint: Endpoint, subscription: Subscription, **fields: Any
) -> Subscription:
    """Raises access.NotFound, InvalidContent."""
    with transaction.atomic():
        version = _begin(endpoint)
        row = _row(endpoint, subscription)
        before = facts(row)
        event_type = fields.pop("event_type", row.event_type)
        if event_type != row.event_type:
            check_catalogued(tenant=endpoint.tenant_id, patterns=[event_type], fields=["event_type"])
        row.event_type = event_type
        _apply(row, fields)
        row.updated_at = Now()
        row.save(update_fields=["event_type", *DEFAULTS, "updated_at"])
        row.refresh_from_db()
        old, new = audit.changes(before, facts(row))
        _done(actor, endpoint, row, version=version, action="subscription.changed", before=old, after=new)
    return row


def delete_subscription(*, actor: Actor, endpoint: Endpoint, subscription: Subscription) -> None:
    """Raises access.NotFound."""
    with transaction.atomic():
        version = _begin(endpoint)
        row = _row(endpoint, subscription)
        before = facts(row)
        _rows(endpoint).filter(id=row.id).delete()
        _done(actor, endpoint, row, version=version, action="subscription.deleted", before=before, after={})


# --- parts ------------------------------------------------------------------------------------------------------------


def _rows(endpoint: Endpoint) -> "QuerySet[Subscription]":
    rows: QuerySet[Subscription] = Subscription.objects.for_tenant(endpoint.tenant_id)
    return rows.filter(endpoint_id=endpoint.id)


def _row(endpoint: Endpoint, subscription: Subscription) -> Subscription:
    row = _rows(endpoint).filter(id=subscription.id).first()
    if row is None:
        raise access.NotFound
    return row


def _begin(endpoint: Endpoint) -> int:
    """Locks the tenant's settings, and refreshes what limits are read from."""
    version = mark_changed(endpoint)
    endpoint.tenant = Tenant.objects.get(id=endpoint.tenant_id)
    return version


def _apply(subscription: Subscription, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        assert name in DEFAULTS, name
        setattr(subscription, name, DEFAULTS[name] if value is None else value)


def facts(subscription: Subscription) -> dict[str, Any]:
    return {name: getattr(subscription, name) for name in ("event_type", *DEFAULTS)}


def _done(
    actor: Actor,
    endpoint: Endpoint,
    subscription: Subscription,
    *,
    version: int,
    action: str,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    endpoint.refresh_from_db()
    keep_snapshot(endpoint, version=version)
    audit.record(
        actor=actor,
        tenant=endpoint.tenant_id,
        action=action,
        target=ids.to_text(ids.SUBSCRIPTION, subscription.id),
        before=before or None,
        after=after or None,
    )
