"""Does a user's own application survive? Its tables and its transactions, as SQL texts of the profile.

One instance serves all sessions: it counts the versions of their rows. What a transaction changed is found by
triggers (`tables`), so nobody has to name a row.

Choices:
    Each transaction is tried once at set-up and rolled back, so that a mistake in it is an error of the profile.
    A transaction that the server refuses for its own reasons (a constraint, a deadlock, a serialization failure, the
    application's own RAISE) is rolled back and noted as refused; the session goes on.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.errors import ProfileError
from crashlab.ledger import Write
from crashlab.sql_text import fill_in
from crashlab.workload.kind import Change, TransactionRefused
from crashlab.workload.relations import InvariantQuery, Relation
from crashlab.workload.tables import OPENING, Tables

if TYPE_CHECKING:
    import psycopg
    from psycopg import Cursor

REFUSALS = ("23", "40", "P0001", "55P03")
"""SQLSTATEs and classes: integrity constraint, transaction rollback, RAISE EXCEPTION, lock not available."""
Value = int | float | str


@dataclass(frozen=True)
class Variable:
    """What a variable may be: a whole number of a range, both ends included, or one of some values."""

    between: tuple[int, int] | None = None
    choice: tuple[Value, ...] = ()

    def draw(self, rng: Random) -> Value:
        """Draw a value, all equally likely."""
        return rng.randint(*self.between) if self.between else rng.choice(self.choice)

    @property
    def first(self) -> Value:
        """The value for a first try."""
        return self.between[0] if self.between else self.choice[0]


@dataclass(frozen=True)
class Application:
    """What the profile says about the user's application."""

    setup: str
    transactions: tuple[tuple[str, float], ...]  # SQL text with variables, weight
    tables: tuple[str, ...]  # taken into the ledger
    variables: Mapping[str, Variable]


NOTHING = Application("", (), (), {})


class Sql:
    """Run one of the application's transactions."""

    name = "sql"
    setup_sql = ""  # `insert` runs the user's, where a mistake in it can be named

    def __init__(self, application: Application = NOTHING) -> None:
        self._application = application
        self._tables = Tables()
        self._client = 0

    def for_client(self, client: int) -> "Sql":
        """Return the kind as one client runs it; all of them share what is known about the tables."""
        other = copy.copy(self)
        other._client = client
        return other

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The user's tables, once they are set up."""
        return self._tables.relations

    def initial(self) -> list[Write]:
        """Nothing is known before the user's own set-up has run."""
        return []

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Run the user's set-up, add all rows that it leaves to `writes`, and try each transaction.

        Raises:
            ProfileError: the set-up or a transaction is not what the server can run here.
            UsageProblem: a table cannot be taken into the ledger.
        """
        from psycopg import Error

        try:
            self._run(cursor, self._application.setup)
        except Error as error:
            raise _mistake("setup", error) from error
        cursor.execute("RESET ALL; SET LOCAL synchronous_commit = on")  # what a dump sets is for itself alone
        for name in self._application.tables:
            writes += self._tables.watch(cursor, name)
        values = {name: variable.first for name, variable in self._application.variables.items()}
        for number, (text, _) in enumerate(self._application.transactions):
            self._try(cursor, f"transactions.{number}", fill_in(text, {**values, "client": 0, "tx": tx}))

    def _try(self, cursor: "Cursor[Any]", key: str, text: str) -> None:
        from psycopg import Error

        cursor.execute("SAVEPOINT crashlab_try")
        try:
            self._run(cursor, text)
            self._tables.check(cursor)
        except Error as error:
            if not _is_refusal(error):
                raise _mistake(key, error) from error
        cursor.execute("ROLLBACK TO SAVEPOINT crashlab_try")

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Run one transaction's statements with drawn values.

        Raises:
            TransactionRefused: the server would not have it.
        """
        from psycopg import Error

        texts, weights = zip(*self._application.transactions, strict=True)
        (text,) = rng.choices(texts, weights)
        values = {name: variable.draw(rng) for name, variable in self._application.variables.items()}
        try:
            writes, sync = self._run(cursor, fill_in(text, {**values, "client": self._client, "tx": tx}))
        except Error as error:
            if _is_refusal(error):
                raise TransactionRefused(str(error).strip(), error.sqlstate) from error
            raise
        return Change(writes, sync=sync)

    def _run(self, cursor: "Cursor[Any]", text: str) -> tuple[list[Write], str]:
        cursor.execute(f"SELECT {OPENING};\n{text}")
        return self._tables.close(cursor)

    def invariants(self) -> list[InvariantQuery]:
        """The profile has its own table of these."""
        return []


def _is_refusal(error: "psycopg.Error") -> bool:
    return (error.sqlstate or "").startswith(REFUSALS)


def _mistake(key: str, error: "psycopg.Error") -> ProfileError:
    primary, *more = str(error).strip().splitlines() or [type(error).__name__]
    return ProfileError(f"cannot use workload.sql.{key}: {primary}", detail="\n".join(more) or None)


KINDS = (Sql,)
