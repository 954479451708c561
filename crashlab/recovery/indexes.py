"""Does each index lead to exactly the rows that its table holds?

Reads each table's rows once through each B-tree index, in index order with sorting switched off, and holds them
against a sequential scan. amcheck cannot replace this: it looks from the heap to the index only, and passes an index
whose heap was emptied (measured, postgres-contract.md section 6).

Does not check: access methods other than btree (they give no order to force a scan with), partial and expression
    indexes, indexes that are not valid. They are left to amcheck, and are not counted as read.
"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import psycopg

from crashlab.model import IndexRead

WITNESSES_MAX = 20
_PLANS = ("seqscan", "sort", "bitmapscan", "indexscan", "indexonlyscan", "incremental_sort")
_SEQUENTIAL = ("seqscan", "sort", "bitmapscan")
_BY_INDEX = ("indexscan",)


@dataclass(frozen=True)
class Index:
    """A B-tree index: its columns in order, and the columns of its table's primary key to name a row by."""

    name: str
    table: str
    file: str | None
    columns: tuple[str, ...]
    key: str  # SQL expression of type text


def of(connection: psycopg.Connection[Any], table: str) -> list[Index]:
    """List the B-tree indexes of a table that can be read in order."""
    rows = connection.execute(
        """
        SELECT i.indexrelid::regclass::text, pg_relation_filepath(i.indexrelid), i.indisprimary,
               array(SELECT quote_ident(a.attname) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
                     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                     WHERE k.n <= i.indnkeyatts ORDER BY k.n)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
        WHERE i.indrelid = %s::regclass AND m.amname = 'btree' AND i.indisvalid
          AND i.indpred IS NULL AND i.indexprs IS NULL
        ORDER BY i.indexrelid
        """,
        (table,),
    ).fetchall()
    primary = next((columns for _, _, is_primary, columns in rows if is_primary), None)
    key = " || ', ' || ".join(f"{column}::text" for column in primary) if primary else "''"
    return [Index(name, table, file, tuple(columns), key) for name, file, _, columns in rows]


def compare(connection: psycopg.Connection[Any], index: Index) -> IndexRead:
    """Read a table through its index and without it.

    Raises:
        psycopg.Error: the server could not read one of them.
    """
    # A damaged key may be NULL, or no UTF-8: it is named by its bytes, those that are no ASCII in octal
    row_name = f"encode(textsend(coalesce({index.key}, '(null)')), 'escape') || ' at ' || ctid::text"
    heap = _read(connection, f"SELECT {row_name} FROM ONLY {index.table}", by_index=None)
    order = ", ".join(index.columns)
    through = _read(connection, f"SELECT {row_name} FROM ONLY {index.table} ORDER BY {order}", by_index=index.name)
    only_in_heap, only_in_index = heap - through, through - heap
    return IndexRead(
        index=index.name,
        relation=index.table,
        file=index.file,
        heap_rows=heap.total(),
        index_rows=through.total(),
        only_in_heap=sorted(only_in_heap.elements())[:WITNESSES_MAX],
        only_in_index=sorted(only_in_index.elements())[:WITNESSES_MAX],
    )


def _read(connection: psycopg.Connection[Any], query: str, *, by_index: str | None) -> Counter[str]:
    allowed = _SEQUENTIAL if by_index is None else _BY_INDEX
    connection.execute(";".join(f"SET enable_{name} = {'on' if name in allowed else 'off'}" for name in _PLANS))
    _assert_plan(connection, query, by_index)
    return Counter(name for (name,) in connection.execute(query))


def _assert_plan(connection: psycopg.Connection[Any], query: str, by_index: str | None) -> None:
    """Make sure that the forced scan is what is run: otherwise nothing was looked at."""
    row = connection.execute(f"EXPLAIN (FORMAT JSON) {query}").fetchone()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    node = plan[0]["Plan"]
    while "Plans" in node:
        node = node["Plans"][0]
    wanted = ("Seq Scan", None) if by_index is None else ("Index Scan", by_index.rsplit(".", 1)[-1].strip('"'))
    found = (node["Node Type"], node.get("Index Name"))
    assert found == wanted, f"planner chose {found} where {wanted} was forced: {query}"
