"""Numbers without measure and times at the ends of the calendar, in every field and parameter that takes one."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from django.conf import settings

from tests.support.api import Api, make_tenant, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")

NUMBERS: Final = (10**309, -(10**309), 10**398, 1e308, -1e308, 5e-324, 2**63, -(2**63) - 1)
TIMES: Final = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "0001-01-01T00:00:00-23:59",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.5Z",
    "9999-12-31T23:59:59-01:00",
)

DOCUMENT: Final = json.loads((Path(settings.BASE_DIR) / "docs" / "openapi.json").read_text())


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def values_for(schema: dict[str, Any]) -> tuple[Any, ...]:
    kinds = schema.get("type")
    if {"integer", "number"} & set(kinds if isinstance(kinds, list) else [kinds]):
        return NUMBERS
    return TIMES if schema.get("format") == "date-time" else ()


def fields(schema: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The path of every number and time below a schema, with what to try there."""
    schema = resolved(schema)
    if values := values_for(schema):
        yield path, values
    for name, inner in schema.get("properties", {}).items():
        yield from fields(inner, (*path, name))
    if "items" in schema:
        yield from fields(schema["items"], (*path, 0))
    for inner in [*schema.get("oneOf", []), *schema.get("anyOf", []), *schema.get("allOf", [])]:
        yield from fields(inner, path)


def placed(value: Any, path: tuple[str | int, ...], whole: Any) -> Any:
    """A copy of `whole` with the value at this place, which need not be there yet."""
    if not path:
        return value
    step = path[0]
    if isinstance(step, int):
        return [placed(value, path[1:], whole[step] if isinstance(whole, list) and whole else None)]
    changed = copy.deepcopy(whole) if isinstance(whole, dict) else {}
    changed[step] = placed(value, path[1:], changed.get(step))
    return changed


BODIES: Final = [
    (method, path, content)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    if (content := operation.get("requestBody", {}).get("content", {}).get("application/json"))
    and list(fields(content["schema"]))
]
PARAMETERS: Final = [
    (path, parameter["name"], values)
    for path, operations in DOCUMENT["paths"].items()
    for parameter in operations.get("get", {}).get("parameters", [])
    if parameter["in"] == "query" and (values := values_for(parameter["schema"]))
]


def test_there_are_such_fields_and_parameters() -> None:
    assert len(BODIES) > 15
    assert len(PARAMETERS) > 8


def made(api: Api, path: str, body: Any) -> str:
    response = api.post(path, body)
    assert response.status_code < 300, response.content
    return str(json.loads(response.content)["id"])


def stage() -> tuple[Api, dict[str, str]]:
    """An operator's key, and a tenant with one of each thing that a path with such a field names."""
    tenant = make_tenant()
    api, path = operator_api(), f"/tenants/{tenant.slug}"
    api.post(f"{path}/event-types", {"name": "order.created"})
    endpoint = made(api, f"{path}/endpoints", {"url": "https://example.com"})
    event = made(api, f"{path}/events", {"type": "order.created", "data": {}})
    delivery = json.loads(api.get(f"{path}/deliveries").content)["data"][0]["id"]
    return api, {
        "tenant": tenant.slug,
        "endpoint": endpoint,
        "event": event,
        "delivery": delivery,
        "source": made(api, f"{path}/sources", {"name": "s", "event_type": '"order.created"'}),
    }


def example_of(content: dict[str, Any]) -> Any:
    examples = [example["value"] for example in content.get("examples", {}).values()]
    return (examples or [content.get("example") or {}])[0]


@pytest.mark.parametrize(("method", "path", "content"), BODIES, ids=lambda value: str(value)[:80])
def test_fields_of_bodies(method: str, path: str, content: dict[str, Any]) -> None:
    api, names = stage()
    example = example_of(content)
    target = path.removeprefix("/api/v1").format_map(names)

    answers = {
        (place, value): api.send(method.upper(), target, placed(value, place, example)).status_code
        for place, values in fields(content["schema"])
        for value in values
    }

    assert {key: status for key, status in answers.items() if status >= 500} == {}


@pytest.mark.parametrize(("path", "name", "values"), PARAMETERS)
def test_query_parameters(path: str, name: str, values: tuple[Any, ...]) -> None:
    api, names = stage()
    target = path.removeprefix("/api/v1").format_map(names)

    answers = {value: api.get(target, **{name: value}).status_code for value in values}

    assert {value: status for value, status in answers.items() if status not in {200, 422}} == {}


@pytest.mark.parametrize("at", [time for time in TIMES if time.endswith("Z") or "-23" in time])
def test_an_event_of_such_a_time_is_accepted_and_read_as_it_came(at: str) -> None:
    tenant = make_tenant()
    api, path = tenant_api(tenant), f"/tenants/{tenant.slug}"
    api.post(f"{path}/event-types", {"name": "order.created"})

    event = api.post(f"{path}/events", {"type": "order.created", "data": {}, "occurred_at": at})
    shown = json.loads(event.content)
    one = api.get(f"{path}/events/{shown['id']}")
    listed = api.get(f"{path}/events")

    assert (event.status_code, one.status_code, listed.status_code) == (202, 200, 200)
    assert json.loads(one.content)["occurred_at"] == shown["occurred_at"]
    assert [row["occurred_at"] for row in json.loads(listed.content)["data"]] == [shown["occurred_at"]]
