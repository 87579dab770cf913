"""The event catalogue: a tenant's own types, and the platform's that all tenants see."""

import json
from typing import Any

import pytest

from tenants.ids import new_id
from tenants.models import EventType, PlatformState, Tenant
from tests.support.api import Api, error_codes, make_tenant, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")

SCHEMA = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}


def names(api: Api, path: str) -> list[str]:
    return [each["name"] for each in json.loads(api.get(path, limit=250).content)["data"]]


def unique(name: str) -> str:
    """Shared types are seen by all tenants of the test database: names of one's own keep tests apart."""
    return f"{name}.{new_id().hex}"


def test_creating_a_type() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant, "catalogue:write", "catalogue:read")
    path = f"/tenants/{tenant.slug}/event-types"

    response = api.post(
        path,
        {
            "name": "order.created",
            "description": "Placed.",
            "group": "Orders",
            "schema": SCHEMA,
            "example": {"amount": 1},
        },
    )

    row = EventType.objects.get(tenant=tenant)
    assert response.status_code == 201
    assert response["Location"].endswith("/event-types/order.created")
    assert json.loads(response.content) == {
        "name": "order.created",
        "description": "Placed.",
        "group": "Orders",
        "schema": SCHEMA,
        "example": {"amount": 1},
        "archived": False,
        "shared": False,
        "created_at": row.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    assert api.get(f"{path}/order.created").content == response.content
    again = api.post(path, {"name": "order.created"})
    assert (again.status_code, json.loads(again.content)["code"]) == (409, "name_taken")


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, [("name", "required")]),
        ({"name": "a..b"}, [("name", "invalid")]),
        ({"name": "a" * 129}, [("name", "too_long")]),
        ({"name": "openapi.json"}, [("name", "reserved")]),
        ({"name": "import"}, [("name", "reserved")]),
        ({"name": "endpoint.disabled"}, [("name", "reserved")]),
        ({"name": "webhook.test"}, [("name", "reserved")]),
        ({"name": "a", "schema": True}, [("schema", "invalid_type")]),
        ({"name": "a", "schema": {"type": "thing"}}, [("schema", "invalid_schema")]),
        ({"name": "a", "schema": {"pattern": "(?<=a)b"}}, [("schema", "invalid_schema")]),
        ({"name": "a", "schema": {"$ref": "https://example.com/s.json"}}, [("schema", "invalid_schema")]),
        ({"name": "a", "schema": {"title": "x" * 70_000}}, [("schema", "invalid_schema")]),
        ({"name": "a", "example": [1]}, [("example", "invalid_type")]),
        ({"name": "a", "example": {"a": "x" * 70_000}}, [("example", "too_long")]),
        ({"name": "a", "schema": SCHEMA, "example": {}}, [("example", "schema_violation")]),
        (
            {"name": "a", "schema": SCHEMA, "example": {"amount": "1"}},
            [("example.amount", "schema_violation")],
        ),
    ],
)
def test_wrong_fields(body: dict[str, Any], errors: list[tuple[str, str]]) -> None:
    tenant = make_tenant()

    response = tenant_api(tenant).post(f"/tenants/{tenant.slug}/event-types", body)

    assert error_codes(response) == errors
    assert EventType.objects.filter(tenant=tenant).count() == 0


def test_patch_leaves_clears_and_sets() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/event-types"
    api.post(
        path, {"name": "a", "description": "old", "group": "g", "schema": SCHEMA, "example": {"amount": 1}}
    )
    version = Tenant.objects.get(id=tenant.id).settings_version

    changed = json.loads(api.patch(f"{path}/a", {"description": None, "example": {"amount": 2}}).content)
    refused = api.patch(f"{path}/a", {"schema": {"required": ["other"]}})
    cleared = json.loads(api.patch(f"{path}/a", {"schema": None}).content)

    assert (changed["description"], changed["group"], changed["example"]) == ("", "g", {"amount": 2})
    assert error_codes(refused) == [("example", "schema_violation")]
    assert cleared["schema"] is None
    assert error_codes(api.patch(f"{path}/a", {"name": "b"})) == [("name", "unknown_field")]
    assert Tenant.objects.get(id=tenant.id).settings_version == version + 2


def test_archiving_and_back() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/event-types"
    api.post(path, {"name": "a"})

    answers = [api.post(f"{path}/a/{verb}") for verb in ("archive", "archive", "unarchive")]

    assert [json.loads(answer.content)["archived"] for answer in answers] == [True, True, False]
    assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_deleting() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/event-types"
    api.post(path, {"name": "a"})

    assert [api.delete(f"{path}/a").status_code for _ in range(2)] == [204, 404]
    assert EventType.objects.filter(tenant=tenant).count() == 0


@pytest.mark.parametrize("name", ["%00", "a%20b", "..a", "é", "a" * 200, "x%2Fy"])
def test_what_is_no_name_is_not_found(name: str) -> None:
    tenant = make_tenant()

    assert tenant_api(tenant).get(f"/tenants/{tenant.slug}/event-types/{name}").status_code == 404


def test_the_platforms_catalogue_is_seen_by_all_and_changed_by_operators() -> None:
    operator, tenant = operator_api(), make_tenant()
    api = tenant_api(tenant)
    name = unique("shared")
    path = f"/tenants/{tenant.slug}/event-types"
    version = PlatformState.objects.get().shared_version

    made = operator.post("/event-types", {"name": name, "description": "ours"})
    seen = api.get(f"{path}/{name}")
    refused = [
        api.patch(f"{path}/{name}", {"description": "mine"}),
        api.delete(f"{path}/{name}"),
        api.post(f"{path}/{name}/archive"),
    ]

    assert (made.status_code, made["Location"]) == (201, f"/api/v1/event-types/{name}")
    assert json.loads(seen.content)["shared"] is True
    assert [(each.status_code, json.loads(each.content)["code"]) for each in refused] == [
        (403, "shared_event_type")
    ] * 3
    assert PlatformState.objects.get().shared_version > version
    assert operator.patch(f"/event-types/{name}", {"description": "new"}).status_code == 200
    assert json.loads(api.get(f"{path}/{name}").content)["description"] == "new"
    assert operator.delete(f"/event-types/{name}").status_code == 204
    assert api.get(f"{path}/{name}").status_code == 404


def test_a_tenants_own_type_stands_before_a_shared_one_of_the_same_name() -> None:
    operator, tenant, other = operator_api(), make_tenant(), make_tenant()
    name = unique("shared")
    operator.post("/event-types", {"name": name, "description": "ours"})
    path = f"/tenants/{tenant.slug}/event-types"
    api = tenant_api(tenant)

    api.post(path, {"name": name, "description": "mine"})

    assert json.loads(api.get(f"{path}/{name}").content)["description"] == "mine"
    assert names(api, path).count(name) == 1
    theirs = tenant_api(other).get(f"/tenants/{other.slug}/event-types/{name}")
    assert json.loads(theirs.content)["description"] == "ours"
    operator.delete(f"/event-types/{name}")


def test_types_of_other_tenants_are_not_seen() -> None:
    mine, other = make_tenant(), make_tenant()
    name = unique("secret")
    tenant_api(other).post(f"/tenants/{other.slug}/event-types", {"name": name})
    api = tenant_api(mine)
    path = f"/tenants/{mine.slug}/event-types"

    assert name not in names(api, path)
    assert [api.get(f"{path}/{name}").status_code, api.delete(f"{path}/{name}").status_code] == [404, 404]
    assert EventType.objects.filter(tenant=other, name=name).count() == 1


def test_comparing_a_schema_says_what_breaks_receivers() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/event-types"
    api.post(path, {"name": "a", "schema": SCHEMA})

    response = api.post(f"{path}/a/compare", {"schema": {**SCHEMA, "required": []}})

    assert json.loads(response.content) == {
        "breaks_consumers": True,
        "changes": [
            {
                "path": "amount",
                "change": "property_optional",
                "breaks_consumers": True,
                "message": "amount was always there, and may be missing now.",
            }
        ],
    }
    assert json.loads(api.get(f"{path}/a").content)["schema"] == SCHEMA
    assert error_codes(api.post(f"{path}/a/compare", {"schema": {"type": 1}})) == [
        ("schema", "invalid_schema")
    ]


@pytest.mark.parametrize("rows", [1, 30])
def test_the_list_costs_the_same_whatever_its_length(rows: int, django_assert_num_queries: Any) -> None:
    tenant = make_tenant()
    EventType.objects.bulk_create(EventType(tenant=tenant, name=f"t{number}") for number in range(rows))
    api = tenant_api(tenant)
    api.get("/whoami")

    with django_assert_num_queries(2):  # the tenant, the types
        response = api.get(f"/tenants/{tenant.slug}/event-types", limit=250)

    listed = [each["name"] for each in json.loads(response.content)["data"] if not each["shared"]]
    assert listed == [f"t{number}" for number in reversed(range(rows))]
