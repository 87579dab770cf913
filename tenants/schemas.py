"""JSON Schema 2020-12 of event types: compiled once, linear to evaluate, without anything from elsewhere. Pure.

Called when a schema is saved, and by `fan_out` for every publish. A schema comes from a customer, so its cost is judged
before it is compiled: patterns run on the engine without backtracking, and references may not multiply the work
(twenty levels of two references each are a million evaluations; two recursive ones are without end).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema_rs

from tenants.validation import shown

MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_SCHEMA_NODES: Final = 2_000
"""Schemas that one value may meet, references followed. Each costs about 20 ns per value that it applies to."""
MAX_PATTERNS: Final = 100
MAX_PATTERN_BYTES: Final = 512 * 1024
"""Memory of one compiled pattern: `\\w{1000}` in a few letters would take many megabytes."""
MAX_ERRORS: Final = 100

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class InvalidSchema(ValueError):
    """It is no schema, costs too much, or needs something from elsewhere. The message is for the customer."""


@dataclass(frozen=True, slots=True)
class CompiledSchema:
    validator: jsonschema_rs.Draft202012Validator

    def is_valid(self, value: Any) -> bool:
        return self.validator.is_valid(value)

    def errors(self, value: Any) -> list[tuple[str, str]]:
        """(dotted path, message) of what the schema refuses, at most a hundred. Messages do not repeat the value."""
        found = []
        for error in self.validator.iter_errors(value):
            path = ".".join(shown(part) for part in error.instance_path)
            found.append((path, error.message[:500]))
            if len(found) == MAX_ERRORS:
                break
        return found


def compile_schema(schema: Any) -> CompiledSchema:
    """Raises InvalidSchema."""
    if not isinstance(schema, dict):
        raise InvalidSchema("A schema is a JSON object.")
    if len(json.dumps(schema, ensure_ascii=False).encode("utf-8", "surrogatepass")) > MAX_SCHEMA_BYTES:
        raise InvalidSchema(f"A schema may have at most {MAX_SCHEMA_BYTES} bytes.")
    if str(schema.get("$schema", DIALECT)).rstrip("#") != DIALECT:
        raise InvalidSchema(f"$schema must be {DIALECT}, or left out.")
    if sum(_count_patterns(each) for each in objects_in(schema)) > MAX_PATTERNS:
        raise InvalidSchema(f"A schema may have at most {MAX_PATTERNS} patterns.")
    _judge_cost(schema)
    try:
        validator = jsonschema_rs.Draft202012Validator(
            schema, pattern_options=_PATTERNS, offline=True, mask="the value"
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        path = ".".join(str(part) for part in getattr(error, "instance_path", []))
        reason = str(getattr(error, "message", error)).split("\n", 1)[0][:300]
        raise InvalidSchema(f"{path}: {reason}" if path else reason) from None
    return CompiledSchema(validator)


_PATTERNS = jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES, dfa_size_limit=MAX_PATTERN_BYTES)


def _count_patterns(schema: Mapping[str, Any]) -> int:
    inner = schema.get("patternProperties")
    return ("pattern" in schema) + (len(inner) if isinstance(inner, dict) else 0)


# --- what it costs ----------------------------------------------------------------------------------------------------

# Where schemas lie in a schema. Those of the first two groups apply to parts of the value, of which no part meets two
# of the first group; the rest apply to the same value again, or overlap.
_DISJOINT_MAPS = ("properties",)
_DISJOINT = ("items", "additionalProperties")
_DISJOINT_LISTS = ("prefixItems",)
_OTHER_MAPS = ("patternProperties", "dependentSchemas")
_OTHER = (
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "not",
    "if",
    "then",
    "else",
    "contentSchema",
)
_OTHER_LISTS = ("allOf", "anyOf", "oneOf")
_FOREIGN = ("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor")


@dataclass(slots=True)
class _Node:
    """A schema within the schema. `parts`: those for parts of the value, `same`: all others."""

    parts: list[int] = field(default_factory=list)
    same: list[int] = field(default_factory=list)
    # For the search for cycles (Tarjan).
    index: int = -1
    low: int = 0
    group: int = -1
    cost: int = 0


def _judge_cost(schema: dict[str, Any]) -> None:
    """Raise InvalidSchema unless every part of a value meets a bounded number of schemas.

    The schema is taken as a graph. Without cycles its cost is that of the tree it unfolds to. Recursion is fine where
    each part of a value meets the recursive schema once, as in a tree of comments.
    """
    nodes = _nodes_of(schema)
    groups = _groups_of(nodes)
    # Groups come in the order in which nothing refers to a later one.
    for number, group in enumerate(groups):
        total = 0
        for position in group:
            node = nodes[position]
            inner = [other for other in node.parts + node.same if nodes[other].group == number]
            inner_same = [other for other in node.same if nodes[other].group == number]
            if inner_same and len(inner) > 1:
                raise InvalidSchema(
                    "Recursive references must not meet in one value: it could take for ever."
                )
            total += 1 + sum(
                nodes[other].cost for other in node.parts + node.same if nodes[other].group != number
            )
        if len(group) > 1 or group[0] in nodes[group[0]].same + nodes[group[0]].parts:
            _refuse_endless(nodes, group, number)
        if total > MAX_SCHEMA_NODES:
            raise InvalidSchema(
                f"With its references followed, a schema may have at most {MAX_SCHEMA_NODES} parts."
            )
        for position in group:
            nodes[position].cost = total


def _refuse_endless(nodes: list[_Node], group: list[int], number: int) -> None:
    """A cycle that never goes down into the value has no end."""
    for start in group:
        seen = set()
        position: int | None = start
        while position is not None:
            if position in seen:
                raise InvalidSchema("A reference leads back to itself.")
            seen.add(position)
            inner = [other for other in nodes[position].same if nodes[other].group == number]
            # Checked before: a schema has one such way at most.
            position = inner[0] if inner else None


def _nodes_of(root: dict[str, Any]) -> list[_Node]:
    """Every schema that is reached from the root, the root first."""
    anchors = {each["$anchor"]: each for each in objects_in(root) if isinstance(each.get("$anchor"), str)}
    positions = {id(root): 0}
    schemas: list[dict[str, Any]] = [root]
    nodes = [_Node()]

    def position_of(target: dict[str, Any]) -> int:
        if id(target) not in positions:
            positions[id(target)] = len(schemas)
            schemas.append(target)
            nodes.append(_Node())
            if len(schemas) > MAX_SCHEMA_NODES:
                raise InvalidSchema(f"A schema may have at most {MAX_SCHEMA_NODES} parts.")
        return positions[id(target)]

    done = 0
    while done < len(schemas):
        schema, node = schemas[done], nodes[done]
        for keyword in _FOREIGN:
            if keyword in schema:
                raise InvalidSchema(f"{keyword} is not supported.")
        if "$id" in schema and schema is not root:
            raise InvalidSchema("$id is supported at the root alone.")
        node.parts += [position_of(each) for each in _parts(schema)]
        node.same += [position_of(each) for each in _others(schema)]
        if "$ref" in schema and isinstance(target := _resolve(root, anchors, schema["$ref"]), dict):
            node.same.append(position_of(target))
        done += 1
    return nodes


def _parts(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from _found(schema, _DISJOINT_MAPS, _DISJOINT, _DISJOINT_LISTS)


def _others(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from _found(schema, _OTHER_MAPS, _OTHER, _OTHER_LISTS)


def _found(
    schema: Mapping[str, Any], maps: tuple[str, ...], singles: tuple[str, ...], lists: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    for keyword in maps:
        if isinstance(inner := schema.get(keyword), dict):
            yield from (each for each in inner.values() if isinstance(each, dict))
    for keyword in singles:
        if isinstance(inner := schema.get(keyword), dict):
            yield inner
    for keyword in lists:
        if isinstance(inner := schema.get(keyword), list):
            yield from (each for each in inner if isinstance(each, dict))


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """The value itself, and all that are within it, however deep."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            yield current
            waiting += current.values()
        elif isinstance(current, list):
            waiting += current


def _resolve(root: dict[str, Any], anchors: Mapping[str, Any], reference: Any) -> Any:
    """What a reference within the schema refers to. Raises InvalidSchema for one to elsewhere, or to nothing."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise InvalidSchema("$ref must begin with #: schemas are not fetched from elsewhere.")
    pointer = reference[1:]
    if "%" in pointer:
        raise InvalidSchema("$ref must not be percent-encoded.")
    if pointer and not pointer.startswith("/"):
        if pointer not in anchors:
            raise InvalidSchema(f"$ref {shown(reference)} leads to nothing.")
        return anchors[pointer]
    current: Any = root
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(current, dict) and key in current:
            current = current[key]
        elif isinstance(current, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(current):
            current = current[int(key[:9])]
        else:
            raise InvalidSchema(f"$ref {shown(reference)} leads to nothing.")
    return current


def _groups_of(nodes: list[_Node]) -> list[list[int]]:
    """Schemas that refer to each other in circles, each group before those that refer to it. Tarjan's algorithm."""
    groups: list[list[int]] = []
    stack: list[int] = []
    counter = 0
    work: list[tuple[int, Iterator[int]]] = []

    def enter(position: int) -> None:
        nonlocal counter
        nodes[position].index = nodes[position].low = counter
        counter += 1
        stack.append(position)
        work.append((position, iter(nodes[position].parts + nodes[position].same)))

    enter(0)
    while work:
        position, others = work[-1]
        node = nodes[position]
        for other in others:
            if nodes[other].index == -1:
                enter(other)
                break
            if nodes[other].group == -1:
                node.low = min(node.low, nodes[other].index)
        else:
            work.pop()
            if work:
                parent = nodes[work[-1][0]]
                parent.low = min(parent.low, node.low)
            if node.low == node.index:
                group: list[int] = []
                while not group or group[-1] != position:
                    group.append(stack.pop())
                    nodes[group[-1]].group = len(groups)
                groups.append(group)
    return groups
