"""Which endpoints an event is owed to. Called by `ingest`, with the tenant's settings as of one version of them.

The settings of a tenant are loaded once per version and process, and compiled: routes by event type, schemas, filters.
`ingest` reads the version in the publish itself, so a change holds for every event published after its reply.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from deliveries.expression_costs import InvalidExpression
from deliveries.expressions import (
    Filter,
    Scope,
    Transformation,
    TransformationFailed,
    compile_filter,
    compile_transformation,
)
from deliveries.pipeline.database import Row
from deliveries.validation import pattern_matches
from tenants.models import DEFAULT_LIMITS
from tenants.schemas import CompiledSchema, InvalidSchema, compile_schema

KEPT_TENANTS = 2_000
"""Tenants whose compiled settings a process keeps; beyond it the least recently used are loaded again."""

OPERATIONAL_PREFIXES = ("endpoint.", "delivery.", "webhook.")
"""The platform's own types: they reach only subscriptions that name them."""


@dataclass(frozen=True, slots=True)
class EventTypeFacts:
    is_archived: bool
    schema: CompiledSchema | None


@dataclass(frozen=True, slots=True)
class Route:
    """One subscription of one endpoint, compiled. A broken expression is an error in words, never a match."""

    subscription_id: bytes
    pattern: str
    filter: Filter | None
    filter_error: str | None
    transformation: Transformation | None
    transformation_error: str | None


@dataclass(frozen=True, slots=True)
class Receiver:
    """An enabled endpoint with its routes, the oldest first."""

    endpoint_id: bytes
    channels: frozenset[str] | None
    is_fifo: bool
    routes: tuple[Route, ...]


@dataclass(slots=True)
class TenantSettings:
    version: int
    shared_version: int
    payload_bytes: int
    events_per_second: float | None
    schema_validation: str
    types: dict[str, EventTypeFacts]
    receivers: list[Receiver]
    matches: dict[str, list[Receiver]] = field(default_factory=dict)
    """By event type, filled on first use: the receivers with only the routes whose pattern matches."""


@dataclass(frozen=True, slots=True)
class Target:
    """A delivery to be made."""

    endpoint_id: bytes
    subscription_id: bytes | None
    is_fifo: bool
    body: bytes | None = None
    """What the transformation made of the data; None: the data itself."""
    error: str | None = None
    """Why the transformation failed."""


def fan_out(
    settings: TenantSettings,
    *,
    event_type: str,
    data: bytes,
    channels: list[str] | None,
    occurred_at: datetime,
) -> list[Target]:
    """Every endpoint that gets the event, each once: the oldest matching subscription decides."""
    scope: Scope | None = None
    targets = []
    for receiver in receivers_of(settings, event_type):
        if receiver.channels is not None and (not channels or receiver.channels.isdisjoint(channels)):
            continue
        for route in receiver.routes:
            if route.filter_error is not None:
                continue
            if scope is None and (route.filter is not None or route.transformation is not None):
                scope = Scope(
                    type=event_type,
                    data=msgspec.json.decode(data),
                    channels=channels or [],
                    occurred_at=occurred_at,
                    length=len(data),
                )
            if route.filter is not None and scope is not None and not route.filter.matches(scope):
                continue
            targets.append(_target(receiver, route, scope))
            break
    return targets


def _target(receiver: Receiver, route: Route, scope: Scope | None) -> Target:
    if route.transformation_error is not None:
        return Target(
            receiver.endpoint_id, route.subscription_id, receiver.is_fifo, error=route.transformation_error
        )
    if route.transformation is None:
        return Target(receiver.endpoint_id, route.subscription_id, receiver.is_fifo)
    assert scope is not None
    try:
        body = route.transformation.apply(scope)
    except TransformationFailed as error:
        return Target(receiver.endpoint_id, route.subscription_id, receiver.is_fifo, error=str(error))
    return Target(receiver.endpoint_id, route.subscription_id, receiver.is_fifo, body=body)


def receivers_of(settings: TenantSettings, event_type: str) -> list[Receiver]:
    """Those with a route whose pattern matches, routes narrowed to the matching ones. Kept per type."""
    known = settings.matches.get(event_type)
    if known is None:
        known = []
        for receiver in settings.receivers:
            routes = tuple(route for route in receiver.routes if reaches(route.pattern, event_type))
            if routes:
                known.append(Receiver(receiver.endpoint_id, receiver.channels, receiver.is_fifo, routes))
        settings.matches[event_type] = known
    return known


def reaches(pattern: str, event_type: str) -> bool:
    """`*` means the catalogue's types; the platform's own only reach subscriptions that name them."""
    if pattern == "*" and event_type.startswith(OPERATIONAL_PREFIXES):
        return False
    return pattern_matches(pattern, event_type)


class SettingsCache:
    """The compiled settings of the tenants that publish through this process. Not shared between threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, TenantSettings] = OrderedDict()

    def get(
        self, connection: psycopg.Connection[Row], tenant_id: bytes, version: int, shared_version: int
    ) -> TenantSettings:
        """Loads them if those kept are of another version."""
        kept = self._kept.get(tenant_id)
        if kept is None or kept.version != version or kept.shared_version != shared_version:
            kept = load_settings(connection, tenant_id)
            self._kept[tenant_id] = kept
            if len(self._kept) > KEPT_TENANTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(tenant_id)
        return kept


# One snapshot for all of it, so that what is loaded is exactly what the version names.
LOAD = """
SELECT t.settings_version, p.shared_version, t.limits, t.schema_validation,
  (SELECT coalesce(json_agg(json_build_array(name, archived_at IS NOT NULL, schema) ORDER BY tenant_id NULLS FIRST), '[]')
     FROM tenants_eventtype WHERE tenant_id = t.id OR tenant_id IS NULL),
  (SELECT coalesce(json_agg(json_build_array(e.id, e.channels, e.ordering, s.id, s.event_type, s.filter, s.transformation)
                            ORDER BY e.id, s.id), '[]')
     FROM deliveries_endpoint e JOIN deliveries_subscription s ON s.endpoint_id = e.id
    WHERE e.tenant_id = t.id AND e.status = 'enabled' AND e.deleted_at IS NULL)
FROM tenants_tenant t, tenants_platformstate p WHERE t.id = %s
"""


def load_settings(connection: psycopg.Connection[Row], tenant_id: bytes) -> TenantSettings:
    with connection.cursor(binary=True) as cursor:
        # Planned for the tables as they are now: it joins them, and it is rare.
        row = cursor.execute(LOAD, [UUID(bytes=tenant_id)], prepare=False).fetchone()
    assert row is not None
    version, shared_version, limits, schema_validation, types, subscriptions = row
    settings = TenantSettings(
        version=version,
        shared_version=shared_version,
        payload_bytes=limits.get("payload_bytes", DEFAULT_LIMITS["payload_bytes"]),
        events_per_second=limits.get("events_per_second"),
        schema_validation=schema_validation,
        # A tenant's own type stands before a shared one of the same name: it comes later in the list.
        types={name: EventTypeFacts(archived, _schema(schema)) for name, archived, schema in types},
        receivers=[],
    )
    routes: dict[str, list[Route]] = {}
    endpoints: dict[str, Any] = {}
    for endpoint_id, channels, ordering, *subscription in subscriptions:
        endpoints[endpoint_id] = (channels, ordering)
        routes.setdefault(endpoint_id, []).append(compile_route(*subscription))
    for endpoint_id, (channels, ordering) in endpoints.items():
        settings.receivers.append(
            Receiver(
                endpoint_id=UUID(endpoint_id).bytes,
                channels=None if channels is None else frozenset(channels),
                is_fifo=ordering == "fifo",
                routes=tuple(routes[endpoint_id]),
            )
        )
    return settings


def _schema(schema: Any) -> CompiledSchema | None:
    if schema is None:
        return None
    try:
        return compile_schema(schema)
    except InvalidSchema:
        # It was checked when it was saved; a stricter engine since then must not stop a tenant from publishing.
        return None


def compile_route(
    subscription_id: str, pattern: str, filter_text: str | None, transformation_text: str | None
) -> Route:
    compiled_filter = compiled_transformation = filter_error = transformation_error = None
    try:
        compiled_filter = compile_filter(filter_text) if filter_text else None
    except InvalidExpression as error:
        filter_error = str(error)
    try:
        compiled_transformation = compile_transformation(transformation_text) if transformation_text else None
    except InvalidExpression as error:
        transformation_error = str(error)
    return Route(
        subscription_id=UUID(subscription_id).bytes,
        pattern=pattern,
        filter=compiled_filter,
        filter_error=filter_error,
        transformation=compiled_transformation,
        transformation_error=transformation_error,
    )
