"""Tenants and endpoints for a measurement: the rows that the services would write, thousands at a time."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from django.db import transaction

from deliveries.bench.publisher import Target
from deliveries.models import Endpoint, EndpointSecret, EndpointVersion, Lane, Subscription
from deliveries.pipeline.signing import generate_secret, parse_secret
from deliveries.sealed import seal_secret
from tenants.access import hash_of
from tenants.models import ApiKey, EventType, Tenant

ENDPOINTS_A_TENANT = 50
"""As many as a tenant has by default. More endpoints: more tenants."""

TO_ALL = "bench.all"
"""The event type that all endpoints made with `is_fan_out` subscribe to; the others have one each within their tenant."""

SCHEMA = {
    "type": "object",
    "properties": {
        "sent_ns": {"type": "integer", "minimum": 0},
        "n": {"type": "integer"},
        "pad": {"type": "string", "maxLength": 300_000},
    },
    "required": ["sent_ns", "n", "pad"],
    "additionalProperties": False,
}
FILTER = 'data.n >= 0 && data.pad != "" && type.startsWith("checked.")'
"""Of a world that `is_checked`."""


@dataclass(slots=True)
class World:
    name: str
    """The first segment of its endpoints' paths, by which the receiver counts."""
    targets: list[Target] = field(default_factory=list)
    """One per endpoint, by tenant; with `is_fan_out`: one per tenant."""
    secrets: dict[str, str] = field(default_factory=dict)
    """Of the endpoints, by the path of their URL."""
    tenants: list[UUID] = field(default_factory=list)
    endpoints: list[UUID] = field(default_factory=list)


def make_catalogue() -> None:
    names = [TO_ALL, *(f"bench.e{number}" for number in range(ENDPOINTS_A_TENANT))]
    EventType.objects.bulk_create([EventType(name=name) for name in names], ignore_conflicts=True)


def make_world(
    *,
    name: str,
    endpoints: int,
    base_url: Callable[[int], str],
    is_fan_out: bool = False,
    endpoints_a_tenant: int = ENDPOINTS_A_TENANT,
    timeout_seconds: int = 15,
    max_in_flight: int = 10,
    is_checked: bool = False,
) -> World:
    """`base_url`: scheme, host and port for the endpoint of that number; its path is `/<name>/<number>`.

    `is_checked`: its event types have a schema and its subscriptions a filter, which every event passes.
    """
    make_catalogue()
    world = World(name)
    for first in range(0, endpoints, endpoints_a_tenant):
        numbers = range(first, min(first + endpoints_a_tenant, endpoints))
        with transaction.atomic():
            tenant = Tenant.objects.create(
                slug=f"{name}-{first // endpoints_a_tenant}", name=name, limits={"endpoints": len(numbers)}
            )
            key = f"whk_{secrets.token_urlsafe(32)}"
            ApiKey.objects.create(
                tenant=tenant,
                name="bench",
                prefix=key[:12],
                hash=hash_of(key),
                scopes=[ApiKey.Scope.EVENTS_WRITE],
            )
            path = f"/api/v1/tenants/{tenant.slug}"
            world.tenants.append(tenant.id)
            if is_checked:
                EventType.objects.bulk_create(
                    EventType(tenant=tenant, name=f"checked.e{number - first}", schema=SCHEMA)
                    for number in numbers
                )
            types = [
                TO_ALL if is_fan_out else f"{'checked' if is_checked else 'bench'}.e{number - first}"
                for number in numbers
            ]
            world.targets += [(path, key, each) for each in (types[:1] if is_fan_out else types)]
            rows = [
                Endpoint(
                    tenant=tenant,
                    url=f"{base_url(number)}/{name}/{number}",
                    timeout_seconds=timeout_seconds,
                    max_in_flight=max_in_flight,
                )
                for number in numbers
            ]
            paths = [f"/{name}/{number}" for number in numbers]
            write_endpoints(tenant, rows, types, paths, world, filter=FILTER if is_checked else None)
    return world


def write_endpoints(
    tenant: Tenant,
    endpoints: list[Endpoint],
    types: list[str],
    paths: list[str],
    world: World,
    *,
    filter: str | None,
) -> None:
    texts = [generate_secret() for _ in endpoints]
    world.secrets.update(zip(paths, texts, strict=True))
    world.endpoints += [endpoint.id for endpoint in endpoints]
    Endpoint.objects.for_tenant(tenant).bulk_create(endpoints)
    EndpointSecret.objects.for_tenant(tenant).bulk_create(
        EndpointSecret(
            tenant=tenant,
            endpoint=endpoint,
            scheme=endpoint.signature_scheme,
            encrypted=seal_secret(tenant_id=tenant.id, endpoint_id=endpoint.id, secret=parse_secret(text)),
        )
        for endpoint, text in zip(endpoints, texts, strict=True)
    )
    subscriptions = [
        Subscription(tenant=tenant, endpoint=endpoint, event_type=event_type, filter=filter)
        for endpoint, event_type in zip(endpoints, types, strict=True)
    ]
    Subscription.objects.for_tenant(tenant).bulk_create(subscriptions)
    EndpointVersion.objects.for_tenant(tenant).bulk_create(
        EndpointVersion(
            tenant=tenant, endpoint=endpoint, settings_version=1, snapshot=_snapshot(endpoint, subscription)
        )
        for endpoint, subscription in zip(endpoints, subscriptions, strict=True)
    )
    Lane.objects.for_tenant(tenant).bulk_create(
        Lane(endpoint=endpoint, tenant=tenant) for endpoint in endpoints
    )


def _snapshot(endpoint: Endpoint, subscription: Subscription) -> dict[str, object]:
    return {
        "uid": endpoint.uid,
        "url": endpoint.url,
        "status": endpoint.status,
        "disabled_reason": endpoint.disabled_reason,
        "is_deleted": False,
        "channels": endpoint.channels,
        "subscriptions": [
            {
                "id": str(subscription.id),
                "event_type": subscription.event_type,
                "filter": subscription.filter,
                "has_transformation": False,
            }
        ],
    }
