"""How does an application test its own durability?

It runs its own SQL inside ledgered transactions and names the rows it changed; crashlab adds a marker row, notes what
the application was told, crashes the server, and judges what came back as in any other trial.

Assumes: one crash a trial: what is written afterwards would look like survivors of a loss.
Choices: a row's expected value is what the server itself shows for it at the end of the transaction, so nothing has
    to be spelled twice. Rows that no ledgered transaction named are not compared.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

import crashlab
from crashlab import evidence
from crashlab.campaign.rejudge import judge_trial
from crashlab.campaign.trial import server_facts
from crashlab.errors import FaultError, UsageProblem
from crashlab.fault import inject
from crashlab.history import read_ledger
from crashlab.ledger import Ack, Indeterminate, Intent, LedgerWriter, Refused, Write
from crashlab.model import Injection, Recovery, Verdict
from crashlab.profile import Profile
from crashlab.recovery import Reading, observe, recover
from crashlab.seeds import stream
from crashlab.server import Server
from crashlab.workload.relations import COMMON_SQL, MARKER_TABLE, Relation
from crashlab.workload.session import WAL_POSITIONS

OPENING = f"SELECT pg_current_xact_id()::text::bigint, {WAL_POSITIONS}"


class ApplicationTrial:
    """One server, one ledger, one crash, one verdict."""

    def __init__(self, server: Server, profile: Profile, *, seed: int, folder: Path, reproduce: str) -> None:
        """Start recording on a server that is up.

        Args:
            profile: its faults are what `crash` injects, and its settings are noted in the evidence.
            folder: empty; takes the evidence.
            reproduce: the command that runs this trial again.
        """
        self.server = server
        self.profile = profile
        self.seed = seed
        self.folder = folder
        self.reproduce = reproduce
        self.injections: list[Injection] = []
        self._log_position = server.log_position()
        self._recovery: Recovery | None = None
        self._facts = server_facts(server)
        with contextlib.closing(server.connect(autocommit=True)) as connection:
            connection.execute(COMMON_SQL)
        self.ledger = LedgerWriter(folder / evidence.LEDGER, seed=seed)
        self._lock = threading.Lock()
        self._tables: dict[str, _Table] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self._clients: dict[int, int] = {}

    @contextlib.contextmanager
    def transaction(self, connection: psycopg.Connection[Any]) -> Iterator["LedgeredTransaction"]:
        """Run a block as one transaction and note in the ledger what became of it.

        Leaving the block sends COMMIT; an exception inside rolls back and is passed on. A connection that is lost
        during COMMIT leaves the transaction indeterminate and raises psycopg.OperationalError.

        Raises:
            UsageProblem: the connection is not in autocommit mode, or the crash is over.
        """
        if not connection.autocommit:
            raise UsageProblem(
                "cannot record a transaction: the connection is not in autocommit mode",
                hint="Connect with autocommit=True; the block itself sends BEGIN and COMMIT.",
            )
        if self._recovery is not None:
            raise UsageProblem("cannot record a transaction: the crash is over", hint="Check first; one crash a test.")
        client = self._client_of(connection)
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
                self.ledger.record(Refused(tx=tx, client=client, at_ns=time.monotonic_ns(), reason=repr(error)))
            raise
        self._commit(connection, intent)

    def crash(self) -> list[Injection]:
        """Inject the profile's faults one after the other, now; then restart the server and wait for its recovery.

        A server that does not come back is no exception: `verdict` tells.

        Raises:
            FaultError: it crashed already, the profile names no fault, or a fault has no target.
        """
        if self.injections:
            raise FaultError("cannot crash the server twice in one test", hint="Use another test for the second crash.")
        if not self.profile.faults:
            raise FaultError(f'cannot crash the server: profile "{self.profile.name}" names no fault')
        rng = stream(self.seed, "faults")
        for fault in self.profile.faults:
            self.injections.append(inject(self.server, fault, self.ledger, rng))
        self._recovery = recover(
            self.server, restart=not self.server.running(), log_position=self._log_position, overrides={}
        )
        return self.injections

    def verdict(self) -> Verdict:
        """Read the recovered server, save the evidence, judge it. Without a crash the verdict is inconclusive."""
        self.ledger.close()
        recovery = self._recovery or Recovery(started=True, ran=False, seconds=0.0)
        history = read_ledger(self.ledger.path)
        xids = [xid for xid in history.xid if xid]
        reading = Reading(
            relations=[table.relation for table in self._tables.values()], invariants=[], xids=xids, sequences=()
        )
        observation = observe(lambda name: self.server.connect(autocommit=True, dbname=name), reading, recovery)
        evidence.save(self.folder, evidence.OBSERVATION, observation)
        evidence.save(self.folder, evidence.TRIAL, self._record())
        return judge_trial(self.folder)

    def _record(self) -> evidence.TrialRecord:
        return evidence.TrialRecord(
            crashlab=crashlab.__version__,
            profile=self.profile.name,
            profile_resolved=self.profile.model_dump(mode="json", by_alias=True),
            trial=0,
            seed=self.seed,
            run_seed=self.seed,
            crash_class=self.profile.crash_class,
            server=self._facts,
            acked_min=1,
            injections=self.injections,
            seconds={},
            reproduce=self.reproduce,
        )

    def _commit(self, connection: psycopg.Connection[Any], intent: Intent) -> None:
        self.ledger.record(intent)
        tx, client = intent.tx, intent.client
        try:
            status = connection.execute("COMMIT").statusmessage
        except psycopg.Error as error:
            reason = str(error).strip()
            self.ledger.record(Indeterminate(tx=tx, client=client, at_ns=time.monotonic_ns(), reason=reason))
            raise
        if status == "COMMIT":
            self.ledger.record(Ack(tx=tx, client=client, at_ns=time.monotonic_ns()))
        else:
            reason = f"COMMIT was answered {status}"
            self.ledger.record(Refused(tx=tx, client=client, at_ns=time.monotonic_ns(), reason=reason))

    def _client_of(self, connection: psycopg.Connection[Any]) -> int:
        with self._lock:
            return self._clients.setdefault(id(connection), len(self._clients) + 1)

    def table(self, connection: psycopg.Connection[Any], name: str) -> "_Table":
        """Look up a table's primary key once."""
        with self._lock:
            if name not in self._tables:
                self._tables[name] = _Table.look_up(connection, name)
            return self._tables[name]

    def next_version(self, relation: str, key: str) -> int:
        """Count the changes of a row; its writers hold its lock, so they come one after the other."""
        with self._lock:
            version = self._versions.get((relation, key), 0) + 1
            self._versions[relation, key] = version
            return version


class LedgeredTransaction:
    """An open transaction of the application."""

    def __init__(self, trial: ApplicationTrial, connection: psycopg.Connection[Any], tx: int, client: int) -> None:
        self.tx = tx
        self._trial = trial
        self._connection = connection
        self._client = client
        self._changed: dict[tuple[str, str], tuple[_Table, tuple[Any, ...]]] = {}
        self._xid = 0
        self._positions: list[int] = []

    def open(self) -> None:
        """Write the marker row that tells whether this transaction survived."""
        row = self._connection.execute(OPENING).fetchone()
        assert row is not None
        self._xid, *self._positions = row
        self._connection.execute(
            f"INSERT INTO {MARKER_TABLE} VALUES (%s, %s, %s)",
            (self.tx, self._client, self._xid),
        )

    def changed(self, table: str, **key: Any) -> None:
        """Say that this transaction inserted, updated or deleted one row; call it after the change.

        Args:
            key: the row's primary key, column by column.

        Raises:
            UsageProblem: no such table, or these are not its primary key's columns.
        """
        known = self._trial.table(self._connection, table)
        if set(key) != set(known.key_columns):
            raise UsageProblem(
                f'cannot find a row of "{table}" by {", ".join(key) or "nothing"}',
                detail=f"Its primary key is {', '.join(known.key_columns)}.",
            )
        values = tuple(key[column] for column in known.key_columns)
        self._changed[table, repr(values)] = (known, values)

    def intent(self) -> Intent:
        """Read the changed rows back as they are now, at the end of the transaction."""
        writes = []
        for table, values in self._changed.values():
            key, value = table.read(self._connection, values)
            version = self._trial.next_version(table.relation.name, key)
            writes.append(Write(table.relation.name, key, version, value))
        # in force at COMMIT, whatever it was before
        row = self._connection.execute("SHOW synchronous_commit").fetchone()
        assert row is not None
        insert_lsn, write_lsn, flush_lsn = self._positions
        return Intent(
            tx=self.tx,
            client=self._client,
            at_ns=time.monotonic_ns(),
            sync=row[0],
            xid=self._xid,
            writes=tuple(writes),
            insert_lsn=insert_lsn,
            write_lsn=write_lsn,
            flush_lsn=flush_lsn,
        )


class _Table:
    """One of the application's tables, known by its primary key."""

    def __init__(self, relation: Relation, key_columns: list[str], key_types: list[str], row: str) -> None:
        self.relation = relation
        self.key_columns = key_columns
        casts = [f"%s::{key_type}" for key_type in key_types]
        columns = [_quoted(column) for column in key_columns]
        condition = " AND ".join(f"{column} = {cast}" for column, cast in zip(columns, casts, strict=True))
        self._key_sql = f"SELECT jsonb_build_array({', '.join(casts)})::text"
        self._value_sql = f"SELECT to_jsonb({row})::text FROM {relation.table} WHERE {condition}"

    @classmethod
    def look_up(cls, connection: psycopg.Connection[Any], name: str) -> "_Table":
        rows = connection.execute(
            """
            SELECT i.indrelid::regclass::text, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
            FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
            CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY k.n
            """,
            (name,),
        ).fetchall()
        if not rows:
            raise UsageProblem(
                f'cannot record rows of "{name}": no such table, or it has no primary key',
                hint="A row is recognized by its primary key after the crash.",
            )
        table, relname = rows[0][0], _quoted(rows[0][1])
        columns = [column for _, _, column, _ in rows]
        key = f"jsonb_build_array({', '.join(map(_quoted, columns))})::text"
        relation = Relation(name, table, f"{key}, NULL, NULL, to_jsonb({relname})::text")
        return cls(relation, columns, [key_type for _, _, _, key_type in rows], relname)

    def read(self, connection: psycopg.Connection[Any], values: tuple[Any, ...]) -> tuple[str, str | None]:
        """Return a row's key as the reader will see it, and its content; None when it is not there."""
        key = connection.execute(self._key_sql, values).fetchone()
        assert key is not None
        row = connection.execute(self._value_sql, values).fetchone()
        return key[0], None if row is None else row[0]


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
