"""YAML as far as it is JSON in another spelling. Pure. The catalogue import reads documents with it.

No aliases (nine lines of them unfold to gigabytes), no tags, no dates, no `yes` that means true: texts, numbers, true,
false, null, lists and objects. The safe loader, in C.
"""

import math
import re
from typing import Any, Final

import yaml

from tenants.validation import SURROGATE

MAX_DEPTH: Final = 50


class MalformedYaml(ValueError):
    """Not YAML, or more than JSON could say. The message is for the client."""


class _Loader(yaml.CSafeLoader):
    """Knows only what JSON knows: its resolvers are set below."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Keys are texts, however they look: `200:` is "200"."""
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return dict(super().construct_mapping(node, deep))


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]{1,400}", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]{1,400}|[0-9]{1,400}(?:\.[0-9]{0,400})?)(?:[eE][-+]?[0-9]{1,3})?",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def _int(loader: yaml.CSafeLoader, node: Any) -> int:
    """As YAML 1.2 and JSON have it: 010 is ten."""
    return int(str(loader.construct_scalar(node)))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def loads(body: bytes) -> Any:
    """Raises MalformedYaml."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedYaml(f"The body is not UTF-8: byte {error.start} is wrong.") from None
    try:
        _check_events(text)
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, narrowed further
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        if isinstance(error, MalformedYaml):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise MalformedYaml(f"{getattr(error, 'problem', None) or 'The body is not YAML'}{where}.") from None
    return _plain(value)


def _check_events(text: str) -> None:
    """Before anything is built: no aliases, no tags, not too deep."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        where = f"in line {event.start_mark.line + 1}" if event.start_mark else "somewhere"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise MalformedYaml(f"Anchors and aliases are not taken, {where}.")
        if getattr(event, "tag", None) not in {None, "!"}:
            raise MalformedYaml(f"Tags are not taken, {where}.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedYaml(f"It must not nest deeper than {MAX_DEPTH} levels, {where}.")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _plain(value: Any) -> Any:
    """Numbers are finite, texts have neither NUL nor lone surrogates."""
    if isinstance(value, dict):
        return {_text(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise MalformedYaml("Numbers must be finite.")
    return value


def _text(text: str) -> str:
    if "\x00" in text or SURROGATE.search(text):
        raise MalformedYaml("Texts must not contain the NUL character or half of a surrogate pair.")
    return text
