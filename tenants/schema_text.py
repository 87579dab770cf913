"""A JSON Schema as a table that people read: each field, what it holds, whether it must be there. Pure but for words.

Only what a schema refers to within itself is followed, and only so deep and so far that a page stays a page.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

MOST_FIELDS: Final = 300
MOST_DEPTH: Final = 6
MOST_VALUES: Final = 12
"""Of an enumeration, in a cell."""

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    depth: int
    kind: str
    is_required: bool
    description: str
    rules: list[str]


def fields_of(schema: Schema | None) -> list[Field]:
    """Of `data`, in the order of the schema, each object's own behind it."""
    if not isinstance(schema, dict):
        return []
    fields = []
    for field in _walk(schema, schema, 0, frozenset()):
        fields.append(field)
        if len(fields) == MOST_FIELDS:
            break
    return fields


def _walk(root: Schema, schema: Schema, depth: int, seen: frozenset[str]) -> Iterator[Field]:
    if depth > MOST_DEPTH:
        return
    schema, seen = _followed(root, schema, seen)
    for part in _parts(schema):
        inner, inner_seen = _followed(root, part, seen)
        required = inner.get("required")
        properties = inner.get("properties")
        if not isinstance(properties, dict):
            continue
        for name, given in properties.items():
            field, field_seen = _followed(root, given if isinstance(given, dict) else {}, inner_seen)
            yield Field(
                name=str(name),
                depth=depth,
                kind=_kind(root, field, field_seen),
                is_required=isinstance(required, list) and name in required,
                description=str(field.get("description") or field.get("title") or ""),
                rules=list(_rules(field)),
            )
            below = field.get("items") if isinstance(field.get("items"), dict) else field
            yield from _walk(root, below if isinstance(below, dict) else {}, depth + 1, field_seen)


def _parts(schema: Schema) -> list[Schema]:
    """The schema and what it is put together from."""
    parts = [schema]
    for word in ("allOf", "anyOf", "oneOf"):
        more = schema.get(word)
        if isinstance(more, list):
            parts += [each for each in more if isinstance(each, dict)]
    return parts


def _followed(root: Schema, schema: Schema, seen: frozenset[str]) -> tuple[Schema, frozenset[str]]:
    """What `$ref` means, unless it leads round in a circle."""
    while isinstance(reference := schema.get("$ref"), str):
        if reference in seen or not reference.startswith("#/"):
            return {}, seen
        seen |= {reference}
        found: Any = root
        for step in reference[2:].split("/"):
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        rest = {word: value for word, value in schema.items() if word != "$ref"}
        schema = {**(found if isinstance(found, dict) else {}), **rest}
    return schema, seen


def _kind(root: Schema, schema: Schema, seen: frozenset[str]) -> str:
    names = {
        "string": _("text"),
        "number": _("number"),
        "integer": _("whole number"),
        "boolean": _("true or false"),
        "object": _("object"),
        "array": _("list"),
        "null": _("nothing"),
    }
    kinds = schema.get("type")
    if kinds == "array" and isinstance(schema.get("items"), dict):
        items, _seen = _followed(root, schema["items"], seen)
        lists = {
            "string": _("list of texts"),
            "number": _("list of numbers"),
            "integer": _("list of whole numbers"),
            "object": _("list of objects"),
            "array": _("list of lists"),
        }
        inner = items.get("type")
        if isinstance(inner, str) and inner in lists:
            return lists[inner]
    if isinstance(kinds, str):
        kinds = [kinds]
    if isinstance(kinds, list):
        return _(" or ").join(names.get(str(kind), str(kind)) for kind in kinds)
    if "properties" in schema:
        return names["object"]
    if "enum" in schema or "const" in schema:
        return _("one of a few")
    return _("anything")


def _rules(schema: Schema) -> Iterator[str]:
    if isinstance(schema.get("enum"), list):
        values = [_shown(value) for value in schema["enum"][:MOST_VALUES]]
        yield ", ".join(values) + (", …" if len(schema["enum"]) > MOST_VALUES else "")
    if "const" in schema:
        yield _("always %(value)s") % {"value": _shown(schema["const"])}
    if isinstance(schema.get("format"), str):
        yield schema["format"]
    if isinstance(schema.get("pattern"), str):
        yield _("matches %(pattern)s") % {"pattern": schema["pattern"]}
    texts = {
        "minimum": _("at least %(value)s"),
        "exclusiveMinimum": _("more than %(value)s"),
        "maximum": _("at most %(value)s"),
        "exclusiveMaximum": _("less than %(value)s"),
        "multipleOf": _("a multiple of %(value)s"),
    }
    for word, text in texts.items():
        if isinstance(schema.get(word), int | float):
            yield text % {"value": schema[word]}
    for word, counted in COUNTED.items():
        if isinstance(schema.get(word), int):
            yield counted(schema[word]) % {"value": schema[word]}


COUNTED: Final = {
    "minLength": partial(ngettext, "at least %(value)s character", "at least %(value)s characters"),
    "maxLength": partial(ngettext, "at most %(value)s character", "at most %(value)s characters"),
    "minItems": partial(ngettext, "at least %(value)s entry", "at least %(value)s entries"),
    "maxItems": partial(ngettext, "at most %(value)s entry", "at most %(value)s entries"),
}


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:80]
