"""A whole catalogue at once: out as OpenAPI 3.1, and in, completely or not at all."""

import json
from typing import Any

import pytest

from tenants.models import AuditEntry, EventType
from tests.support.api import Api, error_codes, make_tenant, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")

SCHEMA = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}


@pytest.fixture
def path() -> str:
    return f"/tenants/{make_tenant().slug}/event-types"


@pytest.fixture
def api() -> Api:
    EventType.objects.filter(tenant__isnull=True).delete()
    return operator_api()


def document(**webhooks: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "webhooks": webhooks}


def body(schema: Any = None, **more: Any) -> dict[str, Any]:
    content = {key: more.pop(key) for key in ("example", "examples") if key in more}
    return {
        "post": {
            **more,
            "requestBody": {"content": {"application/json": {"schema": schema, **content}}},
            "responses": {"200": {"description": "ok"}},
        }
    }


def imported(api: Api, path: str, sent: Any, **query: str) -> dict[str, Any]:
    suffix = "?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else ""
    response = api.post(f"{path}/import{suffix}", sent)
    assert response.status_code == 200, response.content
    answer: dict[str, Any] = json.loads(response.content)
    return answer


def type_of(api: Api, path: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(api.get(f"{path}/{name}").content)
    return found


def test_the_export_describes_what_endpoints_receive(api: Api, path: str) -> None:
    api.post(
        path,
        {
            "name": "b.paid",
            "description": "Paid.",
            "group": "Orders",
            "schema": SCHEMA,
            "example": {"amount": 1},
        },
    )
    api.post(path, {"name": "a.made"})
    api.post(f"{path}/a.made/archive")

    exported = json.loads(api.get(f"{path}/openapi.json").content)

    assert exported["openapi"] == "3.1.0"
    assert list(exported["webhooks"]) == ["a.made", "b.paid"]
    assert exported["webhooks"]["a.made"]["post"]["deprecated"] is True
    assert exported["webhooks"]["b.paid"] == {
        "post": {
            "description": "Paid.",
            "tags": ["Orders"],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["type", "timestamp", "data"],
                            "properties": {
                                "type": {"const": "b.paid"},
                                "timestamp": {"type": "string", "format": "date-time"},
                                "data": SCHEMA,
                            },
                        },
                        "example": {
                            "type": "b.paid",
                            "timestamp": "2026-03-01T12:00:00.000000Z",
                            "data": {"amount": 1},
                        },
                    }
                },
            },
            "responses": {"2XX": {"description": "Received."}},
        }
    }


def test_what_went_out_comes_back_in_unchanged(api: Api, path: str) -> None:
    api.post(
        path, {"name": "a", "description": "A", "group": "g", "schema": SCHEMA, "example": {"amount": 1}}
    )
    api.post(path, {"name": "b"})
    api.post(path, {"name": "tree", "schema": {"properties": {"children": {"items": {"$ref": "#"}}}}})
    api.post("/event-types", {"name": "shared.type", "schema": SCHEMA})
    exported = json.loads(api.get(f"{path}/openapi.json").content)

    answer = imported(api, path, exported)
    elsewhere = f"/tenants/{make_tenant().slug}/event-types"
    copied = imported(api, elsewhere, exported)

    assert answer == {
        "dry_run": False,
        "created": [],
        "updated": [],
        "unchanged": ["a", "b", "shared.type", "tree"],
        "changes": [],
    }
    assert (copied["created"], copied["unchanged"]) == (["a", "b", "tree"], ["shared.type"])
    assert type_of(api, elsewhere, "tree")["schema"] == {"properties": {"children": {"items": {"$ref": "#"}}}}
    api.delete("/event-types/shared.type")


def test_importing_makes_changes_and_leaves(api: Api, path: str) -> None:
    api.post(path, {"name": "same", "description": "Same."})
    api.post(path, {"name": "changed", "schema": SCHEMA})
    api.post(path, {"name": "unnamed"})
    optional = {**SCHEMA, "required": []}

    answer = imported(
        api,
        path,
        document(
            same=body(description="Same."),
            changed=body(optional, summary="Now described.", tags=["Orders", "x"]),
            new=body(SCHEMA, example={"amount": 3}),
        ),
    )

    assert answer == {
        "dry_run": False,
        "created": ["new"],
        "updated": ["changed"],
        "unchanged": ["same"],
        "changes": [
            {
                "name": "changed",
                "fields": ["description", "group", "schema"],
                "breaks_consumers": True,
                "schema": [
                    {
                        "path": "amount",
                        "change": "property_optional",
                        "breaks_consumers": True,
                        "message": "amount was always there, and may be missing now.",
                    }
                ],
            }
        ],
    }
    changed, new = type_of(api, path, "changed"), type_of(api, path, "new")
    assert (changed["description"], changed["group"], changed["schema"]) == (
        "Now described.",
        "Orders",
        optional,
    )
    assert (new["schema"], new["example"]) == (SCHEMA, {"amount": 3})
    assert type_of(api, path, "unnamed")["name"] == "unnamed"
    entry = AuditEntry.objects.filter(action="catalogue.imported").order_by("-id")[0]
    assert entry.after == {"created": ["new"], "updated": ["changed"]}


def test_a_dry_run_says_the_same_and_does_nothing(api: Api, path: str) -> None:
    api.post(path, {"name": "a"})
    sent = document(a=body(SCHEMA), b=body())

    dry = imported(api, path, sent, dry_run="true")
    before = type_of(api, path, "a")
    wet = imported(api, path, sent, dry_run="false")

    assert (dry.pop("dry_run"), wet.pop("dry_run")) == (True, False)
    assert dry == wet
    assert before["schema"] is None
    assert (dry["created"], dry["updated"]) == (["b"], ["a"])


def test_one_wrong_type_and_nothing_is_changed(api: Api, path: str) -> None:
    api.post(path, {"name": "a", "description": "old"})
    sent = document(
        a=body(description="new"),
        b=body({"type": "thing"}),
        c=body(SCHEMA, example={"amount": "x"}),
        **{"endpoint.x": body(), "not a name": body()},
    )

    response = api.post(f"{path}/import", sent)

    assert error_codes(response) == [
        ("webhooks.endpoint.x", "reserved"),
        ("webhooks.not a name", "invalid"),
    ]
    del sent["webhooks"]["endpoint.x"], sent["webhooks"]["not a name"]
    assert error_codes(api.post(f"{path}/import", sent)) == [
        ("webhooks.b.schema", "invalid_schema"),
        ("webhooks.c.example.amount", "schema_violation"),
    ]
    assert type_of(api, path, "a")["description"] == "old"
    assert [api.get(f"{path}/{name}").status_code for name in "bc"] == [404, 404]


@pytest.mark.parametrize(
    ("sent", "errors"),
    [
        ([], [("", "invalid_type")]),
        ({}, [("openapi", "invalid"), ("webhooks", "required")]),
        ({"openapi": "3.0.3", "webhooks": {}}, [("openapi", "invalid")]),
        (document(a={}), [("webhooks.a", "invalid")]),
        (document(a=3), [("webhooks.a", "invalid")]),
        (document(a={"post": 3}), [("webhooks.a", "invalid")]),
        (document(a={"post": {"requestBody": 3}}), [("webhooks.a", "invalid")]),
        (
            document(a={"post": {"requestBody": {"content": {"text/plain": {}}}}}),
            [("webhooks.a.requestBody.content", "invalid")],
        ),
        (document(a=body({"$ref": "https://example.com/x"})), [("webhooks.a.schema", "invalid")]),
        (document(a=body({"$ref": "#/components/schemas/X"})), [("webhooks.a.schema", "invalid")]),
        (document(a=body({"items": {"$ref": "#/components/schemas/X"}})), [("webhooks.a.schema", "invalid")]),
        (document(a={"$ref": "#/webhooks/a"}), [("webhooks.a", "invalid")]),
        (document(a=body(example=[1])), [("webhooks.a.example", "invalid_type")]),
        (document(a=body(example={"x": "x" * 65_536})), [("webhooks.a.example", "too_long")]),
        (document(a=body(description="x" * 2001)), [("webhooks.a.description", "too_long")]),
        (
            document(a=body(description=0, tags=[5], deprecated="no")),
            [
                ("webhooks.a.description", "invalid_type"),
                ("webhooks.a.tags.0", "invalid_type"),
                ("webhooks.a.deprecated", "invalid_type"),
            ],
        ),
        (document(a=body(tags={})), [("webhooks.a.tags", "invalid_type")]),
    ],
)
def test_what_is_wrong_with_a_document(api: Api, path: str, sent: Any, errors: list[tuple[str, str]]) -> None:
    assert error_codes(api.post(f"{path}/import", sent)) == errors


def test_only_an_exact_envelope_is_unwrapped(api: Api, path: str) -> None:
    inner = {"type": "object", "title": "inner"}
    exact = {"type": "object", "properties": {"type": {}, "timestamp": {}, "data": inner}}
    more = {"type": "object", "properties": {"type": {}, "timestamp": {}, "data": inner, "id": {}}}
    less = {"type": "object", "properties": {"data": inner}}

    imported(api, path, document(exact=body(exact), more=body(more), less=body(less)))

    assert [type_of(api, path, name)["schema"] for name in ("exact", "more", "less")] == [inner, more, less]


def test_shared_schemas_of_a_document_come_along(api: Api, path: str) -> None:
    sent = document(
        order=body({"$ref": "#/components/schemas/OrderEvent"}),
        pay={"$ref": "#/components/pathItems/Pay"},
    ) | {
        "components": {
            "pathItems": {"Pay": {"post": {"requestBody": {"$ref": "#/components/requestBodies/Pay"}}}},
            "requestBodies": {
                "Pay": {
                    "content": {"application/vnd.pay+json": {"schema": {"$ref": "#/components/schemas/Line"}}}
                }
            },
            "schemas": {
                "OrderEvent": {
                    "type": "object",
                    "properties": {
                        "type": {},
                        "timestamp": {},
                        "data": {"$ref": "#/components/schemas/Order"},
                    },
                },
                "Order": {
                    "type": "object",
                    "properties": {"lines": {"items": {"$ref": "#/components/schemas/Line"}}},
                },
                "Line": {"type": "object", "properties": {"part_of": {"$ref": "#/components/schemas/Line"}}},
                "Unused": {"type": "object"},
            },
        }
    }

    imported(api, path, sent)

    line = {"type": "object", "properties": {"part_of": {"$ref": "#/$defs/Line"}}}
    assert type_of(api, path, "order")["schema"] == {
        "type": "object",
        "properties": {"lines": {"items": {"$ref": "#/$defs/Line"}}},
        "$defs": {"Line": line},
    }
    assert type_of(api, path, "pay")["schema"] == {**line, "$defs": {"Line": line}}


def test_shared_schemas_may_stand_in_a_long_row(api: Api, path: str) -> None:
    sent = document(a=body({"items": {"$ref": "#/components/schemas/0"}})) | {
        "components": {
            "schemas": {
                **{str(n): {"items": {"$ref": f"#/components/schemas/{n + 1}"}} for n in range(500)},
                "500": {"type": "string"},
            }
        }
    }

    imported(api, path, sent)

    schema = type_of(api, path, "a")["schema"]
    assert (len(schema["$defs"]), schema["$defs"]["499"]) == (501, {"items": {"$ref": "#/$defs/500"}})


@pytest.mark.parametrize(
    "shared",
    [
        {"schemas": {"X": {"enum": list(range(20_000))}}},
        {"schemas": {"X": {"$id": "https://example.com/x", "enum": list(range(20_000))}}},
        {"schemas": {"X": {"description": "x" * 320_000}}},
        {"schemas": {"X": {"x" * 320_000: 1}}},
        {"schemas": {"X": {"items": {"$ref": "#/components/schemas/Y"}}, "Y": {"enum": list(range(20_000))}}},
        {"schemas": {"X": {}}, "examples": {"X": {"value": {"a": list(range(20_000))}}}},
    ],
)
def test_what_many_types_share_does_not_unfold_without_end(api: Api, path: str, shared: Any) -> None:
    examples = {"X": {"$ref": "#/components/examples/X"}} if "examples" in shared else None
    # Whether it is wrong otherwise, too, or not.
    types = {
        f"t{n}": body({"$ref": "#/components/schemas/X"}, examples=examples, deprecated=n % 2 == 0 or 1)
        for n in range(40)
    }

    response = api.post(f"{path}/import", document(**types) | {"components": shared})

    assert error_codes(response) == [("webhooks", "too_large")]


@pytest.mark.parametrize(
    "content_type", ["application/yaml", "application/x-yaml", "text/yaml", "application/openapi+yaml"]
)
def test_yaml_is_json_in_another_spelling(api: Api, path: str, content_type: str) -> None:
    sent = b"""
openapi: 3.1.0
info: {title: t, version: 1.0}
webhooks:
  order.made:
    post:
      description: 2026-03-01   # stays a text
      requestBody:
        content:
          application/json:
            schema: {type: object, properties: {on: {enum: [yes, no, 010]}}}
      responses: {200: {description: ok}, 1e100: true, ~: {}}
"""

    response = api.send("POST", f"{path}/import", sent, content_type=content_type)

    assert (response.status_code, json.loads(response.content)["created"]) == (200, ["order.made"])
    made = type_of(api, path, "order.made")
    assert made["description"] == "2026-03-01"
    assert made["schema"] == {"type": "object", "properties": {"on": {"enum": ["yes", "no", 10]}}}


@pytest.mark.parametrize(
    "sent",
    [
        b"a: [",
        b"a: &x [1]\nb: *x",
        b"a: &x 1",
        b"a: !!python/object/apply:os.system ['true']",
        b"a: !!binary aGk=",
        b"[" * 51 + b"]" * 51,
        b"- " * 100_000,
        b"a: \xff",
        b'a: "\\0"',
        b'a: "\\ud800"',
        b"a: .inf\nb: !!float .nan",
        b"? [a, b]\n: c",
        b"a: 1\n---\nb: 2",
        b"a: 1" + b"0" * 400 + b".5e999",
    ],
)
def test_hostile_yaml_is_refused(api: Api, path: str, sent: bytes) -> None:
    response = api.send("POST", f"{path}/import", sent, content_type="application/yaml")

    assert response.status_code in {400, 422}
    if response.status_code == 400:
        assert json.loads(response.content)["code"] == "malformed_yaml"


def test_documents_above_a_mebibyte_are_refused(api: Api, path: str) -> None:
    response = api.send("POST", f"{path}/import", b"#" * (1024 * 1024 + 1), content_type="application/yaml")

    assert response.status_code == 413


def test_the_platforms_catalogue_is_imported_by_operators(api: Api) -> None:
    tenant = make_tenant()
    sent = document(**{"platform.made": body(SCHEMA)})

    refused = tenant_api(tenant).post("/event-types/import", sent)
    answer = imported(api, "/event-types", sent)

    assert (refused.status_code, answer["created"]) == (403, ["platform.made"])
    assert type_of(api, f"/tenants/{tenant.slug}/event-types", "platform.made")["shared"] is True
    assert "platform.made" in json.loads(api.get("/event-types/openapi.json").content)["webhooks"]
    api.delete("/event-types/platform.made")


def test_a_shared_type_that_is_to_look_different_becomes_the_tenants_own(api: Api, path: str) -> None:
    api.post("/event-types", {"name": "platform.type", "description": "ours"})

    answer = imported(api, path, document(**{"platform.type": body(description="mine")}))

    assert (answer["created"], answer["updated"]) == (["platform.type"], [])
    assert type_of(api, path, "platform.type")["shared"] is False
    assert json.loads(api.get("/event-types/platform.type").content)["description"] == "ours"
    api.delete("/event-types/platform.type")
