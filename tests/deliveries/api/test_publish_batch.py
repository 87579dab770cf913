"""Batches: one answer for all of their events, and under one Idempotency-Key all of it once, or none of it."""

import json
from typing import Any

import pytest
from django.utils import timezone

from deliveries.models import Event
from deliveries.pipeline.database import connect
from tenants.idempotency import lock_key
from tenants.models import IdempotencyRecord, Tenant
from tenants.services.audit import COMMAND
from tenants.services.event_types import archive_event_type, create_event_type
from tenants.services.tenants import update_tenant
from tests.support.api import make_tenant, tenant_api

pytestmark = pytest.mark.usefixtures("database")


def batch(*numbers: int) -> dict[str, Any]:
    return {"events": [{"type": "order.created", "data": {"n": n}} for n in numbers]}


def keyed(*keys: str) -> dict[str, Any]:
    return {"events": [{"type": "order.created", "data": {}, "idempotency_key": key} for key in keys]}


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


@pytest.mark.parametrize("key", [None, "k"])
def test_a_suspended_tenants_batch_without_a_single_event_is_refused_as_well(
    tenant: Tenant, key: str | None
) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"
    body = {"events": [{"type": "order.created"}]}
    update_tenant(actor=COMMAND, tenant=tenant, status="suspended")

    refused = api.post(path, body, idempotency_key=key)
    kept = IdempotencyRecord.objects.filter(space=tenant.id).count()
    update_tenant(actor=COMMAND, tenant=tenant, status="active")
    taken = api.post(path, body, idempotency_key=key)

    assert (refused.status_code, json.loads(refused.content)["code"], kept) == (403, "tenant_suspended", 0)
    assert (taken.status_code, json.loads(taken.content)["rejected"]) == (202, 1)


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


@pytest.mark.parametrize("key", [None, "of-the-batch"])
def test_items_that_were_accepted_get_their_reply_again_although_they_would_be_refused_by_now(
    tenant: Tenant, key: str | None
) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"
    first = json.loads(api.post(path, keyed("a")).content)["data"][0]
    archive_event_type(actor=COMMAND, tenant=tenant, name="order.created", is_archived=True)

    again = json.loads(api.post(path, keyed("a", "b"), idempotency_key=key).content)

    assert (again["accepted"], again["rejected"]) == (1, 1)
    assert again["data"][0] == first
    assert again["data"][1]["error"]["code"] == "event_type_archived"
    assert events_of(tenant) == 1


def test_a_batch_whose_items_have_keys_of_their_own_holds_its_key_too(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"
    first = api.post(path, keyed("a", "b"), idempotency_key="k")

    again = api.post(path, keyed("a", "b"), idempotency_key="k")
    other = api.post(path, keyed("a", "c"), idempotency_key="k")
    under_another_key = api.post(path, keyed("a", "c"), idempotency_key="k2")

    assert (again.content, again["Idempotent-Replayed"]) == (first.content, "true")
    assert (other.status_code, json.loads(other.content)["code"]) == (422, "idempotency_key_reused")
    (before, _), (repeated, fresh) = (
        json.loads(reply.content)["data"] for reply in (first, under_another_key)
    )
    assert repeated == before
    assert "Idempotent-Replayed" not in under_another_key
    assert fresh["id"] not in {item["id"] for item in json.loads(first.content)["data"]}
    assert events_of(tenant) == 3


def test_a_repeated_batch_gets_what_was_rejected_again_whatever_would_be_accepted_by_now(
    tenant: Tenant,
) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"
    items = [*batch(1)["events"], {"type": "order.new", "data": {}}, {"type": "order.created"}]

    first = api.post(path, {"events": items}, idempotency_key="k")
    create_event_type(actor=COMMAND, tenant=tenant, name="order.new")
    headers = {"Idempotency-Key": "k", "X-Request-Id": "another"}
    again = api.send("POST", path, {"events": items}, headers=headers)

    data = json.loads(first.content)["data"]
    assert [item.get("error", {}).get("code") for item in data] == [None, "unknown_event_type", "invalid"]
    assert [item["error"]["request_id"] for item in data[1:]] == ["the-request"] * 2
    assert (again.status_code, again.content) == (202, first.content)
    assert again["Idempotent-Replayed"] == "true"
    assert events_of(tenant) == 1


@pytest.mark.parametrize(
    "item", [{"type": "order.new", "data": {}}, {"type": "order.new"}], ids=["unknown type", "no data"]
)
def test_a_batch_of_which_nothing_was_accepted_has_its_answer_kept(
    tenant: Tenant, item: dict[str, Any]
) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"

    first = api.post(path, {"events": [item, item]}, idempotency_key="k")
    create_event_type(actor=COMMAND, tenant=tenant, name="order.new")
    headers = {"Idempotency-Key": "k", "X-Request-Id": "another"}
    again = api.send("POST", path, {"events": [item, item]}, headers=headers)
    other = api.post(path, {"events": [item]}, idempotency_key="k")
    single = api.post(f"/tenants/{tenant.slug}/events", batch(1)["events"][0], idempotency_key="k")

    assert json.loads(first.content)["rejected"] == 2
    assert "Idempotent-Replayed" not in first
    assert (again.status_code, again.content) == (202, first.content)
    assert again["Idempotent-Replayed"] == "true"
    assert [json.loads(reply.content)["code"] for reply in (other, single)] == ["idempotency_key_reused"] * 2
    assert events_of(tenant) == 0


@pytest.mark.parametrize("body", [batch(1), {"events": [{}]}], ids=["good", "nothing to publish"])
def test_while_the_first_is_still_running_the_second_is_told_so(tenant: Tenant, body: dict[str, Any]) -> None:
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/events/batch"
    with connect(application_name="test", statement_timeout_seconds=10) as first, first.transaction():
        first.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(tenant.id.bytes, "k")])

        meanwhile = api.post(path, body, idempotency_key="k")
    afterwards = api.post(path, body, idempotency_key="k")

    assert (meanwhile.status_code, json.loads(meanwhile.content)["code"]) == (409, "idempotency_in_progress")
    assert afterwards.status_code == 202
    assert "Idempotent-Replayed" not in afterwards


def test_the_batchs_own_key_is_no_key_for_an_item(tenant: Tenant) -> None:
    api = tenant_api(tenant)

    reply = api.post(f"/tenants/{tenant.slug}/events/batch", keyed("k", "a"), idempotency_key="k")

    first, second = json.loads(reply.content)["data"]
    assert first["error"]["code"] == "idempotency_key_reused"
    assert second["type"] == "order.created"
    assert events_of(tenant) == 1


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


def test_a_batch_with_the_key_of_a_single_publish_is_refused(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    api.post(f"/tenants/{tenant.slug}/events", batch(1)["events"][0], idempotency_key="k")

    refused = api.post(f"/tenants/{tenant.slug}/events/batch", batch(1), idempotency_key="k")

    assert (refused.status_code, json.loads(refused.content)["code"]) == (422, "idempotency_key_reused")
    assert events_of(tenant) == 1
