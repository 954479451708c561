"""What goes on beside the sessions until the crash?

A companion is one side thread: it repeats a statement, looks at invariants, makes databases. It writes nothing into
the ledger. A new one is a class here or in a file of its own, given to `Workload` like the others.
"""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import psycopg

from crashlab.workload.invariants import InvariantWatch
from crashlab.workload.kind import Chore
from crashlab.workload.relations import InvariantQuery

Connect = Callable[[], "psycopg.Connection[Any]"]


class Companion(ABC):
    """One side thread of a workload. What it cannot do is an error of the trial, unless a crash was to be expected."""

    name: str  # for its errors
    runs_own_sql = False  # of the profile: see `roles`

    def set_up(self, connection: "psycopg.Connection[Any]") -> None:  # noqa: B027 - most have nothing to do here
        """Begin with what there is to do on a session of its own, once the tables are filled and before others work."""

    def prepare(self, connection: "psycopg.Connection[Any]") -> None:  # noqa: B027 - likewise
        """Do on a superuser's session what has to be done before anything else."""

    def connect(self, connect: Connect) -> "psycopg.Connection[Any] | None":
        """Open the connection that `run` needs; who gave it closes it after the thread's end. None: it needs none."""
        return connect()

    @abstractmethod
    def run(self, connection: "psycopg.Connection[Any] | None", stop: threading.Event) -> None:
        """Go on until told to stop. Raises psycopg.Error: the server did not do as it was told, or is gone."""

    def expect_crash(self) -> str | None:
        """Do what is to be done right before the fault, while `run` is at work; return what went wrong."""
        return None

    @property
    def violations(self) -> Mapping[str, str]:
        """What did not hold although it always should, and what was observed first."""
        return {}


class Repeated(Companion):
    """Repeats a statement, such as CHECKPOINT or VACUUM; it ends where the server refuses it or is gone."""

    def __init__(self, statement: str, every_ms: float) -> None:
        self.name = statement
        self._every_ms = every_ms

    def run(self, connection: "psycopg.Connection[Any] | None", stop: threading.Event) -> None:
        """See Companion.run."""
        assert connection is not None
        with contextlib.suppress(psycopg.OperationalError):
            while not stop.wait(self._every_ms / 1000):
                connection.execute(self.name)


class Upkeep(Companion):
    """Runs a kind's own statements in turn; the server may refuse one that meets another session's work."""

    REFUSED = ("40", "55", "57014", "25001", "42809", "42P01", "42P07", "42704")
    """What they begin with: rolled back for others' sake, not in the state for it, cancelled; there already, or not
    yet, because a statement before was refused. Nothing has happened then."""

    def __init__(self, name: str, chore: Chore, connect_to: Callable[[str], "psycopg.Connection[Any]"]) -> None:
        self.name = f"upkeep of {name}"
        self._chore = chore
        self._connect_to = connect_to

    def prepare(self, connection: "psycopg.Connection[Any]") -> None:
        """See Companion.prepare."""
        for statement in self._chore.before:
            connection.execute(statement)

    def set_up(self, connection: "psycopg.Connection[Any]") -> None:
        """See Companion.set_up."""
        for statement in self._chore.first:
            connection.execute(statement)

    def run(self, connection: "psycopg.Connection[Any] | None", stop: threading.Event) -> None:
        """See Companion.run."""
        assert connection is not None
        with contextlib.ExitStack() as others:
            sessions = [connection]
            if self._chore.everywhere:
                names = connection.execute("SELECT datname FROM pg_database WHERE datname <> current_database()")
                sessions += [others.enter_context(self._connect_to(name)) for (name,) in names.fetchall()]
            for session in sessions:
                session.execute("SET lock_timeout = '500ms'; SET statement_timeout = '5s'")
            for statement in cycle(self._chore.statements):
                for session in sessions:
                    if stop.wait(self._chore.every_ms / 1000) or not self._run(session, statement):
                        return

    def _run(self, session: "psycopg.Connection[Any]", statement: str) -> bool:
        """Run a statement; return False once the server is gone, or going."""
        try:
            session.execute(statement)
        except psycopg.Error as error:
            if session.closed or session.broken or (error.sqlstate or "57P").startswith("57P"):
                return False
            if not (error.sqlstate or "").startswith(self.REFUSED):
                raise
        return True


class Invariants(Companion):
    """Looks at a user's invariants after the set-up, again and again until the crash, and once right before it.

    What did not hold then says nothing after the crash.
    """

    name = "invariants"
    runs_own_sql = True

    def __init__(self, queries: Sequence[InvariantQuery], *, every_ms: float) -> None:
        self._watch = InvariantWatch(queries, every_ms=every_ms)

    def set_up(self, connection: "psycopg.Connection[Any]") -> None:
        """See Companion.set_up. Raises ProfileError: one of them cannot be run."""
        self._watch.check_first(connection)

    def run(self, connection: "psycopg.Connection[Any] | None", stop: threading.Event) -> None:
        """See Companion.run."""
        assert connection is not None
        self._watch.run(connection, stop)

    def expect_crash(self) -> str | None:
        """See Companion.expect_crash."""
        return None if self._watch.look_now() else "the invariants could not be looked at right before the fault"

    @property
    def violations(self) -> Mapping[str, str]:
        """See Companion.violations."""
        return self._watch.violations
