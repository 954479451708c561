"""What did the application tell its user, and when?

From any thread by `note`; from any process, in any language, by a line appended to a file. A file has no times, so a
thread looks every few milliseconds: a line was told at some time between two looks, on a busy machine long ones apart.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from crashlab.errors import UsageProblem
from crashlab.model import ToldKey
from crashlab.trial.toldquery import column_type

POLL_S = 0.002
_WHOLE = ("smallint", "integer", "bigint")


@dataclass(frozen=True)
class Note:
    """One key, as it was given."""

    key: Any
    at_ns: int
    by: str
    io: tuple[int, int] = (0, 0)  # number of the recording, and how long its log was then
    since_ns: int = 0  # it was not there yet then; 0: `at_ns` is exact


class ToldNotes:
    """All that was told in one test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.notes: list[Note] = []
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._at = 0
        self._looked_ns = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, key: Any) -> None:
        """Say that the user was told of this key, now."""
        with self._lock:
            self.notes.append(Note(key, time.monotonic_ns(), "test", self.position()))

    def listen(self) -> None:
        """Look at the file from now on; it is there when this returns."""
        if self._thread is None:
            self.path.touch()
            self._looked_ns = time.monotonic_ns()
            self._thread = threading.Thread(target=self._listen, name="crashlab told", daemon=True)
            self._thread.start()

    def _listen(self) -> None:
        while not self._ended.wait(POLL_S):
            self.look()

    def look(self) -> None:
        """Read what has been appended; a line without its end is still being written."""
        if self._thread is None:
            return
        with self._reading, contextlib.suppress(OSError):
            since_ns, self._looked_ns = self._looked_ns, time.monotonic_ns()
            if self.path.stat().st_size == self._at:
                return
            with self.path.open("rb") as file:
                file.seek(self._at)
                *lines, _ = file.read().split(b"\n")
            self._at += sum(len(line) + 1 for line in lines)
            at_ns, io = time.monotonic_ns(), self.position()
            with self._lock:
                self.notes += [
                    Note(line.decode(errors="replace").rstrip("\r"), at_ns, "file", io, since_ns)
                    for line in lines
                    if line
                ]

    def close(self) -> None:
        """Stop looking."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(5)


def as_keys(notes: list[Note], connection: "psycopg.Connection[Any]", query: str | None) -> list[ToldKey]:
    """Return the notes with the text that the server itself prints for each key.

    Args:
        query: that of check; a key is taken for a value of its first column's type, where it can be one.

    Raises:
        UsageProblem: a key is of a type that no value of PostgreSQL's has.
    """
    of_type = column_type(query, connection) if query is not None else None
    return [
        ToldKey(
            text=_as_printed(_text(note.key, connection), of_type, connection),
            at_ns=note.at_ns,
            line=0,
            by=note.by,
            since_ns=note.since_ns,
        )
        for note in notes
    ]


def _as_printed(text: str, of_type: str | None, connection: "psycopg.Connection[Any]") -> str:
    """Return the text that the server prints for a value of a type; the same where the text is none of its values."""
    if of_type in (None, "text") or (of_type in _WHOLE and text.isdecimal() and not text.startswith("0")):
        return text  # as it stands
    try:
        cursor = connection.execute(f"SELECT %s::text::{of_type}", (text,))
    except psycopg.Error:
        return text
    value = cursor.pgresult.get_value(0, 0) if cursor.pgresult is not None else None
    printed = text if value is None else value.decode()
    if of_type.startswith("character") and printed.rstrip(" ") != text.rstrip(" "):
        return text  # cut off: what is there is another one
    return printed


def _text(key: Any, connection: "psycopg.Connection[Any]") -> str:
    if isinstance(key, str) or type(key) is int:
        return str(key)
    try:
        row = connection.execute("SELECT %s::text", (key,)).fetchone()
    except psycopg.Error as error:
        raise UsageProblem(
            f"cannot compare the told key {key!r} with what is there: {str(error).strip().splitlines()[0]}",
            hint="Tell the value of the query's first column, or its text.",
        ) from error
    if row is None or row[0] is None:
        raise UsageProblem("cannot tell nothing: the key is None")
    return str(row[0])
