"""JSON as clients must send it. Pure. The API's parser reads bodies with `loads_strict`; the hot path builds on `strict`.

What is accepted is JSON as RFC 8259 has it, in UTF-8 without a byte order mark, less what receivers trip over:
NUL characters, lone surrogates, numbers that are endless or overflow to infinity, and bottomless nesting.
Malformed JSON is `MalformedJson`; well-formed JSON with wrong content is `InvalidContent`, with every wrong field.

msgspec does the work and stops at the first fault, so a refusal is examined a second time, slowly and completely.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import msgspec

from tenants.said import said
from tenants.validation import MAX_ERRORS, InvalidContent, WrongField, join_path, shown

MAX_BODY_DEPTH: Final = 100
MAX_NUMBER_LENGTH: Final = 400
"""Characters of one number. Longer ones take parsers quadratic time, and fit nobody's types."""


class MalformedJson(ValueError):
    """Not JSON at all. The message says why, in words for the client."""


_decoder = msgspec.json.Decoder()

# What a decoder of msgspec raises: for content, for syntax, for bytes that are not UTF-8 (both are ValueErrors), and
# for nesting.
REFUSALS = (ValueError, RecursionError)


def loads_strict(body: bytes) -> Any:
    """The value of an ordinary body. Integers keep all their digits. Raises MalformedJson or InvalidContent."""
    return strict(body, max_depth=MAX_BODY_DEPTH, path="")


def strict(raw: bytes, *, max_depth: int, path: str) -> Any:
    """The value, whose faults are named below `path`. Raises MalformedJson or InvalidContent."""
    try:
        value = _decoder.decode(raw)
    except RecursionError:
        raise InvalidContent([too_deep(path, max_depth)]) from None
    except ValueError:
        _refuse(raw, max_depth, path)
    # Each screen lets pass what cannot be wrong; what it stops is looked at closely. The bytes decide, for they are what
    # is sent: of a name that an object has twice, the value shows the last alone.
    brackets = raw.count(b"{") + raw.count(b"[")
    if brackets > max_depth and _is_deeper(value, raw, brackets, max_depth):
        raise InvalidContent([too_deep(path, max_depth)])
    if b"\\u0000" in raw:
        _refuse_characters(value, path)
        if any(escape["nul"] for escape in _NUL.finditer(raw)):
            raise InvalidContent([WrongField(path, "invalid_characters", INVALID_CHARACTERS)])
    if len(raw) > MAX_NUMBER_LENGTH and _MANY_DIGITS in raw.translate(_DIGITS_ALONE):
        _refuse_long_numbers(raw, path)
    return value


_MANY_DIGITS = b"0" * (MAX_NUMBER_LENGTH + 1)
_DIGITS_ALONE = bytes(ord("0") if byte in b"0123456789+-.eE" else ord(" ") for byte in range(256))
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NUL = re.compile(rb"\\(?:(?P<nul>u0000)|.)", re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9+\-.eE]{%d,}" % (MAX_NUMBER_LENGTH + 1))


def _is_deeper(value: Any, raw: bytes, brackets: int, max_depth: int) -> bool:
    """Whether objects and lists nest deeper: goes down level by level. `brackets`: opening ones, in texts too."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(max_depth):
        if not level:
            break
        brackets -= len(level)
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
    return bool(level) or (brackets > 0 and _nests_deeper(raw, max_depth))


def _nests_deeper(raw: bytes, max_depth: int) -> bool:
    """The same of the bytes: innermost pairs go, as often as there may be levels."""
    left = _STRING.sub(b"", raw).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(max_depth):
        left = left.replace(b"[]", b"")
    return bool(left)


def too_deep(path: str, max_depth: int) -> WrongField:
    return WrongField(path, "too_deep", said("Must not nest deeper than %(most)s levels.", most=max_depth))


def _refuse_long_numbers(raw: bytes, path: str) -> None:
    """Raise InvalidContent if there is a number with too many characters. What looks like one may be in a string."""
    if _LONG_NUMBER.search(_STRING.sub(b'""', raw)):
        message = said("Must not hold numbers of more than %(most)s characters.", most=MAX_NUMBER_LENGTH)
        raise InvalidContent([WrongField(path, "number_too_long", message)])


def _refuse_characters(value: Any, path: str) -> None:
    """Raise InvalidContent, naming where, if a text holds NUL, for which lone surrogates may have been exchanged."""
    fields = [field for field, text in _texts(value, path) if "\x00" in text]
    if fields:
        raise InvalidContent(
            [WrongField(field, "invalid_characters", INVALID_CHARACTERS) for field in fields[:MAX_ERRORS]]
        )


# Either surrogate, as a pair or alone; or any other escape, so that an escaped backslash before a "u" is passed over.
_ESCAPE = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def with_nul_for_lone_surrogates(raw: bytes) -> bytes:
    """Well-formed JSON in which every lone surrogate has become NUL, of the same length.

    msgspec stops at a lone surrogate as at a syntax error. NUL is refused as well, but later, where its place is known.
    """
    return _ESCAPE.sub(lambda escape: escape[0] if escape["lone"] is None else b"\\u0000", raw)


INVALID_CHARACTERS: Final = said("Must not contain the NUL character or half of a surrogate pair.")


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
                inner += [(join_path(field, shown(key)), key), (join_path(field, shown(key)), entry)]
            waiting += inner[::-1]


SYNTAX_FAULTS: Final = (
    said("Expecting value"),
    said("Expecting property name enclosed in double quotes"),
    said("Expecting ':' delimiter"),
    said("Expecting ',' delimiter"),
    said("Illegal trailing comma before end of object"),
    said("Illegal trailing comma before end of array"),
    said("Unterminated string starting at"),
    said("Invalid control character at"),
    said("Invalid \\escape"),
    said("Invalid \\uXXXX escape"),
    said("Extra data"),
)
"""What Python's decoder has to say of bytes that are no JSON."""


def _refuse(raw: bytes, max_depth: int, path: str) -> NoReturn:
    """Raise the reason why the decoder does not take these bytes."""
    if raw.startswith(b"\xef\xbb\xbf"):
        raise MalformedJson("The body must not begin with a byte order mark.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(
            said("The body is not UTF-8: byte %(place)s is wrong.", place=error.start)
        ) from None
    numbers: list[str] = []
    try:
        json.loads(text, parse_constant=_no_constant, parse_int=str, parse_float=numbers.append)
    except RecursionError:
        raise InvalidContent([too_deep(path, max_depth)]) from None
    except json.JSONDecodeError as error:
        raise MalformedJson(
            said(
                "%(fault)s in line %(line)s, column %(column)s.",
                fault=said(error.msg),
                line=error.lineno,
                column=error.colno,
            )
        ) from None
    if any(math.isinf(float(number)) for number in numbers):
        message = said("Must not hold numbers that overflow to infinity.")
        raise InvalidContent([WrongField(path, "number_out_of_range", message)])
    _refuse_long_numbers(raw, path)
    try:
        value = _decoder.decode(with_nul_for_lone_surrogates(raw))
    except RecursionError:
        raise InvalidContent([too_deep(path, max_depth)]) from None
    except msgspec.MsgspecError as error:
        raise MalformedJson(f"{error}.") from None
    _refuse_characters(value, path)
    # Nothing else was exchanged: it stands under a name that comes again.
    raise InvalidContent([WrongField(path, "invalid_characters", INVALID_CHARACTERS)])


def _no_constant(name: str) -> NoReturn:
    raise MalformedJson(said("%(name)s is no JSON value.", name=name))
