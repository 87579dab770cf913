"""Subscriptions over the API."""

import json
from typing import Any

import pytest

from deliveries.models import EndpointVersion, Subscription
from tenants import ids
from tenants.ids import new_id
from tenants.models import EventType, Tenant
from tests.support.api import Api, error_codes, make_tenant, tenant_api

pytestmark = pytest.mark.usefixtures("database")

FILTER = 'data.amount > 100 && data.customer.tier == "gold"'


def body(response: Any, status: int) -> Any:
    assert response.status_code == status, response.content
    return json.loads(response.content)


def make(api: Api, tenant: Tenant, **fields: Any) -> str:
    given = {"url": "https://shop.example.com", "event_types": []} | fields
    made = body(api.post(f"/tenants/{tenant.slug}/endpoints", given), 201)
    return f"/tenants/{tenant.slug}/endpoints/{made['id']}"


def test_created_changed_and_deleted() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"{make(api, tenant)}/subscriptions"

    response = api.post(path, {"event_type": "order.*", "filter": FILTER, "description": "large"})

    made = body(response, 201)
    assert made == {
        "id": made["id"],
        "event_type": "order.*",
        "filter": FILTER,
        "transformation": None,
        "description": "large",
    }
    assert response["Location"].endswith(f"/subscriptions/{made['id']}")
    assert body(api.get(f"{path}/{made['id']}"), 200) == made
    changed = body(api.patch(f"{path}/{made['id']}", {"filter": None, "transformation": "data.order"}), 200)
    assert changed == made | {"filter": None, "transformation": "data.order"}
    assert api.delete(f"{path}/{made['id']}").status_code == 204
    assert api.get(f"{path}/{made['id']}").status_code == 404
    assert body(api.get(path), 200)["data"] == []


def test_each_change_keeps_a_snapshot() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"{make(api, tenant)}/subscriptions"

    made = body(api.post(path, {"event_type": "order.*", "filter": "data.a == 1"}), 201)
    body(api.patch(f"{path}/{made['id']}", {"filter": "data.a == 2"}), 200)
    body(api.patch(f"{path}/{made['id']}", {"transformation": "data"}), 200)
    api.delete(f"{path}/{made['id']}")

    snapshots = EndpointVersion.objects.for_tenant(tenant).order_by("settings_version")
    seen = [
        [
            (sub["event_type"], sub["filter"], sub["has_transformation"])
            for sub in each.snapshot["subscriptions"]
        ]
        for each in snapshots
    ]
    assert seen == [
        [],
        [("order.*", "data.a == 1", False)],
        [("order.*", "data.a == 2", False)],
        [("order.*", "data.a == 2", True)],
        [],
    ]


def test_several_of_one_pattern_are_allowed() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    endpoint = make(api, tenant)

    for _ in range(2):
        body(api.post(f"{endpoint}/subscriptions", {"event_type": "order.*"}), 201)

    assert len(body(api.get(f"{endpoint}/subscriptions"), 200)["data"]) == 2
    assert body(api.get(endpoint), 200)["event_types"] == ["order.*"]


@pytest.mark.parametrize(
    ("given", "errors"),
    [
        ({}, [("event_type", "required")]),
        ({"event_type": None}, [("event_type", "null")]),
        ({"event_type": "*.x"}, [("event_type", "invalid_pattern")]),
        ({"event_type": "no.such.type"}, [("event_type", "unknown_event_type")]),
        ({"event_type": "*", "filter": "data.x >"}, [("filter", "invalid_expression")]),
        ({"event_type": "*", "filter": "amount > 1"}, [("filter", "invalid_expression")]),
        ({"event_type": "*", "filter": 5}, [("filter", "invalid_type")]),
        ({"event_type": "*", "filter": ""}, [("filter", "invalid_expression")]),
        ({"event_type": "*", "transformation": "{"}, [("transformation", "invalid_expression")]),
        ({"event_type": "*", "sql": ""}, [("sql", "unknown_field")]),
    ],
)
def test_wrong_fields_are_named_and_nothing_is_made(given: Any, errors: list[tuple[str, str]]) -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    endpoint = make(api, tenant)

    response = api.post(f"{endpoint}/subscriptions", given)

    assert response.status_code == 422
    assert error_codes(response) == errors
    assert Subscription.objects.for_tenant(tenant).count() == 0


def test_a_shared_type_and_a_tenants_own_can_be_named() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    shared = f"shared.t{new_id().hex}"
    EventType.objects.create(name=shared)
    EventType.objects.create(tenant=tenant, name="own.type")
    EventType.objects.create(tenant=make_tenant(), name="foreign.type")
    endpoint = make(api, tenant)

    body(api.post(f"{endpoint}/subscriptions", {"event_type": shared}), 201)
    body(api.post(f"{endpoint}/subscriptions", {"event_type": "own.type"}), 201)
    foreign = api.post(f"{endpoint}/subscriptions", {"event_type": "foreign.type"})

    assert error_codes(foreign) == [("event_type", "unknown_event_type")]


def test_the_limit_is_named() -> None:
    tenant = make_tenant(limits={"subscriptions_per_endpoint": 1})
    api = tenant_api(tenant)
    endpoint = make(api, tenant)
    body(api.post(f"{endpoint}/subscriptions", {"event_type": "*"}), 201)

    refused = body(api.post(f"{endpoint}/subscriptions", {"event_type": "*"}), 409)

    assert refused["code"] == "limit_reached"
    assert refused["detail"] == "The tenant's limit subscriptions_per_endpoint is 1, and it is reached."


def test_a_subscription_is_found_below_its_own_endpoint_alone() -> None:
    tenant, stranger = make_tenant(), make_tenant()
    api = tenant_api(tenant)
    endpoint, other = make(api, tenant), make(api, tenant)
    made = body(api.post(f"{endpoint}/subscriptions", {"event_type": "*"}), 201)
    foreign = f"/tenants/{stranger.slug}/endpoints/{endpoint.rpartition('/')[2]}"

    answers = {
        who.send(method, f"{where}/subscriptions/{made['id']}", given).content
        for who, where in ((api, other), (tenant_api(stranger), endpoint), (tenant_api(stranger), foreign))
        for method, given in (("GET", None), ("PATCH", {"event_type": "a.*"}), ("DELETE", None))
    }
    answers.add(api.get(f"{endpoint}/subscriptions/{ids.to_text('sub', new_id())}").content)
    answers.add(api.get(f"{endpoint}/subscriptions/sub_x").content)

    assert len(answers) == 1
    assert json.loads(answers.pop())["code"] == "not_found"
    assert body(api.get(f"{endpoint}/subscriptions/{made['id']}"), 200) == made
