"""Who runs the transactions, and when do they stop?

Sessions are threads of this process that share one ledger, so that the ledger's order is the order in which
answers were received and intents noted.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

from crashlab.ledger import Ack, Intent, LedgerWriter
from crashlab.seeds import stream
from crashlab.workload.append import Append
from crashlab.workload.databases import Databases
from crashlab.workload.ddl import Ddl, UnloggedDdl
from crashlab.workload.kind import Kind
from crashlab.workload.register import Register
from crashlab.workload.relations import COMMON_SQL, MARKER_TABLE, PART, InvariantQuery, Relation
from crashlab.workload.session import Mix, Session
from crashlab.workload.transfer import Transfer

KINDS: dict[str, Callable[[], Kind]] = {
    "transfer": Transfer,
    "register": Register,
    "append": Append,
    "ddl": Ddl,
    "ddl_unlogged": UnloggedDdl,
}
SETUP_CLIENT = 0

Connect = Callable[[], "psycopg.Connection[Any]"]


def relations_of(kinds: Iterable[str]) -> list[Relation]:
    """Return every ledgered relation of these kinds of transactions."""
    return [PART, *(relation for name in kinds for relation in KINDS[name]().relations)]


def invariants_of(kinds: Iterable[str]) -> list[InvariantQuery]:
    """Return what holds after every transaction of these kinds."""
    return [invariant for name in kinds for invariant in KINDS[name]().invariants()]


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
        checkpoint_every_ms: float | None = None,
        databases: Databases | None = None,
        max_transactions: int | None = None,
    ) -> None:
        """Connect nobody yet.

        Args:
            connect: opens an autocommit connection to the server.
            databases: makes and drops databases beside the sessions.
            max_transactions: each session stops after its share of this many; None: when told to.
        """
        self._connect = connect
        self._ledger = ledger
        self._kinds: list[Kind] = [KINDS[name]() for name in kinds]
        self._clients = clients
        self._mix = mix
        self._seed = seed
        self._checkpoint_every_ms = checkpoint_every_ms
        self._databases = databases
        self._per_client = None if max_transactions is None else -(-max_transactions // clients)
        self._stop = threading.Event()
        self._crash_expected = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections: list[psycopg.Connection[Any]] = []
        self.errors: list[str] = []  # what no crash explains

    def set_up(self) -> None:
        """Create the tables, and fill them in one acknowledged synchronous transaction of client 0."""
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

    def start(self) -> None:
        """Connect all sessions, then let them run.

        Raises:
            psycopg.Error: a session could not connect; none runs then.
        """
        for client in range(1, self._clients + 1):
            connection = self._connect()
            self._connections.append(connection)
            rng = stream(self._seed, "session", client)
            session = Session(client, connection, self._ledger, self._kinds, self._mix, rng)
            self._threads.append(threading.Thread(target=self._run, args=(session,), daemon=True))
        if self._checkpoint_every_ms is not None:
            connection = self._connect()
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._checkpoint, args=(connection,), daemon=True))
        if self._databases is not None:
            self._threads.append(threading.Thread(target=self._make_databases, args=(self._databases,), daemon=True))
        for thread in self._threads:
            thread.start()

    def expect_crash(self) -> None:
        """From now on a lost connection is the fault's doing; before, it is an error of the trial."""
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

    def _checkpoint(self, connection: psycopg.Connection[Any]) -> None:
        assert self._checkpoint_every_ms is not None
        with contextlib.suppress(psycopg.OperationalError):
            while not self._stop.wait(self._checkpoint_every_ms / 1000):
                connection.execute("CHECKPOINT")
