"""PostgreSQL arrays in binary form, built by joining bytes.

psycopg dumps a list element by element in Python, about a microsecond each; a batch has thousands of elements in a
dozen columns. These build the same bytes in a few joins. Pure; used by `ingest`, `wake`, `lanes` and `record`.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import pq
from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper, Loader

UUID, BYTEA, TEXT, INT4, INT8, FLOAT8, BOOL, TIMESTAMPTZ = 2950, 17, 25, 23, 20, 701, 16, 1184
ARRAY_OF = {
    UUID: 2951,
    BYTEA: 1001,
    TEXT: 1009,
    INT4: 1007,
    INT8: 1016,
    FLOAT8: 1022,
    BOOL: 1000,
    TIMESTAMPTZ: 1185,
}

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_HEADER = struct.Struct("!IIIII")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)
_LENGTHS = [_LENGTH.pack(n) for n in range(4096)]


class BinaryArray:
    """One array parameter, ready to send."""

    __slots__ = ("data", "oid")

    def __init__(self, oid: int, data: bytes) -> None:
        self.oid = oid
        self.data = data


def uuids(values: Sequence[bytes]) -> BinaryArray:
    """uuid[] from 16-byte values."""
    return _fixed(UUID, 16, values)


def nullable_uuids(values: Sequence[bytes | None]) -> BinaryArray:
    return _varying(UUID, values)


def texts(values: Sequence[str | None]) -> BinaryArray:
    return _varying(TEXT, [None if value is None else value.encode() for value in values])


def byteas(values: Sequence[bytes | None]) -> BinaryArray:
    return _varying(BYTEA, values)


def int4s(values: Sequence[int]) -> BinaryArray:
    return _packed(INT4, "i", 4, values)


def int8s(values: Sequence[int]) -> BinaryArray:
    return _packed(INT8, "q", 8, values)


def bools(values: Sequence[bool]) -> BinaryArray:
    return _fixed(BOOL, 1, [b"\x01" if value else b"\x00" for value in values])


def nullable_float8s(values: Iterable[float | None]) -> BinaryArray:
    pack = struct.Struct("!d").pack
    return _varying(FLOAT8, [None if value is None else pack(value) for value in values])


def nullable_int4s(values: Iterable[int | None]) -> BinaryArray:
    pack = struct.Struct("!i").pack
    return _varying(INT4, [None if value is None else pack(value) for value in values])


def nullable_moments(values: Iterable[datetime | None]) -> BinaryArray:
    """timestamptz[], to the microsecond in every year. (A float of seconds makes the last ones of 9999 the year 10000, which
    no datetime can hold.)"""
    pack = struct.Struct("!q").pack
    return _varying(
        TIMESTAMPTZ, [None if value is None else pack((value - _EPOCH) // _MICROSECOND) for value in values]
    )


def _start(oid: int, count: int, has_nulls: bool) -> bytes:
    # Dimensions, flags, element type, length, lower bound. An empty array has no dimension.
    return _HEADER.pack(1, int(has_nulls), oid, count, 1) if count else struct.pack("!III", 0, 0, oid)


def _fixed(oid: int, size: int, values: Sequence[bytes]) -> BinaryArray:
    prefix = _LENGTHS[size]
    data = prefix + prefix.join(values) if values else b""
    return BinaryArray(ARRAY_OF[oid], _start(oid, len(values), has_nulls=False) + data)


def _packed(oid: int, code: str, size: int, values: Sequence[int]) -> BinaryArray:
    pack = struct.Struct("!" + code).pack
    return _fixed(oid, size, [pack(value) for value in values])


def _varying(oid: int, values: Sequence[bytes | None]) -> BinaryArray:
    parts: list[bytes] = []
    has_nulls = False
    for value in values:
        if value is None:
            has_nulls = True
            parts.append(_NULL)
        else:
            size = len(value)
            parts.append(_LENGTHS[size] if size < 4096 else _LENGTH.pack(size))
            parts.append(value)
    return BinaryArray(ARRAY_OF[oid], _start(oid, len(values), has_nulls) + b"".join(parts))


class _BinaryArrayDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: BinaryArray) -> bytes:
        return obj.data

    def get_key(self, obj: BinaryArray, format: Any) -> Any:  # noqa: ARG002 - psycopg's signature
        return (self.cls, obj.oid)

    def upgrade(self, obj: BinaryArray, format: Any) -> Dumper:  # noqa: ARG002 - psycopg's signature
        dumper = _BinaryArrayDumper(self.cls)
        dumper.oid = obj.oid
        return dumper


class _UuidBytesLoader(Loader):
    format = pq.Format.BINARY

    def load(self, data: Any) -> bytes:
        return bytes(data)


def register(context: AdaptContext) -> None:
    """Teach a connection to send these arrays, and to give uuids as their 16 bytes: the loop only hands them on."""
    context.adapters.register_dumper(BinaryArray, _BinaryArrayDumper)
    context.adapters.register_loader(UUID, _UuidBytesLoader)
