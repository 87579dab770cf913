"""Schemas as tables: fields in order, what they hold, what they must be; bounded."""

from typing import Any

import pytest

from tenants.schema_text import MOST_DEPTH, MOST_FIELDS, Field, fields_of


def test_a_schema_as_a_table() -> None:
    schema = {
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": {"type": "string", "description": "Yours.", "maxLength": 20},
            "lines": {
                "type": "array",
                "items": {"type": "object", "properties": {"sku": {"type": ["string", "null"]}}},
            },
            "state": {"enum": ["open", "paid"]},
            "at": {"type": "string", "format": "date-time"},
        },
    }

    assert fields_of(schema) == [
        Field("id", 0, "text", True, "Yours.", ["at most 20 characters"]),
        Field("lines", 0, "list of objects", False, "", []),
        Field("sku", 1, "text or nothing", False, "", []),
        Field("state", 0, "one of a few", False, "", ['"open", "paid"']),
        Field("at", 0, "text", False, "", ["date-time"]),
    ]


def test_references_within_the_schema_are_followed() -> None:
    schema = {
        "properties": {"to": {"$ref": "#/$defs/address"}},
        "$defs": {
            "address": {"type": "object", "title": "Where to", "properties": {"city": {"type": "string"}}}
        },
    }

    assert [(field.name, field.depth, field.description) for field in fields_of(schema)] == [
        ("to", 0, "Where to"),
        ("city", 1, ""),
    ]


CIRCLE: dict[str, Any] = {"properties": {"child": {"$ref": "#"}}}
WIDE: dict[str, Any] = {"properties": {f"f{number}": {} for number in range(MOST_FIELDS * 2)}}
DEEP: dict[str, Any] = {}
for _ in range(MOST_DEPTH * 3):
    DEEP = {"properties": {"deeper": DEEP}}


@pytest.mark.parametrize(
    ("schema", "count"),
    [
        (None, 0),
        ({}, 0),
        (CIRCLE, 1),
        (WIDE, MOST_FIELDS),
        (DEEP, MOST_DEPTH + 1),
        ({"properties": {"a": True}}, 1),
        ({"properties": {"a": {"$ref": "https://elsewhere.example/x"}}}, 1),
        ({"properties": []}, 0),
    ],
    ids=["none", "empty", "circle", "wide", "deep", "true", "elsewhere", "odd"],
)
def test_it_ends_whatever_the_schema_is(schema: dict[str, Any] | None, count: int) -> None:
    assert len(fields_of(schema)) == count
