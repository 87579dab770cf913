"""Ids: UUIDv7 inside, `evt_01h455vb4pex5vsknk084sn02q` (TypeID) outside. Both forms sort by time of creation.

Pure. Everything that makes, shows or reads an id calls this module; nothing else knows the text form.
"""

import os
import re
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

TENANT: Final = "tnt"
API_KEY: Final = "key"
EVENT: Final = "evt"
ENDPOINT: Final = "ep"
SUBSCRIPTION: Final = "sub"
DELIVERY: Final = "dlv"
ATTEMPT: Final = "att"
JOB: Final = "job"
PORTAL_LINK: Final = "lnk"
MEMBER: Final = "mem"
USER: Final = "usr"
SOURCE: Final = "src"
INCOMING: Final = "req"
INVITATION: Final = "inv"

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: without i, l, o and u, which people misread."""

_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_TEXT = re.compile(rf"[0-7][{_ALPHABET}]{{25}}", re.ASCII)
"""26 characters carry 130 bits: the first has only three of the 128, so it is never above 7."""
_TO_PYTHON_DIGITS = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")


class InvalidId(ValueError):
    """The text is not an id of the kind that was asked for."""


def new_id() -> UUID:
    """A new UUIDv7. Those of one process rise; across processes they rise with the clock."""
    return uuid7()


def to_text(prefix: str, value: UUID) -> str:
    return _to_text(prefix, value.int)


def bytes_to_text(prefix: str, value: bytes) -> str:
    """For the pipeline, where ids are 16 bytes."""
    return _to_text(prefix, int.from_bytes(value))


def _to_text(prefix: str, number: int) -> str:
    pairs = _PAIRS
    return (
        f"{prefix}_{pairs[number >> 120]}{pairs[number >> 110 & 1023]}{pairs[number >> 100 & 1023]}"
        f"{pairs[number >> 90 & 1023]}{pairs[number >> 80 & 1023]}{pairs[number >> 70 & 1023]}"
        f"{pairs[number >> 60 & 1023]}{pairs[number >> 50 & 1023]}{pairs[number >> 40 & 1023]}"
        f"{pairs[number >> 30 & 1023]}{pairs[number >> 20 & 1023]}{pairs[number >> 10 & 1023]}{pairs[number & 1023]}"
    )


def from_text(prefix: str, text: str) -> UUID:
    """The inverse of `to_text`: every id has one spelling, lower case. Raises InvalidId for anything else."""
    found, separator, digits = text.partition("_")
    if found != prefix or not separator or _TEXT.fullmatch(digits) is None:
        raise InvalidId(f"not an id that begins with {prefix}_")
    return UUID(int=int(digits.translate(_TO_PYTHON_DIGITS), 32))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


def floor_of(at: datetime) -> UUID:
    """A bound for ids by time: no id made in or after the millisecond of `at` is smaller, every earlier one is.

    Times before 1970 give the smallest bound there is.
    """
    milliseconds = max(0, (at - _EPOCH) // timedelta(milliseconds=1))
    return UUID(int=milliseconds << 80)


def time_of(value: UUID) -> datetime:
    """When the id was made, to the millisecond. A made-up id past the end of the calendar gets the calendar's last."""
    return _EPOCH + timedelta(milliseconds=min(value.int >> 80, _LAST_MILLISECOND))


class Minter:
    """Makes the ids of one transaction from the database's time in microseconds.

    Ids of one minter rise strictly, in the order of the calls; those of a minter with a later `at_us` are larger.
    Minters with the same `at_us`, in whatever process, are told apart by 46 random bits in every id.

    Layout: 48 bits milliseconds, 4 version, 12 fraction of the millisecond, 2 variant, 16 counter, 46 random.
    """

    __slots__ = ("_position",)

    def __init__(self, at_us: int) -> None:
        milliseconds, microseconds = divmod(at_us, 1000)
        # A microsecond is at least four steps of the fraction. A counter that runs over carries into the fraction,
        # so four times 65,536 ids fit before they would meet those of the next microsecond.
        fraction = microseconds * 4096 // 1000
        self._position = ((milliseconds << 12) + fraction) << 16

    def next(self) -> UUID:
        position = self._position
        self._position = position + 1
        counter = position & 0xFFFF
        fraction = position >> 16 & 0xFFF
        milliseconds = position >> 28
        randomness = int.from_bytes(os.urandom(6), "big") >> 2
        return UUID(
            int=milliseconds << 80 | 7 << 76 | fraction << 64 | 0b10 << 62 | counter << 46 | randomness,
        )
