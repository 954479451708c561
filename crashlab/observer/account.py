"""In which words is it told what was asked and answered, and what became of it?

A "step" is one message of a client that is answered. What is not here: parameters of Bind, rows, passwords.
"""

from dataclasses import dataclass, field

from crashlab.observer.messages import ENDING
from crashlab.observer.statements import Statement


@dataclass
class Asked:
    """One message of a client, and its answer."""

    connection: int
    step: int
    message: str  # "Query", "Parse", "Execute", "Sync", ...
    sql: str  # of Query, Parse and Execute, cut off after some length
    statements: tuple[Statement, ...]  # their texts are not kept but for `sql`
    number: int  # of the record
    at_ns: int
    epoch: int  # how often a moment had been armed
    place: int  # of the connection in order of appearance, since then
    message_number: int
    statement_number: int
    may_commit: bool
    unknown: str  # why the transaction's id cannot be known; empty: it can
    commit_number: int = 0
    xid: int | None = None
    sync: str = ""  # synchronous_commit; empty: was not asked
    lsn: str | None = None  # where the WAL ended before the commit
    wrote: bool | None = None  # to what is logged; None: it is not known
    skipped: bool = False  # the server ignored it, because of an error before
    answered: int | None = None  # the answer's record
    answered_ns: int | None = None
    heard: bool = True  # False: the answer was kept from the client
    tags: list[str] = field(default_factory=list)
    failure: tuple[str, str, str] | None = None  # severity, SQLSTATE, message
    state: str = ""  # behind Query and Sync: I, T or E
    io: int = 0  # length of the server's I/O log right before `at_ns`, if the server was recorded
    io_then: int = 0  # ... and right after, but before it was passed on
    answered_io: int = 0  # ... and right after `answered_ns`

    @property
    def is_answered(self) -> bool:
        """An answer came that ends no connection; whether the client heard it is another question."""
        return self.answered is not None and (self.failure is None or self.failure[0] not in ENDING)


@dataclass
class Connection:
    """One connection of a client."""

    number: int
    user: str
    database: str
    parameters: dict[str, str]
    protocol: str
    blind: bool  # a replication connection: nothing of it is known
    process: int | None = None  # the server's
    steps: list[Asked] = field(default_factory=list)
    closed_by: str = ""  # "client", "server", "cut"; empty: it was open at the end
    refused: bool = False


@dataclass
class Transaction:
    """One transaction, or one statement outside of any, and what its client was told."""

    connection: int
    explicit: bool  # BEGIN was said
    steps: list[Asked] = field(default_factory=list)
    outcome: str = "open"
    """"committed": answered so. "unheard": it was, and the answer kept back. "unanswered": asked, and no answer came.
    "prepared": PREPARE TRANSACTION was answered, and no more was asked. "rolled back": as asked, or by an error.
    "open": its end was never asked for."""
    end: Asked | None = None  # what asked for its end
    xid: int | None = None
    unknown: str = ""
    """Why `xid` does not say everything; empty: it does, and None means that nothing was written. What may have
    committed on its own may have done so whatever `outcome` says."""
    sync: str = ""  # synchronous_commit at its end; empty: was not asked
    sync_set_by: Asked | None = None  # the statement of this connection that set it
    lsn: str | None = None
    wrote: bool | None = None  # to what is logged; False: its commit is flushed by nobody; None: it is not known
    gid: str = ""  # it was prepared under this name
    aborted: bool = False  # a statement failed, and it was not rolled back to a savepoint

    @property
    def name(self) -> str:
        """Name it to a reader."""
        return f"transaction {self.xid}" if self.xid is not None else "a transaction"


@dataclass
class Conversation:
    """Everything that an observer saw."""

    connections: dict[int, Connection] = field(default_factory=dict)
    steps: list[Asked] = field(default_factory=list)  # in the order in which they were asked
    transactions: list[Transaction] = field(default_factory=list)  # in the order in which they ended
    reached: list[tuple[int, Asked, str]] = field(default_factory=list)  # record, step, phase
    marks: list[tuple[int, str]] = field(
        default_factory=list
    )  # records "armed", "cut", "resumed", "went on", "follows"
    cancels: list[tuple[int, int]] = field(default_factory=list)  # record, the server's process
    epoch: int = 0
