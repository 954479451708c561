"""Is everything sound? Many relations are asked for in one question, as long as the answer is yes.

A loop of `physical` asks relation by relation: an error is that relation's alone. That costs a subtransaction each, and
each loop reads the catalogs anew. Most relations of most servers are sound, so all of them are asked for in one go
first, with the loop's own conditions and functions. If the server raises an error, or anything is found, the loop is
run, and nothing is said of any relation but what the loop says.

Choices: an unchanged relation is not opened if the catalogs and their indexes are unchanged, too: all that opening it
    would read was read when the base image was checked.

Assumes: nobody writes, so the catalogs are read once for all checks of a session.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from crashlab.model import Complaint
from crashlab.recovery import physical
from crashlab.recovery.session import SEQUENTIAL_SCANS, Looked, at_once, results

FUNCTIONS = {
    "amcheck": "bt_index_check(regclass,boolean)",
    "unique": "bt_index_check(regclass,boolean,boolean)",
    "gin": "gin_index_check(regclass)",
    "visibility": "pg_check_visible(regclass)",
    "pages": "get_raw_page(text,text,bigint)",
}


@dataclass(frozen=True)
class _Relation:
    oid: int
    name: str  # quoted, with its schema
    in_toast: bool
    row: str  # what is on its pages
    unchanged: bool
    wanted: tuple[bool, ...]  # by each of _CONDITIONS


@dataclass(frozen=True)
class Sweep:
    """A check of many relations at once."""

    loop: str
    condition: str
    questions: Callable[[Sequence[_Relation]], list[str]]  # each gives one row
    counts_problems: bool = False  # so each of them must give 0
    opens: bool = False  # relations that are unchanged, too
    before: str = ""  # settings


def _each(sql: str) -> Callable[[Sequence[_Relation]], list[str]]:
    return lambda relations: [sql.format(oids=_oids(relations))]


def _oids(relations: Sequence[_Relation]) -> str:
    return f"'{{{','.join(str(one.oid) for one in relations)}}}'::oid[]"


def _read_all(relations: Sequence[_Relation]) -> list[str]:
    return [
        f"SELECT sum(length(chunk_data)) FROM {one.name}"
        if one.in_toast
        else f"SELECT sum(length({one.row}::text)) FROM ONLY {one.name} t"
        for one in relations
    ]


_OPEN = _each("SELECT count(pg_relation_size(o)) FROM unnest({oids}) o")

AMCHECK_INDEX = Sweep(
    physical.AMCHECK_INDEX,
    physical.BTREES,
    _each("SELECT count(bt_index_check(o, true)) FROM unnest({oids}) o"),
    opens=True,
)
AMCHECK_INDEX_UNIQUE = Sweep(
    physical.AMCHECK_INDEX_UNIQUE,
    physical.BTREES,
    _each("SELECT count(bt_index_check(o, true, true)) FROM unnest({oids}) o"),
    opens=True,
)
AMCHECK_GIN = Sweep(
    physical.AMCHECK_GIN, physical.GINS, _each("SELECT count(gin_index_check(o)) FROM unnest({oids}) o")
)
AMCHECK_HEAP = Sweep(
    physical.AMCHECK_HEAP,
    physical.HEAPS,
    _each("SELECT count(*) FROM unnest({oids}) o, LATERAL verify_heapam(o, check_toast => true)"),
    counts_problems=True,
)
FULL_READ = Sweep(physical.FULL_READ, physical.TABLES, _read_all, opens=True, before=SEQUENTIAL_SCANS)
VISIBILITY_MAP = Sweep(
    physical.VISIBILITY_MAP,
    physical.LOGGED_HEAPS,
    _each(
        "SELECT count(*) FROM unnest({oids}) o, LATERAL"
        " (SELECT pg_check_visible(o) UNION ALL SELECT pg_check_frozen(o)) problem"
    ),
    counts_problems=True,
)
PAGE_LSN = Sweep(
    physical.PAGE_LSN,
    physical.LOGGED,
    # as in the loop, the end of the log is asked for after the page was read
    _each("""
        SELECT count(*) FROM (
          SELECT (page_header(get_raw_page(format('%I.%I', n.nspname, c.relname), fork, block))).lsn
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, unnest('{{main,vm}}'::text[]) fork,
            generate_series(0, pg_relation_size(c.oid, fork) / current_setting('block_size')::bigint - 1) block
          WHERE c.oid = ANY({oids}) OFFSET 0) pages
        WHERE lsn > pg_current_wal_insert_lsn()"""),
    counts_problems=True,
)
_CONDITIONS = tuple(
    dict.fromkeys(
        sweep.condition for sweep in (AMCHECK_INDEX, AMCHECK_GIN, AMCHECK_HEAP, FULL_READ, VISIBILITY_MAP, PAGE_LSN)
    )
)

_FUNCTIONS_SQL = "SELECT " + ", ".join(f"to_regprocedure('{name}') IS NOT NULL" for name in FUNCTIONS.values())
_RELATIONS_SQL = f"""
SELECT c.oid, format('%I.%I', n.nspname, c.relname), n.nspname = 'pg_toast', pg_relation_filepath(c.oid),
  c.reltoastrelid, {physical.ROW.format(relation="c")}, {", ".join(_CONDITIONS)}
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
WHERE c.relpersistence <> 't' AND c.relkind IN ('r', 'm', 't', 'i', 'S')
"""
_FIRST_NORMAL_OID = 16384  # what lies below was made by initdb, as are all catalogs
_INDEXES_SQL = "SELECT indexrelid, indrelid FROM pg_index"


class Sweeps:
    """What one session can check, and of which relations."""

    def __init__(self, connection: psycopg.Connection[Any], unchanged: Collection[str]) -> None:
        """Ask nothing yet.

        Args:
            unchanged: as for `physical.leave_out`, which this session was told, too.
        """
        self._connection = connection
        self._unchanged = frozenset(unchanged)
        self._asked = False
        self._functions: dict[str, bool] = {}
        self._relations: list[_Relation] | None = None  # None: the catalogs cannot be read in one go
        self._files: frozenset[str] | None = None
        self._catalogs_unchanged = False

    def has(self, function: str) -> bool:
        """Whether an extension of this database has a function, by its name in FUNCTIONS."""
        self._ask()
        if function not in self._functions:
            row = self._connection.execute("SELECT to_regprocedure(%s) IS NOT NULL", (FUNCTIONS[function],)).fetchone()
            self._functions[function] = bool(row and row[0])
        return self._functions[function]

    def files(self) -> frozenset[str] | None:
        """Return the files of all relations of this database, by pg_relation_filepath(); None: they were not read."""
        self._ask()
        return self._files

    def check(self, sweep: Sweep, complaints: list[Complaint]) -> Looked:
        """Check what has to be, add complaints, and return how many relations were looked at.

        Raises:
            psycopg.Error: the loop itself could not go on, such as over an unreadable catalog.
        """
        self._ask()
        looked = at_once(self._connection, lambda: self._sound(sweep))
        if looked is not None:
            return looked
        if sweep.before:
            self._connection.execute(sweep.before)
        return physical.run(self._connection, sweep.loop, complaints)

    def _sound(self, sweep: Sweep) -> Looked | None:
        if self._relations is None:
            return None
        place = _CONDITIONS.index(sweep.condition)
        wanted = [one for one in self._relations if one.wanted[place]]
        changed = [one for one in wanted if not one.unchanged]
        same = [one for one in wanted if one.unchanged]
        questions = sweep.questions(changed) if changed else []
        opened = _OPEN(same) if same and sweep.opens and not self._catalogs_unchanged else []
        if questions or opened:
            before = [sweep.before] if sweep.before else []
            answers = results(self._connection, [*before, *questions, *opened])
            if sweep.counts_problems and any(rows != [(0,)] for rows in answers[: len(questions)]):
                return None
        return Looked(len(changed), len(same))

    def _ask(self) -> None:
        if self._asked:
            return
        self._asked = True
        said = at_once(
            self._connection, lambda: results(self._connection, [_FUNCTIONS_SQL, _RELATIONS_SQL, _INDEXES_SQL])
        )
        if said is not None:
            ((functions,), relations, indexes) = said
            self._functions = dict(zip(FUNCTIONS, functions, strict=True))
            self._files = frozenset(file for _, _, _, file, *_ in relations)
            same = _same(self._unchanged, relations, indexes)
            self._relations = [
                _Relation(oid, name, in_toast, row, oid in same, tuple(wanted))
                for oid, name, in_toast, _, _, row, *wanted in relations
            ]
            self._catalogs_unchanged = all(one.unchanged for one in self._relations if one.oid < _FIRST_NORMAL_OID)


def _same(
    unchanged: frozenset[str], relations: list[tuple[Any, ...]], indexes: list[tuple[Any, ...]]
) -> frozenset[int]:
    """Return which relations are unchanged together with what they are held against, as the loops find out."""
    toast = {oid: toast for oid, _, _, file, toast, *_ in relations if file in unchanged}
    without = {index for index, table in indexes if table not in toast}
    without_index = {table for index, table in indexes if index not in toast}
    return frozenset(
        oid for oid, of in toast.items() if oid not in without and (not of or (of in toast and of not in without_index))
    )
