"""Who runs the transactions, and when do they stop?

Sessions are threads of this process that share one ledger, so that the ledger's order is the order in which
answers were received and intents noted.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import psycopg

from crashlab.errors import ServerError
from crashlab.ledger import SETUP_CLIENT, Ack, Intent, LedgerWriter
from crashlab.seeds import stream
from crashlab.workload.append import Append
from crashlab.workload.beside import Beside
from crashlab.workload.booking import Booking
from crashlab.workload.copy_in import CopyIn
from crashlab.workload.databases import Databases
from crashlab.workload.ddl import Ddl, UnloggedDdl
from crashlab.workload.indexed import Indexed
from crashlab.workload.invariants import InvariantWatch
from crashlab.workload.kind import Kind
from crashlab.workload.large_object import LargeObject
from crashlab.workload.matview import MaterializedView
from crashlab.workload.nested import Nested
from crashlab.workload.partitioned import Partitioned
from crashlab.workload.register import Register
from crashlab.workload.relations import COMMON_SQL, MARKER_TABLE, PART, InvariantQuery, Relation
from crashlab.workload.row_locks import RowLocks
from crashlab.workload.session import Mix, Session
from crashlab.workload.sql import Application, Sql
from crashlab.workload.toast import Toast
from crashlab.workload.transfer import Transfer

KINDS: dict[str, Callable[[], Kind]] = {
    "transfer": Transfer,
    "register": Register,
    "append": Append,
    "ddl": Ddl,
    "ddl_unlogged": UnloggedDdl,
    "toast": Toast,
    "large_object": LargeObject,
    "indexed": Indexed,
    "partitioned": Partitioned,
    "booking": Booking,
    "matview": MaterializedView,
    "copy": CopyIn,
    "locks": RowLocks,
    "nested": Nested,
    "beside": Beside,
}
"""All but `Sql`, which needs to be told what the user's application is."""

Connect = Callable[[], "psycopg.Connection[Any]"]


def relations_of(kinds: Iterable[str]) -> list[Relation]:
    """Return every ledgered relation of these kinds of transactions; a user's own are in `Workload.tables`."""
    return [PART, *(relation for name in kinds if name in KINDS for relation in KINDS[name]().relations)]


def invariants_of(kinds: Iterable[str]) -> list[InvariantQuery]:
    """Return what holds after every transaction of these kinds."""
    return [invariant for name in kinds if name in KINDS for invariant in KINDS[name]().invariants()]


class Workload:
    """Concurrent sessions over one ledger: set up, start, stop."""

    def __init__(
        self,
        connect: Connect,
        ledger: LedgerWriter,
        *,
        kinds: list[str],
        clients: int,
        mix: Mix,
        seed: int,
        every_ms: Mapping[str, float] | None = None,
        databases: Databases | None = None,
        max_transactions: int | None = None,
        application: Application | None = None,
        invariants: Sequence[InvariantQuery] = (),
        invariants_every_ms: float = 50.0,
    ) -> None:
        """Connect nobody yet.

        Args:
            connect: opens an autocommit connection to the server.
            every_ms: statements that are repeated on connections of their own, such as CHECKPOINT.
            databases: makes and drops databases beside the sessions.
            max_transactions: each session stops after its share of this many; None: when told to.
            application: what the kind "sql" runs.
            invariants: a user's own, looked at after the set-up and again and again until the crash.
        """
        self._connect = connect
        self._ledger = ledger
        assert application is not None or Sql.name not in kinds
        self._kinds: list[Kind] = [
            Sql(application) if application is not None and name == Sql.name else KINDS[name]() for name in kinds
        ]
        self._clients = clients
        self._mix = mix
        self._seed = seed
        self._every_ms = dict(every_ms or {})
        self._databases = databases
        self._per_client = None if max_transactions is None else -(-max_transactions // clients)
        self._stop = threading.Event()
        self._crash_expected = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections: list[psycopg.Connection[Any]] = []
        self._watch = InvariantWatch(invariants, every_ms=invariants_every_ms) if invariants else None
        # A setting may change what such a statement means: then it says nothing after the crash
        self._own = InvariantWatch([query for kind in self._kinds for query in kind.invariants()])
        self.errors: list[str] = []  # what no crash explains

    @property
    def tables(self) -> list[Relation]:
        """The user's own ledgered tables, known once they are set up."""
        return [relation for kind in self._kinds if isinstance(kind, Sql) for relation in kind.relations]

    @property
    def violations(self) -> dict[str, str]:
        """The invariants that did not hold when they were looked at, and what was observed first."""
        return self._own.violations | (self._watch.violations if self._watch is not None else {})

    def set_up(self) -> None:
        """Create the tables, and fill them in one acknowledged synchronous transaction of client 0.

        Raises:
            UsageProblem: the user's own SQL cannot be used.
            ServerError: the server refuses what crashlab's own tables need.
        """
        try:
            self._set_up()
        except psycopg.Error as error:
            raise ServerError(
                "could not set up the workload",
                detail=str(error).strip(),
                hint="Look among the requested settings for one that forbids it.",
            ) from error

    def _set_up(self) -> None:
        with contextlib.closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(COMMON_SQL + "".join(kind.setup_sql for kind in self._kinds))
            tx = self._ledger.begin(SETUP_CLIENT)
            cursor.execute("BEGIN; SET LOCAL synchronous_commit = on")
            cursor.execute("SELECT pg_current_xact_id()::text::bigint")
            (xid,) = cursor.fetchone()  # type: ignore[misc]
            writes = []
            for kind in self._kinds:
                initial = kind.initial()
                kind.insert(cursor, initial, tx)
                writes.extend(initial)
            cursor.execute(f"INSERT INTO {MARKER_TABLE} VALUES (%s, %s, %s)", (tx, SETUP_CLIENT, xid))
            now = time.monotonic_ns()
            self._ledger.record(Intent(tx=tx, client=SETUP_CLIENT, at_ns=now, xid=xid, writes=tuple(writes)))
            cursor.execute("COMMIT")
            self._ledger.record(Ack(tx=tx, client=SETUP_CLIENT, at_ns=time.monotonic_ns()))
            self._own.check_first(connection)
            if self._watch is not None:
                self._watch.check_first(connection)

    def start(self) -> None:
        """Connect all sessions, then let them run.

        Raises:
            ServerError: a session could not connect; none runs then.
        """
        try:
            self._connect_all()
        except psycopg.Error as error:
            for connection in self._connections:
                connection.close()
            raise ServerError(
                "could not connect all sessions of the workload",
                detail=str(error).strip(),
                hint="Ask for fewer clients, or raise max_connections.",
            ) from error
        for thread in self._threads:
            thread.start()

    def _connect_all(self) -> None:
        for client in range(1, self._clients + 1):
            connection = self._connect()
            self._connections.append(connection)
            rng = stream(self._seed, "session", client)
            kinds = [kind.for_client(client) if isinstance(kind, Sql) else kind for kind in self._kinds]
            session = Session(client, connection, self._ledger, kinds, self._mix, rng)
            self._threads.append(threading.Thread(target=self._run, args=(session,), daemon=True))
        for statement, every_ms in self._every_ms.items():
            connection = self._connect()
            self._connections.append(connection)
            repeated = (connection, statement, every_ms)
            self._threads.append(threading.Thread(target=self._repeat, args=repeated, daemon=True))
        if self._watch is not None:
            connection = self._connect()
            self._connections.append(connection)
            looking = (self._watch, connection)
            self._threads.append(threading.Thread(target=self._look, args=looking, daemon=True))
        if self._databases is not None:
            self._threads.append(threading.Thread(target=self._make_databases, args=(self._databases,), daemon=True))

    def expect_crash(self) -> None:
        """From now on a lost connection is the fault's doing; before, it is an error of the trial.

        The user's invariants are looked at once more: what does not hold now says nothing after the crash.
        """
        if self._watch is not None and not self._crash_expected.is_set() and not self._watch.look_now():
            self.errors.append("the invariants could not be looked at right before the fault")
        self._crash_expected.set()

    @property
    def running(self) -> bool:
        """Whether any session is still at work."""
        return any(thread.is_alive() for thread in self._threads)

    def finish(self, *, timeout_s: float) -> bool:
        """Let each session end its transaction and stop; return whether all did in time."""
        self._stop.set()
        return self.join(timeout_s=timeout_s)

    def join(self, *, timeout_s: float) -> bool:
        """Wait for the sessions to end by themselves, then close their connections; return whether all did."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        ended = not self.running
        self._stop.set()
        if ended:
            for connection in self._connections:
                connection.close()
        return ended

    def _run(self, session: Session) -> None:
        done = 0
        try:
            while not self._stop.is_set() and (self._per_client is None or done < self._per_client):
                if not session.transact():
                    if not self._crash_expected.is_set():
                        self.errors.append(f"client {session.client} lost its connection before any fault")
                    return
                done += 1
        except Exception as error:
            self.errors.append(f"client {session.client}: {type(error).__name__}: {error}")

    def _make_databases(self, databases: Databases) -> None:
        try:
            databases.run(stream(self._seed, "databases"), self._stop)
        except Exception as error:
            if not self._crash_expected.is_set():
                self.errors.append(f"databases: {type(error).__name__}: {error}")

    def _look(self, watch: InvariantWatch, connection: psycopg.Connection[Any]) -> None:
        try:
            watch.run(connection, self._stop)
        except Exception as error:
            if not self._crash_expected.is_set():
                self.errors.append(f"invariants: {type(error).__name__}: {error}")

    def _repeat(self, connection: psycopg.Connection[Any], statement: str, every_ms: float) -> None:
        with contextlib.suppress(psycopg.OperationalError):
            while not self._stop.wait(every_ms / 1000):
                connection.execute(statement)
