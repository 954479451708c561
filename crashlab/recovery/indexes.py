"""Does each index lead to exactly the rows that its table holds?

A B-tree gives an order: the table is read once through it, in index order with sorting switched off, and held against a
sequential scan. amcheck cannot replace this: it looks from the heap to the index only, and passes an index whose heap
was emptied (measured, postgres-contract.md section 6). Any other index is asked for its rows by their own values
(`probes`).

Choices: an index that the plan does not use (`forced`), because another one on the same columns is cheaper, is not
    counted as read, and is named.

Does not check: indexes that are not valid, which no query uses; of partitioned tables the partitions.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from crashlab.model import OPERATOR_CLASS, IndexRead
from crashlab.recovery.forced import IN_ORDER, IN_THE_HEAP, Forced, Plan, Question, Rows
from crashlab.recovery.session import results

WITNESSES_MAX = 20
ORDERED = "btree"


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


# Four small queries: planning one with all these joins costs more than to run them (measured: 4.3 and 2.7 ms, 18.6).
_WANTED = "i.indrelid = ANY (ARRAY(SELECT to_regclass(name) FROM unnest({tables}::text[]) name))"
_LIST = (
    """
SELECT wanted.place, i.indexrelid::regclass::text, c.relname, i.indrelid::regclass::text,
  pg_relation_filepath(i.indexrelid), m.amname, coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'),
  c.relkind = 'i' AND i.indisvalid AND i.indisready, i.indisprimary,
  i.indclass::oid[], i.indcollation::oid[], i.indoption::int2[],
  ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, false) FROM generate_series(1, i.indnkeyatts) n ORDER BY n),
  ARRAY(SELECT pg_index_column_has_property(i.indexrelid, n, 'search_nulls')
        FROM generate_series(1, i.indnkeyatts) n ORDER BY n)
FROM unnest({tables}::text[]) WITH ORDINALITY wanted(name, place)
JOIN pg_index i ON i.indrelid = to_regclass(wanted.name)
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
ORDER BY wanted.place, i.indexrelid""",
    f"""
SELECT f.oid, f.opcfamily, t.oid, t.typcategory, t.oid = 'tsvector'::regtype
FROM pg_opclass f JOIN pg_type t ON t.oid = f.opcintype
WHERE f.oid IN (SELECT unnest(i.indclass::oid[]) FROM pg_index i WHERE {_WANTED})""",
    f"""
SELECT a.amopfamily, a.amoplefttype, a.amoprighttype = a.amoplefttype, a.amopstrategy, o.oprname,
  format('OPERATOR(%I.%s)', s.nspname, o.oprname)
FROM pg_amop a JOIN pg_operator o ON o.oid = a.amopopr JOIN pg_namespace s ON s.oid = o.oprnamespace
WHERE a.amoppurpose = 's' AND (a.amoprighttype = a.amoplefttype OR a.amoprighttype = 'tsquery'::regtype)
  AND a.amopfamily IN (SELECT f.opcfamily FROM pg_opclass f
    WHERE f.oid IN (SELECT unnest(i.indclass::oid[]) FROM pg_index i WHERE {_WANTED}))
ORDER BY a.amopstrategy""",
    f"""
SELECT o.oid, format('%I.%I', s.nspname, o.collname) FROM pg_collation o JOIN pg_namespace s ON s.oid = o.collnamespace
WHERE o.oid IN (SELECT unnest(i.indcollation::oid[]) FROM pg_index i WHERE {_WANTED})""",
)
_DESCENDING, _NULLS_FIRST = 1, 2  # bits of pg_index.indoption
_LESS, _GREATER = 1, 5  # strategies of every B-tree operator family


_OWN_FUNCTIONS = f"""
SELECT pg_relation_filepath(d.objid), array_agg(DISTINCT CASE d.refclassid
  WHEN 'pg_opclass'::regclass THEN '{OPERATOR_CLASS} ' || (SELECT opcname FROM pg_opclass o WHERE o.oid = d.refobjid)
  ELSE pg_describe_object(d.refclassid, d.refobjid, 0) END)
FROM pg_depend d JOIN pg_index i ON d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid
WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass)
  AND d.refobjid >= 16384 -- FirstNormalObjectId
  AND pg_relation_filepath(d.objid) IS NOT NULL -- that of a partitioned table has no file
  AND NOT EXISTS (SELECT FROM pg_depend e
    WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e') -- of an extension
GROUP BY 1
"""


def own_functions(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Return the files of indexes that compute with functions, operators or classes of the database's owner, and those.

    Raises:
        psycopg.Error: the server could not read its catalogs.
    """
    return dict(connection.execute(_OWN_FUNCTIONS).fetchall())


def of(connection: psycopg.Connection[Any], tables: Sequence[str]) -> list[Index]:
    """List the valid indexes of some tables; one that is not there has none."""
    literal = sql.Literal(list(tables)).as_string(connection)
    listed, *catalogs = results(connection, [query.replace("{tables}", literal) for query in _LIST])
    keys = {(place, table): names for place, _, _, table, _, _, _, _, primary, *_, names, _ in listed if primary}
    make = _Columns(*catalogs)
    found = []
    for place, name, bare_name, table, file, method, condition, valid, _, *columns in listed:
        if valid:
            made = make.columns(method, *columns)
            key = " || ', ' || ".join(f"{column}::text" for column in keys.get((place, table), ())) or "''"
            found.append(Index(name, bare_name, table, file, method, condition, made, key))
    return found


class _Columns:
    """Puts together what the catalogs say of the key columns of indexes."""

    def __init__(self, classes: Rows, operators: Rows, collations: Rows) -> None:
        self._classes = {oid: of_class for oid, *of_class in classes}
        self._collations: dict[int, str] = dict(collations)
        self._operators: dict[tuple[int, int, bool], dict[int, tuple[str, str]]] = {}
        for family, left, same, strategy, *operator in operators:
            self._operators.setdefault((family, left, same), {})[strategy] = (operator[0], operator[1])

    def columns(
        self,
        method: str,
        classes: list[int],
        collations: list[int],
        options: list[int],
        names: list[str],
        finds_null: list[bool | None],
    ) -> tuple[Column, ...]:
        """Return the columns of one index, from what stands in pg_index."""
        found = []
        for number, name in enumerate(names):
            if classes[number] in self._classes:
                collation = self._collations.get(collations[number])
                value = f"({name} COLLATE {collation})" if collation else name
                nulls = bool(finds_null[number])
                found.append(self._column(method, name, value, classes[number], options[number], nulls))
        return tuple(found)

    def _column(self, method: str, name: str, value: str, of_class: int, option: int, finds_null: bool) -> Column:
        family, of_type, category, lexemes = self._classes[of_class]
        ordered = method == ORDERED
        by_strategy = self._operators.get((family, of_type, ordered or not lexemes), {})
        before = by_strategy.get(_GREATER if option & _DESCENDING else _LESS) if ordered else None
        order = f"{value} USING {before[1]} NULLS {'FIRST' if option & _NULLS_FIRST else 'LAST'}" if before else None
        operators = dict(by_strategy.values())
        return Column(name, value, order, operators, finds_null, category, lexemes)


def in_the_heap(index: Index) -> Question:
    """Ask for the names of the rows that belong in an index, without it."""
    return Question(index.rows, IN_THE_HEAP, lambda plan: plan.scans == [("Seq Scan", "")], index.table)


def in_order(index: Index) -> Question | NotRead:
    """Ask for the same rows through a B-tree."""
    orders = [column.order for column in index.columns if column.order]
    if len(orders) < len(index.columns):
        return NotRead(index.name, "an operator class has no order of its own type")
    scans = [("Index Scan", index.bare_name)]
    return Question(
        f"{index.rows} ORDER BY {', '.join(orders)}", IN_ORDER, lambda plan: plan.scans == scans, index.name
    )


def read_table(forced: Forced, index: Index) -> Counter[str]:
    """Return the names of the rows that belong in an index, read without it.

    Raises:
        psycopg.Error: the server could not read the table.
    """
    found = forced.ask(in_the_heap(index))
    assert not isinstance(found, Plan), f"the planner chose {found} for a sequential scan: {index.rows}"
    return Counter(name for (name,) in found)


def read_in_order(forced: Forced, index: Index, heap: Counter[str]) -> IndexRead | NotRead:
    """Read a table through a B-tree, and hold that against what `read_table` gave.

    Raises:
        psycopg.Error: the server could not read the index.
    """
    question = in_order(index)
    if isinstance(question, NotRead):
        return question
    found = forced.ask(question)
    if isinstance(found, Plan):
        return NotRead(index.name, f"the planner chose {found}")
    through = Counter(name for (name,) in found)
    return index.read(heap.total(), through.total(), (heap - through).elements(), (through - heap).elements())
