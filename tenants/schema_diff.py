"""What changed between two schemas of an event type, and what of it breaks those who receive the events. Pure.

A receiver was written against the old schema: it breaks when events may now lack what was promised, or hold what was
excluded. Adding an optional property breaks nobody who ignores what they do not know.
"""

from dataclasses import dataclass
from typing import Any, Final

from tenants.said import said, said_of

MAX_CHANGES: Final = 500


@dataclass(frozen=True, slots=True)
class Change:
    path: str
    """Dotted path in the data; `[]` for the entries of a list. Empty: the whole."""
    change: str
    breaks_consumers: bool
    message: str


def compare(old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Change]:
    """The differences, at most 500, in the order of the paths."""
    changes: list[Change] = []
    if old is None and new is None:
        return changes
    if old is None:
        return [Change("", "schema_added", False, said("Events now keep a schema."))]
    if new is None:
        return [
            Change("", "schema_removed", True, said("Events keep no schema any more: anything may come."))
        ]
    _compare("", old, new, changes)
    return sorted(changes[:MAX_CHANGES], key=lambda change: change.path)


def _compare(path: str, old: Any, new: Any, changes: list[Change]) -> None:
    if old == new or len(changes) >= MAX_CHANGES:
        return
    if not isinstance(old, dict) or not isinstance(new, dict):
        changes.append(Change(path, "schema_changed", new is not False, said("Another schema holds here.")))
        return
    _compare_types(path, old, new, changes)
    _compare_values(path, old, new, changes)
    _compare_required(path, old, new, changes)
    _compare_properties(path, old, new, changes)
    if "items" in old or "items" in new:
        _compare(f"{path}[]", old.get("items", {}), new.get("items", {}), changes)
    _compare_bounds(path, old, new, changes)
    for keyword in sorted((old.keys() | new.keys()) - _HANDLED - _ANNOTATIONS):
        if old.get(keyword) != new.get(keyword):
            message = said("%(name)s changed: see whether receivers rely on it.", name=keyword)
            changes.append(Change(path, f"{keyword}_changed", True, message))


def _types(schema: dict[str, Any]) -> set[str] | None:
    """None: any."""
    given = schema.get("type")
    if given is None:
        return None
    types = {given} if isinstance(given, str) else set(given)
    return types | {"integer"} if "number" in types else types


def _compare_types(path: str, old: dict[str, Any], new: dict[str, Any], changes: list[Change]) -> None:
    before, after = _types(old), _types(new)
    if before == after:
        return
    breaks = before is not None and (after is None or not after <= before)
    message = said("The type was %(before)s, and is %(after)s now.", before=_shown(old), after=_shown(new))
    changes.append(Change(path, "type_changed", breaks, message))


def _shown(schema: dict[str, Any]) -> str:
    given = schema.get("type", "any")
    return given if isinstance(given, str) else " or ".join(given)


def _compare_values(path: str, old: dict[str, Any], new: dict[str, Any], changes: list[Change]) -> None:
    before, after = _values(old), _values(new)
    if before == after:
        return
    if before is None:
        changes.append(Change(path, "enum_added", False, said("Only listed values come now.")))
    elif after is None:
        changes.append(Change(path, "enum_removed", True, said("Values that were not listed may come now.")))
    else:
        if added := [value for value in after if value not in before]:
            message = said_of(
                "%(number)d more value may come.", "%(number)d more values may come.", len(added)
            )
            changes.append(Change(path, "enum_widened", True, message))
        if removed := [value for value in before if value not in after]:
            message = said_of(
                "%(number)d value comes no more.", "%(number)d values come no more.", len(removed)
            )
            changes.append(Change(path, "enum_narrowed", False, message))


def _values(schema: dict[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values


def _compare_required(path: str, old: dict[str, Any], new: dict[str, Any], changes: list[Change]) -> None:
    before, after = set(old.get("required", [])), set(new.get("required", []))
    for name in sorted(before - after):
        message = said("%(name)s was always there, and may be missing now.", name=name)
        changes.append(Change(_below(path, name), "property_optional", True, message))
    for name in sorted(after - before):
        message = said("%(name)s is always there now; publishers must send it.", name=name)
        changes.append(Change(_below(path, name), "property_required", False, message))


def _compare_properties(path: str, old: dict[str, Any], new: dict[str, Any], changes: list[Change]) -> None:
    before, after = old.get("properties", {}), new.get("properties", {})
    changes += [
        Change(
            _below(path, name),
            "property_removed",
            True,
            said("%(name)s is not described any more.", name=name),
        )
        for name in sorted(before.keys() - after.keys())
    ]
    changes += [
        Change(_below(path, name), "property_added", False, said("%(name)s is new.", name=name))
        for name in sorted(after.keys() - before.keys())
    ]
    for name in sorted(before.keys() & after.keys()):
        _compare(_below(path, name), before[name], after[name], changes)


_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def _compare_bounds(path: str, old: dict[str, Any], new: dict[str, Any], changes: list[Change]) -> None:
    for keyword in (*_LOWER, *_UPPER):
        before, after = old.get(keyword), new.get(keyword)
        if before == after:
            continue
        is_wider = before is not None and (
            after is None or (after < before if keyword in _LOWER else after > before)
        )
        message = said(
            "%(name)s was %(before)s, and is %(after)s now.",
            name=keyword,
            before=_bound(before),
            after=_bound(after),
        )
        changes.append(Change(path, f"{keyword}_changed", is_wider, message))


def _bound(value: Any) -> str:
    return said("not set") if value is None else str(value)[:40]


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


_HANDLED: Final = {"type", "enum", "const", "required", "properties", "items", *_LOWER, *_UPPER}
_ANNOTATIONS: Final = {
    "title",
    "description",
    "examples",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "$schema",
    "$id",
}
