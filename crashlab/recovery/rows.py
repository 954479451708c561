"""How are many rows read fast?

The server makes one JSON array a row, COPY brings them in bulk, msgspec decodes them in C.
"""

from typing import Any, TypeVar

import msgspec
import psycopg

from crashlab.model import MarkerRow, Row

T = TypeVar("T")

BLOCK_BYTES = 128 << 10
"""Decoded while it is in the cache, and never a second copy of a whole table in memory."""


def read_rows(connection: psycopg.Connection[Any], query: str) -> list[Row]:
    """Return the rows of a query whose columns are key, version, writer, value."""
    return _read(connection, query, Row)


def read_markers(connection: psycopg.Connection[Any], query: str) -> list[MarkerRow]:
    """Return the rows of a query whose columns are tx, client, xid."""
    return _read(connection, query, MarkerRow)


def _read(connection: psycopg.Connection[Any], query: str, kind: type[T]) -> list[T]:
    names = [f"c{number}" for number in range(len(kind.__struct_fields__))]  # type: ignore[attr-defined]
    columns = ", ".join(names)
    copy_sql = f"COPY (SELECT json_build_array({columns}) FROM ({query}) q({columns})) TO STDOUT"
    decode_lines = msgspec.json.Decoder(kind).decode_lines
    rows: list[T] = []
    lines = bytearray()
    with connection.cursor() as cursor, cursor.copy(copy_sql) as copy:
        for line in copy:
            lines += line
            if len(lines) > BLOCK_BYTES:
                rows += decode_lines(lines.replace(b"\\\\", b"\\"))
                lines.clear()
    # JSON holds no raw control character: a doubled backslash is the only escape that COPY can have added
    rows += decode_lines(lines.replace(b"\\\\", b"\\"))
    return rows
