"""Which words do all parts share?

Plain frozen records without behaviour: what was injected, what was observed, what was found. They are what a
trial's folder holds, so a change here is a change of the evidence schema. `ledger` has the clients' side.

Source: design.md "Words"; postgres-contract.md section 7.
"""

from enum import StrEnum
from typing import Any, Literal

import msgspec


class CrashClass(StrEnum):
    """What survives: every completed write (processes died), or only what was made durable (power was cut)."""

    PROCESS_CRASH = "process_crash"
    POWER_LOSS = "power_loss"


class Outcome(StrEnum):
    """What the database looks like after recovery, worst last but one; `inconclusive` means nobody looked."""

    INTACT = "intact"
    LOSS = "loss"
    CORRUPTION = "corruption"
    NO_START = "no_start"
    INCONCLUSIVE = "inconclusive"


class PromiseStatus(StrEnum):
    """The outcome held against the documentation; `void`: nothing was promised for what went wrong."""

    KEPT = "kept"
    BROKEN = "broken"
    VOID = "void"


class Family(StrEnum):
    """What a finding is about; `note` never changes an outcome."""

    LOSS = "loss"
    CORRUPTION = "corruption"
    NO_START = "no_start"
    INCONCLUSIVE = "inconclusive"
    NOTE = "note"


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """The receipt of one fault: what really happened, with its proof."""

    kind: str  # kill, stop, shutdown, terminate, container_kill
    target: str  # process role, "all", "container", "server"
    pid: int | None  # the process that was signalled; None for a whole container
    pids: list[int]  # every process that ended or stopped because of it
    confirmed: bool  # False: sent, but no proof that it happened
    proof: list[str]  # one sentence per proof: exit status seen by wait, pid gone, server log line
    crashes_server: bool  # the server had to recover (a logger's death is a respawn only)
    bounds_window: bool  # False: 3 x wal_writer_delay does not hold (walwriter stopped, postmaster killed)
    acked_before: int  # acknowledged transactions when the fault was sent
    ledger_position: int  # ledger line count when the fault was sent
    at_ns: int  # monotonic clock of the client host, just before the fault was sent
    disk: str | None = None  # the disk contract of a cut through a recording; None: a live fault
    nothing_due: bool = False  # the server had shut down, and no write was lost: there was nothing to recover


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """How often processes were held at one place, as a profile's table [jitter] asks for."""

    place: str  # "before unlink of relation"
    met: int  # so many times a process came there
    held: int  # ... and was held
    cut_off: int  # ... and was killed meanwhile
    milliseconds: float  # drawn for all that were held


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of a ledgered relation as it was read back."""

    key: str
    version: int | None  # None: a user's own table, which carries none
    writer: int | None  # transaction id that claims the row; None as above
    value: str | None


class MarkerRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of the marker table: transaction `tx` committed, if the table tells the truth."""

    tx: int
    client: int
    xid: int


class RelationRead(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a forced sequential scan of one ledgered relation returned."""

    relation: str
    file: str | None  # path below the data directory, as pg_relation_filepath gave it
    rows: list[Row]
    size_bytes: int | None = None  # of its main fork; None: not asked, as by older releases


class MarkerRead(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a forced sequential scan of the marker table returned."""

    file: str | None
    rows: list[MarkerRow]


OPERATOR_CLASS = "operator class"
"""How one that is not PostgreSQL's own begins in `Observation.own_functions`."""


class IndexRead(msgspec.Struct, frozen=True, kw_only=True):
    """A forced index scan held against a forced sequential scan of the same table."""

    index: str
    relation: str
    file: str | None
    heap_rows: int
    index_rows: int
    only_in_heap: list[str]  # keys, at most 20
    only_in_index: list[str]  # keys, at most 20
    method: str = "btree"  # access method

    @property
    def agrees(self) -> bool:
        """Whether both scans gave the same rows."""
        return not self.only_in_heap and not self.only_in_index and self.heap_rows == self.index_rows


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """An error that the server raised, or a row that amcheck returned, while something was read."""

    check: str  # name of the check that met it, see Observation.checks
    object: str  # schema-qualified relation, or what was asked
    file: str | None
    sqlstate: str | None
    message: str


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks of tables and indexes found before the fault."""

    complaints: list[Complaint] = []
    indexes: list[IndexRead] = []  # those that do not agree with their tables


class SequenceRead(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence's state: the next value handed out is above `last_value` (or equal, if never called)."""

    name: str
    file: str | None
    last_value: int
    is_called: bool


class Invariant(msgspec.Struct, frozen=True, kw_only=True):
    """A statement about the data that holds after every transaction, such as the sum of all balances.

    A user's own is a query that must give "no rows"; observed are the first that it gave.
    """

    name: str
    expected: str
    observed: str
    reads_volatile: list[str] = []  # asked only where it does not hold: what it read that a crash empties, in words


class CheckRun(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one check looked, and at how much."""

    status: Literal["ran", "failed", "skipped"]  # failed: the check itself could not run to its end
    count: int  # objects or rows looked at
    unchanged: int = 0  # objects not looked at: their files are those of a base image that was checked
    seconds: float
    detail: str = ""


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What the server's own log and a first connection say about its recovery."""

    started: bool  # a connection was accepted after the crash
    ran: bool  # the log says that crash recovery took place
    seconds: float
    redo_start: str | None = None  # LSN
    redo_end: str | None = None  # LSN of the last record replayed
    end_reason: str | None = None  # why redo stopped, such as "invalid record length at ..."
    fatal: list[str] = []  # FATAL and PANIC lines since the restart
    tool_fault: str | None = None  # not started for a reason outside the database: port, permissions, lock file
    log_lines: list[str] = []  # the server's log since the restart, at most 200 lines


WalDecision = Literal["commit", "abort", "prepare", "commit prepared", "rollback prepared"]
RecordFate = Literal["not written", "not durable", "behind a hole", "no file"]


class WalRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record of the WAL that decides a transaction."""

    decision: WalDecision
    xid: int  # 32 bits; of a decision about a prepared transaction: that one's
    start: int  # LSN
    end: int  # LSN: it is valid if the WAL is up to here
    flushed: bool  # flushed before the answer whatever synchronous_commit says: two-phase, DROP, CREATE DATABASE ...


class RecordCount(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How many records of one type there are."""

    name: str  # as pg_waldump has it, see `recordtypes`
    plain: int
    imaged: int  # with the image of at least one page


class WalFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the WAL of a data directory held before recovery, from the redo point on."""

    redo: int  # LSN of pg_control's redo point
    end: int  # LSN: the end of the valid WAL, up to which recovery can go
    last: int  # LSN at which the last valid record begins; 0: there is none
    records: list[WalRecord]  # in their order
    why: str = ""  # what is wrong with what stands at the end, such as "a wrong checksum"
    kinds: list[RecordCount] = []  # all whole records that redo has to replay; empty: none, or older evidence


class LostRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of a record that decides a transaction and lies behind the end of the WAL."""

    decision: WalDecision
    xid: int  # 32 bits
    end: int  # LSN; 0: unknown, as the run ended before it was written
    fate: RecordFate
    flushed: bool = False  # as in WalRecord


class WalFlush(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded trial: a flush of a WAL file that had ended when the power was cut."""

    operation: int  # of the recording: its end
    pid: int  # the process that asked for it
    kept: bool  # False: this disk ignored it
    least_ms: float  # it ended at least this long before the fault, by the clock of the ledger
    most_ms: float | None  # ... and at most this long; None: the ledger notes nothing before it


class WalAtCut(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded trial: how far the server's WAL was when the power was cut. LSNs, none below the redo point."""

    written: int  # valid up to here, had the kernel lost nothing
    durable: int  # valid up to here in every state that this cut may leave
    flushing: bool  # a flush of a WAL file had begun and not ended
    lost: list[LostRecord]  # by LSN; commits and PREPAREs of transactions that had their answer
    last_flush: WalFlush | None = None  # None: none since the recording began, or not looked for


class TornPage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A page of a relation's file of which the power cut left a part old and a part new."""

    file: str
    page: int


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """What a crash may leave in the data directory beside the data, or what recovery should have removed."""

    kind: Literal["invalid index", "unknown file", "two-phase file", "unlogged index"]
    name: str  # of the index, quoted, with its schema; of a file: its path
    file: str  # path below the data directory
    size_bytes: int
    detail: str = ""  # of an unlogged index: why it cannot be used; of a two-phase file: the transaction's fate


class Survivors(msgspec.Struct, frozen=True, kw_only=True):
    """Who is there after a recovery."""

    transactions: list[int]  # those with a marker row, ascending
    prepared: list[str]  # gids in pg_prepared_xacts


class LifeStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the afterlife."""

    name: str
    status: Literal["ran", "skipped"]
    count: int = 0  # objects or rows
    seconds: float = 0.0
    detail: str = ""  # why it was skipped, or what was left out


class LifeChange(msgspec.Struct, frozen=True, kw_only=True):
    """What had survived and is other than it has to be, after so much of the afterlife."""

    step: str
    kind: Literal["content", "sequence", "prepared", "lock", "unlogged"]
    object: str
    file: str | None
    says: str  # what was, and what is, in words


class Afterlife(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the recovered server when it was used, restarted and crashed once more."""

    steps: list[LifeStep]
    complaints: list[Complaint] = []  # errors that a healthy database does not give; `check` is the step
    changes: list[LifeChange] = []
    indexes: list[IndexRead] = []  # after the second crash, those that do not agree with their tables
    own_functions: dict[str, list[str]] = {}  # as in Observation, then
    restart: Recovery | None = None  # the start after a clean stop; None: it did not come to that
    killed: bool = False  # that stop took too long, and the server was killed instead
    second: Recovery | None = None  # the recovery after the second crash
    died: str | None = None  # the server went away in the middle of a step: which, and its last words


class Outside(msgspec.Struct, frozen=True, kw_only=True):
    """A test of an application: what sessions did of which its ledger does not know, and what was there before."""

    markers: list[int]  # transactions whose marker row was there right before the fault
    relations: list[RelationRead]  # the rows in the same snapshot; a relation that is missing could not be read
    before: int  # transactions that committed since the trial began, are not in the ledger, and were seen then
    since: int  # ... and were not seen then
    rows_before: list[tuple[str, str]]  # relation and key: the row that is there now was written by one that was seen
    rows_since: list[tuple[str, str]]  # ... by one that was not


class ToldKey(msgspec.Struct, frozen=True, kw_only=True):
    """What an application told its user: one key, as the text that PostgreSQL prints for it."""

    text: str
    at_ns: int  # monotonic clock; of a line in a file, when it was seen there
    line: int  # so many lines of the trial's ledger had happened by then
    by: str  # "test", or "file": a line in the file that CRASHLAB_TOLD names
    since_ns: int = 0  # of a line in a file: when it was not there yet; 0: it is known exactly when it was told
    since_line: int = 0  # so many lines of the ledger had happened by then; 0: exactly `line`
    io: int = 0  # length of the server's I/O log then, if it was recorded


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A test of an unchanged application: what it told its users, and what the test's own query found of it."""

    observed: bool  # whether the observer listened, so that the ledger knows the application's transactions
    keys: list[ToldKey] = []
    query: str | None = None
    database: str = "postgres"  # where it is asked
    found: list[str] | None = None  # None: not asked
    failed: str = ""  # why the query found nothing: it cannot be run on what came back
    set_by: dict[str, str] = {}  # transaction -> the statement of its connection that set synchronous_commit
    reasons: dict[str, str] = {}  # transaction that was refused -> why, in words
    broken_since: list[Invariant] = []  # those that do not hold now, with life since the recovery
    repeats: dict[str, str] = {}  # transaction whose answer its client never had -> a later one that asked the same
    moment: str = ""  # where the server died, in words
    unseen: int = (
        0  # so many commits were answered whose transactions nobody knows, and no query looks for what they did
    )


class FirstStart(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a container that was killed in its first start, and started again on the same volume."""

    during: str  # what it was to be killed in
    reached: str  # how far it had come, in words
    whole: bool  # the entry point had said that all was done
    scripts: list[str]  # init scripts, crashlab's own among them, in their order
    started: bool = False  # the second start took connections
    refuses: bool = False  # it did not, for it lets nobody in
    last_words: list[str] = []  # what it said of that, or as it ended
    skipped: bool = False  # it says that it initialises nothing
    unfinished: list[str] = []  # scripts that no start ran to the end
    missing: dict[str, str] = {}  # tables that are not there -> the script of crashlab's own that makes it


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Plain facts read from the recovered server. Judged by `oracle`, never here."""

    recovery: Recovery
    wal: WalFacts | None = None  # None: not read, such as after a crash-restart, where recovery follows at once
    wal_at_cut: WalAtCut | None = None
    replayed: list[RecordCount] | None = None  # read after the recovery, where `wal` was not; None: that could not be
    checks: dict[str, CheckRun] = {}  # by name, see REQUIRED_CHECKS
    xact_status: dict[str, str] = {}  # xid -> committed, aborted, in progress, future, too old
    marker: MarkerRead | None = None
    relations: list[RelationRead] = []
    indexes: list[IndexRead] = []
    complaints: list[Complaint] = []
    own_functions: dict[str, list[str]] = {}  # file of an index -> what it computes with that is not PostgreSQL's own
    sequences: list[SequenceRead] = []
    prepared: list[str] = []  # gids in pg_prepared_xacts
    invariants: list[Invariant] = []
    invariants_before: list[Invariant] = []  # those that did not hold before the crash
    broken_before: Broken = Broken()
    rows_counted: int | None = None  # inserted into the marker table, say the statistics; None: not asked
    unlogged_rows: dict[str, int] = {}  # by table; a recovery empties them
    leftovers: list[Leftover] = []
    files: dict[str, str] = {}  # any other relation -> file
    torn_pages: list[TornPage] = []  # of a recorded crash state without full-page images; at most 100
    first_survivors: Survivors | None = None  # of the first crash state, left alone; None: its recovery was not cut
    died: str | None = None  # the server went away while it was read: its last words
    afterlife: Afterlife | None = None  # None: the trial ended with the reading
    outside: Outside | None = None  # None: nobody but the ledger's clients had the server
    first_start: FirstStart | None = None  # it was killed, before all else; None: it was not
    disk_full: str | None = None  # somebody met a full disk, before or after the crash: which disk, and who says so


REQUIRED_CHECKS = (
    "xact_status",
    "heap_read",
    "index_read",
    "amcheck_index",
    "amcheck_heap",
    "full_read",
    "sequences",
    "prepared",
)
"""Without all of these a recovered server was not looked at: the trial is inconclusive."""


class Clause(msgspec.Struct, frozen=True, kw_only=True):
    """One reason for a promise: a setting, what it means under this crash class, and where the manual says so."""

    setting: str
    value: str
    says: str
    manual: str  # manual section, with its anchor


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What PostgreSQL's documentation promises for these settings and this crash class."""

    crash_class: CrashClass
    sync_commits_survive: bool  # False: nothing is promised, even for synchronous commits
    async_window_ms: float | None  # soft bound on the age of a lost asynchronous commit; None: unbounded
    corruption_excluded: bool  # False: corruption and a failed start are within what the manual allows
    clauses: list[Clause]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One witnessed violation, or permitted loss, with all its witnesses of the same code and place."""

    code: str  # stable, see oracle.codes
    family: Family
    permitted: bool  # the contract allows it
    summary: str  # one line
    explanation: str  # one paragraph
    timeline: list[str] = []  # what happened, in order, one line each, about the first witness
    count: int  # how many witnesses; `evidence` may hold fewer
    evidence: dict[str, Any]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Transactions by what the clients were told and by what came back."""

    begun: int = 0
    acked: int = 0  # acknowledged transactions that wrote
    acked_sync: int = 0  # of these, flushed before the acknowledgement
    acked_async: int = 0
    read_only: int = 0  # acknowledged, nothing written, nothing promised
    refused: int = 0
    unsent: int = 0  # COMMIT never sent
    prepared: int = 0  # PREPARE acknowledged, no decision acknowledged
    indeterminate: int = 0
    indeterminate_present: int = 0
    lost: int = 0
    lost_forbidden: int = 0


class AsyncWindow(msgspec.Struct, frozen=True, kw_only=True):
    """How old the lost asynchronous commits of one trial were, against what the manual says about it."""

    lost: int  # acknowledged asynchronous commits that are missing
    oldest_ms: float  # from the acknowledgement of the oldest of them to the fault; 0: it came after
    bound_ms: float | None  # 3 x wal_writer_delay; None: not bounded in this trial


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The judgement on one trial."""

    outcome: Outcome
    promise: PromiseStatus | None  # None when inconclusive
    findings: list[Finding]  # worst first
    counts: Counts
    window: AsyncWindow | None = None  # None: no asynchronous commit was lost
