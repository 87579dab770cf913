"""Where events would go as the settings are now: what replay asks `fan_out`, outside of publishing."""

from collections.abc import Sequence
from uuid import UUID

from deliveries.models import Endpoint, Event, Subscription
from deliveries.pipeline.again import Again
from deliveries.pipeline.fan_out import Receiver, Target, TenantSettings, compile_route, fan_out
from tenants.models import Tenant


def settings_now(tenant: Tenant, *, endpoint: Endpoint | None = None) -> TenantSettings:
    """The routes of all endpoints that take deliveries, or of one. Two queries."""
    endpoints = Endpoint.objects.for_tenant(tenant).filter(
        status=Endpoint.Status.ENABLED, deleted_at__isnull=True
    )
    subscriptions = Subscription.objects.for_tenant(tenant)
    if endpoint is not None:
        endpoints = endpoints.filter(id=endpoint.id)
        subscriptions = subscriptions.filter(endpoint=endpoint)
    routes: dict[object, list[Subscription]] = {}
    for subscription in subscriptions.order_by("id"):
        routes.setdefault(subscription.endpoint_id, []).append(subscription)
    return TenantSettings(
        version=tenant.settings_version,
        shared_version=0,
        payload_bytes=0,
        schema_validation="off",
        events_per_second=None,
        types={},
        receivers=[
            Receiver(
                endpoint_id=each.id.bytes,
                channels=None if each.channels is None else frozenset(each.channels),
                is_fifo=each.ordering == Endpoint.Ordering.FIFO,
                routes=tuple(
                    compile_route(str(route.id), route.event_type, route.filter, route.transformation)
                    for route in routes.get(each.id, [])
                ),
            )
            for each in endpoints.order_by("id")
        ],
    )


def targets_of(settings: TenantSettings, event: Event) -> list[Target]:
    """`event` has its payload."""
    assert event.data is not None
    return fan_out(
        settings,
        event_type=event.type,
        data=bytes(event.data),
        channels=event.channels,
        occurred_at=event.occurred_at,
    )


def owed(event_id: UUID, targets: Sequence[Target]) -> list[Again]:
    """What is to be made of an event that goes to these targets once more."""
    return [
        Again(
            event_id=event_id,
            endpoint_id=UUID(bytes=target.endpoint_id),
            subscription_id=None if target.subscription_id is None else UUID(bytes=target.subscription_id),
            body=target.body,
            error=target.error,
        )
        for target in targets
    ]
