"""What does one client do, and what does it write into the ledger about it?

Choices:
    A transaction is ended as `commit` says. One that the server rolls back for the sake of others, as in a
    serialization failure, is no reason to stop. A user's deferred constraints are looked at before (`tables`).
    A connection lost before COMMIT was sent leaves the transaction unsent: it must be absent.
    A session ends with its connection: after a crash nobody writes until the recovered server has been read.

Source: postgres-contract.md 7.1 (ack), 7.2 O1 (why positions suffice).
"""

import contextlib
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import psycopg

from crashlab.ledger import Intent, LedgerWriter, Refused, Write
from crashlab.workload.commit import decide, first_line, lost, refused
from crashlab.workload.kind import Kind, TransactionRefused
from crashlab.workload.relations import MARKER_TABLE, PART, SEQUENCE

ROLLED_BACK = "40"
"""The class of SQLSTATEs that say: nothing is wrong with it, try again."""
Style = Literal["plain", "read only", "rollback", "error", "savepoint", "two-phase"]

WAL_POSITIONS = """(pg_current_wal_insert_lsn() - '0/0')::bigint, (pg_current_wal_lsn() - '0/0')::bigint,
       (pg_current_wal_flush_lsn() - '0/0')::bigint"""
"""Columns that tell how far the WAL is: inserted, written, flushed."""
OPENING = f"""
SELECT set_config('synchronous_commit', %s, true), pg_current_xact_id()::text::bigint, nextval('{SEQUENCE}'),
       {WAL_POSITIONS}
"""
"""One round trip: the setting in force, the xid, a sequence value, and how far the WAL is."""


@dataclass(frozen=True)
class Mix:
    """Shares of transaction styles (0 .. 1, the rest is plain) and of synchronous_commit modes."""

    synchronous_commit: dict[str, float] = field(default_factory=lambda: {"on": 1.0})
    two_phase: float = 0.0
    held_ms: float | None = None  # the longest that a transaction stays prepared; None: some, and not for long
    rollbacks: float = 0.05
    savepoints: float = 0.1
    errors: float = 0.05
    read_only: float = 0.1

    def draw(self, rng: Random) -> tuple[Style, str]:
        """Draw a style and a synchronous_commit mode."""
        shares: list[tuple[Style, float]] = [
            ("two-phase", self.two_phase),
            ("rollback", self.rollbacks),
            ("savepoint", self.savepoints),
            ("error", self.errors),
            ("read only", self.read_only),
        ]
        rest = max(0.0, 1.0 - sum(share for _, share in shares))
        styles: list[Style] = [style for style, _ in shares]
        (style,) = rng.choices([*styles, "plain"], [*(share for _, share in shares), rest])
        (sync,) = rng.choices(list(self.synchronous_commit), list(self.synchronous_commit.values()))
        return style, sync


class Session:
    """One client: a connection, a seeded stream, and the transaction it is in."""

    def __init__(
        self,
        client: int,
        connection: psycopg.Connection[Any],
        ledger: LedgerWriter,
        kinds: list[Kind],
        mix: Mix,
        rng: Random,
    ) -> None:
        self.client = client
        self.connection = connection
        self.ledger = ledger
        self.kinds = kinds
        self.mix = mix
        self.rng = rng
        self.tx = 0
        self.deciding = False  # `decide` has noted an intent, and notes what comes of it

    def transact(self) -> bool:
        """Run one transaction; return False when the connection is gone.

        Raises:
            psycopg.Error: only for an error that no crash explains: the server answered, and not as planned.
        """
        style, sync = self.mix.draw(self.rng)
        self.tx = self.ledger.begin(self.client)
        self.deciding = False
        try:
            with self.connection.cursor() as cursor:
                cursor.execute("BEGIN")
                if style == "read only":
                    self._read_only(cursor)
                else:
                    self._write(cursor, style, sync)
        except TransactionRefused as error:
            self._refuse(str(error), error.sqlstate)
        except psycopg.Error as error:
            if lost(self.connection, error):
                return False
            if self.deciding:
                return self._goes_on(error)
            if not (error.sqlstate or "").startswith(ROLLED_BACK):
                raise
            self._refuse(first_line(error), error.sqlstate)
        return True

    def _goes_on(self, error: psycopg.Error) -> bool:
        """Let the session go on after a refusal that every client has to expect. Raises any other."""
        if refused(self.connection, error) and (error.sqlstate or "").startswith(ROLLED_BACK):
            return True
        raise error

    def _write(self, cursor: psycopg.Cursor[Any], style: Style, sync: str) -> None:
        cursor.execute(OPENING, (sync,))
        sync_in_force, xid, ticket, insert_lsn, write_lsn, flush_lsn = cursor.fetchone()  # type: ignore[misc]
        kind = self.rng.choice(self.kinds)
        change = kind.step(cursor, self.rng, self.tx, self.client if style == "two-phase" else None)
        writes, discarded = list(change.writes), list(change.discarded)
        if style == "savepoint":
            kept = self._savepoint_parts(cursor, discarded)
            writes.extend(kept)
        cursor.execute(f"INSERT INTO {MARKER_TABLE} VALUES (%s, %s, %s)", (self.tx, self.client, xid))
        if style == "rollback":
            cursor.execute("ROLLBACK")
            self._note_refused("rolled back by the client", None)
            return
        if style == "error":
            self._fail_a_statement(cursor)
        intent = Intent(
            tx=self.tx,
            client=self.client,
            at_ns=time.monotonic_ns(),
            action="prepare" if style == "two-phase" else "commit",
            sync=change.sync or sync_in_force,
            forced=change.forced or style == "two-phase",
            xid=xid,
            writes=tuple(writes),
            discarded=tuple(discarded),
            ticket=ticket,
            gid=f"crashlab-{self.tx}" if style == "two-phase" else "",
            insert_lsn=insert_lsn,
            write_lsn=write_lsn,
            flush_lsn=flush_lsn,
        )
        if style == "two-phase":
            self._two_phase(cursor, intent)
        else:
            self._decide(intent)

    def _decide(self, intent: Intent) -> bool:
        self.deciding = True
        done = decide(self.connection, self.ledger, intent)
        self.deciding = False
        return done

    def _two_phase(self, cursor: psycopg.Cursor[Any], intent: Intent) -> None:
        if not self._decide(intent):
            return
        # Stay undecided for a while: a crash has to meet prepared transactions, not only pass them
        if self.mix.held_ms is not None:
            cursor.execute("SELECT pg_sleep(%s)", (self.rng.uniform(0, self.mix.held_ms / 1000),))
        elif self.rng.random() < 0.25:
            cursor.execute("SELECT pg_sleep(%s)", (self.rng.uniform(0.001, 0.02),))
        rolls_back = self.rng.random() < 0.25
        action: Literal["commit prepared", "rollback prepared"] = (
            "rollback prepared" if rolls_back else "commit prepared"
        )
        self._decide(Intent(tx=self.tx, client=self.client, at_ns=time.monotonic_ns(), action=action, gid=intent.gid))

    def _read_only(self, cursor: psycopg.Cursor[Any]) -> None:
        cursor.execute(f"SELECT count(*) FROM {MARKER_TABLE} WHERE client = %s", (self.client,))
        self._decide(Intent(tx=self.tx, client=self.client, at_ns=time.monotonic_ns()))

    def _savepoint_parts(self, cursor: psycopg.Cursor[Any], discarded: list[Write]) -> list[Write]:
        """Write one to three parts, each in a savepoint; roll back some of them, after an error now and then."""
        kept: list[Write] = []
        for number in range(self.rng.randint(1, 3)):
            part = Write(PART.name, f"{self.tx}.{number}", 1, f"part {number}")
            cursor.execute("SAVEPOINT part")
            cursor.execute(f"INSERT INTO {PART.table} VALUES (%s, 1, %s, %s)", (part.key, self.tx, part.value))
            fate = self.rng.choice(("release", "roll back", "fail"))
            if fate == "release":
                cursor.execute("RELEASE SAVEPOINT part")
                kept.append(part)
                continue
            if fate == "fail":
                self._fail_a_statement(cursor)
            cursor.execute("ROLLBACK TO SAVEPOINT part")
            discarded.append(part)
        return kept

    @staticmethod
    def _fail_a_statement(cursor: psycopg.Cursor[Any]) -> None:
        try:
            cursor.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero:
            return
        raise AssertionError("1 / 0 did not fail")

    def _refuse(self, reason: str, sqlstate: str | None) -> None:
        self._note_refused(reason, sqlstate)
        with contextlib.suppress(psycopg.OperationalError):  # the next BEGIN finds out
            self.connection.execute("ROLLBACK")

    def _note_refused(self, reason: str, sqlstate: str | None) -> None:
        now = time.monotonic_ns()
        self.ledger.record(Refused(tx=self.tx, client=self.client, at_ns=now, reason=reason, sqlstate=sqlstate))
