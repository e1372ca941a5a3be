"""Columns of rows as PostgreSQL takes them in one parameter: binary arrays, packed at once."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

__all__ = ["Blobs", "Integers", "Texts", "register"]

_HEADER = struct.Struct(
    "!iiiii"
)  # dimensions, whether any is null, type of the elements, how many, first subscript
_LENGTH = struct.Struct("!i")
_INTEGER = struct.Struct("!iq")
_EMPTY = struct.Struct("!iii")
_NULL = _LENGTH.pack(-1)
_BYTEA, _INT8, _TEXT = 17, 20, 25


class _Array:
    """An array, encoded."""

    __slots__ = ("data",)

    def __init__(self, kind: int, parts: list[bytes], count: int, *, nulls: bool = False) -> None:
        self.data = (
            b"".join((_HEADER.pack(1, nulls, kind, count, 1), *parts)) if count else _EMPTY.pack(0, 0, kind)
        )


class Blobs(_Array):
    """`bytea[]`; None is null."""

    __slots__ = ()

    def __init__(self, values: Sequence[bytes | None], kind: int = _BYTEA) -> None:
        parts: list[bytes] = []
        for value in values:
            if value is None:
                parts.append(_NULL)
            else:
                parts += (_LENGTH.pack(len(value)), value)
        super().__init__(kind, parts, len(values), nulls=None in values)


class Texts(Blobs):
    """`text[]`."""

    __slots__ = ()

    def __init__(self, values: Sequence[str]) -> None:
        super().__init__([value.encode() for value in values], _TEXT)


class Integers(_Array):
    """`bigint[]`."""

    __slots__ = ()

    def __init__(self, values: Sequence[int]) -> None:
        super().__init__(_INT8, [_INTEGER.pack(8, value) for value in values], len(values))


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, array: _Array) -> bytes:
        return array.data


class _BlobsDumper(_ArrayDumper):
    oid = 1001


class _TextsDumper(_ArrayDumper):
    oid = 1009


class _IntegersDumper(_ArrayDumper):
    oid = 1016


def register(connection: psycopg.Connection[object]) -> None:
    """Have a connection take them."""
    connection.adapters.register_dumper(Blobs, _BlobsDumper)
    connection.adapters.register_dumper(Texts, _TextsDumper)
    connection.adapters.register_dumper(Integers, _IntegersDumper)
