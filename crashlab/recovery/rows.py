"""How are many rows read fast?

The server makes one JSON array a row, COPY brings them in bulk, msgspec decodes them in C.
A damaged page may hold anything, and none of it may stop the reading: NULL where no NULL can be, and bytes that are no
UTF-8, become values that nobody wrote.

Choices: several queries come in one COPY, each row behind the number of its query. An error ends all of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import psycopg

from crashlab.model import MarkerRow, Row

T = TypeVar("T")

BLOCK_BYTES = 128 << 10
"""Decoded while it is in the cache, and never a second copy of a whole table in memory."""

_VALUES: dict[type, str] = {
    Row: "coalesce(c0, '(null)'), c1, c2, c3",
    MarkerRow: "coalesce(c0, -1), coalesce(c1, -1), coalesce(c2, -1)",
}


def read_rows(connection: psycopg.Connection[Any], query: str) -> list[Row]:
    """Return the rows of a query whose columns are key, version, writer, value."""
    (rows,) = read_together(connection, [(Row, query)])
    return rows


def read_markers(connection: psycopg.Connection[Any], query: str) -> list[MarkerRow]:
    """Return the rows of a query whose columns are tx, client, xid."""
    (rows,) = read_together(connection, [(MarkerRow, query)])
    return rows


def read_together(connection: psycopg.Connection[Any], queries: Sequence[tuple[type, str]]) -> list[list[Any]]:
    """Return the rows of each query, in one round trip.

    Args:
        queries: each with what its rows are, Row or MarkerRow, see `read_rows` and `read_markers`.
    """
    digits = len(str(len(queries)))
    parts = (_part(f"{number:0{digits}}", kind, query) for number, (kind, query) in enumerate(queries))
    decoders: list[Callable[[bytes | bytearray], list[Any]]] = [
        msgspec.json.Decoder(kind).decode_lines for kind, _ in queries
    ]
    rows: list[list[Any]] = [[] for _ in queries]
    lines = bytearray()
    before = f"{0:0{digits}}\t".encode()
    with connection.cursor() as cursor, cursor.copy(f"COPY ({' UNION ALL '.join(parts)}) TO STDOUT") as copy:
        for line in copy:
            if len(lines) > BLOCK_BYTES or line[: digits + 1] != before:
                rows[int(before)] += _decode(lines, decoders[int(before)])
                lines.clear()
                before = bytes(line[: digits + 1])
            lines += line[digits + 1 :]
    rows[int(before)] += _decode(lines, decoders[int(before)])
    return rows


def _part(number: str, kind: type, query: str) -> str:
    columns = ", ".join(f"c{place}" for place in range(len(kind.__struct_fields__)))  # type: ignore[attr-defined]
    return f"SELECT '{number}', json_build_array({_VALUES[kind]}) FROM ({query}) q({columns})"


def _decode(lines: bytearray, decode: Callable[[bytes | bytearray], list[T]]) -> list[T]:
    # JSON holds no raw control character: a doubled backslash is the only escape that COPY can have added
    lines = lines.replace(b"\\\\", b"\\")
    try:
        return decode(lines)
    except UnicodeDecodeError:
        return decode(lines.decode(errors="replace").encode())
