"""Limits hold when many ask at once.

Each request raises the tenant's settings version first, so the row's lock lets one after the other count and insert.
Without it, all of them would count before any had committed.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connections

from deliveries.models import Endpoint, EndpointSecret, Subscription
from tests.support.api import make_tenant, tenant_api

pytestmark = pytest.mark.usefixtures("database")

AT_ONCE = 6


def at_once(send: Callable[[int], Any]) -> list[int]:
    """The statuses of as many requests, sorted, begun at the same moment on connections of their own."""
    barrier = Barrier(AT_ONCE)

    def one(number: int) -> int:
        try:
            barrier.wait(timeout=10)
            status: int = send(number).status_code
            return status
        finally:
            connections.close_all()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sorted(pool.map(one, range(AT_ONCE)))


def test_endpoints() -> None:
    tenant = make_tenant(limits={"endpoints": 3})
    api = tenant_api(tenant)

    statuses = at_once(
        lambda number: api.post(f"/tenants/{tenant.slug}/endpoints", {"url": f"https://{number}.example.com"})
    )

    assert statuses == [201] * 3 + [409] * 3
    assert Endpoint.objects.for_tenant(tenant).count() == 3


def test_subscriptions() -> None:
    tenant = make_tenant(limits={"subscriptions_per_endpoint": 3})
    api = tenant_api(tenant)
    made = api.post(
        f"/tenants/{tenant.slug}/endpoints", {"url": "https://shop.example.com", "event_types": []}
    )
    path = f"/tenants/{tenant.slug}/endpoints/{json.loads(made.content)['id']}/subscriptions"

    statuses = at_once(lambda number: api.post(path, {"event_type": f"kind{number}.*"}))

    assert statuses == [201] * 3 + [409] * 3
    assert Subscription.objects.for_tenant(tenant).count() == 3


def test_secrets() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = api.post(f"/tenants/{tenant.slug}/endpoints", {"url": "https://shop.example.com"})
    path = f"/tenants/{tenant.slug}/endpoints/{json.loads(made.content)['id']}/secret/rotate"

    statuses = at_once(lambda _: api.post(path))

    assert statuses == [200] * 4 + [409] * 2
    assert EndpointSecret.objects.for_tenant(tenant).count() == 5


def test_one_endpoint_per_uid() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)

    statuses = at_once(
        lambda number: api.put(
            f"/tenants/{tenant.slug}/endpoints/shop", {"url": f"https://{number}.example.com"}
        )
    )

    assert statuses == [200] * 5 + [201]
    assert Endpoint.objects.for_tenant(tenant).count() == 1
