"""What were the clients told, and in which order?

The ledger is one JSON object a line, appended as the run goes and kept outside the server. A line's number is its
position, and the only order that anything downstream may use: an intent is on disk before its COMMIT is sent, an
ack only after the answer arrived, so `ack of A above intent of B` proves that A's commit record precedes B's.

Choices:
    An ack is a received COMMIT (or COMMIT PREPARED) and nothing else; psycopg's own transaction status is not one.
    A cut or an error during COMMIT is indeterminate. A COMMIT that is answered ROLLBACK is refused.
    A last line cut short is what a killed writer leaves: tolerated and reported. Any other damage is an error.

Source: postgres-contract.md 7.1, 7.2 (O1).
"""

import os
import threading
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from crashlab.errors import LedgerError

SCHEMA = 1
BLOCK_BYTES = 4 << 20

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


class Begin(msgspec.Struct, frozen=True, tag_field="event", tag="begin", gc=False):
    """A client opened transaction `tx`."""

    tx: int
    client: int
    at_ns: int


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


class Prepared(msgspec.Struct, frozen=True, tag_field="event", tag="prepared", gc=False):
    """PREPARE TRANSACTION was acknowledged."""

    tx: int
    client: int
    at_ns: int


class Ack(msgspec.Struct, frozen=True, tag_field="event", tag="ack", gc=False):
    """The server's answer to the last intent arrived, with this command tag."""

    tx: int
    client: int
    at_ns: int
    tag: str = "COMMIT"


class Refused(msgspec.Struct, frozen=True, tag_field="event", tag="refused", gc=False):
    """The server answered with an error, or the client rolled back: the transaction must leave no trace."""

    tx: int
    client: int
    at_ns: int
    reason: str
    sqlstate: str | None = None


class Indeterminate(msgspec.Struct, frozen=True, tag_field="event", tag="indeterminate", gc=False):
    """No answer to the last intent will arrive; both outcomes are legal."""

    tx: int
    client: int
    at_ns: int
    reason: str


Event = Header | Begin | Intent | Prepared | Ack | Refused | Indeterminate


class State(StrEnum):
    """What is known of a transaction from the clients' side alone."""

    UNSENT = "unsent"  # COMMIT was never sent: must be absent
    INDETERMINATE = "indeterminate"  # COMMIT sent, no answer
    ACKED = "acked"
    REFUSED = "refused"
    PREPARING = "preparing"  # PREPARE sent, no answer: prepared or absent, never visible
    PREPARED = "prepared"  # PREPARE acknowledged: must be prepared, or decided later
    COMMITTING_PREPARED = "committing prepared"  # prepared or committed, never lost
    ROLLING_BACK_PREPARED = "rolling back prepared"  # prepared or absent


class Transaction:
    """One transaction as the ledger tells it. Positions are 1-based line numbers; 0 means never."""

    __slots__ = ("tx", "client", "state", "intent", "intent_position", "end_position", "end_ns")

    def __init__(self, tx: int, client: int) -> None:
        self.tx = tx
        self.client = client
        self.state = State.UNSENT
        self.intent: Intent | None = None  # the one that lists the writes
        self.intent_position = 0  # of the last intent, the one that decides
        self.end_position = 0  # of the ack or refusal
        self.end_ns = 0

    @property
    def wrote(self) -> bool:
        """Whether it changed a permanent table; if not, nothing is promised for it (contract 2.3)."""
        return self.intent is not None and bool(self.intent.writes or self.intent.xid)

    @property
    def flushed_before_ack(self) -> bool:
        """Whether an acknowledgement promised durability."""
        return self.intent is not None and (self.intent.sync != "off" or self.intent.forced)


class History:
    """A whole ledger, folded into transactions, in order of their begin."""

    def __init__(self) -> None:
        self.transactions: dict[int, Transaction] = {}
        self.seed = 0
        self.lines = 0
        self.truncated: str | None = None  # what a cut last line held, if there was one


class LedgerWriter:
    """Append events from any number of threads; each is handed to the operating system before the call returns."""

    def __init__(self, path: Path, *, seed: int) -> None:
        """Create the file.

        Raises:
            LedgerError: it exists or cannot be created.
        """
        self.path = path
        self.acked = 0
        self.lines = 0
        self._next_tx = 1
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LedgerError(f'could not create ledger "{path}": {error.strerror}') from error
        self._append(Header(schema=SCHEMA, seed=seed))

    def begin(self, client: int) -> int:
        """Open a transaction and return its id, unique in this ledger."""
        with self._lock:
            tx = self._next_tx
            self._next_tx += 1
        self._append(Begin(tx=tx, client=client, at_ns=time.monotonic_ns()))
        return tx

    def record(self, event: Intent | Prepared | Ack | Refused | Indeterminate) -> int:
        """Append one event and return its position."""
        return self._append(event)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _append(self, event: Event) -> int:
        line = self._encoder.encode(event) + b"\n"
        with self._lock:
            if self._fd < 0:
                raise LedgerError(f'cannot append to ledger "{self.path}": it is closed')
            try:
                written = os.write(self._fd, line)
            except OSError as error:
                raise LedgerError(f'could not write ledger "{self.path}": {error.strerror}') from error
            if written != len(line):
                raise LedgerError(
                    f'could not write ledger "{self.path}": wrote {written} of {len(line)} bytes', hint="Is the disk full?"
                )
            self.lines += 1
            if type(event) is Ack:
                self.acked += 1
            return self.lines


def read_ledger(path: Path) -> History:
    """Read a ledger from disk and fold it.

    Raises:
        LedgerError: unreadable, or damaged anywhere but in a cut last line; names line and reason.
    """
    try:
        with path.open("rb") as file:
            return _fold(path, _events(path, file))
    except OSError as error:
        raise LedgerError(f'could not read ledger "{path}": {error.strerror}') from error


def _events(path: Path, file: object) -> Iterator[list[Event] | str]:
    """Yield blocks of decoded events; a final string is a last line cut short."""
    decoder = msgspec.json.Decoder(Event)
    rest = b""
    line = 0
    while block := file.read(BLOCK_BYTES):  # type: ignore[attr-defined]
        block = rest + block
        end = block.rfind(b"\n") + 1
        block, rest = block[:end], block[end:]
        try:
            events = decoder.decode_lines(block)
        except (msgspec.DecodeError, UnicodeDecodeError):
            _raise_at_bad_line(path, line, block, decoder)
            raise
        if len(events) != block.count(b"\n"):
            blank = line + block.split(b"\n").index(b"") + 1
            raise LedgerError(f'{path}:{blank}: damaged ledger: the line is empty')
        line += len(events)
        yield events
    if rest:
        try:
            yield [decoder.decode(rest)]  # only its newline is missing
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield rest.decode(errors="replace")


def _raise_at_bad_line(path: Path, line: int, block: bytes, decoder: msgspec.json.Decoder[Event]) -> None:
    for offset, text in enumerate(block.split(b"\n")[:-1]):
        try:
            decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise LedgerError(
                f"{path}:{line + offset + 1}: damaged ledger: {error}",
                detail=f"The line reads: {text[:120].decode(errors='replace')!r}.",
            ) from error


def _fold(path: Path, blocks: Iterator[list[Event] | str]) -> History:
    history = History()
    position = 0
    for block in blocks:
        if isinstance(block, str):
            history.truncated = block
            break
        for event in block:
            position += 1
            complaint = _apply(history, event, position)
            if complaint:
                raise LedgerError(f"{path}:{position}: damaged ledger: {complaint}")
    if position == 0:
        raise LedgerError(f"{path}:1: damaged ledger: the header line is missing")
    history.lines = position
    return history


def _apply(history: History, event: Event, position: int) -> str | None:
    """Fold one event into the history; return what is impossible about it, if anything."""
    kind = type(event)
    if kind is Header:
        assert isinstance(event, Header)
        return _apply_header(history, event, position)
    if position == 1:
        return "the header line is missing"
    transactions = history.transactions
    if kind is Begin:
        if event.tx in transactions:
            return f"transaction {event.tx} begins twice"
        transactions[event.tx] = Transaction(event.tx, event.client)
        return None
    transaction = transactions.get(event.tx)
    if transaction is None:
        return f"transaction {event.tx} has no begin"
    if transaction.client != event.client:
        return f"transaction {event.tx} belongs to client {transaction.client}, not {event.client}"
    if kind is Intent:
        assert isinstance(event, Intent)
        return _apply_intent(transaction, event, position)
    return _apply_answer(transaction, event, position)


def _apply_header(history: History, event: Header, position: int) -> str | None:
    if position != 1:
        return "a second header line"
    if event.schema != SCHEMA:
        return f"schema {event.schema} is not {SCHEMA}, the one that this version reads"
    history.seed = event.seed
    return None


_AFTER_INTENT = {
    (State.UNSENT, "commit"): State.INDETERMINATE,
    (State.UNSENT, "prepare"): State.PREPARING,
    (State.PREPARED, "commit prepared"): State.COMMITTING_PREPARED,
    (State.PREPARED, "rollback prepared"): State.ROLLING_BACK_PREPARED,
}


def _apply_intent(transaction: Transaction, event: Intent, position: int) -> str | None:
    state = _AFTER_INTENT.get((transaction.state, event.action))
    if state is None:
        return f'transaction {event.tx} is {transaction.state} and cannot come to "{event.action}"'
    transaction.state = state
    transaction.intent_position = position
    if transaction.intent is None:
        transaction.intent = event
    return None


_AFTER_ACK = {
    State.INDETERMINATE: State.ACKED,
    State.COMMITTING_PREPARED: State.ACKED,
    State.ROLLING_BACK_PREPARED: State.REFUSED,
}
_MAY_BE_REFUSED = (State.UNSENT, State.INDETERMINATE, State.PREPARING)


def _apply_answer(transaction: Transaction, event: Event, position: int) -> str | None:
    before = transaction.state
    if isinstance(event, Ack):
        after = _AFTER_ACK.get(before)
    elif isinstance(event, Prepared):
        after = State.PREPARED if before is State.PREPARING else None
    elif isinstance(event, Refused):
        after = State.REFUSED if before in _MAY_BE_REFUSED else None
    else:  # indeterminate: the state already says so
        after = None if before in (State.ACKED, State.REFUSED) else before
    if after is None:
        return f"transaction {transaction.tx} is {before} and cannot become {type(event).__name__.lower()}"
    transaction.state = after
    if after in (State.ACKED, State.REFUSED):
        transaction.end_position = position
    assert not isinstance(event, Header)
    transaction.end_ns = event.at_ns
    return None
