"""Does each index lead to exactly the rows that its table holds?

A B-tree gives an order: the table is read once through it, in index order with sorting switched off, and held against a
sequential scan. amcheck cannot replace this: it looks from the heap to the index only, and passes an index whose heap
was emptied (measured, postgres-contract.md section 6). Any other index is asked for its rows by their own values
(`probes`).

Choices: a statement is prepared, its plan is looked at, and that very plan is run. An index that the plan does not use,
    because another one on the same columns is cheaper, is not counted as read, and is named.

Does not check: indexes that are not valid, which no query uses; of partitioned tables the partitions.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from crashlab.model import IndexRead

WITNESSES_MAX = 20
ORDERED = "btree"
_PLANS = (
    *("seqscan", "indexscan", "indexonlyscan", "bitmapscan"),
    *("sort", "incremental_sort", "memoize"),
)
IN_THE_HEAP = ("seqscan", "sort")
IN_ORDER = ("indexscan",)
BY_VALUE = ("indexscan", "bitmapscan", "sort")


@dataclass(frozen=True)
class Column:
    """A key column of an index, in SQL."""

    name: str  # a quoted name, or an expression
    value: str  # the same, with the index's collation
    order: str | None  # what stands behind ORDER BY; None: its operator class has no order
    operators: dict[str, str]  # bare name -> operator that compares two values of the column's type
    finds_null: bool  # the index can be asked for NULL
    category: str  # of its type, as in pg_type
    lexemes: bool  # a tsvector, whose operators take a tsquery


@dataclass(frozen=True)
class Index:
    """A valid index of a table."""

    name: str
    bare_name: str  # as EXPLAIN gives it
    table: str
    file: str | None
    method: str
    condition: str  # SQL of a partial index, otherwise true
    columns: tuple[Column, ...]
    key: str  # SQL of type text: the columns of the primary key, to name a row by

    @property
    def row_name(self) -> str:
        """SQL that says which row it is; a damaged key may be NULL, or no UTF-8: what is no ASCII is given in octal."""
        return f"encode(textsend(coalesce({self.key}, '(null)')), 'escape') || ' at ' || ctid::text"

    @property
    def rows(self) -> str:
        """SQL that names the rows that belong in the index."""
        return f"SELECT {self.row_name} FROM ONLY {self.table} WHERE {self.condition}"

    def read(self, heap_rows: int, index_rows: int, missing: Iterable[str], extra: Iterable[str]) -> IndexRead:
        """Return what a comparison gave."""
        return IndexRead(
            index=self.name,
            relation=self.table,
            file=self.file,
            heap_rows=heap_rows,
            index_rows=index_rows,
            only_in_heap=sorted(missing)[:WITNESSES_MAX],
            only_in_index=sorted(extra)[:WITNESSES_MAX],
            method=self.method,
        )


@dataclass(frozen=True)
class NotRead:
    """An index, or a part of one, that was not read, and why."""

    index: str
    reason: str

    def __str__(self) -> str:
        """As the check's detail has it."""
        return f"{self.index} ({self.reason})"


_LIST = """
SELECT i.indexrelid::regclass::text, c.relname, i.indrelid::regclass::text, pg_relation_filepath(i.indexrelid),
  m.amname, coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'),
  (SELECT json_agg(json_build_object(
     'name', pg_get_indexdef(i.indexrelid, n + 1, false),
     'collation', (SELECT format('%%I.%%I', s.nspname, o.collname) FROM pg_collation o
                   JOIN pg_namespace s ON s.oid = o.collnamespace WHERE o.oid = i.indcollation[n]),
     'option', i.indoption[n],
     'finds_null', pg_index_column_has_property(i.indexrelid, n + 1, 'search_nulls'),
     'category', t.typcategory,
     'lexemes', t.oid = 'tsvector'::regtype,
     'operators', (SELECT json_object_agg(a.amopstrategy, json_build_array(o.oprname,
                                            format('OPERATOR(%%I.%%s)', s.nspname, o.oprname)))
                   FROM pg_amop a JOIN pg_operator o ON o.oid = a.amopopr JOIN pg_namespace s ON s.oid = o.oprnamespace
                   WHERE a.amopfamily = f.opcfamily AND a.amoppurpose = 's' AND a.amoplefttype = t.oid
                   AND a.amoprighttype = CASE WHEN t.oid = 'tsvector'::regtype AND m.amname <> 'btree'
                                         THEN 'tsquery'::regtype ELSE t.oid END)
   ) ORDER BY n)
   FROM generate_series(0, i.indnkeyatts - 1) n JOIN pg_opclass f ON f.oid = i.indclass[n]
   JOIN pg_type t ON t.oid = f.opcintype),
  coalesce((SELECT string_agg(quote_ident(a.attname) || '::text', ' || '', '' || ' ORDER BY k.n)
   FROM pg_index p, unnest(p.indkey::int2[]) WITH ORDINALITY k(number, n)
   JOIN pg_attribute a ON a.attnum = k.number
   WHERE p.indrelid = i.indrelid AND p.indisprimary AND a.attrelid = p.indrelid AND k.n <= p.indnkeyatts),
   quote_literal(''))
FROM unnest(%s::text[]) WITH ORDINALITY wanted(name, place)
JOIN pg_index i ON i.indrelid = to_regclass(wanted.name)
JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i' JOIN pg_am m ON m.oid = c.relam
WHERE i.indisvalid AND i.indisready
ORDER BY wanted.place, i.indexrelid
"""
_DESCENDING, _NULLS_FIRST = 1, 2  # bits of pg_index.indoption
_LESS, _GREATER = "1", "5"  # strategies of every B-tree operator family


def of(connection: psycopg.Connection[Any], tables: Sequence[str]) -> list[Index]:
    """List the valid indexes of some tables; one that is not there has none."""
    found = []
    for *names, condition, columns, key in connection.execute(_LIST, (list(tables),)):
        name, bare_name, table, file, method = names
        made = tuple(_column(column, ordered=method == ORDERED) for column in columns)
        found.append(Index(name, bare_name, table, file, method, condition, made, key))
    return found


def _column(found: dict[str, Any], *, ordered: bool) -> Column:
    value = f"({found['name']} COLLATE {found['collation']})" if found["collation"] else found["name"]
    by_strategy: dict[str, tuple[str, str]] = found["operators"] or {}
    option = found["option"]
    before = by_strategy.get(_GREATER if option & _DESCENDING else _LESS) if ordered else None
    order = f"{value} USING {before[1]} NULLS {'FIRST' if option & _NULLS_FIRST else 'LAST'}" if before else None
    return Column(
        name=found["name"],
        value=value,
        order=order,
        operators=dict(by_strategy.values()),
        finds_null=bool(found["finds_null"]),
        category=found["category"],
        lexemes=found["lexemes"],
    )


def read_table(connection: psycopg.Connection[Any], index: Index) -> Counter[str]:
    """Return the names of the rows that belong in an index, read without it (IN_THE_HEAP).

    Raises:
        psycopg.Error: the server could not read the table.
    """
    plan = prepare(connection, index.rows)
    assert plan.scans == [("Seq Scan", "")], f"the planner chose {plan} for a sequential scan: {index.rows}"
    return Counter(name for (name,) in run_prepared(connection))


def read_in_order(connection: psycopg.Connection[Any], index: Index, heap: Counter[str]) -> IndexRead | NotRead:
    """Read a table through a B-tree (IN_ORDER), and hold that against what `read_table` gave.

    Raises:
        psycopg.Error: the server could not read the index.
    """
    orders = [column.order for column in index.columns if column.order]
    if len(orders) < len(index.columns):
        return NotRead(index.name, "an operator class has no order of its own type")
    plan = prepare(connection, f"{index.rows} ORDER BY {', '.join(orders)}")
    if plan.scans != [("Index Scan", index.bare_name)]:
        return NotRead(index.name, f"the planner chose {plan}")
    through = Counter(name for (name,) in run_prepared(connection))
    return index.read(heap.total(), through.total(), (heap - through).elements(), (through - heap).elements())


def allow(connection: psycopg.Connection[Any], plans: Sequence[str]) -> None:
    """Switch on these ways to read a table, IN_THE_HEAP, IN_ORDER or BY_VALUE, and no others."""
    settings = [f"SET enable_{name} = {'on' if name in plans else 'off'}" for name in _PLANS]
    connection.execute("; ".join([*settings, "SET jit = off"]))  # the cost of a forced plan would start it


def allow_all(connection: psycopg.Connection[Any]) -> None:
    """Leave the choice to the planner again."""
    connection.execute("; ".join([*(f"RESET enable_{name}" for name in _PLANS), "RESET jit"]))


@dataclass(frozen=True)
class Plan:
    """What a prepared query will scan, each scan with the bare name of its index or nothing."""

    scans: list[tuple[str, str]]
    problem: str = ""  # why there is no plan

    def __str__(self) -> str:
        """Say it in words."""
        return self.problem or ", ".join(f"{kind} on {index}" if index else kind for kind, index in self.scans)


def prepare(connection: psycopg.Connection[Any], query: str) -> Plan:
    """Prepare a query and return its plan; a query that PostgreSQL does not understand has none.

    Raises:
        psycopg.Error: a damaged catalog, or a table that is gone.
    """
    connection.prepare_threshold = None  # the driver's own statements would go with DEALLOCATE
    explain = "EXPLAIN (FORMAT JSON) EXECUTE crashlab_read"
    try:
        cursor = connection.execute(f"DEALLOCATE ALL; PREPARE crashlab_read AS {query}; {explain}")
    except errors.UndefinedTable:
        raise
    except (errors.ProgrammingError, errors.NotSupportedError) as error:
        return Plan([], f"no plan: {error.diag.message_primary}")
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return Plan(list(_scans(plan[0]["Plan"])))


def run_prepared(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Run the query that was prepared last: it has no parameters, so its plan is the one that was looked at."""
    return connection.execute("EXECUTE crashlab_read").fetchall()


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "Relation Name" in node or "Index Name" in node:
        yield node["Node Type"], node.get("Index Name", "")
    for below in node.get("Plans", ()):
        yield from _scans(below)
