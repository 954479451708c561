"""Does what is said about the data hold before the crash, at every moment that is looked at?

What it returns after the crash means something only then.

Choices: a look has the isolation level that the server gives the application, too. What is read in a serializable
    transaction counts only if that commits (PostgreSQL manual, Serializable Isolation Level), so one that the server
    cancels is tried again.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

import psycopg

from crashlab.errors import ProfileError
from crashlab.workload.relations import InvariantQuery

ROWS_SHOWN = 3
ROWS_COUNTED_MAX = 1000
TIMEOUT_MS = 10_000
SHARE_MAX = 0.2  # of the time, for a look
AGAIN_AFTER_S = 0.005
POLL_S = 0.01


def look(connection: "psycopg.Connection[Any]", query: InvariantQuery) -> str:
    """Return what a query gives now, in one snapshot: its one value, or of a user's the first rows.

    Raises:
        psycopg.Error: the server could not answer.
    """
    return seen(query, connection.execute(question(query)).fetchall())


def question(query: InvariantQuery) -> str:
    """Return the SQL to run; `seen` understands its rows."""
    if query.expected is not None:
        return query.sql
    return f"SELECT to_jsonb(q)::text FROM ({query.sql.rstrip().rstrip(';')}\n) q LIMIT {ROWS_COUNTED_MAX}"


def seen(query: InvariantQuery, found: Sequence[tuple[Any, ...]]) -> str:
    """Say in words what was found."""
    if query.expected is not None:
        return str(found[0][0]) if found else ""
    rows = [row for (row,) in found]
    if not rows:
        return query.wanted
    number = f"{len(rows)} rows" if len(rows) > 1 else "1 row"
    shown = ", ".join(rows[:ROWS_SHOWN])
    return (
        f"{'at least ' if len(rows) == ROWS_COUNTED_MAX else ''}{number}{', such as' if len(rows) > 1 else ':'} {shown}"
    )


VOLATILE = """
SELECT CASE c.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'temporary' END
  || CASE c.relkind WHEN 'S' THEN ' sequence ' ELSE ' table ' END || c.oid::regclass
FROM {held} WHERE c.relpersistence <> 'p' AND c.relkind NOT IN ('i', 'I')
UNION SELECT 'the view ' || c.oid::regclass FROM {held} WHERE c.relkind = 'v' AND c.relname ~ '^pg_stat(io)?_'
UNION SELECT 'the cumulative statistics' WHERE {counted}
""".replace(
    "{held}",
    "pg_locks l JOIN pg_class c ON l.locktype = 'relation' AND l.pid = pg_backend_pid() AND c.oid = l.relation"
    " AND l.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))",
)


def reads_volatile(connection: "psycopg.Connection[Any]", query: InvariantQuery) -> list[str]:
    """Return what a query reads that a crash empties, as documented: unlogged tables, the statistics.

    What it reads, through whatever views and functions, it holds locked until the end of its transaction. From 15 on a
    session also knows whether it has looked at the cumulative statistics; before, only their views tell.

    Raises:
        psycopg.Error: the server could not answer.
    """
    tells = connection.info.server_version >= 150000
    with connection.transaction():
        if tells:
            connection.execute("SET LOCAL stats_fetch_consistency = snapshot")
        connection.execute(question(query))
        counted = "pg_stat_get_snapshot_timestamp() IS NOT NULL" if tells else "false"
        return sorted(what for (what,) in connection.execute(VOLATILE.replace("{counted}", counted)))


class InvariantWatch:
    """Looks at invariants, once or again and again, and keeps what it saw when one did not hold."""

    def __init__(self, queries: Sequence[InvariantQuery], *, every_ms: float = 0.0) -> None:
        self._queries = queries
        self._every_ms = every_ms
        self._asked = threading.Event()
        self._answered = threading.Event()
        self.violations: dict[str, str] = {}  # name -> what was observed first

    def check_first(self, connection: "psycopg.Connection[Any]") -> None:
        """Look at each once. Raises ProfileError: one of them cannot be run."""
        _prepare(connection)
        for query in self._queries:
            try:
                self._check(connection, query)
            except psycopg.Error as error:
                primary, *more = str(error).strip().splitlines() or [type(error).__name__]
                raise ProfileError(
                    f'cannot use invariant "{query.name}": {primary}', detail="\n".join(more) or None
                ) from error

    def run(self, connection: "psycopg.Connection[Any]", stop: threading.Event) -> None:
        """Look at all until told to stop, and once more then. Raises psycopg.Error: the server did not answer."""
        _prepare(connection)
        next_s = 0.0
        while True:
            while not (self._asked.is_set() or stop.is_set()) and time.monotonic() < next_s:
                stop.wait(POLL_S)
            stopped, asked, begun = stop.is_set(), self._asked.is_set(), time.monotonic()
            self._asked.clear()
            for query in self._queries:
                self._check(connection, query)
            if asked:
                self._answered.set()
            if stopped:
                return
            now = time.monotonic()
            next_s = now + max(self._every_ms / 1000, (now - begun) * (1 / SHARE_MAX - 1))

    def look_now(self) -> bool:
        """Have all looked at, from now on, by the thread that runs this; return whether it did, in time."""
        self._answered.clear()
        self._asked.set()
        return self._answered.wait(TIMEOUT_MS / 1000)

    def _check(self, connection: "psycopg.Connection[Any]", query: InvariantQuery) -> None:
        deadline = time.monotonic() + TIMEOUT_MS / 1000
        while True:
            try:
                observed = look(connection, query)
                break
            except psycopg.errors.SerializationFailure:
                if time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN_AFTER_S)
        if observed != query.wanted:
            self.violations.setdefault(query.name, observed)


def _prepare(connection: "psycopg.Connection[Any]") -> None:
    connection.execute(f"SET statement_timeout = {TIMEOUT_MS}; SET default_transaction_read_only = on")
