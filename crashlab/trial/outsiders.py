"""What did sessions do to the application's tables of which its ledger does not know?

A worker, psql, a trigger of another service, the test's own statement: nobody noted what they were told, so what they
changed accuses nobody. Right before the fault the rows are read once, and the markers with them in one snapshot: what
is not as the ledger has it then was changed by others, or noted wrongly, and no crash is to blame. After the recovery
every transaction is asked for that committed and is not in the ledger, and which rows such a one wrote.

Choices: facts only; `oracle.outside` says what follows from them. What cannot be read before the fault, such as a table
    that an open transaction has locked, is left out, and the oracle knows.
    A row's xmin says who wrote it, also after a freeze. That of a row written in a savepoint is another than the
    transaction's own, so it is noted with the row (`own`).

Sources: manual, sections "System Columns", "Transaction ID and Snapshot Information Functions".
"""

import threading
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from crashlab.model import MarkerRow, Observation, Outside, RelationRead, Row
from crashlab.recovery.rows import read_together
from crashlab.recovery.session import SEQUENTIAL_SCANS
from crashlab.workload.relations import MARKER_TABLE, TEXT_SETTINGS, Relation

LOCK_TIMEOUT = "2s"
STATEMENT_TIMEOUT = "120s"
_MARKERS = f"SELECT tx, client, xid FROM ONLY {MARKER_TABLE}"
_SNAPSHOT = "SELECT pg_current_snapshot()::text"
_COMMITTED = """
SELECT x, pg_visible_in_snapshot(x::text::xid8, %(then)s::pg_snapshot)
FROM generate_series(pg_snapshot_xmax(%(first)s::pg_snapshot)::text::bigint,
                     pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1) x
WHERE pg_xact_status(x::text::xid8) = 'committed'
"""
_32_BITS = 0xFFFF_FFFF


class Outsiders:
    """Watches for others, from the start of a trial to the end of the reading."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Remember which transactions there were before the trial began."""
        self._lock = threading.Lock()
        self._own: set[int] = set()  # 32 bits
        self._first = _snapshot(connection)
        self._first_xid = int(self._first.split(":")[1]) & _32_BITS  # the snapshot's xmax
        self._then = self._first
        self._markers: list[int] = []
        self._before: list[RelationRead] = []

    def own(self, xids: set[int]) -> None:
        """Say which xids, of 32 bits, wrote rows that the ledger notes."""
        with self._lock:
            self._own |= xids

    def look(self, connection: psycopg.Connection[Any], relations: Sequence[Relation]) -> None:
        """Read what is there, right before the fault."""
        settings = {**TEXT_SETTINGS, "lock_timeout": LOCK_TIMEOUT, "statement_timeout": STATEMENT_TIMEOUT}
        connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()))
        self._then = _snapshot(connection)
        try:
            self._read(connection, relations)
        except psycopg.Error:
            self._read(connection, [one for one in relations if _can_be_read(connection, one)])

    def _read(self, connection: psycopg.Connection[Any], relations: Sequence[Relation]) -> None:
        queries = [(Row, f"SELECT {one.select_list} FROM ONLY {one.table}") for one in relations]
        markers, *found = read_together(connection, [(MarkerRow, _MARKERS), *queries])
        self._markers = [marker.tx for marker in markers]
        self._before = [
            RelationRead(relation=one.name, file=None, rows=rows) for one, rows in zip(relations, found, strict=True)
        ]

    def facts(
        self,
        connection: psycopg.Connection[Any],
        relations: Sequence[Relation],
        noted: set[tuple[str, str]],
        observation: Observation,
    ) -> Outside:
        """Return what others did, once the recovered server has been read.

        Args:
            noted: relation and key of the rows in question.

        Raises:
            psycopg.Error: the server cannot be asked.
        """
        with connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(f"{SEQUENTIAL_SCANS}; SET statement_timeout = '{STATEMENT_TIMEOUT}'")
            committed = cursor.execute(_COMMITTED, {"first": self._first, "then": self._then}).fetchall()
            others = {xid & _32_BITS: seen for xid, seen in committed if xid & _32_BITS not in self._own}
            read = {one.relation for one in observation.relations}
            rows: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
            for one in relations:
                written = _written_by(cursor, one, list(others), self._first_xid) if one.name in read else []
                for key, xid in written:
                    if (one.name, key) in noted:
                        rows[others.get(xid, True)].append((one.name, key))
        before = sum(others.values())
        return Outside(
            markers=self._markers,
            relations=self._before,
            before=before,
            since=len(others) - before,
            rows_before=rows[True],
            rows_since=rows[False],
        )

    def unknown(self) -> Outside:
        """Return what is known where the server cannot be asked: of no row who wrote it."""
        return Outside(markers=self._markers, relations=[], before=0, since=0, rows_before=[], rows_since=[])


def _snapshot(connection: psycopg.Connection[Any]) -> str:
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_SNAPSHOT).fetchone()
    assert row is not None
    snapshot: str = row[0]
    return snapshot


def _can_be_read(connection: psycopg.Connection[Any], relation: Relation) -> bool:
    try:
        connection.execute(f"SELECT {relation.select_list} FROM ONLY {relation.table}")
    except psycopg.Error:
        if connection.broken or connection.closed:
            raise
        return False
    return True


def _written_by(cursor: psycopg.Cursor[Any], relation: Relation, xids: list[int], first: int) -> list[tuple[str, int]]:
    """Return the keys and the xmin of the rows that these transactions wrote, or any before the first one.

    Where that cannot be read there are none.
    """
    query = (
        f"SELECT {relation.select_list}, xmin::text::bigint FROM ONLY {relation.table}"
        " WHERE xmin::text::bigint = ANY(%s::bigint[]) OR xmin::text::bigint < %s"
    )
    try:
        return [(key, xid) for key, *_, xid in cursor.execute(query, (xids, first)).fetchall()]
    except psycopg.Error:
        if cursor.connection.broken or cursor.connection.closed:
            raise
        return []  # what is damaged has been witnessed
