"""Query parameters: declared per view and method, read before the view runs; unknown and wrong ones are named at once."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from django.http import QueryDict

from tenants import ids, validation
from tenants.api import problems
from tenants.paging import CURSOR_OF_IDS
from tenants.validation import Collector, Invalid

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    rule: Callable[[object], Any]
    """From the text to the value, raising Invalid."""
    description: str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})
    default: Any = None


def read(given: QueryDict, parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Every declared parameter by name, with its default if it is not given. Raises a 422 that names all wrong ones."""
    declared = {parameter.name: parameter for parameter in parameters}
    values = {name: parameter.default for name, parameter in declared.items()}
    wrong = Collector()
    for name, texts in given.lists():
        if name not in declared:
            wrong.add(validation.shown(name), "unknown_parameter", "There is no such parameter.")
        elif len(texts) > 1:
            wrong.add(name, "repeated", "Must be given once.")
        else:
            values[name] = wrong.check(name, declared[name].rule, texts[0])
    if wrong.errors:
        raise problems.invalid(wrong.errors)
    return values


# --- rules for texts --------------------------------------------------------------------------------------------------

_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)


def whole_number(*, low: int, high: int) -> Callable[[object], int]:
    def rule(value: object) -> int:
        if not isinstance(value, str) or not _DIGITS.fullmatch(value):
            raise Invalid("invalid_type", "Must be a whole number.")
        return validation.whole_number(int(value), low=low, high=high)

    return rule


def boolean(value: object) -> bool:
    if value not in {"true", "false"}:
        raise Invalid("invalid_type", "Must be true or false.")
    return value == "true"


def choice(*choices: str) -> Callable[[object], str]:
    return lambda value: validation.choice(value, choices)


def id_of(prefix: str) -> Callable[[object], Any]:
    """An id as text, to its UUID."""

    def rule(value: object) -> Any:
        try:
            return ids.from_text(prefix, str(value))
        except ids.InvalidId:
            raise Invalid("invalid_id", f"Must be an id that begins with {prefix}_.") from None

    return rule


def _cursor(value: object) -> str:
    # Judged by pagination, which knows the keys of the list.
    return str(value)


LIMIT = Parameter(
    "limit",
    whole_number(low=1, high=250),
    "How many to give at most.",
    {"type": "integer", "minimum": 1, "maximum": 250, "default": 50},
    default=50,
)
CURSOR = Parameter(
    "cursor",
    _cursor,
    "`next_cursor` or `prev_cursor` of an earlier reply, as it was given.",
    {"type": "string", "pattern": CURSOR_OF_IDS},
)
SINCE = Parameter(
    "since",
    validation.moment,
    "Created at this time or later.",
    {"type": "string", "format": "date-time"},
)
UNTIL = Parameter(
    "until",
    validation.moment,
    "Created before this time.",
    {"type": "string", "format": "date-time"},
)
PAGE = (LIMIT, CURSOR)


def check_window(values: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
    """`since` and `until`, which must not cross."""
    since, until = values["since"], values["until"]
    if since is not None and until is not None and since > until:
        raise problems.invalid([("until", "invalid", "Must not be before since.")])
    return since, until
