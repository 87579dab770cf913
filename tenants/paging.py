"""Lists by keyset: a page begins behind the last row of the one before, so rows that arrive move nothing.

A cursor holds a direction and the key of a row. It is not signed: it grants nothing, the list is scoped by itself.
Called by the API and the portal.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models import Q

from tenants.validation import Invalid, moment

Row = TypeVar("Row", bound=models.Model)

MAX_CURSOR_LENGTH: Final = 1024

AFTER, FROM, BEFORE, UP_TO = "after", "from", "before", "up_to"
"""`from` and `up_to` include the row: links out of a page that turned out empty."""

LETTERS: Final = {AFTER: "a", FROM: "f", BEFORE: "b", UP_TO: "u"}
DIRECTIONS: Final = {letter: direction for direction, letter in LETTERS.items()}

ID_HEX: Final = re.compile(r"[0-9a-f]{32}")

CURSOR_OF_IDS: Final = "^[afbu][0-9a-f]{32}$"
"""Every cursor of a list by id, and nothing else."""


class InvalidCursor(ValueError):
    """Not one that `write_cursor` writes for this list."""


class Cursor(NamedTuple):
    direction: str
    key: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    rows: list[Row]
    next_cursor: str | None
    prev_cursor: str | None


def cut(
    rows: "models.QuerySet[Row]",
    *,
    cursor: str | None,
    limit: int,
    keys: Sequence[str] = ("id",),
    ascending: bool = False,
) -> Page[Row]:
    """A page of `rows`, ordered by `keys`, the last of which is unique; descending (newest first) unless said otherwise.

    Raises InvalidCursor.
    """
    at = None if cursor is None else read_cursor(cursor, rows.model, keys)
    found, next_, previous = _slice(rows, at, limit=limit, keys=keys, ascending=ascending)
    return Page(
        found,
        None if next_ is None else write_cursor(next_),
        None if previous is None else write_cursor(previous),
    )


def _slice(
    rows: "models.QuerySet[Row]", cursor: Cursor | None, *, limit: int, keys: Sequence[str], ascending: bool
) -> tuple[list[Row], Cursor | None, Cursor | None]:
    """The rows of a page, and the cursors of the pages behind and before it."""
    is_backward = cursor is not None and cursor.direction in {BEFORE, UP_TO}
    reads_ascending = ascending != is_backward
    if cursor is not None:
        rows = rows.filter(_beyond(cursor, keys, ascending=reads_ascending))
    signs = [key if reads_ascending else f"-{key}" for key in keys]
    found = list(rows.order_by(*signs)[: limit + 1])
    has_more = len(found) > limit
    found = found[:limit]
    if cursor is None:
        return found, _at(AFTER, found[-1], keys) if has_more else None, None
    if not found:
        # What was there is gone. The row that the cursor names belongs to the page on the other side.
        back = Cursor(FROM if is_backward else UP_TO, cursor.key)
        return [], back if is_backward else None, None if is_backward else back
    if is_backward:
        found.reverse()
        return found, _at(AFTER, found[-1], keys), _at(BEFORE, found[0], keys) if has_more else None
    return found, _at(AFTER, found[-1], keys) if has_more else None, _at(BEFORE, found[0], keys)


def _beyond(cursor: Cursor, keys: Sequence[str], *, ascending: bool) -> Q:
    """Rows past the cursor's: (a > x) or (a = x and b > y) …"""
    comparison = "gt" if ascending else "lt"
    alternatives = []
    for index, key in enumerate(keys):
        equal = {keys[before]: cursor.key[before] for before in range(index)}
        is_last = index == len(keys) - 1
        suffix = "e" if is_last and cursor.direction in {FROM, UP_TO} else ""
        alternatives.append(Q(**equal, **{f"{key}__{comparison}{suffix}": cursor.key[index]}))
    return reduce(or_, alternatives)


def _at(direction: str, row: models.Model, keys: Sequence[str]) -> Cursor:
    return Cursor(direction, tuple(getattr(row, key) for key in keys))


# --- cursors as text --------------------------------------------------------------------------------------------------


# A list by id, as all of the API are, has short ones, whose shape its document can tell whole: a letter and the id.


def write_cursor(cursor: Cursor) -> str:
    letter = LETTERS[cursor.direction]
    if len(cursor.key) == 1 and isinstance(cursor.key[0], UUID):
        return letter + cursor.key[0].hex
    parts = [_text(value) for value in cursor.key]
    return letter + base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def _text(value: Any) -> str:
    if isinstance(value, UUID):
        return value.hex
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


def read_cursor(text: str, model: type[models.Model], keys: Sequence[str]) -> Cursor:
    """Raises InvalidCursor."""
    try:
        if len(text) > MAX_CURSOR_LENGTH:
            raise ValueError
        direction, text = DIRECTIONS.get(text[:1], ""), text[1:]
        if ID_HEX.fullmatch(text):
            parts = [text]
        else:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            parts = msgspec.json.decode(raw, type=list[str])
        if not direction or len(parts) != len(keys):
            raise ValueError
        cursor = Cursor(
            direction, tuple(_value(model, key, part) for key, part in zip(keys, parts, strict=True))
        )
    except (ValueError, binascii.Error, Invalid, RecursionError):
        raise InvalidCursor(text[:64]) from None
    return cursor


def _value(model: type[models.Model], key: str, text: str) -> Any:
    try:
        field = model._meta.get_field(key)  # noqa: SLF001 - Django's documented way to a model's fields
    except FieldDoesNotExist:
        raise ValueError(key) from None
    if isinstance(field, models.UUIDField):
        if not ID_HEX.fullmatch(text):
            raise ValueError(text)
        return UUID(hex=text)
    if isinstance(field, models.DateTimeField):
        return moment(text)
    if isinstance(field, models.IntegerField):
        number = int(text)
        if not -(2**63) <= number < 2**63:
            raise ValueError
        return number
    if "\x00" in text:
        raise ValueError
    return text
