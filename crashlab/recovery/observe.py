"""What does the recovered server hold?

Assumes: nobody writes. The statuses of the transactions are asked first, before anything could assign an xid: an xid
    that left no trace in the WAL is given out again, and would answer for another transaction.
Choices: every read is forced (sequential scan here, index scan in `indexes`) and its plan is checked, because a
    planner that chooses otherwise looks at something else. A check that met an error keeps the error as a complaint
    and counts as run; a check that could not go on is `failed`, and its absence makes the trial inconclusive.

Source: postgres-contract.md 7.5 (order of evidence), 6 (blind spots of each tool).
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec
import psycopg

from crashlab.model import (
    CheckRun,
    Complaint,
    IndexRead,
    Invariant,
    MarkerRead,
    Observation,
    Recovery,
    RelationRead,
    SequenceRead,
)
from crashlab.recovery import checksums, indexes, physical, probes
from crashlab.recovery.patience import Patience
from crashlab.recovery.rows import read_markers, read_rows
from crashlab.workload.invariants import look
from crashlab.workload.relations import MARKER_TABLE, SEQUENCE, TEXT_SETTINGS, UNLOGGED_TABLE, InvariantQuery, Relation

STATEMENT_TIMEOUT_MS = 120_000
DATABASE = "postgres"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Reading:
    """What is to be read."""

    relations: list[Relation]
    invariants: list[InvariantQuery]
    xids: list[int]  # transactions whose fate is asked
    marker_table: str = MARKER_TABLE
    sequences: tuple[str, ...] = (SEQUENCE,)
    unlogged: tuple[str, ...] = (UNLOGGED_TABLE,)
    databases: bool = False  # read the other databases, too
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS
    statistics: bool = True  # ask for them if no recovery ran; False: nothing ever wrote them down


@dataclass
class _Facts:
    """What has been read so far; survives the server's death in the middle."""

    checks: dict[str, CheckRun] = field(default_factory=dict)
    xact_status: dict[str, str] = field(default_factory=dict)
    marker: MarkerRead | None = None
    relations: list[RelationRead] = field(default_factory=list)
    indexes: list[IndexRead] = field(default_factory=list)
    complaints: list[Complaint] = field(default_factory=list)
    sequences: list[SequenceRead] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    invariants: list[Invariant] = field(default_factory=list)
    rows_counted: int | None = None
    unlogged_rows: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    died: str | None = None


Check = Callable[["psycopg.Connection[Any]", Reading, _Facts], int | physical.Looked | physical.Skipped]
ConnectTo = Callable[[str], "psycopg.Connection[Any]"]


def observe(
    connect: ConnectTo,
    reading: Reading,
    recovery: Recovery,
    *,
    unchanged: Collection[str] = (),
) -> Observation:
    """Read everything that the oracle asks for.

    Args:
        connect: opens an autocommit connection to a database.
        recovery: what `recover` said; a server that did not start is not read.
        unchanged: relations, as pg_relation_filepath() names them, whose files are those of a base image that was
            checked; amcheck and the full read leave them out (`physical`).
    """
    facts = _Facts()
    if recovery.started:
        try:
            with _session(connect, DATABASE, reading) as connection:
                _prepare(connection, unchanged, reading)
                for name, check in CHECKS:
                    _run_check(name, check, connection, reading, facts)
                if reading.statistics and not recovery.ran:  # which throws them away
                    _run_check("statistics", _statistics, connection, reading, facts)
                facts.checks["checksums"] = checksums.NOT_STOPPED
                if reading.databases:
                    _run_check("databases", partial(_databases, connect, unchanged), connection, reading, facts)
        except psycopg.errors.QueryCanceled as error:
            facts.complaints.append(complaint("full_read", "session", None, error))
        except psycopg.OperationalError as error:
            facts.died = str(error).strip()
        except psycopg.Error as error:  # not even a SET works: a catalog that every statement needs is damaged
            facts.complaints.append(complaint("full_read", "session", None, error))
    return Observation(recovery=recovery, **vars(facts))


@contextlib.contextmanager
def _session(connect: ConnectTo, database: str, reading: Reading) -> "Iterator[psycopg.Connection[Any]]":
    with (
        contextlib.closing(connect(database)) as connection,
        Patience(lambda: connect(database), connection, reading.statement_timeout_ms),
    ):
        yield connection


def _prepare(connection: psycopg.Connection[Any], unchanged: Collection[str], reading: Reading) -> None:
    connection.execute(f"SET statement_timeout = {reading.statement_timeout_ms}")
    connection.execute("SET default_transaction_read_only = on")
    connection.execute("SET zero_damaged_pages = off; SET ignore_checksum_failure = off")  # damage has to be seen
    # Nobody writes any more. A prepared transaction that was serializable would refuse every serializable read.
    connection.execute("SET default_transaction_isolation = 'read committed'")
    for name, value in TEXT_SETTINGS.items():
        connection.execute(f"SET {name} = '{value}'")
    physical.leave_out(connection, unchanged)


def _run_check(name: str, check: Check, connection: psycopg.Connection[Any], reading: Reading, facts: _Facts) -> None:
    begun = time.monotonic()
    detail = ""
    count = unchanged = 0
    try:
        looked = check(connection, reading, facts)
        status = "ran"
        if isinstance(looked, physical.Skipped):
            status, detail = "skipped", looked.reason
        elif isinstance(looked, physical.Looked):
            count, unchanged = looked.count, looked.unchanged
            detail = looked.detail or (f"{unchanged} relations are as in the base image" if unchanged else "")
        else:
            count = looked
    except psycopg.Error as error:
        if connection.broken or connection.closed:
            raise psycopg.OperationalError(f"while {name} was run: {error}") from error
        facts.complaints.append(complaint(name, name, None, error))
        status, detail = "failed", str(error).strip()
    except UnicodeDecodeError as error:  # of a catalog: rows and keys are read without it
        message = f"bytes that are not in the database's encoding: {error}"
        facts.complaints.append(Complaint(check=name, object=name, file=None, sqlstate="22021", message=message))
        status, detail = "failed", message
    except AssertionError as error:  # a check that looked elsewhere than it should has not looked
        status, detail = "failed", str(error)
    facts.checks[name] = CheckRun(
        status=status,  # type: ignore[arg-type]
        count=count,
        unchanged=unchanged,
        seconds=round(time.monotonic() - begun, 4),
        detail=detail,
    )


def complaint(check: str, what: str, file: str | None, error: psycopg.Error) -> Complaint:
    """Turn an error that the server raised into a fact."""
    message = str(error).strip()
    return Complaint(check=check, object=what, file=file, sqlstate=error.sqlstate, message=message)


def _xact_status(connection: psycopg.Connection[Any], reading: Reading, facts: _Facts) -> int:
    query = """
        SELECT x::text, CASE WHEN x >= next THEN 'future' ELSE coalesce(pg_xact_status(x::text::xid8), 'too old') END
        FROM unnest(%s::bigint[]) x, (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next) s
    """
    facts.xact_status.update(connection.execute(query, (reading.xids,)).fetchall())
    return len(reading.xids)


def _heap_read(connection: psycopg.Connection[Any], reading: Reading, facts: _Facts) -> int:
    _force_sequential_scans(connection)
    count = 0
    query = f"SELECT tx, client, xid FROM ONLY {reading.marker_table}"
    marker = read_named("heap_read", connection, facts.complaints, reading.marker_table, read_markers, query)
    if marker is not None:
        facts.marker = MarkerRead(file=relation_file(connection, reading.marker_table), rows=marker)
        count += 1 + len(marker)
    for relation in reading.relations:
        query = f"SELECT {relation.select_list} FROM ONLY {relation.table}"
        rows = read_named("heap_read", connection, facts.complaints, relation.table, read_rows, query)
        if rows is not None:
            file = relation_file(connection, relation.table)
            facts.relations.append(RelationRead(relation=relation.name, file=file, rows=rows))
            count += 1 + len(rows)
    return count


def read_named(
    check: str,
    connection: psycopg.Connection[Any],
    complaints: list[Complaint],
    what: str,
    read: Callable[[psycopg.Connection[Any], T], R],
    argument: T,
) -> R | None:
    """Return what `read` gives; an error of the server becomes a complaint about `what` and gives None."""
    try:
        return read(connection, argument)
    except psycopg.Error as error:
        if connection.broken or connection.closed:
            raise psycopg.OperationalError(f"{what}: {error}") from error
        complaints.append(complaint(check, what, relation_file(connection, what), error))
        return None


def relation_file(connection: psycopg.Connection[Any], table: str) -> str | None:
    """Return a relation's path below the data directory; None when even that cannot be read."""
    try:
        row = connection.execute("SELECT pg_relation_filepath(%s::regclass)", (table,)).fetchone()
    except psycopg.Error:
        if connection.broken or connection.closed:
            raise
        return None
    return row[0] if row else None


def _force_sequential_scans(connection: psycopg.Connection[Any]) -> None:
    for scan in ("indexscan", "indexonlyscan", "bitmapscan"):
        connection.execute(f"SET enable_{scan} = off")
    connection.execute("SET enable_seqscan = on")
    connection.execute("SET max_parallel_workers_per_gather = 0")


def _index_read(connection: psycopg.Connection[Any], reading: Reading, facts: _Facts) -> physical.Looked:
    tables = [reading.marker_table, *(relation.table for relation in reading.relations)]
    listed = indexes.of(connection, tables)
    ordered = [index for index in listed if index.method == indexes.ORDERED]
    read = partial(read_named, "index_read", connection, facts.complaints)
    found: list[IndexRead | indexes.NotRead] = []
    indexes.allow(connection, indexes.IN_THE_HEAP)
    by_rows = {index.rows: index for index in ordered}
    heaps = {rows: read(index.table, indexes.read_table, index) for rows, index in by_rows.items()}
    indexes.allow(connection, indexes.IN_ORDER)
    for index in ordered:
        heap = heaps[index.rows]
        if heap is not None:
            one = read(index.name, partial(indexes.read_in_order, heap=heap), index)
            found += [one] if one is not None else []
    indexes.allow(connection, indexes.BY_VALUE)
    for index in listed:
        if index.method != indexes.ORDERED:
            found += read(index.name, probes.read, index) or []
    indexes.allow_all(connection)
    reads = [one for one in found if isinstance(one, IndexRead)]
    facts.indexes.extend(reads)
    not_read = [str(one) for one in found if isinstance(one, indexes.NotRead)]
    return physical.Looked(len(reads), detail=f"not read: {'; '.join(not_read)}" if not_read else "")


def _amcheck_index(
    connection: psycopg.Connection[Any], reading: Reading, facts: _Facts
) -> physical.Looked | physical.Skipped:
    unique = physical.has(connection, "unique")
    if not unique and not physical.has(connection, "amcheck"):
        return physical.Skipped("the database has no extension amcheck")
    loop = physical.AMCHECK_INDEX_UNIQUE if unique else physical.AMCHECK_INDEX
    return physical.run(connection, loop, facts.complaints)


def _amcheck_heap(
    connection: psycopg.Connection[Any], reading: Reading, facts: _Facts
) -> physical.Looked | physical.Skipped:
    if not physical.has(connection, "amcheck"):
        return physical.Skipped("the database has no extension amcheck")
    return physical.run(connection, physical.AMCHECK_HEAP, facts.complaints)


def _amcheck_gin(
    connection: psycopg.Connection[Any], reading: Reading, facts: _Facts
) -> physical.Looked | physical.Skipped:
    if not physical.has(connection, "gin"):
        return physical.Skipped("the database has no gin_index_check, which comes with amcheck 1.5 (PostgreSQL 18)")
    return physical.run(connection, physical.AMCHECK_GIN, facts.complaints)


def _visibility_map(
    connection: psycopg.Connection[Any], reading: Reading, facts: _Facts
) -> physical.Looked | physical.Skipped:
    if not physical.has(connection, "visibility"):
        return physical.Skipped("the database has no extension pg_visibility")
    if reason := physical.horizon_may_move_back(connection):
        return physical.Skipped(f"before PostgreSQL 17 its answer cannot be relied on: {reason}")
    return physical.run(connection, physical.VISIBILITY_MAP, facts.complaints)


def _page_lsn(
    connection: psycopg.Connection[Any], reading: Reading, facts: _Facts
) -> physical.Looked | physical.Skipped:
    if not physical.has(connection, "pages"):
        return physical.Skipped("the database has no extension pageinspect")
    return physical.run(connection, physical.PAGE_LSN, facts.complaints)


def _full_read(connection: psycopg.Connection[Any], reading: Reading, facts: _Facts) -> physical.Looked:
    _force_sequential_scans(connection)
    return physical.run(connection, physical.FULL_READ, facts.complaints)


def _sequences(connection: psycopg.Connection[Any], reading: Reading, facts: _Facts) -> int:
    for name in reading.sequences:
        row = connection.execute(f"SELECT last_value, is_called FROM {name}").fetchone()
        file = relation_file(connection, name)
        if row is None:
            message = "could not find the row of the sequence"
            facts.complaints.append(
                Complaint(check="sequences", object=name, file=file, sqlstate="XX001", message=message)
            )
            continue
        facts.sequences.append(SequenceRead(name=name, file=file, last_value=row[0], is_called=row[1]))
    return len(reading.sequences)


def _prepared(connection: psycopg.Connection[Any], reading: Reading, facts: _Facts) -> int:
    facts.prepared.extend(gid for (gid,) in connection.execute("SELECT gid FROM pg_prepared_xacts ORDER BY gid"))
    return len(facts.prepared)


def _invariants(connection: psycopg.Connection[Any], reading: Reading, facts: _Facts) -> int:
    _force_sequential_scans(connection)
    for name in TEXT_SETTINGS:  # as before the crash, where the server's own were in force
        connection.execute(f"RESET {name}")
    for invariant in reading.invariants:
        observed = read_named("invariants", connection, facts.complaints, invariant.name, look, invariant)
        if observed is not None:
            facts.invariants.append(Invariant(name=invariant.name, expected=invariant.wanted, observed=observed))
    return len(reading.invariants)


def _unlogged(connection: psycopg.Connection[Any], reading: Reading, facts: _Facts) -> int:
    for table in reading.unlogged:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        facts.unlogged_rows[table] = row[0]
    return len(reading.unlogged)


def _statistics(connection: psycopg.Connection[Any], reading: Reading, facts: _Facts) -> int:
    query = "SELECT pg_stat_get_tuples_inserted(%s::regclass)"
    (facts.rows_counted,) = connection.execute(query, (reading.marker_table,)).fetchone() or (None,)
    return 1


def _databases(
    connect: ConnectTo,
    unchanged: Collection[str],
    connection: psycopg.Connection[Any],
    reading: Reading,
    facts: _Facts,
) -> physical.Looked:
    """Read every other database that lets sessions in; an interrupted DROP DATABASE leaves one that does not."""
    query = """
        SELECT datname, CASE dattablespace WHEN 1663 THEN 'base/' || oid END FROM pg_database
        WHERE datallowconn AND datconnlimit <> -2 AND datname <> current_database() ORDER BY oid
    """
    count = same = 0
    for name, folder in connection.execute(query).fetchall():
        try:
            with _session(connect, name, reading) as other:
                _prepare(other, unchanged, reading)
                looked = _read_database(other, name, facts.complaints)
        except psycopg.Error as error:
            connection.execute("SELECT")  # raises if it is the whole server that is gone
            facts.complaints.append(complaint("databases", f"database {name}", folder, error))
            continue
        count, same = count + looked.count, same + looked.unchanged
    return physical.Looked(count, same)


def _read_database(connection: psycopg.Connection[Any], name: str, complaints: list[Complaint]) -> physical.Looked:
    loops = [physical.FULL_READ]
    if physical.has(connection, "amcheck"):
        loops += [physical.AMCHECK_INDEX, physical.AMCHECK_HEAP]
    found: list[Complaint] = []
    count = same = 0
    for loop in loops:
        looked = physical.run(connection, loop, found)
        count, same = count + looked.count, same + looked.unchanged
    complaints += [msgspec.structs.replace(one, object=f"{name}: {one.object}") for one in found]
    return physical.Looked(count, same)


CHECKS: Iterable[tuple[str, Check]] = (
    ("xact_status", _xact_status),
    ("page_lsn", _page_lsn),  # first: a scan may prune a page, which gives it another LSN
    ("heap_read", _heap_read),
    ("index_read", _index_read),
    ("amcheck_index", _amcheck_index),
    ("amcheck_heap", _amcheck_heap),
    ("amcheck_gin", _amcheck_gin),
    ("full_read", _full_read),
    ("visibility_map", _visibility_map),
    ("sequences", _sequences),
    ("prepared", _prepared),
    ("invariants", _invariants),
    ("unlogged", _unlogged),
)
"""In the order in which they run; the names are those of model.REQUIRED_CHECKS and some more."""
