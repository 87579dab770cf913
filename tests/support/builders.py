"""The smallest valid rows, straight into the tables: what the engine needs, without the services above it.

A test states every value that it relies on; what it does not state is of no matter to it.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import F
from django.utils import timezone

from deliveries.models import (
    Attempt,
    Delivery,
    Endpoint,
    EndpointSecret,
    EndpointVersion,
    Event,
    Lane,
    Subscription,
)
from deliveries.pipeline import ingest, partitions
from deliveries.pipeline.signing import parse_secret
from deliveries.pipeline.wake import wake
from deliveries.sealed import seal_secret
from tenants.ids import floor_of, new_id
from tenants.models import EventType, Tenant

SECRET = "whsec_dGhlIHNlY3JldCBvZiBldmVyeSB0ZXN0IGVuZHBvaW50"
"""Of every endpoint whose test does not say otherwise."""


def make_tenant(*event_types: str, **fields: Any) -> Tenant:
    """With these event types, or `order.created` alone."""
    tenant = Tenant.objects.create(**({"slug": f"t-{new_id().hex}", "name": "a tenant"} | fields))
    EventType.objects.bulk_create(
        [EventType(tenant=tenant, name=name) for name in event_types or ("order.created",)]
    )
    return tenant


def make_endpoint(tenant: Tenant, url: str, **fields: Any) -> Endpoint:
    """Subscribed to everything. Further arguments as for `make_endpoints`."""
    return make_endpoints(tenant, [url], **fields)[0]


def make_endpoints(
    tenant: Tenant,
    urls: Sequence[str],
    *,
    secret: str = SECRET,
    patterns: Sequence[str] = ("*",),
    **fields: Any,
) -> list[Endpoint]:
    """With secret, subscriptions, snapshot and lane, as the services make them."""
    version = raise_version(tenant)
    endpoints = [Endpoint(id=new_id(), tenant=tenant, url=url, version=version, **fields) for url in urls]
    Endpoint.unscoped.bulk_create(endpoints)
    EndpointSecret.unscoped.bulk_create(
        EndpointSecret(
            tenant=tenant,
            endpoint=endpoint,
            scheme="hmac-sha256",
            encrypted=seal_secret(tenant_id=tenant.id, endpoint_id=endpoint.id, secret=parse_secret(secret)),
        )
        for endpoint in endpoints
    )
    Subscription.unscoped.bulk_create(
        Subscription(tenant=tenant, endpoint=endpoint, event_type=pattern)
        for endpoint in endpoints
        for pattern in patterns
    )
    EndpointVersion.unscoped.bulk_create(
        EndpointVersion(
            tenant=tenant,
            endpoint=endpoint,
            settings_version=version,
            snapshot={"url": endpoint.url, "status": "enabled", "is_deleted": False},
        )
        for endpoint in endpoints
    )
    Lane.unscoped.bulk_create(Lane(endpoint=endpoint, tenant=tenant) for endpoint in endpoints)
    return endpoints


def raise_version(tenant: Tenant) -> int:
    Tenant.objects.filter(id=tenant.id).update(settings_version=F("settings_version") + 1)
    return Tenant.objects.values_list("settings_version", flat=True).get(id=tenant.id)


def change_endpoint(endpoint: Endpoint, **fields: Any) -> None:
    """As a service does it: the new values and the new version, then the wake."""
    version = raise_version(endpoint.tenant)
    Endpoint.unscoped.filter(id=endpoint.id).update(version=version, **fields)
    wake([(endpoint.id, None)])


def publish(tenant: Tenant, data: bytes = b"{}", **fields: Any) -> ingest.Accepted:
    """One `order.created`, unless a field says otherwise."""
    return accepted(ingest.publish([new_event(tenant, data, **fields)]))[0]


def new_event(tenant: Tenant, data: bytes = b"{}", **fields: Any) -> ingest.NewEvent:
    return ingest.NewEvent(tenant.id.bytes, fields.pop("type", "order.created"), data, **fields)


def accepted(results: Sequence[ingest.Result]) -> list[ingest.Accepted]:
    """All of them, or the test fails here."""
    taken = [result for result in results if isinstance(result, ingest.Accepted)]
    assert len(taken) == len(results), results
    return taken


def events_of(tenant: Tenant) -> list[Event]:
    return list(Event.objects.for_tenant(tenant).order_by("sequence"))


def deliveries_of(tenant: Tenant) -> list[Delivery]:
    """In the order of publication."""
    return list(Delivery.objects.for_tenant(tenant).order_by("sequence", "id"))


def delivery_of(accepted: ingest.Accepted) -> Delivery:
    """Of an event with a single delivery, as it is now."""
    (key,) = accepted.delivery_ids
    delivery: Delivery = Delivery.unscoped.get(id=UUID(bytes=key))
    return delivery


def attempts_of(delivery: Delivery) -> list[Attempt]:
    return list(
        Attempt.objects.for_tenant(delivery.tenant_id)
        .filter(delivery_id=delivery.id)
        .order_by("number", "id")
    )


def lane_of(endpoint: Endpoint) -> Lane:
    lane: Lane = Lane.unscoped.get(endpoint=endpoint)
    return lane


def insert_old(endpoint: Endpoint, days: int, **fields: object) -> Delivery:
    """A delivery that was published so many days ago."""
    at = timezone.now() - timedelta(days=days)
    partitions.ensure_partitions(now=at, weeks_ahead=0)
    delivery: Delivery = Delivery.unscoped.create(
        **{
            "id": type(endpoint.id)(int=floor_of(at).int + new_id().int % 2**60),
            "tenant_id": endpoint.tenant_id,
            "endpoint": endpoint,
            "event_id": new_id(),
            "event_type": "order.created",
            "sequence": 1,
            "size": 2,
            "next_attempt_at": at,
            "created_at": at,
        }
        | fields
    )
    return delivery


def make_due(tenant: Tenant) -> None:
    """Let the time of every planned retry come."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE deliveries_delivery SET next_attempt_at = now()"
            " WHERE tenant_id = %s AND status = 'pending' RETURNING endpoint_id",
            [tenant.id],
        )
        lanes = {row[0] for row in cursor.fetchall()}
    wake([(lane, None) for lane in lanes])


def copy_endpoint(endpoint: Endpoint, count: int) -> None:
    """With its lane, so many times more."""
    with connection.cursor() as cursor:
        for model, key in ((Endpoint, "id"), (Lane, "endpoint_id")):
            table = model._meta.db_table
            others = ", ".join(f.column for f in model._meta.concrete_fields if f.column and f.column != key)
            cursor.execute(
                f"INSERT INTO {table} ({key}, {others})"
                f" SELECT md5(%s || n)::uuid, {others} FROM {table}, generate_series(1, %s) n WHERE {key} = %s",
                [str(endpoint.id), count, endpoint.id],
            )
