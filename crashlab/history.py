"""What does a ledger say about each transaction, once it is read back?

Choices:
    Schema 1 may end anywhere, also in the middle of a line, which is reported; any other damage is an error.
    A history is held in columns, indexed by the transactions' numbers, which is what lets a million transactions be
    judged in a few seconds and in less than a gigabyte.

Source: postgres-contract.md 7.1.
"""

import copy
import gc
from array import array
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from crashlab import files
from crashlab.errors import LedgerError
from crashlab.ledger import (
    SCHEMA,
    Ack,
    Begin,
    Event,
    Header,
    Indeterminate,
    Intent,
    Prepared,
    Refused,
    Write,
)
from crashlab.ledgerfile import Block, read_blocks


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


STATES = tuple(State)
"""The state column holds an index into this, plus one; 0 is a number that has not begun."""
UNSENT, INDETERMINATE, ACKED, REFUSED, PREPARING, PREPARED, COMMITTING_PREPARED, ROLLING_BACK_PREPARED = range(1, 9)

PREPARE_ACKNOWLEDGED = "PREPARE TRANSACTION acknowledged"
"""How `History.two_phase` words it."""


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """One transaction as the ledger tells it. Positions are 1-based line numbers; 0 means never."""

    tx: int
    client: int
    state: State
    sync: str
    flushed_before_ack: bool  # an acknowledgement of it promises durability
    xid: int
    ticket: int
    gid: str
    writes: tuple[Write, ...]
    discarded: tuple[Write, ...]
    intent_position: int  # of the last intent, the one that decides
    end_position: int  # of the ack or refusal
    end_ns: int
    insert_lsn: int

    @property
    def wrote(self) -> bool:
        """Whether it changed a permanent table; if not, nothing is promised for it (contract 2.3)."""
        return bool(self.writes or self.xid)


class History:
    """A whole ledger, folded into transactions 1 .. count. Every column is indexed by the transaction's number.

    The columns are for loops over all transactions; `transactions[tx]` puts one of them together.
    """

    def __init__(self) -> None:
        self.seed = 0
        self.lines = 0
        self.truncated: str | None = None  # what a cut last line held, if there was one
        self.count = 0
        self.prepared_position = 0  # highest intent of an acknowledged PREPARE, which is a flush
        self.client = array("q", [0])
        self.state = bytearray(1)
        self.flushed = bytearray(1)  # 1: synchronous, forced or two-phase
        self.wrote = bytearray(1)
        self.xid = array("q", [0])
        self.ticket = array("q", [0])
        self.intent_position = array("q", [0])
        self.end_position = array("q", [0])
        self.begin_position = array("q", [0])
        self.begin_ns = array("q", [0])
        self.intent_ns = array("q", [0])
        self.end_ns = array("q", [0])
        self.insert_lsn = array("q", [0])
        self.written_then = array("q", [0])  # LSNs, as insert_lsn from when the transaction began
        self.flushed_then = array("q", [0])
        self.sync: list[str] = ["on"]
        self.writes: list[tuple[Write, ...]] = [()]
        self.discarded: dict[int, tuple[Write, ...]] = {}
        self.gid: dict[int, str] = {}
        self.forced: set[int] = set()  # flushed before the answer although synchronous_commit was off
        self.two_phase: dict[int, list[tuple[int, int, str]]] = {}  # line, at_ns and words of each step, in order

    @property
    def write_lsn(self) -> int:
        """The highest ever measured: the WAL was certainly written up to here."""
        return max(self.written_then)

    @property
    def flush_lsn(self) -> int:
        """The highest ever measured: the WAL was certainly flushed up to here."""
        return max(self.flushed_then)

    @property
    def transactions(self) -> Mapping[int, Transaction]:
        """All transactions by number, in order of their begin; each access builds a record."""
        return _Transactions(self)

    def copy(self) -> "History":
        """Return one that goes its own way from here; a record of writes is shared, since nothing changes it."""
        other = History()
        for name, value in vars(self).items():
            setattr(other, name, copy.copy(value))
        other.two_phase = {tx: list(steps) for tx, steps in self.two_phase.items()}
        return other

    def reserve(self, count: int) -> None:
        """Make room for `count` transactions after the last one; a negative count cuts the room that is left."""
        size = self.count + 1 + count
        for numbers in (
            self.client, self.xid, self.ticket, self.begin_position, self.intent_position, self.end_position,
            self.begin_ns, self.intent_ns, self.end_ns, self.insert_lsn, self.written_then, self.flushed_then,
        ):  # fmt: skip
            _resize(numbers, size)
        for flags in (self.state, self.flushed, self.wrote):
            flags[size:] = bytes(max(0, size - len(flags)))
        self.sync[size:] = ["on"] * (size - len(self.sync))
        self.writes[size:] = [()] * (size - len(self.writes))


def _resize(column: "array[int]", size: int) -> None:
    if size < len(column):
        del column[size:]
    else:
        column.frombytes(bytes((size - len(column)) * column.itemsize))


class _Transactions(Mapping[int, Transaction]):
    def __init__(self, history: History) -> None:
        self._history = history

    def __len__(self) -> int:
        return self._history.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, self._history.count + 1))

    def __getitem__(self, tx: int) -> Transaction:
        h = self._history
        if not 1 <= tx <= h.count:
            raise KeyError(tx)
        return Transaction(
            tx=tx,
            client=h.client[tx],
            state=STATES[h.state[tx] - 1],
            sync=h.sync[tx],
            flushed_before_ack=bool(h.flushed[tx]),
            xid=h.xid[tx],
            ticket=h.ticket[tx],
            gid=h.gid.get(tx, ""),
            writes=h.writes[tx],
            discarded=h.discarded.get(tx, ()),
            intent_position=h.intent_position[tx],
            end_position=h.end_position[tx],
            end_ns=h.end_ns[tx],
            insert_lsn=h.insert_lsn[tx],
        )


def read_ledger(path: Path, *, until_io: int | None = None) -> History:
    """Read a ledger from disk and fold it.

    Args:
        until_io: a crash point of a recorded run, in bytes of its I/O log. Events noted later never happened.

    Raises:
        LedgerError: unreadable or damaged, see `ledgerfile`; names line and reason.
    """
    collecting = gc.isenabled()
    gc.disable()  # millions of new records and no cycle among them: the collector would only walk them again and again
    try:
        with files.opened(path) as file:
            blocks = read_blocks(path, file)
            return _fold(path, blocks if until_io is None else _cut(blocks, until_io))
    except OSError as error:
        raise LedgerError(f'could not read ledger "{path}": {error.strerror}') from error
    finally:
        if collecting:
            gc.enable()


def fold(events: Sequence[Event]) -> History:
    """Fold events that are in memory, header first, as `read_ledger` folds a file.

    Raises:
        LedgerError: an event is impossible where it stands.
    """
    return _fold(Path("ledger"), iter([list(events)]))


def _cut(blocks: Iterator[Block], until_io: int) -> Iterator[Block]:
    for block in blocks:
        yield block if isinstance(block, str) else events_until(block, until_io)


def events_until(events: Sequence[Event | None], until_io: int) -> list[Event | None]:
    """Put nothing in the place of each event after a crash point, so that the others keep their line numbers."""
    return [event if type(event) is Header or event.io <= until_io else None for event in events]  # type: ignore[union-attr]


def _fold(path: Path, blocks: Iterator[Block]) -> History:
    history = History()
    for block in blocks:
        if isinstance(block, str):
            history.truncated = block
            break
        fold_on(path, history, block)
    if history.lines == 0:
        raise LedgerError(f"{path}:1: damaged ledger: the header line is missing")
    history.reserve(0)
    return history


def fold_on(path: Path, history: History, events: Sequence[Event | None]) -> None:
    """Fold the next events of a ledger into a history; None is one that came after the crash.

    Raises:
        LedgerError: an event is impossible where it stands.
    """
    history.reserve(len(events))
    if complaint := _apply_block(history, events):
        raise LedgerError(f"{path}:{history.lines}: damaged ledger: {complaint}")


def _apply_block(history: History, events: Sequence[Any]) -> str | None:
    """Fold events into the history; return what is impossible about one, if anything, with `lines` at its line.

    Begin, commit and ack of a transaction without two-phase commit are folded here, all else in `_apply`.
    """
    state, client, wrote, flushed = history.state, history.client, history.wrote, history.flushed
    intent_position, end_position, end_ns = history.intent_position, history.end_position, history.end_ns
    begin_position, begin_ns, intent_ns = history.begin_position, history.begin_ns, history.intent_ns
    xid, ticket, insert_lsn = history.xid, history.ticket, history.insert_lsn
    written_then, flushed_then = history.written_then, history.flushed_then
    all_writes, all_sync = history.writes, history.sync
    position, count = history.lines, history.count
    complaint = None
    try:
        for event in events:
            position += 1
            kind = type(event)
            if kind is Begin and event.tx == count + 1 and position > 1:
                count += 1
                client[count] = event.client
                state[count] = UNSENT
                begin_position[count] = position
                begin_ns[count] = event.at_ns
            elif (
                kind is Intent
                and 0 < (tx := event.tx) <= count
                and state[tx] == UNSENT
                and client[tx] == event.client
                and event.action == "commit"
                and not event.discarded
            ):
                state[tx] = INDETERMINATE
                intent_position[tx] = position
                intent_ns[tx] = event.at_ns
                xid[tx] = event.xid
                ticket[tx] = event.ticket
                insert_lsn[tx] = event.insert_lsn
                written_then[tx] = event.write_lsn
                flushed_then[tx] = event.flush_lsn
                all_writes[tx] = event.writes
                if event.xid or event.writes:
                    wrote[tx] = 1
                if (sync := event.sync) != "on":
                    all_sync[tx] = _SYNC_MODES.get(sync, sync)
                if sync != "off" or event.forced:
                    flushed[tx] = 1
                    if sync == "off":
                        history.forced.add(tx)
            elif (
                kind is Ack
                and 0 < (tx := event.tx) <= count
                and state[tx] == INDETERMINATE
                and client[tx] == event.client
            ):
                state[tx] = ACKED
                end_position[tx] = position
                end_ns[tx] = event.at_ns
            else:
                history.count = count
                complaint = _apply(history, event, position)
                if complaint:
                    break
    except OverflowError:
        complaint = "a number is larger than 64 bits"
    history.lines, history.count = position, count
    return complaint


def _apply(history: History, event: Any, position: int) -> str | None:
    """Fold any event, with all checks; None is one that came after the crash."""
    if event is None:
        return None
    if type(event) is Header or position == 1:
        return _apply_header(history, event, position)
    tx = event.tx
    if type(event) is Begin:
        return f"transaction {tx} begins after transaction {history.count}"
    if not 0 < tx <= history.count:
        return f"transaction {tx} has no begin"
    if history.client[tx] != event.client:
        return f"transaction {tx} belongs to client {history.client[tx]}, not {event.client}"
    if type(event) is Intent:
        return _apply_intent(history, event, position)
    return _apply_answer(history, event, position)


def _apply_header(history: History, event: Event, position: int) -> str | None:
    if not isinstance(event, Header):
        return "the header line is missing"
    if position != 1:
        return "a second header line"
    if not 0 < event.schema <= SCHEMA:
        return f"schema {event.schema} is not one that this version reads, 1 to {SCHEMA}"
    history.seed = event.seed
    return None


_AFTER_INTENT = {
    (UNSENT, "commit"): INDETERMINATE,
    (UNSENT, "prepare"): PREPARING,
    (PREPARED, "commit prepared"): COMMITTING_PREPARED,
    (PREPARED, "rollback prepared"): ROLLING_BACK_PREPARED,
}


def _apply_intent(h: History, event: Intent, position: int) -> str | None:
    tx = event.tx
    before = h.state[tx]
    after = _AFTER_INTENT.get((before, event.action))
    if after is None:
        return f'transaction {tx} is {STATES[before - 1]} and cannot come to "{event.action}"'
    h.state[tx] = after
    h.intent_position[tx] = position
    h.intent_ns[tx] = event.at_ns
    if after != INDETERMINATE:
        words = "PREPARE TRANSACTION" if after == PREPARING else event.action.upper()
        h.two_phase.setdefault(tx, []).append((position, event.at_ns, f"{words} sent"))
    if before != UNSENT:  # the first intent is the one that lists the writes
        return None
    h.insert_lsn[tx] = event.insert_lsn
    h.written_then[tx] = event.write_lsn
    h.flushed_then[tx] = event.flush_lsn
    sync = event.sync
    h.sync[tx] = _SYNC_MODES.get(sync, sync)
    if sync != "off" or event.forced or after == PREPARING:
        h.flushed[tx] = 1
        if sync == "off":
            h.forced.add(tx)
    h.xid[tx] = event.xid
    h.ticket[tx] = event.ticket
    h.writes[tx] = event.writes
    if event.xid or event.writes:
        h.wrote[tx] = 1
    if event.discarded:
        h.discarded[tx] = event.discarded
    if event.gid:
        h.gid[tx] = event.gid
    return None


_SYNC_MODES = {mode: mode for mode in ("on", "off", "local", "remote_write", "remote_apply")}
"""One string for all transactions instead of one each."""

_AFTER_ACK = {INDETERMINATE: ACKED, COMMITTING_PREPARED: ACKED, ROLLING_BACK_PREPARED: REFUSED}
_MAY_BE_REFUSED = (UNSENT, INDETERMINATE, PREPARING)


def _apply_answer(history: History, event: Prepared | Ack | Refused | Indeterminate, position: int) -> str | None:
    tx = event.tx
    before = history.state[tx]
    after: int | None
    if isinstance(event, Ack):
        after = _AFTER_ACK.get(before)
    elif isinstance(event, Prepared):
        after = PREPARED if before == PREPARING else None
        history.prepared_position = max(history.prepared_position, history.intent_position[tx])
        history.two_phase.setdefault(tx, []).append((position, event.at_ns, PREPARE_ACKNOWLEDGED))
    elif isinstance(event, Refused):
        after = REFUSED if before in _MAY_BE_REFUSED else None
    else:  # indeterminate: the state already says so
        after = None if before in (ACKED, REFUSED) else before
    if after is None:
        return f"transaction {tx} is {STATES[before - 1]} and cannot become {type(event).__name__.lower()}"
    history.state[tx] = after
    if after in (ACKED, REFUSED):
        history.end_position[tx] = position
    history.end_ns[tx] = event.at_ns
    return None
