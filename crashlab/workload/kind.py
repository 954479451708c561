"""What does a kind of transaction look like to the session that runs it?"""

from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from crashlab.ledger import Write
from crashlab.workload.relations import InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor


class Change(NamedTuple):
    """What one step changed."""

    writes: list[Write]
    forced: bool = False  # its commit is flushed whatever synchronous_commit says, see postgres-contract.md 2.1
    discarded: tuple[Write, ...] = ()  # undone by ROLLBACK TO SAVEPOINT
    sync: str | None = None  # synchronous_commit in force by now; None: as it was before


class TransactionRefused(Exception):
    """The server refused a statement of the user's own transaction, for a reason that belongs to the application."""

    def __init__(self, reason: str, sqlstate: str | None) -> None:
        super().__init__(reason)
        self.sqlstate = sqlstate


class Chore(NamedTuple):
    """What a kind has done beside the sessions, on a connection of its own, outside of transactions."""

    statements: tuple[str, ...]  # one after the other, again and again; each may stand for itself
    every_ms: float
    before: tuple[str, ...] = ()  # once, before the set-up
    first: tuple[str, ...] = ()  # once, after it
    everywhere: bool = False  # in each database in turn, template0 included


class Kind(Protocol):
    """One kind of transaction. Stateless: everything it needs to know is in the database or in its arguments."""

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The ledgered tables that it writes."""

    @property
    def setup_sql(self) -> str:
        """Statements that create them."""

    def initial(self) -> list[Write]:
        """Return the rows that the set-up transaction writes; `insert` writes them."""

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Write the initial rows for set-up transaction `tx`."""

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Change some rows in the open transaction and return what was written.

        Args:
            private_key: touch only this key, which no other session touches (its locks may be held for long).
        """

    def invariants(self) -> list[InvariantQuery]:
        """Return what holds after every transaction of this kind."""


def upkeep_of(kind: object) -> tuple[Chore, ...]:
    """Return what a kind has done beside its transactions: its `upkeep`, if it has any."""
    return getattr(kind, "upkeep", ())


def record_types_of(kind: object) -> tuple[str, ...]:
    """Return which types of WAL records a kind is there for, see `recordtypes`: its `record_types`, if it says so."""
    return getattr(kind, "record_types", ())
