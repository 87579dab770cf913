"""Which endpoints are owed an event, as of one version of the tenant's settings."""

from collections.abc import Iterator

import psycopg
import pytest

from deliveries.models import Endpoint, Subscription
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.fan_out import SettingsCache, reaches
from tenants.models import EventType, PlatformState, Tenant
from tests.support.builders import (
    deliveries_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    publish,
    raise_version,
)

pytestmark = pytest.mark.usefixtures("database")

URL = "http://127.0.0.1:9/"


@pytest.fixture
def own(database: None) -> Iterator[psycopg.Connection[Row]]:
    with connect(application_name="test", statement_timeout_seconds=10) as connection:
        yield connection


def receivers(tenant: Tenant, data: bytes = b"{}", **fields: object) -> set[Endpoint]:
    """The endpoints that one event is owed to; each once."""
    result = publish(tenant, data, **fields)
    mine = [d.endpoint_id for d in deliveries_of(tenant) if d.id.bytes in result.delivery_ids]
    assert len(mine) == len(set(mine))
    return set(Endpoint.objects.for_tenant(tenant).filter(id__in=mine))


def subscribe(endpoint: Endpoint, pattern: str, **fields: str) -> Subscription:
    subscription: Subscription = Subscription.unscoped.create(
        tenant_id=endpoint.tenant_id, endpoint=endpoint, event_type=pattern, **fields
    )
    raise_version(endpoint.tenant)
    return subscription


@pytest.mark.parametrize(
    ("pattern", "event_type", "expected"),
    [
        ("*", "order.created", True),
        ("order.created", "order.created", True),
        ("order.created", "order.paid", False),
        ("order.*", "order.created", True),
        ("order.*", "order.line.added", True),
        ("order.*", "order", False),
        ("order.*", "orders.created", False),
        ("*", "endpoint.disabled", False),
        ("*", "delivery.failed", False),
        ("*", "webhook.test", False),
        ("endpoint.*", "endpoint.disabled", True),
        ("endpoint.disabled", "endpoint.disabled", True),
    ],
)
def test_patterns_and_what_the_star_means(pattern: str, event_type: str, expected: bool) -> None:
    assert reaches(pattern, event_type) is expected


def test_an_endpoint_with_several_matching_subscriptions_gets_the_event_once() -> None:
    tenant = make_tenant()
    both = make_endpoint(tenant, URL, patterns=["*", "order.*", "order.created"])
    other = make_endpoint(tenant, URL, patterns=["order.paid"])
    none = make_endpoint(tenant, URL, patterns=[])

    assert receivers(tenant) == {both}
    assert other.id != none.id


def test_the_oldest_matching_subscription_decides() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL, patterns=[])
    refusing = subscribe(endpoint, "*", filter="data.n > 5", transformation="{'from': 'first'}")
    second = subscribe(endpoint, "order.*", transformation="{'from': 'second'}")
    subscribe(endpoint, "order.created", transformation="{'from': 'third'}")

    publish(tenant, b'{"n":9}')
    publish(tenant, b'{"n":1}')
    publish(tenant, b"{}")

    assert [(d.subscription_id, bytes(d.body or b"")) for d in deliveries_of(tenant)] == [
        (refusing.id, b'{"from":"first"}'),
        (second.id, b'{"from":"second"}'),
        (second.id, b'{"from":"second"}'),
    ]
    assert [d.size for d in deliveries_of(tenant)] == [16, 17, 17]


def test_channels_narrow_an_endpoint_and_an_event_without_reaches_only_those_that_take_all() -> None:
    tenant = make_tenant()
    all_, red, both = make_endpoints(tenant, [URL] * 3)
    Endpoint.unscoped.filter(id=red.id).update(channels=["red"])
    Endpoint.unscoped.filter(id=both.id).update(channels=["red", "blue"])
    raise_version(tenant)

    assert receivers(tenant) == {all_}
    assert receivers(tenant, channels=["red"]) == {all_, red, both}
    assert receivers(tenant, channels=["blue", "green"]) == {all_, both}
    assert receivers(tenant, channels=["green"]) == {all_}


def test_disabled_deleted_and_other_tenants_endpoints_get_nothing() -> None:
    tenant, stranger = make_tenant(), make_tenant()
    enabled, disabled, deleted = make_endpoints(tenant, [URL] * 3)
    make_endpoint(stranger, URL)
    Endpoint.unscoped.filter(id=disabled.id).update(status="disabled", disabled_reason="manual")
    Endpoint.unscoped.filter(id=deleted.id).update(deleted_at="2026-01-01T00:00Z")
    raise_version(tenant)

    assert receivers(tenant) == {enabled}
    assert deliveries_of(stranger) == []


def test_a_type_of_the_shared_catalogue_can_be_published_and_the_tenants_own_stands_before_it(
    own: psycopg.Connection[Row],
) -> None:
    tenant = make_tenant()
    name = f"shared.{tenant.slug}"
    EventType.objects.create(tenant=None, name=name)
    state = PlatformState.objects.get()
    state.shared_version += 1
    state.save()
    make_endpoint(tenant, URL)

    publish(tenant, type=name)
    EventType.objects.create(tenant=tenant, name=name, schema={"type": "object"})
    version = raise_version(tenant)
    settings = SettingsCache().get(own, tenant.id.bytes, version, state.shared_version)

    assert len(deliveries_of(tenant)) == 1
    assert settings.types[name].schema is not None
    EventType.objects.filter(name=name).delete()


def test_a_broken_expression_refuses_or_fails_loudly_and_spoils_nothing_else() -> None:
    tenant = make_tenant()
    no_filter, no_transformation, fine = (make_endpoint(tenant, URL, patterns=[]) for _ in range(3))
    subscribe(no_filter, "*", filter="data.n >")
    subscribe(no_transformation, "*", transformation="{'a':")
    subscribe(fine, "*")

    assert receivers(tenant) == {no_transformation, fine}
    (failed,) = [d for d in deliveries_of(tenant) if d.endpoint_id == no_transformation.id]
    assert failed.preparation_error
    assert failed.body is None


def test_settings_are_kept_by_version_and_loaded_again_when_it_changed(own: psycopg.Connection[Row]) -> None:
    tenant = make_tenant()
    make_endpoint(tenant, URL)
    version, shared = raise_version(tenant), PlatformState.objects.get().shared_version
    cache = SettingsCache()

    first = cache.get(own, tenant.id.bytes, version, shared)
    again = cache.get(own, tenant.id.bytes, version, shared)
    make_endpoint(tenant, URL)
    newer = cache.get(own, tenant.id.bytes, version + 1, shared)

    assert first is again
    assert newer is not first
    assert (len(first.receivers), len(newer.receivers)) == (1, 2)
