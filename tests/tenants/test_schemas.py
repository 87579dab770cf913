"""Schemas of customers: compiled once, bounded in cost, with nothing from elsewhere."""

import time
from typing import Any

import pytest

from tenants.schemas import InvalidSchema, compile_schema

REF: dict[str, Any] = {"$ref": "#"}


def doubling(levels: int) -> dict[str, Any]:
    """Each level refers twice to the next: 2 to the power of `levels` evaluations of one value."""
    twice = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]}
        for level in range(levels)
    }
    return {"$defs": {**twice, f"d{levels}": {}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (True, "A schema is a JSON object."),
        ([], "A schema is a JSON object."),
        ({"title": "x" * 66_000}, "A schema may have at most 65536 bytes."),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema must be"),
        ({"$schema": 7}, "$schema must be"),
        ({"type": "thing"}, "type: "),
        ({"minimum": "1"}, "minimum: "),
        ({"properties": {"a": {"pattern": "("}}}, "properties.a.pattern: "),
        ({"pattern": "(?=a)b"}, "pattern: "),
        ({"pattern": r"(a)\1"}, "pattern: "),
        (
            {"properties": {f"p{n}": {"pattern": "a"} for n in range(101)}},
            "A schema may have at most 100 patterns.",
        ),
        ({"$ref": "https://example.com/s.json"}, "$ref must begin with #"),
        ({"$ref": "file:///etc/passwd"}, "$ref must begin with #"),
        ({"$ref": "other.json"}, "$ref must begin with #"),
        ({"items": {"$ref": "#/$defs/none"}}, "$ref #/$defs/none leads to nothing."),
        ({"$ref": "#anchor"}, "$ref #anchor leads to nothing."),
        (
            {"$defs": {"a": {"$id": "https://example.com/a"}}, "$ref": "#/$defs/a"},
            "$id is supported at the root alone.",
        ),
        ({"$dynamicRef": "#x"}, "$dynamicRef is not supported."),
        (REF, "A reference leads back to itself."),
        ({"allOf": [REF]}, "A reference leads back to itself."),
        (doubling(30), "With its references followed, a schema may have at most 2000 parts."),
        (
            {"anyOf": [{"properties": {"a": REF}}, {"properties": {"a": REF}}]},
            "Recursive references must not meet in one value",
        ),
        ({"items": REF, "contains": REF}, "Recursive references must not meet in one value"),
        ({"properties": {"a": REF}, "patternProperties": {"a": REF}}, "Recursive references must not meet"),
    ],
)
def test_what_is_refused(schema: Any, says: str) -> None:
    started = time.thread_time()

    with pytest.raises(InvalidSchema) as refused:
        compile_schema(schema)

    assert str(refused.value).startswith(says)
    assert time.thread_time() - started < 1


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, {"a": 1}, None),
        ({"type": "object", "required": ["a"]}, {"a": 1}, {}),
        ({"properties": {"a": {"pattern": "^a+$"}}}, {"a": "aa"}, {"a": "ab"}),
        ({"prefixItems": [{"type": "string"}], "items": False}, ["a"], ["a", 1]),
        (
            {"properties": {"children": {"items": REF}, "n": {"type": "integer"}}},
            {"children": [{"n": 1}]},
            {"children": [{"n": "1"}]},
        ),
        (
            {"anyOf": [{"type": "null"}, {"properties": {"next": REF}, "type": "object"}]},
            {"next": {"next": None}},
            {"next": 3},
        ),
        ({"$defs": {"x": {"$anchor": "here", "type": "string"}}, "$ref": "#here"}, "a", 1),
        ({"$defs": {"a/b": {"type": "string"}}, "$ref": "#/$defs/a~1b"}, "a", 1),
        ({"$id": "urn:mine", "$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"}, "a", 1),
        (doubling(5), 1, None),
    ],
)
def test_what_is_taken(schema: Any, good: Any, bad: Any) -> None:
    compiled = compile_schema(schema)

    assert compiled.is_valid(good)
    assert compiled.errors(good) == []
    if bad is not None:
        assert not compiled.is_valid(bad)


def test_errors_name_the_place_and_keep_the_value_to_themselves() -> None:
    compiled = compile_schema(
        {"properties": {"a": {"properties": {"b": {"items": {"type": "integer"}}}}}, "required": ["z"]}
    )

    errors = compiled.errors({"a": {"b": [1, "secret", 3]}})

    assert errors == [("", '"z" is a required property'), ("a.b.1", 'the value is not of type "integer"')]


def test_at_most_a_hundred_errors_are_named() -> None:
    compiled = compile_schema({"items": {"type": "integer"}})

    assert len(compiled.errors(["x"] * 1000)) == 100


def test_a_pattern_that_would_backtrack_for_ever_does_not() -> None:
    compiled = compile_schema({"pattern": "^(a+)+$"})
    started = time.thread_time()

    assert not compiled.is_valid("a" * 50_000 + "b")

    assert time.thread_time() - started < 0.5
