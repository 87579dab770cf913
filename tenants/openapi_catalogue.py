"""An event catalogue as an OpenAPI 3.1 document with a `webhooks` section, out and in. Pure.

What goes out comes back in unchanged. Coming in, a document may also be somebody else's: bodies with or without our
envelope, schemas shared through `components`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tenants import validation
from tenants.schemas import DIALECT, objects_in
from tenants.validation import Collector, Invalid, InvalidContent

ENVELOPE: Final = {"type", "timestamp", "data"}
"""The fields of a body in the format `standard`."""

ID_PREFIX: Final = "urn:event-type:"
"""`$id` of a schema that refers to itself, so that its `#/…` means itself and not the document."""

COMPONENTS: Final = "#/components/schemas/"

MAX_UNFOLDED: Final = 500_000
"""Values of a document's schemas and examples, shared ones counted wherever they are used, and long texts as several. One
mebibyte could unfold to gigabytes otherwise."""
CHARACTERS_PER_VALUE: Final = 16


@dataclass(frozen=True, slots=True)
class Described:
    """An event type as a document describes it."""

    name: str
    description: str = ""
    group: str = ""
    schema: dict[str, Any] | None = None
    example: dict[str, Any] | None = None
    is_archived: bool = False


@dataclass(slots=True)
class _Room:
    """What a document may still unfold to."""

    left: int = MAX_UNFOLDED

    def take(self, value: Any) -> None:
        """One value, without those within it."""
        characters = 0
        if isinstance(value, str):
            characters = len(value)
        elif isinstance(value, dict):
            characters = sum(map(len, value))
        self.left -= 1 + characters // CHARACTERS_PER_VALUE


# --- out --------------------------------------------------------------------------------------------------------------


def write_document(*, title: str, version: str, types: Iterable[Described]) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "jsonSchemaDialect": DIALECT,
        "webhooks": {each.name: {"post": _operation(each)} for each in types},
    }


def _operation(each: Described) -> dict[str, Any]:
    content: dict[str, Any] = {
        "schema": {
            "type": "object",
            "required": ["type", "timestamp", "data"],
            "properties": {
                "type": {"const": each.name},
                "timestamp": {"type": "string", "format": "date-time"},
                "data": _identified(each.name, each.schema or {}),
            },
        }
    }
    if each.example is not None:
        content["example"] = {
            "type": each.name,
            "timestamp": "2026-03-01T12:00:00.000000Z",
            "data": each.example,
        }
    operation: dict[str, Any] = {"description": each.description} if each.description else {}
    if each.group:
        operation["tags"] = [each.group]
    if each.is_archived:
        operation["deprecated"] = True
    return operation | {
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {"2XX": {"description": "Received."}},
    }


def _identified(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if "$id" in schema or not any("$ref" in each for each in objects_in(schema)):
        return schema
    return {"$id": f"{ID_PREFIX}{name}", **schema}


# --- in ---------------------------------------------------------------------------------------------------------------


def read_document(document: Any) -> list[Described]:
    """What a document describes. Raises InvalidContent, which names everything that is wrong."""
    wrong = Collector()
    if not isinstance(document, dict):
        raise Invalid("invalid_type", "Must be an OpenAPI document, an object.")
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith(("3.1", "3.2")):
        wrong.add("openapi", "invalid", "Must be 3.1: earlier versions have no webhooks.")
    webhooks = document.get("webhooks")
    if not isinstance(webhooks, dict):
        wrong.add("webhooks", "required", "Must be an object with a path item for each event type.")
        webhooks = {}
    types = []
    room = _Room()
    for name, item in webhooks.items():
        if room.left < 0:
            raise Invalid(
                "too_large", "Its schemas, with what they share, are too large together.", at="webhooks"
            )
        field = f"webhooks.{validation.shown(name)}"
        if wrong.check(field, validation.catalogue_event_type_name, name) is None:
            continue
        try:
            types.append(_described(name, item, document, room))
        except InvalidContent as invalid:
            wrong.take(field, invalid)
    wrong.done()
    return types


def _described(name: str, item: Any, document: dict[str, Any], room: _Room) -> Described:
    item = _follow(item, document)
    operation = next((item[method] for method in ("post", "put", "get") if method in item), None)
    if not isinstance(operation, dict):
        raise Invalid("invalid", "Must have an operation: post, put or get.")
    content = _content(operation, document)
    wrong = Collector()
    descriptions = (operation.get("description"), operation.get("summary"), item.get("description"))
    description = next((each for each in descriptions if each is not None and each != ""), "")
    described = Described(
        name=name,
        description=wrong.check("description", validation.description, description) or "",
        group=wrong.check("tags", _group_of, operation.get("tags")) or "",
        schema=wrong.check("schema", lambda value: _schema(value, document, room), content.get("schema")),
        example=wrong.check("example", lambda _: _example(content, document, room), content),
        is_archived=wrong.check("deprecated", validation.boolean, operation.get("deprecated", False))
        or False,
    )
    wrong.done()
    return described


def group(value: object) -> str:
    return validation.text(value, high=128)


MAX_EXAMPLE_BYTES: Final = 64 * 1024


def example(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be a JSON object.")
    if len(msgspec.json.encode(value)) > MAX_EXAMPLE_BYTES:
        raise Invalid("too_long", f"Must have at most {MAX_EXAMPLE_BYTES} bytes.")
    return value


MAX_TAGS = 100


def _group_of(tags: object) -> str:
    """The first tag."""
    return next(iter(validation.list_of(tags, group, high=MAX_TAGS)), "") if tags is not None else ""


def _content(operation: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The JSON body of an operation; empty if it has none."""
    if "requestBody" not in operation:
        return {}
    body = _follow(operation["requestBody"], document)
    content = body.get("content")
    if not isinstance(content, dict):
        raise Invalid("invalid", "Must be an object.", at="requestBody.content")
    for media_type, described in content.items():
        if media_type.partition(";")[0].strip().endswith("json") and isinstance(described, dict):
            return described
    raise Invalid("invalid", "Must have a JSON body.", at="requestBody.content")


def _schema(value: Any, document: dict[str, Any], room: _Room) -> dict[str, Any] | None:
    """The schema of `data`, complete in itself; None if anything goes."""
    if value is None or value is True:
        return None
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be a schema, an object.")
    value = _follow(value, document)
    properties = value.get("properties")
    if isinstance(properties, dict) and properties.keys() == ENVELOPE:
        value = properties["data"]
        if value is True:
            return None
        if not isinstance(value, dict):
            raise Invalid("invalid_type", "data must be a schema, an object.")
        value = _follow(value, document)
    bundled = _bundled(value, document, room)
    if str(bundled.get("$id", "")).startswith(ID_PREFIX):
        del bundled["$id"]
    return bundled or None


def _example(content: dict[str, Any], document: dict[str, Any], room: _Room) -> dict[str, Any] | None:
    value = content.get("example")
    examples = content.get("examples")
    if value is None and isinstance(examples, dict) and examples:
        first = _follow(next(iter(examples.values())), document)
        value = first.get("value")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be an object.")
    if value.keys() == ENVELOPE:
        value = value["data"]
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "data must be an object.")
    waiting: list[Any] = [value]
    while waiting:
        current = waiting.pop()
        room.take(current)
        if isinstance(current, dict):
            waiting += current.values()
        elif isinstance(current, list):
            waiting += current
    return example(value)


def _bundled(schema: dict[str, Any], document: dict[str, Any], room: _Room) -> dict[str, Any]:
    """A copy in which shared schemas of the document have become `$defs` of its own."""
    # One with an `$id` is a resource of its own: its references mean itself.
    is_closed = "$id" in schema
    defs: dict[str, Any] = {}
    waiting: list[str] = []

    def walk(value: Any) -> Any:
        room.take(value)
        if isinstance(value, list):
            return [walk(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        copied = {key: walk(entry) for key, entry in value.items()}
        reference = copied.get("$ref")
        if not is_closed and isinstance(reference, str) and reference.startswith(COMPONENTS):
            name, slash, rest = reference.removeprefix(COMPONENTS).partition("/")
            if name not in defs:
                defs[name] = {}
                waiting.append(name)
            copied["$ref"] = f"#/$defs/{name}{slash}{rest}"
        return copied

    bundled: dict[str, Any] = walk(schema)
    while waiting:
        # One after the other: each may refer to the next, a thousand times.
        name = waiting.pop()
        found = _components(document).get(name.replace("~1", "/").replace("~0", "~"))
        if not isinstance(found, dict | bool):
            raise Invalid("invalid", f"$ref {validation.shown(COMPONENTS + name)} leads to nothing.")
        defs[name] = walk(found)
    if defs:
        own = bundled.get("$defs")
        bundled["$defs"] = (own if isinstance(own, dict) else {}) | {
            name.replace("~1", "/").replace("~0", "~"): value for name, value in defs.items()
        }
    return bundled


def _components(document: dict[str, Any]) -> dict[str, Any]:
    components = document.get("components")
    schemas = components.get("schemas") if isinstance(components, dict) else None
    return schemas if isinstance(schemas, dict) else {}


def _follow(value: Any, document: dict[str, Any]) -> dict[str, Any]:
    """What an object that is nothing but a reference into the document refers to. Ten steps at most."""
    for _ in range(10):
        if not isinstance(value, dict):
            break
        if "$ref" not in value or value.keys() - {"$ref", "summary", "description"}:
            return value
        value = _pointed(value["$ref"], document)
    raise Invalid("invalid", "Must be an object, or a reference to one in this document.")


def _pointed(reference: Any, document: dict[str, Any]) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise Invalid("invalid", "$ref must begin with #/: nothing is fetched from elsewhere.")
    current: Any = document
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(current, dict) or key not in current:
            raise Invalid("invalid", f"$ref {validation.shown(reference)} leads to nothing.")
        current = current[key]
    return current
