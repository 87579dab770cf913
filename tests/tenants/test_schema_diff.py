"""What a changed schema means for those who receive the events."""

from typing import Any

import pytest

from tenants.schema_diff import compare

TEXT = {"type": "string"}


def obj(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


@pytest.mark.parametrize(
    ("case", "old", "new", "expected"),
    [
        ("nothing", obj(a=TEXT), obj(a=TEXT), []),
        ("words alone", obj(a=TEXT), obj(a={**TEXT, "description": "x"}), []),
        ("no schema before or after", None, None, []),
        ("the first schema", None, obj(), [("", "schema_added", False)]),
        ("the end of the schema", obj(), None, [("", "schema_removed", True)]),
        ("a new property", obj(), obj(a=TEXT), [("a", "property_added", False)]),
        ("a property gone", obj(a=TEXT), obj(), [("a", "property_removed", True)]),
        ("no longer promised", obj(["a"], a=TEXT), obj(a=TEXT), [("a", "property_optional", True)]),
        ("now promised", obj(a=TEXT), obj(["a"], a=TEXT), [("a", "property_required", False)]),
        ("another type", obj(a=TEXT), obj(a={"type": "integer"}), [("a", "type_changed", True)]),
        ("now also null", obj(a=TEXT), obj(a={"type": ["string", "null"]}), [("a", "type_changed", True)]),
        ("no longer null", obj(a={"type": ["string", "null"]}), obj(a=TEXT), [("a", "type_changed", False)]),
        (
            "number to integer",
            obj(a={"type": "number"}),
            obj(a={"type": "integer"}),
            [("a", "type_changed", False)],
        ),
        (
            "integer to number",
            obj(a={"type": "integer"}),
            obj(a={"type": "number"}),
            [("a", "type_changed", True)],
        ),
        ("any type at all", obj(a=TEXT), obj(a={}), [("a", "type_changed", True)]),
        ("more values", obj(a={"enum": [1]}), obj(a={"enum": [1, 2]}), [("a", "enum_widened", True)]),
        ("fewer values", obj(a={"enum": [1, 2]}), obj(a={"enum": [1]}), [("a", "enum_narrowed", False)]),
        (
            "other values",
            obj(a={"const": 1}),
            obj(a={"const": 2}),
            [("a", "enum_widened", True), ("a", "enum_narrowed", False)],
        ),
        ("values listed", obj(a=TEXT), obj(a={**TEXT, "enum": ["x"]}), [("a", "enum_added", False)]),
        ("values free", obj(a={**TEXT, "enum": ["x"]}), obj(a=TEXT), [("a", "enum_removed", True)]),
        ("a wider bound", obj(a={"maximum": 1}), obj(a={"maximum": 2}), [("a", "maximum_changed", True)]),
        (
            "a narrower bound",
            obj(a={"minLength": 1}),
            obj(a={"minLength": 2}),
            [("a", "minLength_changed", False)],
        ),
        ("a bound gone", obj(a={"maxItems": 3}), obj(a={}), [("a", "maxItems_changed", True)]),
        (
            "deep in lists",
            obj(a={"items": obj(b=TEXT)}),
            obj(a={"items": obj()}),
            [("a[].b", "property_removed", True)],
        ),
        (
            "what we cannot judge",
            obj(a={"pattern": "a"}),
            obj(a={"pattern": "b"}),
            [("a", "pattern_changed", True)],
        ),
        ("true to object", obj(a=True), obj(a=TEXT), [("a", "schema_changed", True)]),
        ("now never", obj(a=TEXT), obj(a=False), [("a", "schema_changed", False)]),
    ],
)
def test_changes(case: str, old: Any, new: Any, expected: list[tuple[str, str, bool]]) -> None:
    assert [
        (change.path, change.change, change.breaks_consumers) for change in compare(old, new)
    ] == expected, case


def test_thousands_of_changes_are_cut() -> None:
    old = obj() | {"properties": {f"p{number}": TEXT for number in range(2000)}}

    assert len(compare(old, obj())) == 500
