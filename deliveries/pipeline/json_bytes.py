"""JSON of the hot path: what a publisher sent, checked, with the bytes of `data` exactly as they came. Pure.

`ingest` reads publishes with `decode_publish` and `decode_batch`; the API's parser reads every other body with
`loads_strict`; `dispatch` builds the standard body with `envelope`.

What is accepted is JSON as RFC 8259 has it, in UTF-8 without a byte order mark, less what receivers trip over:
NUL characters, lone surrogates, numbers that are endless or overflow to infinity, and bottomless nesting.
Malformed JSON is `MalformedJson`; well-formed JSON with wrong content is `InvalidContent`, with every wrong field.

msgspec does the work and stops at the first fault, so a refusal is examined a second time, slowly and completely.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from deliveries import validation
from deliveries.validation import Collector, InvalidContent, WrongField, join_path

MAX_DATA_DEPTH: Final = 64
"""Objects and lists inside each other in `data`. Receivers' parsers give up at a few hundred, some at a hundred."""
MAX_BODY_DEPTH: Final = 100
MAX_NUMBER_LENGTH: Final = 400
"""Characters of one number. Longer ones take parsers quadratic time, and fit nobody's types."""
MAX_BATCH: Final = 1000


class MalformedJson(ValueError):
    """Not JSON at all. The message says why, in words for the client."""


class PublishRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A publish as it was sent. `deliver_at` is judged by `ingest`, against the database's clock."""

    type: str
    data: msgspec.Raw
    occurred_at: str | None = None
    channels: list[str] | None = None
    ordering_key: str | None = None
    deliver_at: str | None = None


class BatchItem(PublishRequest, forbid_unknown_fields=True):
    idempotency_key: str | None = None


class Publish(msgspec.Struct, frozen=True):
    """A publish whose every field keeps the rules."""

    type: str
    data: bytes
    """A JSON object, byte for byte as it was sent."""
    occurred_at: datetime | None
    channels: tuple[str, ...]
    ordering_key: str | None
    deliver_at: datetime | None
    idempotency_key: str | None


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[msgspec.Raw]


_publish_decoder = msgspec.json.Decoder(PublishRequest)
_item_decoder = msgspec.json.Decoder(BatchItem)
_batch_decoder = msgspec.json.Decoder(_Batch)
_decoder = msgspec.json.Decoder()
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

# What a decoder of msgspec raises: for content, for syntax, for bytes that are not UTF-8 (both are ValueErrors), and
# for nesting.
_REFUSALS = (ValueError, RecursionError)

# --- publishes --------------------------------------------------------------------------------------------------------


def decode_publish(body: bytes) -> Publish:
    """The body of `POST …/events`. Raises MalformedJson or InvalidContent."""
    try:
        request = _publish_decoder.decode(body)
    except _REFUSALS:
        return _refuse_publish(body, _PUBLISH_RULES)
    return _checked(request, body, None, _PUBLISH_RULES)


def decode_batch(body: bytes) -> list[Publish | MalformedJson | InvalidContent]:
    """The body of `POST …/events/batch`, its items in order. Raises MalformedJson or InvalidContent for the whole.

    A wrong item is returned as its error and does not spoil the others; only nesting beyond all reason (a thousand
    levels), or what breaks the syntax of the list itself, refuses the whole.
    """
    try:
        items = _batch_decoder.decode(body).events
    except _REFUSALS:
        items = _items_of(body)
    if not items:
        raise InvalidContent([WrongField("events", "too_short", "Must have at least one event.")])
    if len(items) > MAX_BATCH:
        raise InvalidContent([WrongField("events", "too_long", f"Must have at most {MAX_BATCH} events.")])
    return [_decode_item(bytes(item)) for item in items]


def _decode_item(item: bytes) -> Publish | MalformedJson | InvalidContent:
    try:
        try:
            request = _item_decoder.decode(item)
        except _REFUSALS:
            return _refuse_publish(item, _ITEM_RULES)
        return _checked(request, item, request.idempotency_key, _ITEM_RULES)
    except (MalformedJson, InvalidContent) as error:
        return error


def _checked(
    request: PublishRequest, body: bytes, idempotency_key: str | None, rules: "Mapping[str, _Rule]"
) -> Publish:
    """The fast path: most publishes have a type and data alone. Whatever is wrong is listed by the slow one."""
    data = bytes(request.data)
    try:
        check_data(data)
        return Publish(
            type=validation.event_type_name(request.type),
            data=data,
            occurred_at=None if request.occurred_at is None else validation.moment(request.occurred_at),
            channels=() if request.channels is None else tuple(validation.event_channels(request.channels)),
            ordering_key=None
            if request.ordering_key is None
            else validation.ordering_key(request.ordering_key),
            deliver_at=None if request.deliver_at is None else validation.moment(request.deliver_at),
            idempotency_key=None if idempotency_key is None else validation.idempotency_key(idempotency_key),
        )
    except InvalidContent:
        return _refuse_publish(body, rules)


_Rule = Callable[[object], object]
T = TypeVar("T")


def _optional(rule: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None else rule(value)


_PUBLISH_RULES: Mapping[str, _Rule] = {
    "type": validation.event_type_name,
    "occurred_at": _optional(validation.moment),
    "channels": _optional(validation.event_channels),
    "ordering_key": _optional(validation.ordering_key),
    "deliver_at": _optional(validation.moment),
}
_ITEM_RULES: Mapping[str, _Rule] = {
    **_PUBLISH_RULES,
    "idempotency_key": _optional(validation.idempotency_key),
}


def _refuse_publish(body: bytes, rules: Mapping[str, _Rule]) -> NoReturn:
    """Raise what is wrong with a body that the fast path refused: all of it."""
    fields = _fields_of(body, deepest="data")
    wrong = Collector()
    for field in fields:
        if field != "data" and field not in rules:
            wrong.add(_shown(field), "unknown_field", "There is no such field.")
    for field in ("type", "data"):
        if field not in fields:
            wrong.add(field, "required", "Must be given.")
    for field, raw in fields.items():
        try:
            if field == "data":
                check_data(bytes(raw))
            elif field in rules:
                wrong.check(field, rules[field], loads_strict(bytes(raw)))
        except InvalidContent as invalid:
            prefix = "" if field == "data" else field
            wrong.errors += [error._replace(field=join_path(prefix, error.field)) for error in invalid.errors]
    wrong.done()
    # No such body is known, either.
    raise MalformedJson("The body is not acceptable.")


def _items_of(body: bytes) -> list[msgspec.Raw]:
    """The items of a batch that the fast path refused, if they can be told apart after all; else raise what is wrong."""
    with suppress(*_REFUSALS):
        return _batch_decoder.decode(_with_nul_for_lone_surrogates(body)).events
    fields = _fields_of(body, deepest="events")
    wrong = Collector()
    for field in fields:
        if field != "events":
            wrong.add(_shown(field), "unknown_field", "There is no such field.")
    if "events" not in fields:
        wrong.add("events", "required", "Must be given.")
    elif not bytes(fields["events"]).startswith(b"["):
        wrong.add("events", "invalid_type", "Must be a list.")
    wrong.done()
    # No such body is known.
    raise MalformedJson("The body is not acceptable.")


def _fields_of(body: bytes, *, deepest: str) -> dict[str, msgspec.Raw]:
    """The fields of a body, undecoded. Raises MalformedJson, or InvalidContent if it is no object, or too deep to
    tell where; then `deepest` is named."""
    # Malformed bodies end here. What is merely wrong is looked for field by field.
    with suppress(InvalidContent):
        loads_strict(body)
    try:
        return _fields_decoder.decode(_with_nul_for_lone_surrogates(body))
    except msgspec.ValidationError:
        raise InvalidContent([WrongField("", "invalid_type", "Must be a JSON object.")]) from None
    except RecursionError:
        raise InvalidContent([_too_deep(deepest, MAX_DATA_DEPTH)]) from None


# --- any JSON ---------------------------------------------------------------------------------------------------------


def check_data(raw: bytes) -> None:
    """Raise MalformedJson or InvalidContent, whose fields begin with `data`, unless the bytes are a JSON object to keep.

    Costs 4 µs for 1 KB: one full decode, because msgspec.Raw does not look into strings (it lets invalid UTF-8 pass),
    and three screens for what decoding does not refuse.
    """
    value = _strict(raw, MAX_DATA_DEPTH, "data")
    if type(value) is not dict:
        raise InvalidContent([WrongField("data", "invalid_type", "Must be a JSON object.")])


def loads_strict(body: bytes) -> Any:
    """The value of an ordinary body. Integers keep all their digits. Raises MalformedJson or InvalidContent."""
    return _strict(body, MAX_BODY_DEPTH, "")


def _strict(raw: bytes, max_depth: int, path: str) -> Any:
    try:
        value = _decoder.decode(raw)
    except _REFUSALS:
        _refuse(raw, max_depth, path)
    # Each screen lets pass what cannot be wrong; what it stops is looked at closely.
    if raw.count(b"{") + raw.count(b"[") > max_depth and _is_deeper(value, max_depth):
        raise InvalidContent([_too_deep(path, max_depth)])
    if b"\\u0000" in raw:
        _refuse_characters(value, path)
    if len(raw) > MAX_NUMBER_LENGTH and _MANY_DIGITS in raw.translate(_DIGITS_ALONE):
        _refuse_long_numbers(raw, path)
    return value


_MANY_DIGITS = b"0" * (MAX_NUMBER_LENGTH + 1)
_DIGITS_ALONE = bytes(ord("0") if byte in b"0123456789+-.eE" else ord(" ") for byte in range(256))
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9+\-.eE]{%d,}" % (MAX_NUMBER_LENGTH + 1))


def _is_deeper(value: Any, max_depth: int) -> bool:
    """Whether objects and lists nest deeper: goes down level by level."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(max_depth):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
    return bool(level)


def _too_deep(path: str, max_depth: int) -> WrongField:
    return WrongField(path, "too_deep", f"Must not nest deeper than {max_depth} levels.")


def _refuse_long_numbers(raw: bytes, path: str) -> None:
    """Raise InvalidContent if there is a number with too many characters. What looks like one may be in a string."""
    if _LONG_NUMBER.search(_STRING.sub(b'""', raw)):
        message = f"Must not hold numbers of more than {MAX_NUMBER_LENGTH} characters."
        raise InvalidContent([WrongField(path, "number_too_long", message)])


def _refuse_characters(value: Any, path: str) -> None:
    """Raise InvalidContent, naming where, if a text holds NUL, for which lone surrogates may have been exchanged."""
    fields = [field for field, text in _texts(value, path) if "\x00" in text]
    if fields:
        message = "Must not contain the NUL character or half of a surrogate pair."
        raise InvalidContent(
            [WrongField(field, "invalid_characters", message) for field in fields[:MAX_ERRORS]]
        )


# Either surrogate, as a pair or alone; or any other escape, so that an escaped backslash before a "u" is passed over.
_ESCAPE = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _with_nul_for_lone_surrogates(raw: bytes) -> bytes:
    """Well-formed JSON in which every lone surrogate has become NUL, of the same length.

    msgspec stops at a lone surrogate as at a syntax error. NUL is refused as well, but later, where its place is known.
    """
    return _ESCAPE.sub(lambda escape: escape[0] if escape["lone"] is None else b"\\u0000", raw)


MAX_ERRORS: Final = 100
"""Of one kind. A body of megabytes could earn a reply of many more."""


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text in a value with its path, keys included, in order."""
    waiting = [(path, value)]
    while waiting:
        field, current = waiting.pop()
        if isinstance(current, str):
            yield field, current
        elif isinstance(current, list):
            waiting += [(join_path(field, str(index)), entry) for index, entry in enumerate(current)][::-1]
        elif isinstance(current, dict):
            inner = []
            for key, entry in current.items():
                inner += [(join_path(field, _shown(key)), key), (join_path(field, _shown(key)), entry)]
            waiting += inner[::-1]


def _shown(key: str) -> str:
    """A key that a client chose, as part of an error's path."""
    return _UNSHOWN.sub("\ufffd", key[:64])


_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _refuse(raw: bytes, max_depth: int, path: str) -> NoReturn:
    """Raise the reason why the decoder does not take these bytes."""
    if raw.startswith(b"\xef\xbb\xbf"):
        raise MalformedJson("The body must not begin with a byte order mark.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(f"The body is not UTF-8: byte {error.start} is wrong.") from None
    try:
        json.loads(text, parse_constant=_no_constant, parse_int=str, parse_float=_finite)
    except RecursionError:
        raise InvalidContent([_too_deep(path, max_depth)]) from None
    except json.JSONDecodeError as error:
        raise MalformedJson(f"{error.msg} in line {error.lineno}, column {error.colno}.") from None
    except _Overflow:
        message = "Must not hold numbers that overflow to infinity."
        raise InvalidContent([WrongField(path, "number_out_of_range", message)]) from None
    _refuse_long_numbers(raw, path)
    with suppress(msgspec.MsgspecError):
        _refuse_characters(_decoder.decode(_with_nul_for_lone_surrogates(raw)), path)
    # No such body is known; the tests look for one.
    raise MalformedJson("The body is not acceptable JSON.")


def _no_constant(name: str) -> NoReturn:
    raise MalformedJson(f"{name} is no JSON value.")


class _Overflow(Exception):
    pass


def _finite(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise _Overflow
    return number


# --- what is sent -----------------------------------------------------------------------------------------------------


def envelope(type: str, timestamp: str, data: bytes) -> bytes:
    """The body of the format `standard`. `type` and `timestamp` hold nothing that JSON would escape."""
    return b'{"type":"%b","timestamp":"%b","data":%b}' % (type.encode(), timestamp.encode(), data)


def format_time(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds: `2026-03-01T12:00:00.000000Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
