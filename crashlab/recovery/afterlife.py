"""Can the recovered server be used, and is what had survived still there after a restart and another crash?

A recovery is not over when it has been read. Pages that only an insertion visits, maps of free space, the log that the
server writes on from where redo ended: only use shows them. So after the reading, in this order:

    locks       each prepared transaction that recovery brought back still keeps others from its tables and rows
    decide      half of them are rolled back, which may change nothing, and the others committed
    use         every row of every table is updated, deleted and inserted again; every sequence gives a value
    create      a new table with indexes is made and filled, another one made and dropped, materialized views refreshed
    vacuum      each table is vacuumed
    checkpoint  one is written
    restart     a clean stop, or a kill where that takes too long, and a start; everything is read again
    crash       some rows are written again, all processes are killed, and the server recovers; everything is read again

Assumes: the server was read and nothing was found, so that what goes wrong here is no consequence of it. Nobody else
    writes.
Choices: what a table holds is a count and a sum of hashes of its rows as text, taken before the use. No step changes
    it: the use writes the rows that there were. Triggers and foreign keys rest meanwhile.
    An error counts if its class is one that only damage gives. After any other one, such as no room, no right, a lock,
    or a mistake in the application's own view, the object is left out of the step, which says so.
    Tables with more rows than ROWS_MAX are used in part, in the order in which they lie. A table whose rows cannot be
    written without running code of somebody who is no superuser (an expression, a check), or a rule, a trigger or a
    generated column of anybody, which may refuse or write something else, is read and not used.
Does not check: other databases; the content of what COMMIT PREPARED makes visible; foreign tables, replication.

Sources: PostgreSQL, twophase.c (locks of recovered transactions: MarkAsPreparingGuts, lock_twophase_recover);
    errcodes.txt; postgres-contract.md 7.5.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg

from crashlab.errors import ServerError
from crashlab.model import REQUIRED_CHECKS, Afterlife, Complaint, IndexRead, LifeChange, LifeStep, Observation, Recovery
from crashlab.recovery.observe import observe
from crashlab.recovery.patience import Patience
from crashlab.recovery.restart import recover, still_settings
from crashlab.recovery.session import Reading
from crashlab.server import Restartable
from crashlab.server.base import DATABASE
from crashlab.workload.relations import TEXT_SETTINGS

ROWS_MAX = 1000
SCHEMA = "crashlab_afterlife"
LOCK_TIMEOUT_MS = 5_000
STOP_TIMEOUT_S = 30.0
DAMAGE_CLASSES = ("58", "XX")
"""SQLSTATE classes that nothing but damage gives: system errors and internal ones. All others may be the application's
own doing, such as a view whose query has become wrong: errcodes.txt."""
DUPLICATE = "23505"
"""... but rows that were there together and cannot be written once more: an index or a table has two of one key."""
REREAD = ("index_read", "amcheck_index", "amcheck_heap")
"""What is read once more after the second crash, beside all tables."""

BeforeStep = Callable[[str], None]
_IN_THE_LOG = "in the server log for details"
"""What a session is told of a checkpoint that failed: another process met the error."""

_TABLES = """
SELECT c.oid::regclass::text, c.relkind, c.relpersistence, pg_relation_filepath(c.oid),
       string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.attgenerated = ''),
       min(quote_ident(a.attname)) FILTER (WHERE a.attgenerated = '' AND a.attidentity <> 'a'),
       c.relkind = 'r' AND (c.relhasrules OR bool_or(a.attgenerated <> '')
           OR EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgenabled IN ('A', 'R')))
       OR c.relkind = 'r' AND NOT r.rolsuper AND (
           EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND num_nulls(i.indexprs, i.indpred) < 2)
           OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'm') AND c.relpersistence IN ('p', 'u') AND c.relispopulated
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
GROUP BY c.oid, r.rolsuper ORDER BY c.oid
"""
_SEQUENCES = """
SELECT s.seqrelid::regclass::text, s.seqincrement > 0, pg_relation_filepath(s.seqrelid) FROM pg_sequence s
JOIN pg_class c ON c.oid = s.seqrelid WHERE NOT s.seqcycle AND c.relpersistence = 'p' ORDER BY s.seqrelid
"""
_PREPARED = """
SELECT gid, transaction::text FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1
"""
_CREATE = f"""
CREATE SCHEMA {SCHEMA};
CREATE TABLE {SCHEMA}.kept (id serial PRIMARY KEY, t text);
CREATE INDEX ON {SCHEMA}.kept (t);
INSERT INTO {SCHEMA}.kept (t) SELECT repeat('x', n) FROM generate_series(1, 50) n;
CREATE TABLE {SCHEMA}.dropped AS SELECT * FROM {SCHEMA}.kept;
DROP TABLE {SCHEMA}.dropped;
"""


def is_sound(observation: Observation) -> bool:
    """Say whether a recovered server was read and nothing was found that would make its use fail."""
    return (
        observation.recovery.started
        and observation.died is None
        and not observation.complaints
        and all(index.agrees for index in observation.indexes)
        and all(name in observation.checks and observation.checks[name].status != "failed" for name in REQUIRED_CHECKS)
    )


class _Table(NamedTuple):
    """A table, or a materialized view, which is read only."""

    name: str
    kind: str
    persistence: str
    file: str | None
    columns: str | None  # that can be inserted
    updatable: str | None  # one that can be updated
    runs_code: bool  # writing it would run what somebody wrote who is no superuser, a rule, or a trigger


class _Died(Exception):
    """The server went away."""


Content = dict[str, tuple[int, str]]
"""Table -> number of rows, and the sum of their hashes."""


def live_on(
    server: Restartable,
    reading: Reading,
    *,
    overrides: dict[str, str],
    before_step: BeforeStep = lambda name: None,
    timeout_s: float = 60.0,
) -> Afterlife:
    """Use a recovered server that has been read, restart it, crash it and read it again. It is running afterwards.

    Args:
        overrides: settings of its starts, over those of its own.
        before_step: called before each step, with its name.
        timeout_s: for each start.
    """
    life = _Life(server, reading, overrides, before_step, timeout_s)
    try:
        life.go()
    except _Died as death:
        life.died = str(death)
    except psycopg.Error as error:  # what every step needs cannot be read
        life.note("catalogs", None, error)
    return life.told()


class _Life:
    """What was done and found so far."""

    def __init__(
        self,
        server: Restartable,
        reading: Reading,
        overrides: dict[str, str],
        before_step: BeforeStep,
        timeout_s: float,
    ) -> None:
        self._server = server
        self._reading = reading
        self._overrides = overrides
        self._before_step = before_step
        self._timeout_s = timeout_s
        self._steps: list[LifeStep] = []
        self._complaints: list[Complaint] = []
        self._changes: list[LifeChange] = []
        self._indexes: list[IndexRead] = []
        self._own_functions: dict[str, list[str]] = {}
        self._restart: Recovery | None = None
        self._second: Recovery | None = None
        self.died: str | None = None
        self._killed = False  # the clean stop took too long
        self._step = ""
        self._log_position = 0  # at the step's beginning
        self._count = 0
        self._left_out: list[str] = []
        self._tables: list[_Table] = []
        self._values: dict[str, int] = {}  # sequence -> the last value that it gave
        self._decided: set[str] = set()
        self._kept: Content = {}  # right before the checkpoint

    def told(self) -> Afterlife:
        """Return the facts."""
        return Afterlife(
            steps=self._steps,
            complaints=self._complaints,
            changes=self._changes,
            indexes=self._indexes,
            own_functions=self._own_functions,
            restart=self._restart,
            killed=self._killed,
            second=self._second,
            died=self.died,
        )

    def go(self) -> None:
        """Do one step after the other, until one after which there is no server. Raises _Died."""
        for name, step in STEPS.items():
            with self._phase(name):
                if not step(self):
                    return

    def locks(self) -> bool:
        """Try for what prepared transactions hold."""
        with self._session() as connection:
            self._check_locks(connection)
        return True

    def decide(self) -> bool:
        """Decide all of them."""
        with self._session() as connection:
            self._decide(connection)
        return True

    def use(self) -> bool:
        """Write everything anew."""
        with self._session() as connection:
            before = self._contents(connection)
            self._use(connection, self._tables)
            self._take_values(connection)
            self._compare(before, self._contents(connection))
        return True

    def create(self) -> bool:
        """Make tables, and what is made from others."""
        with self._session() as connection:
            self._do(connection, SCHEMA, None, _CREATE)
            for table in self._tables:
                if table.kind == "m":
                    self._do(connection, table.name, table.file, f"REFRESH MATERIALIZED VIEW {table.name}")
            self._look_around(connection)
        return True

    def vacuum(self) -> bool:
        """Vacuum each table."""
        with self._session() as connection:
            for table in self._tables:
                self._do(connection, table.name, table.file, f"VACUUM {table.name}")
        return True

    def checkpoint(self) -> bool:
        """Write one."""
        with self._session() as connection:
            self._kept = self._contents(connection)
            self._do(connection, "checkpoint", None, "CHECKPOINT")
        return True

    def restart(self) -> bool:
        """Stop cleanly, and start; return whether it did."""
        if not self._stop_and_start():
            return False
        with self._session() as connection:
            self._compare(self._kept, self._contents(connection), unlogged_is_empty=self._killed)
            self._take_values(connection)
            self._check_decided(connection)
            self._use(connection, self._tables[:1] + self._tables[-1:])
        return True

    def crash(self) -> bool:
        """Kill everything, and start; return whether it did."""
        if not self._crash():
            return False
        with self._session() as connection:
            self._compare(self._kept, self._contents(connection), unlogged_is_empty=True)
            self._take_values(connection)
            self._check_decided(connection)
        self._read_again()
        return True

    # --- around the steps

    @contextlib.contextmanager
    def _session(self) -> "Iterator[psycopg.Connection[Any]]":
        """Open a session that may write, and is watched."""
        try:
            with contextlib.closing(self._connect()) as connection:
                settings = {
                    "statement_timeout": str(self._reading.statement_timeout_ms),
                    "lock_timeout": str(LOCK_TIMEOUT_MS),
                    "synchronous_commit": "local",  # what was answered is written, and so survives a kill
                    "session_replication_role": "replica",
                    "client_min_messages": "warning",
                    "max_parallel_workers_per_gather": "0",
                    "enable_indexscan": "off",
                    "enable_indexonlyscan": "off",
                    "enable_bitmapscan": "off",
                    **TEXT_SETTINGS,
                }
                connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()))
                with Patience(self._connect, connection, self._reading.statement_timeout_ms):
                    if not self._tables:
                        self._look_around(connection)
                    yield connection
        except psycopg.errors.QueryCanceled as error:
            self._left_out.append(str(error).strip())
        except psycopg.OperationalError as error:
            raise _Died(f"during {self._step}: {str(error).strip()}") from error

    def _connect(self) -> "psycopg.Connection[Any]":
        words = [f"-c {name}={value}" for name, value in still_settings(self._server.version.major).items()]
        return self._server.connect(autocommit=True, dbname=DATABASE, options=" ".join(words))

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self._before_step(name)
        self._step, self._count, self._left_out = name, 0, []
        self._log_position = self._server.log_position()
        begun = time.monotonic()
        try:
            yield
        finally:
            self._steps.append(
                LifeStep(
                    name=name,
                    status="ran" if self._count or not self._left_out else "skipped",
                    count=self._count,
                    seconds=round(time.monotonic() - begun, 4),
                    detail="; ".join(self._left_out[:5]),
                )
            )

    def _do(
        self, connection: "psycopg.Connection[Any]", what: str, file: str | None, sql: str
    ) -> list[tuple[Any, ...]] | None:
        """Run statements; None: there was an error, which is noted."""
        try:
            cursor = connection.execute(sql)
        except psycopg.Error as error:
            if connection.broken or connection.closed:
                raise _Died(f"during {self._step}, of {what}: {str(error).strip()}") from error
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
            self.note(what, file, error)
            return None
        self._count += 1
        return cursor.fetchall() if cursor.description is not None else []

    def note(self, what: str, file: str | None, error: psycopg.Error) -> None:
        """Note an error, unless a healthy database gives it, too."""
        state, message = error.sqlstate, str(error).strip()
        if state is None or not (state[:2] in DAMAGE_CLASSES or (state == DUPLICATE and self._step != "create")):
            self._left_out.append(f"{what}: {message.splitlines()[0]}")
            return
        if _IN_THE_LOG in message:
            said = [line for line in self._server.log_since(self._log_position).splitlines() if "ERROR: " in line]
            reason = next((line.partition("ERROR: ")[2].strip() for line in said if message[:20] not in line), None)
            message = f"{message.splitlines()[0]}: {reason or 'its log does not say why'}"
        self._complaints.append(Complaint(check=self._step, object=what, file=file, sqlstate=state, message=message))

    def _change(self, kind: str, what: str, file: str | None, says: str) -> None:
        self._changes.append(LifeChange(step=self._step, kind=kind, object=what, file=file, says=says))  # type: ignore[arg-type]

    # --- what is there

    def _look_around(self, connection: "psycopg.Connection[Any]") -> None:
        self._tables = [_Table(*row) for row in connection.execute(_TABLES).fetchall()]

    def _contents(self, connection: "psycopg.Connection[Any]") -> Content:
        """Return what every table holds; what cannot be read is left out, and noted."""

        def query(table: _Table) -> str:
            return (
                f"SELECT {_literal(table.name)}, count(*), coalesce(sum(hashtextextended(x::text, 0)), 0)::text"
                f" FROM ONLY {table.name} x"
            )

        if not self._tables:
            return {}
        try:
            rows = connection.execute(" UNION ALL ".join(map(query, self._tables))).fetchall()
        except psycopg.Error as error:
            if connection.broken or connection.closed:
                raise _Died(f"during {self._step}, while tables were read: {str(error).strip()}") from error
            rows = [
                row
                for table in self._tables
                for row in self._do(connection, table.name, table.file, query(table)) or []
            ]
        return {name: (count, total) for name, count, total in rows}

    def _compare(self, before: Content, now: Content, *, unlogged_is_empty: bool = False) -> None:
        """Note tables that hold something else; after a crash an unlogged one has to be empty."""
        for table in self._tables:
            then, found = before.get(table.name), now.get(table.name)
            if then is None or found is None:
                continue
            if unlogged_is_empty and table.persistence == "u":
                if found[0]:
                    self._change("unlogged", table.name, table.file, f"unlogged, it has {found[0]} rows after a crash")
            elif then != found:
                says = f"it had {then[0]} rows, and has {found[0]}"
                if then[0] == found[0]:
                    says = f"its {then[0]} rows are not the same any more"
                self._change("content", table.name, table.file, says)
            self._count += 1

    # --- the steps

    def _check_locks(self, connection: "psycopg.Connection[Any]") -> None:
        """Try to get at what prepared transactions hold."""
        prepared = connection.execute(_PREPARED).fetchall()
        gids = {xid: gid for gid, xid in prepared}
        for table in self._tables if prepared else []:
            if table.kind != "r":
                continue
            # What it has inserted is not to be seen; what it has updated, deleted or locked bears its number
            query = f"SELECT DISTINCT ON (xmax::text) xmax::text, ctid::text FROM ONLY {table.name} WHERE xmax <> 0"
            for xid, row in self._do(connection, table.name, table.file, query) or []:
                if xid in gids:
                    lock = f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE NOWAIT"
                    self._must_wait(connection, gids[xid], table.name, lock, "the lock of")
                    lock = f"SELECT FROM ONLY {table.name} WHERE ctid = '{row}' FOR UPDATE NOWAIT"
                    self._must_wait(connection, gids[xid], table.name, lock, f"row {row} of")

    def _must_wait(self, connection: "psycopg.Connection[Any]", gid: str, table: str, sql: str, what: str) -> None:
        try:
            with connection.transaction():
                connection.execute(sql)
        except psycopg.errors.LockNotAvailable:
            self._count += 1
            return
        except psycopg.Error as error:
            if connection.broken or connection.closed:
                raise _Died(f"during {self._step}, of {table}: {str(error).strip()}") from error
            self.note(table, None, error)
            return
        self._change("lock", gid, "pg_twophase", f"another session got {what} {table}, which it has changed")

    def _decide(self, connection: "psycopg.Connection[Any]") -> None:
        """Roll half of them back, which changes nothing that is visible, and commit the others."""
        gids = [gid for gid, _ in connection.execute(_PREPARED).fetchall()]
        before = self._contents(connection) if gids else {}
        for gid in gids[1::2]:
            self._finish(connection, "ROLLBACK PREPARED", gid)
        self._compare(before, self._contents(connection) if gids else {})
        for gid in gids[::2]:
            self._finish(connection, "COMMIT PREPARED", gid)
        self._check_decided(connection)

    def _finish(self, connection: "psycopg.Connection[Any]", verb: str, gid: str) -> None:
        if self._do(connection, f"prepared transaction {gid}", "pg_twophase", f"{verb} {_literal(gid)}") is not None:
            self._decided.add(gid)

    def _check_decided(self, connection: "psycopg.Connection[Any]") -> None:
        for (gid,) in connection.execute("SELECT gid FROM pg_prepared_xacts ORDER BY 1").fetchall():
            if gid in self._decided:
                self._change("prepared", gid, "pg_twophase", "it was decided, and is prepared again")

    def _use(self, connection: "psycopg.Connection[Any]", tables: list[_Table]) -> None:
        """Write every row anew: an update, a deletion, and an insertion that searches every index for its place."""
        for table in tables:
            if table.runs_code:
                self._left_out.append(f"{table.name} has code or rules of its own")
                continue
            if table.kind == "m":
                continue
            some = f"ctid = ANY (ARRAY(SELECT ctid FROM ONLY {table.name} LIMIT {ROWS_MAX}))"
            if table.updatable is not None:
                sql = f"UPDATE ONLY {table.name} SET {table.updatable} = {table.updatable} WHERE {some}"
                self._do(connection, table.name, table.file, sql)
            if table.columns is not None:
                sql = (
                    f"WITH gone AS (DELETE FROM ONLY {table.name} WHERE {some} RETURNING {table.columns}) INSERT INTO"
                    f" {table.name} ({table.columns}) OVERRIDING SYSTEM VALUE SELECT {table.columns} FROM gone"
                )
                self._do(connection, table.name, table.file, sql)

    def _take_values(self, connection: "psycopg.Connection[Any]") -> None:
        """Take a value of every sequence; it has to lie beyond the one before."""
        for name, ascending, file in connection.execute(_SEQUENCES).fetchall():
            found = self._do(connection, name, file, f"SELECT nextval({_literal(name)})")
            if not found:
                continue
            value, before = found[0][0], self._values.get(name)
            if before is not None and (value <= before if ascending else value >= before):
                self._change("sequence", name, file, f"it gave {before}, and now {value}")
            self._values[name] = value

    def _stop_and_start(self) -> bool:
        try:
            self._server.stop("fast", timeout_s=STOP_TIMEOUT_S)
        except ServerError as error:  # it may be busy: nothing is said of it
            self._left_out.append(error.primary)
            self._server.kill_all()
            self._killed = True
        self._restart = self._start()
        return self._restart.started

    def _crash(self) -> bool:
        self._server.kill_all()
        self._second = self._start()
        return self._second.started

    def _start(self) -> Recovery:
        position = self._server.log_position()
        return recover(
            self._server, restart=True, log_position=position, timeout_s=self._timeout_s, overrides=self._overrides
        )

    def _read_again(self) -> None:
        """Look at the indexes once more, with the checks that read them after the first crash."""
        recovery = Recovery(started=True, ran=True, seconds=0.0)
        found = observe(
            lambda name: self._server.connect(autocommit=True, dbname=name), self._reading, recovery, only=REREAD
        )
        self._indexes = [index for index in found.indexes if not index.agrees]
        self._own_functions = found.own_functions
        for one in found.complaints:
            self._complaints.append(
                Complaint(
                    check=self._step, object=one.object, file=one.file, sqlstate=one.sqlstate, message=one.message
                )
            )
        if found.died is not None:
            raise _Died(f"during {self._step}, while it was read again: {found.died}")


STEPS: dict[str, Callable[[_Life], bool]] = {
    "locks": _Life.locks,
    "decide": _Life.decide,
    "use": _Life.use,
    "create": _Life.create,
    "vacuum": _Life.vacuum,
    "checkpoint": _Life.checkpoint,
    "restart": _Life.restart,
    "crash": _Life.crash,
}
"""In the order in which they are done; each says whether there is a server for the next one."""


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
