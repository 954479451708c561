"""What happened in one trial, as facts that have a place on one axis?

Whoever draws a trial takes everything from here: the picture on the page, its table, the trace, the terminal. Nothing
in it is judged anew; a transaction's fate is what the oracle said of it.

Choices: the axis of a recording is the number of its operation, which is the only order that is known there; without
    its log, and for a live trial, it is the time before the fault, in ms, which is negative before it.
"""

from collections import Counter
from enum import StrEnum
from typing import Literal

import msgspec

from crashlab.model import Recovery, WalAtCut

PAGE_BYTES = 8192
"""PostgreSQL's default; what a map of the disk counts in."""


class Fate(StrEnum):
    """What became of one transaction, given what its client was told."""

    SURVIVED = "survived"  # acknowledged, and there
    PERMITTED = "lost, permitted"  # acknowledged and gone, as the contract allows
    FORBIDDEN = "lost, forbidden"  # acknowledged and gone against the contract
    PHANTOM = "there, forbidden"  # refused, rolled back or never sent, and there
    PRESENT = "unanswered, there"
    ABSENT = "unanswered, not there"
    UNDECIDED = "prepared"  # two-phase, no decision was acknowledged
    TRACELESS = "no commit"  # refused, rolled back or never sent, and not there
    READ_ONLY = "nothing written"
    UNKNOWN = "unknown"  # nobody could look


class Transaction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One transaction. Lines are those of the ledger; places are on the chronicle's axis; 0 and None mean never."""

    tx: int
    client: int  # 0: the set-up
    fate: Fate
    sync: str
    flushed: bool  # its acknowledgement promised durability
    xid: int
    wrote: str  # in words
    begin_line: int
    sent_line: int
    told_line: int
    begin: float
    sent: float | None
    told: float | None
    answer: str  # acknowledged, refused, no answer, never sent
    record_end: int = 0  # LSN of its commit record, where it is known
    record_fate: str = ""  # valid, not durable ...; empty: nothing is known of a record


class WalLevel(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far the WAL was when a client asked; LSNs, 0: it was not told."""

    at: float
    line: int  # of the ledger
    inserted: int
    written: int
    durable: int


HappeningKind = Literal["flush", "ignored flush", "checkpoint", "WAL switch", "fault", "cut", "WAL wait", "busy spell"]
"""The last two are of an observed server: time in which half of the clients at work, or more, waited for the WAL, and
time in which fewer did."""


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the server or of the fault."""

    kind: HappeningKind
    at: float
    until: float | None = None  # None: a moment, or it had not ended
    says: str


class PageRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Pages of a file, one after the other, to which the same happened."""

    status: Literal["durable", "kept", "lost", "torn"]
    pages: int


class MappedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of which something was not durable when the power was cut."""

    path: str
    file_class: str
    seen_bytes: int  # its size as the server saw it
    left_bytes: int  # ... in the crash state; -1: no name leads to it any more
    runs: list[PageRun]

    def pages(self, status: str) -> int:
        """Count the pages to which this happened."""
        return sum(run.pages for run in self.runs if run.status == status)


class MappedName(msgspec.Struct, frozen=True, kw_only=True):
    """A change of names that was not durable."""

    position: int
    says: str
    kept: bool


class QuietClass(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one class that were durable as a whole."""

    file_class: str
    files: int
    pages: int


class DiskMap(msgspec.Struct, frozen=True, kw_only=True):
    """What the power cut met, and what it left."""

    position: int  # operation of the recording
    note: str  # how this state was chosen
    unit_bytes: int  # what survives whole or not at all
    files: list[MappedFile]
    names: list[MappedName]
    quiet: list[QuietClass]


class Chronicle(msgspec.Struct, frozen=True, kw_only=True):
    """One trial."""

    axis: Literal["ms", "operation"]
    first: float  # where the workload began
    cut: float  # where the fault came
    transactions: list[Transaction]
    levels: list[WalLevel]
    happenings: list[Happening]
    recovery: Recovery
    redo: int = 0  # LSN at which recovery had to begin; 0: the WAL was not read
    wal_end: int = 0  # LSN up to which recovery could go
    at_cut: WalAtCut | None = None
    written: list[tuple[float, int]] = []  # of a recording: place, LSN from there on
    durable: list[tuple[float, int]] = []  # ... on this disk
    disk: DiskMap | None = None
    without: str = ""  # what could not be told, and why

    def count(self, *fates: Fate) -> int:
        """Count the transactions with one of these fates."""
        return sum(number for fate, number in self.fates.items() if fate in fates)

    @property
    def fates(self) -> Counter[Fate]:
        """How many transactions have each fate."""
        return Counter(one.fate for one in self.transactions)

    def ends(self) -> dict[int, float]:
        """Return by transaction where it is over: its answer; without one the client's next begin, or the cut."""
        found: dict[int, float] = {}
        following: dict[int, float] = {}  # client -> begin of its next transaction
        for one in reversed(self.transactions):
            unsent = one.begin if one.sent is None else min(self.cut, following.get(one.client, self.cut))
            found[one.tx] = max(one.begin, unsent if one.told is None else one.told)
            following[one.client] = one.begin
        return found

    @property
    def clients(self) -> list[int]:
        """Whose transactions they are, the set-up first."""
        return sorted({one.client for one in self.transactions})


class Step(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One operation of a recording, and what it changed of what is not durable."""

    says: str
    kind: str  # write, flush, flush ended, name, other
    changes: list[tuple[int, int]]  # index of a file, units in flight from now on; -1: all of it is durable
    names: int  # changes of names in flight after it
    acked: int  # transactions that had been acknowledged by then


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """A recording, operation by operation: what a power cut at each would have met."""

    first: int  # operations before the first step that is told
    end: int
    begin: list[tuple[int, int]]  # in flight before the first step, as `Step.changes`
    files: list[tuple[str, str]]  # path, class; of one that was renamed, each path
    steps: list[Step]
    checkpoints: list[tuple[int, int]]
    unit_bytes: int
    about: list[tuple[str, str]]  # what was recorded, as (label, text)
