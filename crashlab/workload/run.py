"""Who runs the transactions, and when do they stop?

Sessions are threads of this process that share one ledger, so that the ledger's order is the order in which
answers were received and intents noted.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import psycopg

from crashlab.errors import ServerError
from crashlab.ledger import SETUP_CLIENT, Intent, LedgerWriter
from crashlab.seeds import stream
from crashlab.workload.commit import decide
from crashlab.workload.companion import Companion, Connect
from crashlab.workload.invariants import InvariantWatch
from crashlab.workload.kind import Kind
from crashlab.workload.kinds import KINDS
from crashlab.workload.kinds.sql import Application, Sql
from crashlab.workload.relations import COMMON_SQL, EXTENSIONS_SQL, MARKER_TABLE, PART, InvariantQuery, Relation
from crashlab.workload.roles import make_extensions, make_role
from crashlab.workload.session import Mix, Session


def make_kinds(names: Iterable[str], application: Application | None = None) -> list[Kind]:
    """Return these kinds of transactions; `application` is what "sql" runs."""
    return [Sql(application) if application is not None and name == Sql.name else KINDS[name]() for name in names]


def relations_of(kinds: Iterable[str]) -> list[Relation]:
    """Return every ledgered relation of these kinds of transactions; a user's own are in `Workload.tables`."""
    return [PART, *(relation for kind in make_kinds(kinds) for relation in kind.relations)]


def invariants_of(kinds: Iterable[str]) -> list[InvariantQuery]:
    """Return what holds after every transaction of these kinds."""
    return [invariant for kind in make_kinds(kinds) for invariant in kind.invariants()]


class Workload:
    """Concurrent sessions over one ledger: set up, start, stop."""

    def __init__(
        self,
        connect: Connect,
        ledger: LedgerWriter,
        *,
        kinds: Sequence[Kind],
        clients: int,
        mix: Mix,
        seed: int,
        companions: Sequence[Companion] = (),
        connect_plain: Connect | None = None,
        max_transactions: int | None = None,
    ) -> None:
        """Connect nobody yet.

        Args:
            connect: opens an autocommit connection to the server.
            companions: what goes on beside the sessions.
            connect_plain: opens a connection of `roles.ROLE`, where SQL of the profile is not to run as a superuser.
            max_transactions: each session stops after its share of this many; None: when told to.
        """
        self._connect = connect
        self._ledger = ledger
        self._kinds = kinds
        self._clients = clients
        self._mix = mix
        self._seed = seed
        self._companions = companions
        self._connect_plain = connect_plain
        self._per_client = None if max_transactions is None else -(-max_transactions // clients)
        self._stop = threading.Event()
        self._crash_expected = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections: list[psycopg.Connection[Any]] = []
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
        found = dict(self._own.violations)
        for companion in self._companions:
            found |= companion.violations
        return found

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
        with contextlib.closing(self._connect()) as connection:
            for companion in self._companions:
                companion.prepare(connection)
            connection.execute(EXTENSIONS_SQL)
            if self._connect_plain is not None:
                make_extensions(connection, self._kinds)
                make_role(connection)
        with contextlib.closing(self._connect_clients()) as connection, connection.cursor() as cursor:
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
            intent = Intent(tx=tx, client=SETUP_CLIENT, at_ns=now, xid=xid, writes=tuple(writes))
            if not decide(connection, self._ledger, intent):
                raise ServerError("could not set up the workload: its COMMIT was answered ROLLBACK")
            self._own.check_first(connection)
        for companion in self._companions:
            with contextlib.closing(self._connect_for(companion)) as connection:
                companion.set_up(connection)

    def _connect_clients(self) -> "psycopg.Connection[Any]":
        """Connect a session: with the user's own SQL as one kind of transaction, of the role that this is for."""
        own_sql = any(isinstance(kind, Sql) for kind in self._kinds)
        return (self._connect_plain or self._connect)() if own_sql else self._connect()

    def _connect_for(self, companion: Companion) -> "psycopg.Connection[Any]":
        return (self._connect_plain or self._connect)() if companion.runs_own_sql else self._connect()

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
            connection = self._connect_clients()
            self._connections.append(connection)
            rng = stream(self._seed, "session", client)
            kinds = [kind.for_client(client) if isinstance(kind, Sql) else kind for kind in self._kinds]
            session = Session(client, connection, self._ledger, kinds, self._mix, rng)
            self._threads.append(threading.Thread(target=self._run, args=(session,), daemon=True))
        for companion in self._companions:
            own = companion.connect(partial(self._connect_for, companion))
            self._connections += [own] if own is not None else []
            self._threads.append(threading.Thread(target=self._accompany, args=(companion, own), daemon=True))

    def expect_crash(self) -> None:
        """From now on a lost connection is the fault's doing; before, it is an error of the trial.

        Companions may do something before, such as look at the user's invariants once more.
        """
        if not self._crash_expected.is_set():
            self.errors += [wrong for one in self._companions if (wrong := one.expect_crash()) is not None]
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

    def _accompany(self, companion: Companion, connection: "psycopg.Connection[Any] | None") -> None:
        try:
            companion.run(connection, self._stop)
        except Exception as error:
            if not self._crash_expected.is_set():
                self.errors.append(f"{companion.name}: {type(error).__name__}: {error}")
