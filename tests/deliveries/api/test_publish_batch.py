"""Batches: one answer for all of their events, and under one Idempotency-Key all of it once, or none of it."""

import json
from typing import Any

import pytest
from django.utils import timezone

from deliveries.models import Event
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tenants.services.event_types import create_event_type
from tenants.services.tenants import update_tenant
from tests.support.api import make_tenant, tenant_api

pytestmark = pytest.mark.usefixtures("database")


def batch(*numbers: int) -> dict[str, Any]:
    return {"events": [{"type": "order.created", "data": {"n": n}} for n in numbers]}


def events_of(tenant: Tenant) -> int:
    return Event.objects.for_tenant(tenant).count()


@pytest.fixture
def tenant() -> Tenant:
    made = make_tenant()
    create_event_type(actor=COMMAND, tenant=made, name="order.created")
    return made


def test_a_suspended_tenants_batch_is_refused_as_a_whole(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"
    update_tenant(actor=COMMAND, tenant=tenant, status="suspended")

    refused = api.post(path, batch(1, 2), idempotency_key="k")
    update_tenant(actor=COMMAND, tenant=tenant, status="active")
    taken = api.post(path, batch(1, 2), idempotency_key="k")

    assert (refused.status_code, refused["Content-Type"]) == (403, "application/problem+json")
    assert json.loads(refused.content)["code"] == "tenant_suspended"
    assert json.loads(taken.content)["accepted"] == 2
    assert events_of(tenant) == 2


def test_the_batch_of_a_tenant_that_was_deleted_a_moment_ago_finds_nothing(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"
    api.post(path, batch(1))
    # By another process: this one believes for three seconds that it is still there.
    Tenant.objects.filter(id=tenant.id).update(deleted_at=timezone.now())

    refused = api.post(path, batch(2, 3))

    assert (refused.status_code, json.loads(refused.content)["code"]) == (404, "not_found")
    assert events_of(tenant) == 1


def test_a_repeated_batch_gets_the_first_answer_and_makes_nothing(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"

    first = api.post(path, batch(1, 2), idempotency_key="k")
    again = api.post(path, batch(1, 2), idempotency_key="k")

    assert first.status_code == again.status_code == 202
    assert first.content == again.content
    assert "Idempotent-Replayed" not in first
    assert again["Idempotent-Replayed"] == "true"
    assert events_of(tenant) == 2


@pytest.mark.parametrize("numbers", [(1, 2, 3), (2,), (9, 9)], ids=["longer", "shorter", "other"])
def test_another_batch_with_the_key_of_an_earlier_one_leaves_nothing(
    tenant: Tenant, numbers: tuple[int, ...]
) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"
    api.post(path, batch(1, 2), idempotency_key="k")

    refused = api.post(path, batch(*numbers), idempotency_key="k")

    assert refused.status_code == 422
    assert json.loads(refused.content)["code"] == "idempotency_key_reused"
    assert events_of(tenant) == 2


def test_a_batch_key_as_long_as_keys_may_be_holds_for_each_item(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"

    first = api.post(path, batch(1, 2, 3), idempotency_key="k" * 255)
    again = api.post(path, batch(1, 2, 3), idempotency_key="k" * 255)

    assert json.loads(first.content)["accepted"] == json.loads(again.content)["accepted"] == 3
    assert events_of(tenant) == 3


def test_a_single_publish_with_the_key_of_a_batch_is_refused(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    api.post(f"/tenants/{tenant.slug}/events/batch", batch(1), idempotency_key="k")

    refused = api.post(
        f"/tenants/{tenant.slug}/events", {"type": "order.created", "data": {"n": 1}}, idempotency_key="k"
    )

    assert refused.status_code == 422
    assert events_of(tenant) == 1
