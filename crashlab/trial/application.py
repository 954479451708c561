"""How does an application test its own durability?

It runs its own SQL inside ledgered transactions and names the rows it changed, or has crashlab watch its tables;
crashlab adds a marker row, notes what the application was told, crashes the server, and judges what came back as in
any other trial.

Assumes: one crash a trial: what is written afterwards would look like survivors of a loss. So what came back is read at
    once, by the call that crashes, and what the test does with the server later changes no verdict.
Choices: a row's expected value is what the server itself shows for it at the end of the transaction, so nothing has
    to be spelled twice. Rows that no ledgered transaction named are not compared; of a watched table, all rows are.
    A transaction that is rolled back is noted as refused only if the server says that it was: the application may have
    sent COMMIT in the middle of it. Such a one has no intent in the ledger, and its marker, seen before the crash, says
    that it was committed (`oracle.outside`).
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from crashlab import evidence
from crashlab.errors import FaultError, ServerError, UsageProblem
from crashlab.fault import inject
from crashlab.ledger import SETUP_CLIENT, Indeterminate, Intent, LedgerWriter, Refused, Write
from crashlab.model import Broken, Injection, Observation, Recovery, Verdict
from crashlab.profile import Profile
from crashlab.recovery import Reading, observe, recover
from crashlab.seeds import stream
from crashlab.server import Server
from crashlab.trial.intest import ServerInTest
from crashlab.trial.judged import judge_trial, nothing_due
from crashlab.trial.live import wal_of
from crashlab.trial.outsiders import Outsiders
from crashlab.trial.setup import invariants_before
from crashlab.trial.written import trial_record, write_evidence
from crashlab.workload.commit import decide
from crashlab.workload.relations import MARKER_TABLE, TEXT_SETTINGS
from crashlab.workload.session import WAL_POSITIONS
from crashlab.workload.tables import OPENING as CHANGES_OPENING
from crashlab.workload.tables import FoundBeside, Naming, Table, Tables

OPENING = f"SELECT pg_current_xact_id()::text::bigint, {WAL_POSITIONS}, {CHANGES_OPENING}"
LOCK_TIMEOUT = "10s"
BESIDE_LOCK_TIMEOUT = "1s"
ABORTED = "aborted"
_TEXT_SETTINGS = "; ".join(f"SET {name} = '{value}'" for name, value in TEXT_SETTINGS.items())


class ApplicationTrial(ServerInTest):
    """One server, one ledger, one crash, one verdict."""

    def __init__(self, server: Server, profile: Profile, *, seed: int, folder: Path, reproduce: str) -> None:
        """Start recording on a server that is up.

        Args:
            profile: its faults are what `crash` injects, and its settings are noted in the evidence.
            folder: empty; takes the evidence.
            reproduce: the command that runs this trial again.
        """
        super().__init__(server, profile, seed=seed, folder=folder)
        self.reproduce = reproduce
        self.injections: list[Injection] = []
        self._over = False  # the server has been crashed
        self._observation: Observation | None = None  # what came back
        self._broken: Broken | None = None  # None: nobody looked yet
        self._asynchronous = False  # a commit was
        with contextlib.closing(server.connect(autocommit=True)) as connection:
            self.outsiders = Outsiders(connection)
        self.ledger = LedgerWriter(folder / evidence.LEDGER, seed=seed)
        self._lock = threading.Lock()
        self._beside: psycopg.Connection[Any] | None = None
        self.tables = Tables(shared=True)
        self._xids: list[int] = []
        self._clients: dict[int, int] = {}

    @contextlib.contextmanager
    def transaction(self, connection: psycopg.Connection[Any]) -> Iterator["LedgeredTransaction"]:
        """Run a block as one transaction and note in the ledger what became of it.

        Leaving the block sends COMMIT; an exception inside rolls back and is passed on. So is what COMMIT itself
        raises: an error of the server's, such as a serialization failure or a deferred constraint, says that nothing
        was committed; a lost connection leaves that open.

        Raises:
            UsageProblem: the connection is not in autocommit mode, the crash is over, the block ended its transaction
                itself, or it went on after an error of which the server rolls the transaction back.
        """
        if not connection.autocommit:
            raise UsageProblem(
                "cannot record a transaction: the connection is not in autocommit mode",
                hint="Connect with autocommit=True; the block itself sends BEGIN and COMMIT.",
            )
        if self._over:
            raise UsageProblem("cannot record a transaction: the crash is over", hint="Check first; one crash a test.")
        if self._broken is None:
            self._look_before()
        with self._ledgered(connection, self._client_of(connection)) as transaction:
            yield transaction

    @contextlib.contextmanager
    def _ledgered(self, connection: psycopg.Connection[Any], client: int) -> Iterator["LedgeredTransaction"]:
        tx = self.ledger.begin(client)
        connection.execute("BEGIN")
        transaction = LedgeredTransaction(self, connection, tx, client)
        try:
            transaction.open()
            yield transaction
            intent = transaction.intent()
        except BaseException as error:
            with contextlib.suppress(psycopg.Error):
                connection.execute("ROLLBACK")
                self._note_end(transaction, error)
            raise
        self._asynchronous |= intent.sync == "off"
        self._xids.append(intent.xid)
        decide(connection, self.ledger, intent)

    def _note_end(self, transaction: "LedgeredTransaction", error: BaseException) -> None:
        """Note what became of a transaction whose COMMIT was not sent from here. Raises psycopg.Error."""
        tx, client, fate = transaction.tx, transaction.client, transaction.fate()
        now, reason = time.monotonic_ns(), repr(error)
        if fate == ABORTED:
            self.ledger.record(Refused(tx=tx, client=client, at_ns=now, reason=reason))
            return
        self.ledger.record(Indeterminate(tx=tx, client=client, at_ns=now, reason=f"{fate} inside its block: {reason}"))
        error.add_note(
            f"crashlab: the transaction was ended inside its block, and is {fate}; its rows are not compared."
        )

    def watch(self, table: str) -> None:
        """From now on note every change of a table, so that no row of it need be named; its rows as they are, too.

        Each ledgered transaction that changes it is noted, whoever changes it there: a cascade, a trigger, COPY.

        Raises:
            UsageProblem: it cannot be followed, see `workload.tables`, or the crash is over.
        """
        if self._over:
            raise UsageProblem(f'cannot watch "{table}": the crash is over', hint="Watch before the crash.")
        with contextlib.closing(self.server.connect(autocommit=True)) as connection:
            connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
            with self._ledgered(connection, SETUP_CLIENT) as transaction, connection.cursor() as cursor:
                transaction.writes += self.tables.watch(cursor, table)

    def invariant(self, name: str, sql: str) -> None:
        """Name a query that returns no rows: now, right before the crash, and after it.

        Where it returns rows before the crash, nothing follows from what it returns afterwards: inconclusive.

        Raises:
            UsageProblem: the query cannot be run, the name is taken, or the crash is over.
        """
        if self._over:
            raise UsageProblem(f'cannot add invariant "{name}": the crash is over')
        super().invariant(name, sql)

    def _look_before(self) -> None:
        """Look for what is broken already: before the first transaction, and where nothing may be lost, at the end.

        While it looks, asynchronous commits would become durable that the crash may lose.
        """
        self._broken = self._look_for_broken(self.tables.relations)

    def crash(self) -> list[Injection]:
        """Inject the profile's faults one after the other, now; then restart the server and wait for its recovery.

        A server that does not come back is no exception: `verdict` tells.

        Raises:
            FaultError: it crashed already, the profile names no fault, or a fault has no target.
            UsageProblem: a table whose rows were noted is not what it was.
        """
        if self.injections:
            raise FaultError("cannot crash the server twice in one test", hint="Use another test for the second crash.")
        if not self.profile.faults:
            raise FaultError(f'cannot crash the server: profile "{self.profile.name}" names no fault')
        with contextlib.closing(self.server.connect(autocommit=True)) as connection, connection.cursor() as cursor:
            self.tables.check(cursor)
        self._look(self._invariants)
        if not self._asynchronous:
            self._look_before()
        with contextlib.closing(self.server.connect(autocommit=True)) as connection:
            self.outsiders.look(connection, self.tables.relations)
        rng = stream(self.seed, "faults")
        for fault in self.profile.faults:
            self.injections.append(inject(self.server, fault, self.ledger, rng))
        self._over = True
        wal = wal_of(self.server, self.injections)
        recovery = recover(
            self.server, restart=not self.server.running(), log_position=self._log_position, overrides={}
        )
        self._observation = msgspec.structs.replace(self._read(recovery), wal=wal)
        return self.injections

    def _read(self, recovery: Recovery) -> Observation:
        """Read the server, and who wrote to it beside the ledger's clients."""
        relations = list(self.tables.relations)
        reading = Reading(
            relations=relations,
            invariants=self._invariants,
            xids=self._xids,
            sequences=(),
            statistics=False,  # a server that goes on has not written them down
        )
        observation = observe(self._connect_to, reading, recovery)
        before = invariants_before(self._violations)
        outside = self.outsiders.unknown()
        with (
            contextlib.suppress(ServerError, psycopg.Error),  # it is not up, or has died while it was read
            contextlib.closing(self.server.connect(autocommit=True)) as connection,
        ):
            outside = self.outsiders.facts(connection, relations, self.tables.keys(), observation)
        return msgspec.structs.replace(
            observation, invariants_before=before, broken_before=self._broken or Broken(), outside=outside
        )

    @property
    def nothing_due(self) -> bool:
        """Whether the server had shut down before it could crash."""
        return self._observation is not None and nothing_due(self.injections, ran=self._observation.recovery.ran)

    def verdict(self) -> Verdict:
        """Save the evidence and judge it. Without a crash the verdict is inconclusive."""
        self.close()
        observation = self._observation
        if observation is None:
            with contextlib.closing(self.server.connect(autocommit=True)) as connection:
                self.outsiders.look(connection, self.tables.relations)
            observation = self._read(Recovery(started=True, ran=False, seconds=0.0))
        record = trial_record(
            self.profile,
            "application",
            trial=0,
            seed=self.seed,
            run_seed=self.seed,
            server=self._facts,
            acked_min=1,
            injections=self.injections,
            seconds={},
            reproduce=self.reproduce,
        )
        write_evidence(self.folder, record, observation, server_log=self.server.log_since(0))
        return judge_trial(self.folder)

    def close(self) -> None:
        """End the ledger, and the session beside the application's; closing twice is harmless."""
        self.ledger.close()
        with self._lock:
            if self._beside is not None:
                self._beside.close()

    def ask_beside(self, table: Table, keys: list[str], pid: int) -> list[FoundBeside]:
        """Ask in a session of its own about rows that the open transaction of a process says it has deleted.

        Raises:
            psycopg.Error: the server cannot be asked.
        """
        with self._lock:
            if self._beside is None:
                self._beside = self.server.connect(autocommit=True)
                self._beside.execute(f"SET lock_timeout = '{BESIDE_LOCK_TIMEOUT}'; {_TEXT_SETTINGS}")
            try:
                with self._beside.cursor(row_factory=tuple_row) as cursor:
                    return table.read_beside(cursor, keys, pid)
            except psycopg.Error:
                if self._beside.broken or self._beside.closed:
                    raise
                # The transaction itself has locked the table, after a TRUNCATE, say
                return [FoundBeside(key, there=True, touched=True, by_us=False) for key in keys]

    def _client_of(self, connection: psycopg.Connection[Any]) -> int:
        with self._lock:
            return self._clients.setdefault(id(connection), len(self._clients) + 1)


class LedgeredTransaction:
    """An open transaction of the application."""

    def __init__(self, trial: ApplicationTrial, connection: psycopg.Connection[Any], tx: int, client: int) -> None:
        self.tx = tx
        self.client = client
        self._trial = trial
        self._connection = connection
        self.writes: list[Write] = []  # beside those that are found at its end
        self._xid = 0
        self._positions: list[int] = []

    def open(self) -> None:
        """Write the marker row that tells whether this transaction survived."""
        with self._connection.cursor(row_factory=tuple_row) as cursor:  # whatever the application's own one is
            row = cursor.execute(OPENING).fetchone()
        assert row is not None
        self._xid, *self._positions, _ = row
        self._connection.execute(
            f"INSERT INTO {MARKER_TABLE} VALUES (%s, %s, %s)",
            (self.tx, self.client, self._xid),
        )

    def changed(self, table: str, **key: Any) -> None:
        """Say that this transaction inserted, updated or deleted one row; call it after the change.

        A watched table needs no such word. What a savepoint's rollback undoes is forgotten if it was said inside.

        Args:
            key: the row's primary key, column by column.

        Raises:
            UsageProblem: no such table, or these are not its primary key's columns; or an error was swallowed before.
        """
        self._check_sound()
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            known = self._trial.tables.find(cursor, table)
            if set(key) != set(known.columns):
                raise UsageProblem(
                    f'cannot find a row of "{table}" by {", ".join(key) or "nothing"}',
                    detail=f"Its primary key is {', '.join(known.columns)}.",
                )
            self._trial.tables.note(cursor, known, known.find(cursor, key))

    def intent(self) -> Intent:
        """Read the changed rows back as they are now, at the end of the transaction."""
        self._check_sound()
        pid = self._connection.info.backend_pid
        naming = Naming(lambda table, keys: self._trial.ask_beside(table, keys, pid))
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            writes, sync = self._trial.tables.close(cursor, naming)
        if naming.sure:
            self._trial.outsiders.own({self._xid, *naming.xids})
        insert_lsn, write_lsn, flush_lsn = self._positions
        return Intent(
            tx=self.tx,
            client=self.client,
            at_ns=time.monotonic_ns(),
            sync=sync,
            xid=self._xid,
            writes=(*self.writes, *writes),
            insert_lsn=insert_lsn,
            write_lsn=write_lsn,
            flush_lsn=flush_lsn,
        )

    def fate(self) -> str:
        """Return what the server says became of it, once it is over: "aborted" if nothing ever was.

        Raises:
            psycopg.Error: the server cannot be asked.
        """
        if not self._xid:
            return ABORTED
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            row = cursor.execute("SELECT pg_xact_status(%s::text::xid8)", (self._xid,)).fetchone()
        return row[0] if row and row[0] else "forgotten"

    def _check_sound(self) -> None:
        if self._connection.info.transaction_status is TransactionStatus.INERROR:
            raise UsageProblem(
                "cannot commit a transaction: the block went on after an error, and PostgreSQL has rolled it back",
                detail="It is noted as refused: nothing of it may be there.",
                hint="Let the error leave the block, or set a savepoint before the statement that may fail.",
            )
