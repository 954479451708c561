"""What is the same whenever a test has a server under it, with a ledger of its own or with an unchanged application?"""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from crashlab.errors import UsageProblem
from crashlab.model import Broken
from crashlab.profile import Profile
from crashlab.recovery import look_before
from crashlab.server import Server, ServerChoice, ServerSpec
from crashlab.trial.setup import server_facts, server_spec
from crashlab.workload.invariants import InvariantWatch
from crashlab.workload.relations import COMMON_SQL, EXTENSIONS_SQL, MARKER_TABLE, InvariantQuery, Relation

SETUP_SQL = EXTENSIONS_SQL + COMMON_SQL


def spec_in_test(profile: Profile, choice: ServerChoice) -> ServerSpec:
    """Return the server that a test asks for: what every trial looks at is made once, and copied with the rest."""
    return dataclasses.replace(server_spec(profile, choice), setup=SETUP_SQL)


class ServerInTest:
    """A server that is up, what it says of itself, and what holds on it before a crash."""

    def __init__(self, server: Server, profile: Profile, *, seed: int, folder: Path) -> None:
        """Take a server that is up, and put there what every trial looks at.

        Args:
            profile: its faults are what is injected, and its settings are noted in the evidence.
            folder: empty; takes the evidence.
        """
        self.server = server
        self.profile = profile
        self.seed = seed
        self.folder = folder
        self._log_position = server.log_position()
        self._facts = server_facts(server)
        self._invariants: list[InvariantQuery] = []
        self._violations: dict[str, str] = {}  # of invariants, before the crash
        with contextlib.closing(self._connect_to("postgres")) as connection:
            if connection.execute(f"SELECT to_regclass('{MARKER_TABLE}') IS NULL").fetchone() == (True,):
                connection.execute(SETUP_SQL)

    def invariant(self, name: str, sql: str) -> None:
        """Name a query that returns no rows: now, before the crash, and after it.

        Where it returns rows before the crash, nothing follows from what it returns afterwards: inconclusive.

        Raises:
            UsageProblem: the query cannot be run, or the name is taken.
        """
        if name in (one.name for one in self._invariants):
            raise UsageProblem(f'cannot add invariant "{name}": there is one of that name')
        query = InvariantQuery(name, sql, None)
        self._look([query])
        self._invariants.append(query)

    def _look(self, queries: Sequence[InvariantQuery]) -> None:
        self._violations = {**self._broken_now(queries), **self._violations}

    def _broken_now(self, queries: Sequence[InvariantQuery]) -> dict[str, str]:
        """Return which of them do not hold, and what they gave."""
        if not queries:
            return {}
        watch = InvariantWatch(queries)
        with contextlib.closing(self._connect_to("postgres")) as connection:
            watch.check_first(connection)
        return watch.violations

    def _look_for_broken(self, relations: Sequence[Relation]) -> Broken:
        return look_before(self._connect_to, list(relations))

    def _connect_to(self, database: str) -> "psycopg.Connection[Any]":
        return self.server.connect(autocommit=True, dbname=database)
