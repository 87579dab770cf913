"""What a value must look like, for API, portal forms and imports alike. Pure: no database, no clock, no network.

Each function takes what a client sent, of whatever type, and returns the cleaned value or raises `Invalid`. It does not
know the field's name: the caller adds it, best by `Collector`, which names every wrong field at once.
Whether a value fits what else exists (a name that is taken, a limit of the tenant) is for the services to decide.
`deliveries/validation.py` adds the rules for endpoints and events.
"""

import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

from tenants.said import said, said_of

T = TypeVar("T")


class WrongField(NamedTuple):
    """One entry of `errors` in the API's problem document."""

    field: str
    """Dotted path. Empty: the whole."""
    code: str
    message: str


class InvalidContent(ValueError):
    """Something well-formed with wrong content. Holds every wrong field."""

    def __init__(self, errors: Iterable[WrongField]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{error.field or 'content'}: {error.message}" for error in self.errors))


class Invalid(InvalidContent):
    """One value is wrong. Paths in `errors` are relative to the value; most often there is one, and it is empty."""

    def __init__(self, code: str, message: str, *, at: str = "") -> None:
        super().__init__([WrongField(at, code, message)])
        self.code = code
        self.message = message

    @classmethod
    def of_parts(cls, errors: list[WrongField]) -> "Invalid":
        """Several parts of one value (entries of a list, keys of an object) are wrong."""
        invalid = cls(errors[0].code, errors[0].message)
        InvalidContent.__init__(invalid, errors)
        return invalid


def join_path(*parts: str) -> str:
    return ".".join(part for part in parts if part)


MAX_ERRORS: Final = 100
"""That are named. A body of megabytes could earn a reply of many more."""


class Collector:
    """Gathers what is wrong with many fields, as far as it is named.

    wrong = Collector()
    url = wrong.check("url", lambda value: validation.url(value, guard), body["url"])
    wrong.done()  # raises InvalidContent, if anything was
    """

    def __init__(self) -> None:
        self.errors: list[WrongField] = []

    def check(self, field: str, rule: Callable[[object], T], value: object) -> T | None:
        """The cleaned value, or None if it is wrong; then `done` will raise."""
        try:
            return rule(value)
        except InvalidContent as invalid:
            self.take(field, invalid)
            return None

    def take(self, field: str, invalid: InvalidContent) -> None:
        """What is wrong with the parts of a field."""
        for error in invalid.errors:
            self.add(join_path(field, error.field), error.code, error.message)

    def add(self, field: str, code: str, message: str) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(WrongField(field, code, message))

    def done(self) -> None:
        if self.errors:
            raise InvalidContent(self.errors)


# --- plain values -----------------------------------------------------------------------------------------------------

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
SURROGATE = re.compile(r"[\ud800-\udfff]")


def text(value: object, *, low: int = 0, high: int, is_multiline: bool = False) -> str:
    """A text of `low` to `high` characters, without control characters; line breaks and tabs if multi-line."""
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text.")
    if low and not value:
        raise Invalid("blank", "Must not be empty.")
    if len(value) < low:
        raise Invalid("too_short", said("Must have at least %(least)s characters.", least=low))
    if len(value) > high:
        raise Invalid("too_long", said("Must have at most %(most)s characters.", most=high))
    if (_CONTROL_BUT_LINES if is_multiline else CONTROL).search(value):
        raise Invalid("invalid_characters", "Must not contain control characters.")
    if SURROGATE.search(value):
        raise Invalid("invalid_characters", "Must not contain lone surrogates.")
    return value


def name(value: object) -> str:
    """What people call something: one line that is not blank."""
    cleaned = text(value, low=1, high=200).strip()
    if not cleaned:
        raise Invalid("blank", "Must not be empty.")
    return cleaned


def description(value: object) -> str:
    return text(value, high=2000, is_multiline=True)


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Invalid("invalid_type", "Must be true or false.")
    return value


def whole_number(value: object, *, low: int, high: int) -> int:
    if isinstance(value, float) and value.is_integer():
        # To JSON, 15.0 and 15 are the same number.
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid("invalid_type", "Must be a whole number.")
    return int(_in_range(value, low, high))


def number(value: object, *, low: float, high: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Invalid("invalid_type", "Must be a number.")
    # Of floats alone: to answer for a whole number of more than 308 digits, Python would have to make it one.
    if isinstance(value, float) and math.isnan(value):
        raise Invalid("invalid_type", "Must be a number.")
    return float(_in_range(value, low, high))


def _in_range(value: float, low: float, high: float) -> float:
    if value < low:
        raise Invalid("too_small", said("Must be at least %(least)s.", least=low))
    if value > high:
        raise Invalid("too_large", said("Must be at most %(most)s.", most=high))
    return value


def choice(value: object, choices: Iterable[str]) -> str:
    known = list(choices)
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text.")
    if value not in known:
        raise Invalid("invalid_choice", said("Must be one of: %(choices)s.", choices=", ".join(known)))
    return value


def list_of(value: object, rule: Callable[[object], T], *, low: int = 0, high: int) -> list[T]:
    """A list whose entries all keep the rule. Entries that repeat an earlier one are dropped."""
    if not isinstance(value, list):
        raise Invalid("invalid_type", "Must be a list.")
    if len(value) < low:
        raise Invalid(
            "too_short",
            said_of("Must have at least %(number)d entry.", "Must have at least %(number)d entries.", low),
        )
    if len(value) > high:
        raise Invalid("too_long", said("Must have at most %(most)s entries.", most=high))
    return list(dict.fromkeys(each(value, rule)))


def each(values: list[object], rule: Callable[[object], T]) -> list[T]:
    collector = Collector()
    cleaned = [collector.check(str(index), rule, value) for index, value in enumerate(values)]
    if collector.errors:
        raise Invalid.of_parts(collector.errors)
    return [value for value in cleaned if value is not None]


_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,30})?([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)


def moment(value: object) -> datetime:
    """An RFC 3339 time with its zone, in UTC. Digits after the sixth of a fraction are cut."""
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a time, as a text.")
    if _RFC_3339.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise Invalid("invalid_time", "Must be an RFC 3339 time with its zone, such as 2026-03-01T12:00:00Z.")


# --- names ------------------------------------------------------------------------------------------------------------

_SLUG = re.compile(r"[a-z0-9-]{1,63}", re.ASCII)
EVENT_TYPE = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.ASCII)
MAX_EVENT_TYPE_LENGTH = 128

OPERATIONAL_PREFIXES = ("endpoint.", "delivery.", "webhook.")
"""Event types of the platform's own. `*` does not mean them, and no catalogue may have them."""
RESERVED_EVENT_TYPES = frozenset({"openapi.json", "import"})
"""They are paths below `/event-types/`."""


def slug(value: object) -> str:
    return matching(value, _SLUG, high=63, says="Must be 1 to 63 of the characters a-z, 0-9 and -.")


def event_type_name(value: object) -> str:
    return matching(
        value,
        EVENT_TYPE,
        high=MAX_EVENT_TYPE_LENGTH,
        says="Must be segments of A-Z, a-z, 0-9, _ and -, joined by dots.",
    )


def catalogue_event_type_name(value: object) -> str:
    """A name that a catalogue may have: not one of the platform's own."""
    cleaned = event_type_name(value)
    if cleaned in RESERVED_EVENT_TYPES or cleaned.startswith(OPERATIONAL_PREFIXES):
        raise Invalid("reserved", said("The name %(cleaned)s is reserved for the platform.", cleaned=cleaned))
    return cleaned


_IDEMPOTENCY_KEY = re.compile(r"[ -~]{1,255}")


def idempotency_key(value: object) -> str:
    return matching(value, _IDEMPOTENCY_KEY, high=255, says="Must be 1 to 255 printable ASCII characters.")


def matching(value: object, grammar: re.Pattern[str], *, high: int, says: str) -> str:
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text.")
    if not value:
        raise Invalid("blank", "Must not be empty.")
    if len(value) > high:
        raise Invalid("too_long", said("Must have at most %(most)s characters.", most=high))
    if not grammar.fullmatch(value):
        raise Invalid("invalid", says)
    return value


# --- metadata ---------------------------------------------------------------------------------------------------------

MAX_METADATA_KEYS = 50
MAX_METADATA_KEY_LENGTH = 64
MAX_METADATA_VALUE_LENGTH = 512


def metadata(value: object) -> dict[str, str]:
    cleaned = metadata_changes(value)
    removed = [key for key, text_ in cleaned.items() if text_ is None]
    if removed:
        raise Invalid.of_parts([WrongField(key, "invalid_type", "Must be a text.") for key in removed])
    return {key: text_ for key, text_ in cleaned.items() if text_ is not None}


def metadata_changes(value: object) -> dict[str, str | None]:
    """What a PATCH may say: None removes a key."""
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be an object of texts.")
    if len(value) > MAX_METADATA_KEYS:
        raise Invalid("too_long", said("Must have at most %(most)s keys.", most=MAX_METADATA_KEYS))
    collector = Collector()
    for key, entry in value.items():
        collector.check(shown(key), lambda text_: text(text_, low=1, high=MAX_METADATA_KEY_LENGTH), key)
        if entry is not None:
            collector.check(
                shown(key),
                lambda text_: text(text_, high=MAX_METADATA_VALUE_LENGTH, is_multiline=True),
                entry,
            )
    if collector.errors:
        raise Invalid.of_parts(collector.errors)
    return dict(value)


def shown(key: object) -> str:
    """A key that a client chose, as part of an error's path: short, and without what could break a log or a page."""
    return SURROGATE.sub("\ufffd", CONTROL.sub("\ufffd", str(key)[:64]))
