"""How are many rows read fast?

The server makes one JSON array a row, COPY brings them in bulk, msgspec decodes them in C.
A damaged page may hold anything, and none of it may stop the reading: NULL where no NULL can be, and bytes that are no
UTF-8, become values that nobody wrote.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import psycopg

from crashlab.model import MarkerRow, Row

T = TypeVar("T")

BLOCK_BYTES = 128 << 10
"""Decoded while it is in the cache, and never a second copy of a whole table in memory."""


def read_rows(connection: psycopg.Connection[Any], query: str) -> list[Row]:
    """Return the rows of a query whose columns are key, version, writer, value."""
    return _read(connection, query, Row, "coalesce(c0, '(null)'), c1, c2, c3")


def read_markers(connection: psycopg.Connection[Any], query: str) -> list[MarkerRow]:
    """Return the rows of a query whose columns are tx, client, xid."""
    return _read(connection, query, MarkerRow, "coalesce(c0, -1), coalesce(c1, -1), coalesce(c2, -1)")


def _read(connection: psycopg.Connection[Any], query: str, kind: type[T], values: str) -> list[T]:
    columns = ", ".join(f"c{number}" for number in range(len(kind.__struct_fields__)))  # type: ignore[attr-defined]
    copy_sql = f"COPY (SELECT json_build_array({values}) FROM ({query}) q({columns})) TO STDOUT"
    decode = msgspec.json.Decoder(kind).decode_lines
    rows: list[T] = []
    lines = bytearray()
    with connection.cursor() as cursor, cursor.copy(copy_sql) as copy:
        for line in copy:
            lines += line
            if len(lines) > BLOCK_BYTES:
                rows += _decode(lines, decode)
                lines.clear()
    rows += _decode(lines, decode)
    return rows


def _decode(lines: bytearray, decode: Callable[[bytes | bytearray], list[T]]) -> list[T]:
    # JSON holds no raw control character: a doubled backslash is the only escape that COPY can have added
    lines = lines.replace(b"\\\\", b"\\")
    try:
        return decode(lines)
    except UnicodeDecodeError:
        return decode(lines.decode(errors="replace").encode())
