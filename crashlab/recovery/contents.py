"""What do the tables and indexes hold, and what does the server say of its transactions?

Choices: every read is forced (sequential scan here, index scan in `indexes`) and its plan is checked, because a planner
    that chooses otherwise looks at something else. What can be asked in one message is, and one by one after an error.

Source: postgres-contract.md 7.5 (order of evidence).
"""

from functools import partial
from typing import Any

import psycopg

from crashlab.model import Complaint, IndexRead, Invariant, MarkerRead, MarkerRow, RelationRead, Row, SequenceRead
from crashlab.recovery import indexes, probes
from crashlab.recovery.forced import Forced, Question
from crashlab.recovery.rows import read_markers, read_rows, read_together
from crashlab.recovery.session import (
    SEQUENTIAL_SCANS,
    Facts,
    Looked,
    Reading,
    at_once,
    read_named,
    relation_file,
    relation_size,
    results,
)
from crashlab.workload.invariants import look, question, reads_volatile, seen
from crashlab.workload.relations import TEXT_SETTINGS, InvariantQuery

_NOT_THERE = ("42P01", "42703", "42704", "42883", "3F000")  # table, column, object, function, schema


def xact_status(connection: psycopg.Connection[Any], reading: Reading, facts: Facts) -> int:
    """Ask for the fate of each transaction."""
    xids = ",".join(map(str, reading.xids))
    query = f"""
        SELECT x::text, CASE WHEN x >= next THEN 'future' ELSE coalesce(pg_xact_status(x::text::xid8), 'too old') END
        FROM unnest('{{{xids}}}'::bigint[]) x, (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next) s
    """
    facts.xact_status.update(connection.execute(query).fetchall())
    return len(reading.xids)


def heap_read(connection: psycopg.Connection[Any], reading: Reading, facts: Facts) -> int:
    """Read the marker table and each relation; count the tables and the rows."""
    connection.execute(SEQUENTIAL_SCANS)
    marker = f"SELECT tx, client, xid FROM ONLY {reading.marker_table}"
    heaps = [f"SELECT {relation.select_list} FROM ONLY {relation.table}" for relation in reading.relations]
    tables = [reading.marker_table, *(relation.table for relation in reading.relations)]
    together = at_once(connection, lambda: _read_together(connection, reading, marker, heaps), tables)
    if together is not None:
        facts.marker, relations = together
        facts.relations += relations
        return 1 + len(facts.marker.rows) + sum(1 + len(one.rows) for one in relations)
    count = 0
    read = partial(read_named, "heap_read", connection, facts.complaints)
    markers = read(reading.marker_table, partial(read_markers, connection, marker))
    if markers is not None:
        facts.marker = MarkerRead(file=relation_file(connection, reading.marker_table), rows=markers)
        count += 1 + len(markers)
    for relation, query in zip(reading.relations, heaps, strict=True):
        rows = read(relation.table, partial(read_rows, connection, query))
        if rows is not None:
            file = relation_file(connection, relation.table)
            size = relation_size(connection, relation.table)
            facts.relations.append(RelationRead(relation=relation.name, file=file, rows=rows, size_bytes=size))
            count += 1 + len(rows)
    return count


def _read_together(
    connection: psycopg.Connection[Any], reading: Reading, marker: str, heaps: list[str]
) -> tuple[MarkerRead, list[RelationRead]]:
    markers, *found = read_together(connection, [(MarkerRow, marker), *((Row, query) for query in heaps)])
    tables = [reading.marker_table, *(relation.table for relation in reading.relations)]
    query = """
        SELECT pg_relation_filepath(t::regclass), pg_relation_size(t::regclass)
        FROM unnest(%s::text[]) WITH ORDINALITY u(t, n) ORDER BY n
    """
    (file, _), *files = connection.execute(query, (tables,)).fetchall()
    relations = zip(reading.relations, files, found, strict=True)
    return MarkerRead(file=file, rows=markers), [
        RelationRead(relation=relation.name, file=file, rows=rows, size_bytes=size)
        for relation, (file, size), rows in relations
    ]


def index_read(connection: psycopg.Connection[Any], reading: Reading, facts: Facts) -> Looked:
    """Read each table through each of its indexes."""
    tables = list(dict.fromkeys([reading.marker_table, *(relation.stored for relation in reading.relations)]))
    listed = indexes.of(connection, tables)
    ordered = [index for index in listed if index.method == indexes.ORDERED]
    read = partial(read_named, "index_read", connection, facts.complaints)
    found: list[IndexRead | indexes.NotRead] = []
    forced = Forced(connection)
    by_rows = {index.rows: index for index in ordered}
    in_order = [asked for index in ordered if isinstance(asked := indexes.in_order(index), Question)]
    others = [index for index in listed if index.method != indexes.ORDERED]
    by_value = [asked for index in others for asked in probes.questions(index)]
    forced.ask_ahead([*map(indexes.in_the_heap, by_rows.values()), *in_order, *by_value])
    # Nothing is asked below that is not known by now, unless there was an error
    heaps = {rows: read(index.table, partial(indexes.read_table, forced, index)) for rows, index in by_rows.items()}
    for index in ordered:
        heap = heaps[index.rows]
        if heap is not None:
            one = read(index.name, partial(indexes.read_in_order, forced, index, heap))
            found += [one] if one is not None else []
    for index in others:
        found += read(index.name, partial(probes.read, forced, index)) or []
    forced.close()
    reads = [one for one in found if isinstance(one, IndexRead)]
    facts.indexes.extend(reads)
    not_read = [str(one) for one in found if isinstance(one, indexes.NotRead)]
    return Looked(len(reads), detail=f"not read: {'; '.join(not_read)}" if not_read else "")


def sequences(connection: psycopg.Connection[Any], reading: Reading, facts: Facts) -> int:
    """Read where each sequence stands."""
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


def prepared(connection: psycopg.Connection[Any], reading: Reading, facts: Facts) -> int:
    """List the prepared transactions."""
    facts.prepared.extend(gid for (gid,) in connection.execute("SELECT gid FROM pg_prepared_xacts ORDER BY gid"))
    return len(facts.prepared)


def invariants(connection: psycopg.Connection[Any], reading: Reading, facts: Facts) -> int | Looked:
    """Look at what must hold after every transaction."""
    # The text settings as before the crash, where the server's own were in force
    before = [SEQUENTIAL_SCANS, *(f"RESET {name}" for name in TEXT_SETTINGS)]
    wanted = [one for one in reading.invariants if one.needs is None or _is_there(connection, one.needs)]
    asked = [question(invariant) for invariant in wanted]
    names = [invariant.name for invariant in wanted]
    answers = at_once(connection, lambda: results(connection, [*before, *asked]), names)
    if answers is not None and len(answers) == len(asked):
        for invariant, rows in zip(wanted, answers, strict=True):
            facts.invariants.append(_looked_at(connection, invariant, seen(invariant, rows)))
        return len(wanted)
    connection.execute("; ".join(before))
    read = partial(read_named, "invariants", connection, facts.complaints)
    for invariant in wanted:
        observed = read(invariant.name, partial(look, connection, invariant))
        if observed is not None:
            facts.invariants.append(_looked_at(connection, invariant, observed))
    if reading.invariants_may_lack:
        lacking = [one for one in facts.complaints if one.check == "invariants" and one.sqlstate in _NOT_THERE]
        facts.complaints[:] = [one for one in facts.complaints if one not in lacking]
        gone = ", ".join(one.object for one in lacking)
        return Looked(
            len(wanted) - len(lacking), detail=f"not asked, as what it reads is not there: {gone}" if gone else ""
        )
    return len(wanted)


def _is_there(connection: psycopg.Connection[Any], function: str) -> bool:
    row = connection.execute("SELECT to_regprocedure(%s) IS NOT NULL", (function,)).fetchone()
    return bool(row and row[0])


def _looked_at(connection: psycopg.Connection[Any], query: InvariantQuery, observed: str) -> Invariant:
    volatile = reads_volatile(connection, query) if query.expected is None and observed != query.wanted else []
    return Invariant(name=query.name, expected=query.wanted, observed=observed, reads_volatile=volatile)


def statistics(connection: psycopg.Connection[Any], reading: Reading, facts: Facts) -> int:
    """Ask how many rows were ever counted."""
    query = "SELECT pg_stat_get_tuples_inserted(%s::regclass)"
    (facts.rows_counted,) = connection.execute(query, (reading.marker_table,)).fetchone() or (None,)
    return 1
