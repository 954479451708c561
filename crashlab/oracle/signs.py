"""What does a server's message say about the damage: which fault looks like that, and which promise excludes it?

A message names what the server met. Its kind alone ("stored data cannot be read") would leave a reader with every
fault that there is; the words of the message, and the file in it, leave one or two.

Choices: the first sign that fits counts. A file decides about the promise before the words do: a damaged pg_twophase is
    no torn page, whatever the server said of it.

Sources: postgres-contract.md 4, 5.1; the texts were looked up in PostgreSQL's own sources.
"""

from collections.abc import Iterable
from typing import NamedTuple

from crashlab.contract import Ground


class Sign(NamedTuple):
    """What is known of a message beyond its code."""

    like: str = ""  # one sentence, or empty: what its code says
    ground: Ground | None = None  # None: as its code


class _Known(NamedTuple):
    texts: tuple[str, ...]  # all of them are in the message
    like: str
    ground: Ground


_SIGNS = (
    _Known(
        ("could not create file", "File exists"),
        "That is what it looks like when a file that recovery makes is already there: an unlogged table whose "
        "transaction did not end can do that, by a fault of PostgreSQL itself (BUG #17731), and the second start goes "
        "on.",
        "redo",
    ),
    _Known(
        ("lacks matching index tuple",),
        "That is what it looks like when a page of the index is older than the table's, and so lacks an entry.",
        "indexes",
    ),
    _Known(
        ("failed to find parent tuple for heap-only tuple",),
        "That is what it looks like when the rows of one page do not fit each other: a chain of updates has lost its "
        "beginning.",
        "redo",
    ),
    *(
        _Known(
            (text,),
            "That is what it looks like when a file in pg_twophase is damaged, or belongs elsewhere.",
            "prepared",
        )
        for text in ("pg_twophase", "two-phase")
    ),
    _Known(
        ("not a valid data directory",),
        "That is what it looks like when the file PG_VERSION of a database is empty or gone.",
        "files",
    ),
    _Known(
        ("database subdirectory",),
        "That is what it looks like when the directory of a database, or its file PG_VERSION, is gone.",
        "files",
    ),
    _Known(
        ("control file",),
        "That is what it looks like when global/pg_control is torn, or belongs elsewhere.",
        "files",
    ),
    _Known(
        ("checkpoint record",),
        "That is what it looks like when the log that pg_control points to is not there: recovery can begin nowhere "
        "else.",
        "files",
    ),
    _Known(
        ("find redo location",),
        "That is what it looks like when the log is gone from which the last checkpoint begins.",
        "files",
    ),
    _Known(
        ("is not satisfied",),
        "That is what it looks like when a page was written before the log of its change, or that log is gone.",
        "redo",
    ),
    _Known(
        ("could not read block", "read only"),
        "That is what it looks like when a file is shorter than it was.",
        "files",
    ),
    _Known(
        ("could not open file", "No such file"),
        "That is what it looks like when a file is gone, or never had its name on the disk.",
        "files",
    ),
    *(
        _Known((text,), "That is what a torn page looks like, or one whose bytes changed on the disk.", "pages")
        for text in ("invalid page", "checksum")
    ),
    _Known(
        ("unexpected zero page",),
        "That is what it looks like when a page was never written.",
        "redo",
    ),
    _Known(
        ("chunk",),
        "That is what it looks like when a page of the TOAST table is older than the row that points into it.",
        "redo",
    ),
    *(
        _Known(
            (text,),
            "That is what it looks like when a page of the catalogs is older than the log that was replayed.",
            "redo",
        )
        for text in ("cache lookup failed", "catalog is missing", "could not open relation", "could not find")
    ),
)
_GROUNDS: tuple[tuple[str, Ground], ...] = (
    ("pg_twophase", "prepared"),
    ("pg_xact", "status"),
    ("pg_multixact", "status"),
    ("pg_wal", "files"),
    ("pg_control", "files"),
    ("PG_VERSION", "files"),
)


def sign_of(message: str, files: Iterable[str | None]) -> Sign:
    """Return what a message and the files that it is about say beyond its code; an empty sign if nothing."""
    known = next((one for one in _SIGNS if all(text in message for text in one.texts)), None)
    ground = _ground_of(files) or (known.ground if known else None)
    return Sign(known.like if known else "", ground)


def _ground_of(files: Iterable[str | None]) -> Ground | None:
    """Return the promise that the first of these files stands under which is none of a relation; None: all are."""
    for file in files:
        for place, ground in _GROUNDS if file else ():
            if file and (file.startswith(place) or file.endswith(place)):
                return ground
    return None
