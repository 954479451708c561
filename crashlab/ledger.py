"""What were the clients told, and in which order?

The ledger is one JSON object a line, appended as the run goes and kept outside the server. A line's number is its
position, and the only order that anything downstream may use: an intent is on disk before its COMMIT is sent, an
ack only after the answer arrived, so `ack of A above intent of B` proves that A's commit record precedes B's.
`history` reads it back.

Choices:
    The last line is a mark with a digest of all before it. A ledger without one has lost its end, and transactions that
    it no longer tells of would look like ones that nobody made: damaged evidence, never a verdict.
    An ack is a received COMMIT (or COMMIT PREPARED) and nothing else; psycopg's own transaction status is not one.
    A cut or an error during COMMIT is indeterminate. A COMMIT that is answered ROLLBACK is refused.
    Transactions are numbered 1, 2, 3 ... in the order of their begin lines, so a number is an index.

Source: postgres-contract.md 7.1, 7.2 (O1).
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from crashlab.errors import LedgerError

SCHEMA = 2
"""Schema 1 had no end mark."""
SETUP_CLIENT = 0
"""Its transactions are the baseline, not the workload."""

Action = Literal["commit", "prepare", "commit prepared", "rollback prepared"]


class Write(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One effect: relation, key, the version it makes (previous + 1), and the value; None deletes the key.

    With `op` "append" the value is one element, added to the end of the list that the row holds.
    """

    relation: str
    key: str
    version: int
    value: str | None
    op: Literal["put", "append"] = "put"


class Header(msgspec.Struct, frozen=True, tag_field="event", tag="header"):
    """First line of each ledger."""

    schema: int
    seed: int


class Begin(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="begin", gc=False):
    """A client opened transaction `tx`. `io`, here and below: length of the server's I/O log then, if recorded."""

    tx: int
    client: int
    at_ns: int
    io: int = 0


class Intent(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="intent", gc=False):
    """The client is about to send `action`; everything that the transaction was to write."""

    tx: int
    client: int
    at_ns: int
    action: Action = "commit"
    sync: str = "on"  # synchronous_commit in force, read back inside the transaction
    forced: bool = False  # flushed whatever synchronous_commit says: contract 2.1, 2.2
    xid: int = 0  # xid8; 0: none was assigned (read-only)
    writes: tuple[Write, ...] = ()
    discarded: tuple[Write, ...] = ()  # written, then undone by ROLLBACK TO SAVEPOINT: must be absent
    ticket: int = 0  # value received from the sequence; 0: none
    gid: str = ""  # two-phase
    # WAL positions read at this transaction's start: an upper bound for the same client's previous commit record,
    # and how far the WAL was certainly written and flushed then
    insert_lsn: int = 0
    write_lsn: int = 0
    flush_lsn: int = 0
    io: int = 0


class Prepared(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="prepared", gc=False):
    """PREPARE TRANSACTION was acknowledged."""

    tx: int
    client: int
    at_ns: int
    io: int = 0


class Ack(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="ack", gc=False):
    """The server's answer to the last intent arrived, with this command tag."""

    tx: int
    client: int
    at_ns: int
    tag: str = "COMMIT"
    io: int = 0


class Refused(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="refused", gc=False):
    """The server answered with an error, or the client rolled back: the transaction must leave no trace."""

    tx: int
    client: int
    at_ns: int
    reason: str
    sqlstate: str | None = None
    io: int = 0


class Indeterminate(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="indeterminate", gc=False):
    """No answer to the last intent will arrive; both outcomes are legal."""

    tx: int
    client: int
    at_ns: int
    reason: str
    io: int = 0


class End(msgspec.Struct, frozen=True, tag_field="event", tag="end"):
    """Last line: the writer came to an end of its own. `ledgerfile` reads it, and no one else."""

    lines: int  # above this one
    digest: str  # of their bytes: ledger_digest(), in hex


def ledger_digest() -> "hashlib.blake2b":
    """Return what digests a ledger's bytes, fed with none yet."""
    return hashlib.blake2b(digest_size=16)


Event = Header | Begin | Intent | Prepared | Ack | Refused | Indeterminate


class LedgerWriter:
    """Append events from any number of threads; each is handed to the operating system before the call returns."""

    def __init__(self, path: Path, *, seed: int, io_position: Callable[[], int] | None = None) -> None:
        """Create the file.

        Args:
            io_position: gives the length of the server's I/O log; noted with each event of a recorded run.

        Raises:
            LedgerError: it exists or cannot be created.
        """
        self.path = path
        self.acked = 0
        self.acked_writes = 0  # of the workload, and committed: what a verdict rests on
        self._writing: set[int] = set()  # transactions of the workload that have sent what they wrote
        self.lines = 0
        self._begun = 0
        self._io_position = io_position
        self._lock = threading.Lock()
        self._digest = ledger_digest()
        self._whole = True  # nothing was written in part
        self._encoder = msgspec.json.Encoder()
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LedgerError(f'could not create ledger "{path}": {error.strerror}') from error
        self._append(Header(schema=SCHEMA, seed=seed))

    def begin(self, client: int, at_ns: int | None = None, io: int = 0) -> int:
        """Open a transaction and return its id, unique in this ledger.

        Args:
            at_ns: when it began; None: now.
            io: the length of the I/O log then, if the ledger does not ask for it.
        """
        with self._lock:  # number and line in one step, so that numbers ascend in the file
            tx = self._begun + 1
            io = self._io_position() if self._io_position else io
            self._write(Begin(tx=tx, client=client, at_ns=at_ns or time.monotonic_ns(), io=io))
            self._begun = tx
        return tx

    def record(self, event: Intent | Prepared | Ack | Refused | Indeterminate) -> int:
        """Append one event and return its position."""
        if self._io_position is not None:
            event = msgspec.structs.replace(event, io=self._io_position())
        return self._append(event)

    def close(self) -> None:
        """Write the end mark and close the file; closing twice is harmless.

        Raises:
            LedgerError: the mark could not be written. After an earlier error of that kind there is none.
        """
        with self._lock:
            if self._fd < 0:
                return
            try:
                if self._whole:
                    self._put(self._encoder.encode(End(self.lines, self._digest.hexdigest())) + b"\n")
            finally:
                os.close(self._fd)
                self._fd = -1

    def _append(self, event: Event) -> int:
        with self._lock:
            return self._write(event)

    def _write(self, event: Event) -> int:
        if self._fd < 0:
            raise LedgerError(f'cannot append to ledger "{self.path}": it is closed')
        line = self._encoder.encode(event) + b"\n"
        self._put(line)
        self._digest.update(line)
        self.lines += 1
        if type(event) is Intent:
            if event.client != SETUP_CLIENT and (event.xid or event.writes):
                self._writing.add(event.tx)
        elif type(event) is Ack:
            self.acked += 1
            if event.tx in self._writing:
                self._writing.remove(event.tx)
                self.acked_writes += event.tag != "ROLLBACK PREPARED"
        return self.lines

    def _put(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            self._whole = False
            raise LedgerError(f'could not write ledger "{self.path}": {error.strerror}') from error
        if written != len(line):
            self._whole = False
            raise LedgerError(
                f'could not write ledger "{self.path}": wrote {written} of {len(line)} bytes', hint="Is the disk full?"
            )
