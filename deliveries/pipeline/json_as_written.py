"""JSON whose numbers stay as they were written: `1.10` is not `1.1`, and `12345678901234567890123` is itself. Pure.

`body` reads an event's data with it for the formats that are not JSON.
"""

import json
from typing import Any, NoReturn


class Number(str):
    """A number, in the characters in which it was written. Texts are plain `str`."""

    __slots__ = ()


def read_as_written(data: bytes) -> Any:
    """The value: dict, list, str, Number, bool or None. Of a name that an object has twice, the last counts."""
    return _decoder.decode(data.decode())


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


_decoder = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_no_constant)
