"""What is one look at a recovered server: whom does it ask, for what, and what was found so far?

Assumes: nobody writes.
Choices: many questions go in one message where the server is sound. An error ends the whole message, so whoever sends
    one can also ask each question on its own (`at_once`), and what is said of damage comes from there alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.errors import Diagnostic

from crashlab.model import (
    CheckRun,
    Complaint,
    IndexRead,
    Invariant,
    Leftover,
    MarkerRead,
    RelationRead,
    SequenceRead,
)
from crashlab.workload.relations import MARKER_TABLE, SEQUENCE, InvariantQuery, Relation

STATEMENT_TIMEOUT_MS = 120_000
SEQUENTIAL_SCANS = (
    "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;"
    " SET enable_seqscan = on; SET max_parallel_workers_per_gather = 0"
)

_RELATION = re.compile(r'of relation "?([^\s";]+)')

R = TypeVar("R")


@dataclass(frozen=True)
class Reading:
    """What is to be read."""

    relations: list[Relation]
    invariants: list[InvariantQuery]
    xids: list[int]  # transactions whose fate is asked
    marker_table: str = MARKER_TABLE
    sequences: tuple[str, ...] = (SEQUENCE,)
    databases: bool = False  # read the other databases, too
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS
    statistics: bool = True  # ask for them if no recovery ran; False: nothing ever wrote them down
    invariants_may_lack: bool = False  # what they read: an application makes its tables at some time


@dataclass
class Facts:
    """What has been read so far; survives the server's death in the middle."""

    checks: dict[str, CheckRun] = field(default_factory=dict)
    xact_status: dict[str, str] = field(default_factory=dict)
    marker: MarkerRead | None = None
    relations: list[RelationRead] = field(default_factory=list)
    indexes: list[IndexRead] = field(default_factory=list)
    complaints: list[Complaint] = field(default_factory=list)
    own_functions: dict[str, list[str]] = field(default_factory=dict)
    sequences: list[SequenceRead] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    invariants: list[Invariant] = field(default_factory=list)
    rows_counted: int | None = None
    unlogged_rows: dict[str, int] = field(default_factory=dict)
    leftovers: list[Leftover] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    died: str | None = None


@dataclass(frozen=True)
class Looked:
    """At how many objects a check looked, and at how many it did not because they are unchanged."""

    count: int
    unchanged: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Skipped:
    """Why a check cannot look."""

    reason: str


def complaint(check: str, what: str, file: str | None, error: psycopg.Error) -> Complaint:
    """Turn an error that the server raised into a fact."""
    message = str(error).strip()
    return Complaint(check=check, object=what, file=file, sqlstate=error.sqlstate, message=message)


def note_zeroed(complaints: list[Complaint], diagnostic: Diagnostic) -> None:
    """Keep the warning that the server took a page of zeros for a damaged one: no error comes of it."""
    text = diagnostic.message_primary or ""
    if diagnostic.sqlstate == "XX001" and "zeroing" in text and (named := _RELATION.search(text)):
        file = named[1]
        found = Complaint(check="zeroed_pages", object=file, file=file, sqlstate="XX001", message=text)
        complaints += [] if found in complaints else [found]


def at_once(connection: psycopg.Connection[Any], read: Callable[[], R], about: Sequence[str] = ()) -> R | None:
    """Return what `read` gives, or None if the server raised an error: then each question has to be asked on its own.

    Args:
        about: what is asked about, to be named if the server dies of it.

    Raises:
        psycopg.Error: the session is gone.
    """
    try:
        return read()
    except psycopg.Error as error:
        if connection.broken or connection.closed:
            raise psycopg.OperationalError(f"{_one_of(about)}{error}") from error
    except UnicodeDecodeError:
        pass
    return None


def _one_of(about: Sequence[str]) -> str:
    names = ", ".join(dict.fromkeys(about))
    return f"one of {names}: " if len(about) > 1 else f"{names}: " if about else ""


def results(connection: psycopg.Connection[Any], statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    """Run statements without parameters in one round trip and return the rows of those that give rows.

    Raises:
        psycopg.Error: one of them failed; what any of them has set is undone.
    """
    cursor = connection.execute(";\n".join(statements))
    found = []
    while True:
        if cursor.description is not None:
            found.append(cursor.fetchall())
        if not cursor.nextset():
            return found


def read_named(
    check: str,
    connection: psycopg.Connection[Any],
    complaints: list[Complaint],
    what: str,
    read: Callable[[], R],
) -> R | None:
    """Return what `read` gives; an error of the server becomes a complaint about `what` and gives None."""
    try:
        return read()
    except psycopg.Error as error:
        if connection.broken or connection.closed:
            raise psycopg.OperationalError(f"{what}: {error}") from error
        complaints.append(complaint(check, what, relation_file(connection, what), error))
        return None


def relation_file(connection: psycopg.Connection[Any], table: str) -> str | None:
    """Return a relation's path below the data directory; None when even that cannot be read."""
    path: str | None = _told_of(connection, "pg_relation_filepath", table)
    return path


def relation_size(connection: psycopg.Connection[Any], table: str) -> int | None:
    """Return how many bytes a relation's main fork has; None when that cannot be read."""
    size: int | None = _told_of(connection, "pg_relation_size", table)
    return size


def _told_of(connection: psycopg.Connection[Any], function: LiteralString, table: str) -> Any:
    try:
        row = connection.execute(f"SELECT {function}(%s::regclass)", (table,)).fetchone()
    except psycopg.Error:
        if connection.broken or connection.closed:
            raise
        return None
    return row[0] if row else None
