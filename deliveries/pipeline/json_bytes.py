"""JSON of the hot path: what a publisher sent, checked, with the bytes of `data` exactly as they came. Pure.

`ingest` reads publishes with `decode_publish` and `decode_batch`; `body` builds the standard body with `envelope`.
What is JSON at all, and what of it is refused, `tenants/json_strict.py` says.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, NoReturn, TypeVar

import msgspec

from deliveries import validation
from deliveries.validation import Collector, InvalidContent, WrongField, shown
from tenants.json_strict import (
    REFUSALS,
    MalformedJson,
    loads_strict,
    strict,
    too_deep,
    with_nul_for_lone_surrogates,
)
from tenants.said import said

MAX_DATA_DEPTH: Final = 64
"""Objects and lists inside each other in `data`. Receivers' parsers give up at a few hundred, some at a hundred."""
MAX_BATCH: Final = 1000


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
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

# --- publishes --------------------------------------------------------------------------------------------------------


def decode_publish(body: bytes) -> Publish:
    """The body of `POST …/events`. Raises MalformedJson or InvalidContent."""
    try:
        request = _publish_decoder.decode(body)
    except REFUSALS:
        return _refuse_publish(body, _PUBLISH_RULES)
    return _checked(request, body, None, _PUBLISH_RULES)


def decode_batch(body: bytes) -> list[Publish | MalformedJson | InvalidContent]:
    """The body of `POST …/events/batch`, its items in order. Raises MalformedJson or InvalidContent for the whole.

    A wrong item is returned as its error and does not spoil the others; only nesting beyond all reason (a thousand
    levels), or what breaks the syntax of the list itself, refuses the whole.
    """
    try:
        items = _batch_decoder.decode(body).events
    except REFUSALS:
        items = _items_of(body)
    if not items:
        raise InvalidContent([WrongField("events", "too_short", "Must have at least one event.")])
    if len(items) > MAX_BATCH:
        raise InvalidContent(
            [WrongField("events", "too_long", said("Must have at most %(most)s events.", most=MAX_BATCH))]
        )
    return [_decode_item(bytes(item)) for item in items]


def _decode_item(item: bytes) -> Publish | MalformedJson | InvalidContent:
    try:
        try:
            request = _item_decoder.decode(item)
        except REFUSALS:
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
            wrong.add(shown(field), "unknown_field", "There is no such field.")
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
            wrong.take("" if field == "data" else field, invalid)
    wrong.done()
    # No such body is known; the tests look for one.
    raise MalformedJson("The body is not acceptable.")


def _items_of(body: bytes) -> list[msgspec.Raw]:
    """The items of a batch that the fast path refused, if they can be told apart after all; else raise what is wrong."""
    with suppress(*REFUSALS):
        return _batch_decoder.decode(with_nul_for_lone_surrogates(body)).events
    fields = _fields_of(body, deepest="events")
    wrong = Collector()
    for field in fields:
        if field != "events":
            wrong.add(shown(field), "unknown_field", "There is no such field.")
    if "events" not in fields:
        wrong.add("events", "required", "Must be given.")
    elif not bytes(fields["events"]).startswith(b"["):
        wrong.add("events", "invalid_type", "Must be a list.")
    wrong.done()
    # No such body is known; the tests look for one.
    raise MalformedJson("The body is not acceptable.")


def _fields_of(body: bytes, *, deepest: str) -> dict[str, msgspec.Raw]:
    """The fields of a body, undecoded. Raises MalformedJson, or InvalidContent if it is no object, or too deep to
    tell where; then `deepest` is named."""
    # Malformed bodies end here. What is merely wrong is looked for field by field.
    with suppress(InvalidContent):
        loads_strict(body)
    try:
        return _fields_decoder.decode(with_nul_for_lone_surrogates(body))
    except msgspec.ValidationError:
        raise InvalidContent([WrongField("", "invalid_type", "Must be a JSON object.")]) from None
    except msgspec.DecodeError as error:
        raise MalformedJson(f"{error}.") from None
    except RecursionError:
        raise InvalidContent([too_deep(deepest, MAX_DATA_DEPTH)]) from None


def check_data(raw: bytes) -> None:
    """Raise MalformedJson or InvalidContent, whose fields begin with `data`, unless the bytes are a JSON object to keep.

    Costs 5 µs for 1 KB: one full decode, because msgspec.Raw does not look into strings (it lets invalid UTF-8 pass),
    and three screens for what decoding does not refuse.
    """
    value = strict(raw, max_depth=MAX_DATA_DEPTH, path="data")
    if type(value) is not dict:
        raise InvalidContent([WrongField("data", "invalid_type", "Must be a JSON object.")])


# --- what is sent -----------------------------------------------------------------------------------------------------


def envelope(type: str, timestamp: str, data: bytes) -> bytes:
    """The body of the format `standard`. `type` and `timestamp` hold nothing that JSON would escape."""
    return b'{"type":"%b","timestamp":"%b","data":%b}' % (type.encode(), timestamp.encode(), data)


def format_time(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds: `2026-03-01T12:00:00.000000Z`."""
    text = at.isoformat("T", "microseconds")
    if text[-6:] != "+00:00":
        text = at.astimezone(UTC).isoformat("T", "microseconds")
    return text[:-6] + "Z"
