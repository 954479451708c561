"""What do the trials of a run come to? An index of its evidence that can be asked.

`campaign.sqlite` in the run's folder: a table of profiles, one of trials, one of findings. Written by the parent alone,
while the run goes on; made anew from the evidence by `crashlab judge`.

Choices: it is an index and holds nothing that the evidence does not. So it is written without waiting for the disk, and
    one that is lost, damaged or of another schema is made again.

Source: https://www.sqlite.org/pragma.html, on synchronous and user_version.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crashlab import files
from crashlab.campaign.events import Event, TrialDone
from crashlab.campaign.rejudge import insist, stored_results
from crashlab.campaign.runrecord import CAMPAIGN
from crashlab.errors import EvidenceError, Warn
from crashlab.results import RunResult, TrialResult
from crashlab.trial.judged import folders_below

INDEX = "campaign.sqlite"
SCHEMA = 2

_TABLES = """
CREATE TABLE trial (
  profile TEXT NOT NULL, trial INTEGER NOT NULL, seed INTEGER NOT NULL,
  outcome TEXT NOT NULL, promise TEXT, acked INTEGER NOT NULL, lost INTEGER NOT NULL,
  position INTEGER, note TEXT, image TEXT, seconds REAL NOT NULL, folder TEXT NOT NULL, reproduce TEXT NOT NULL,
  digest TEXT NOT NULL, -- of all other columns and of the findings: SQLite itself notices no flipped bit
  PRIMARY KEY (profile, trial)
) WITHOUT ROWID;
CREATE TABLE finding (
  profile TEXT NOT NULL, trial INTEGER NOT NULL, code TEXT NOT NULL, permitted INTEGER NOT NULL, summary TEXT NOT NULL
);
CREATE INDEX finding_by_code ON finding (code);
"""


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial as the index has it."""

    profile: str
    trial: int
    seed: int
    outcome: str
    promise: str | None  # None: inconclusive
    acked: int
    lost: int
    position: int | None  # of the cut; None: a live trial
    note: str | None
    image: str | None  # equal only for equal crash states
    seconds: float
    folder: str  # below the run's
    reproduce: str
    codes: list[str]  # of its findings, worst first


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which trials are asked for; None: whatever it is."""

    profile: str | None = None
    outcome: str | None = None
    promise: str | None = None  # broken, kept, void, or "none"
    code: str | None = None


class Store:
    """The index of one run, open for writing. `close` it."""

    def __init__(self, folder: Path, db: sqlite3.Connection | None = None) -> None:
        """Open the index of a run's folder, or make it.

        Args:
            db: an index that is open already, such as one in memory.

        Raises:
            EvidenceError: it cannot be written.
        """
        self._folder = folder
        path = folder / INDEX
        try:
            self._db = db or _opened(path)
        except sqlite3.DatabaseError as error:
            raise EvidenceError(f'could not write index "{path}": {error}') from error

    def handle(self, event: Event) -> None:
        """Note each trial when it is done."""
        if isinstance(event, TrialDone):
            self.add(event.profile, [event.result])

    def add(self, profile: str, results: Iterable[TrialResult]) -> None:
        """Note trials; one that is there already is replaced. Raises EvidenceError: it cannot be written."""
        try:
            with self._db:
                for result in results:
                    self._add(profile, result)
        except sqlite3.DatabaseError as error:
            raise EvidenceError(f'could not write index "{self._folder / INDEX}": {error}') from error

    def _add(self, profile: str, result: TrialResult) -> None:
        verdict, state = result.verdict, result.state
        promise = None if verdict.promise is None else str(verdict.promise)
        row = (
            *(profile, result.trial, result.seed, str(verdict.outcome), promise),
            *(verdict.counts.acked, verdict.counts.lost),
            *((None, None, None) if state is None else (state.position, state.note, f"{state.fingerprint:016x}")),
            *(result.seconds.get("total", 0.0), _relative(result.folder, self._folder), result.reproduce),
        )
        findings = [(profile, result.trial, one.code, int(one.permitted), one.summary) for one in verdict.findings]
        row += (_digest(row, findings),)
        self._db.execute(f"INSERT OR REPLACE INTO trial VALUES ({', '.join('?' * len(row))})", row)
        self._db.execute("DELETE FROM finding WHERE profile = ? AND trial = ?", (profile, result.trial))
        self._db.executemany("INSERT INTO finding VALUES (?, ?, ?, ?, ?)", findings)

    def count_sound(self) -> int:
        """Return how many trials there are. Raises ValueError, or what SQLite raises: one is not what was noted."""
        count = 0
        for *row, digest in self._db.execute("SELECT * FROM trial").fetchall():
            about = "SELECT * FROM finding WHERE profile = ? AND trial = ? ORDER BY rowid"
            if _digest(tuple(row), self._db.execute(about, row[:2]).fetchall()) != digest:
                raise ValueError(f"trial {row[1]} of {row[0]} is damaged")
            count += 1
        return count

    def rows(self, wanted: Filter | None = None) -> Iterator[TrialRow]:
        """Yield trials by profile and number."""
        asked = wanted or Filter()
        names = [name for name in TrialRow.__dataclass_fields__ if name != "codes"]
        columns = ", ".join(f"t.{name}" for name in names)
        query = f"""
            SELECT {columns}, (SELECT json_group_array(code) FROM
              (SELECT code FROM finding f WHERE f.profile = t.profile AND f.trial = t.trial ORDER BY rowid))
            FROM trial t
            WHERE (:profile IS NULL OR profile = :profile) AND (:outcome IS NULL OR outcome = :outcome)
              AND (:promise IS NULL OR coalesce(promise, 'none') = :promise)
              AND (:code IS NULL OR EXISTS (SELECT 1 FROM finding f
                   WHERE f.profile = t.profile AND f.trial = t.trial AND f.code = :code))
            ORDER BY profile, trial
        """
        for *values, codes in self._db.execute(query, asdict(asked)):
            yield TrialRow(**dict(zip(names, values, strict=True)), codes=json.loads(codes))

    def profiles(self) -> list[str]:
        """Return the profiles that have trials, by name."""
        return [name for (name,) in self._db.execute("SELECT DISTINCT profile FROM trial ORDER BY profile")]

    def codes(self) -> list[str]:
        """Return the codes of all findings."""
        return [code for (code,) in self._db.execute("SELECT DISTINCT code FROM finding ORDER BY code")]

    def close(self) -> None:
        """Let go of it; what was noted stays."""
        self._db.close()


def reindex(folder: Path, run: RunResult) -> None:
    """Make the index of a run anew from what its evidence says; nothing if the folder is not that of a run.

    Raises:
        EvidenceError: it cannot be written.
    """
    if not files.is_file(folder / CAMPAIGN):
        return
    path = folder / INDEX
    db = sqlite3.connect(":memory:")  # written whole: SQLite itself would follow a link that somebody put there
    with contextlib.closing(Store(folder, _made(db))) as store:
        for result in run.profiles:
            store.add(result.profile.name, result.trials)
        try:
            files.write_whole(path, db.serialize())
        except OSError as error:
            raise EvidenceError(f'could not write index "{path}": {error.strerror}') from error


def opened_to_read(folder: Path, *, warn: Warn = insist) -> Store:
    """Return the index of a run, or, if none can be read or it lacks trials, one in memory, made from the evidence.

    Close it. Nothing is written, unless a trial has no verdict yet.

    Args:
        warn: as of `judge_run`.

    Raises:
        EvidenceError: there is no evidence of a trial, or some of it is damaged.
    """
    stored = sum(1 for _ in folders_below(folder))
    empty = _made(sqlite3.connect(":memory:"))
    db = sqlite3.connect(":memory:")
    with contextlib.suppress(OSError, *_DAMAGE):  # none, damaged, or in need of a repair
        db.deserialize(files.read_whole(folder / INDEX))
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        store = Store(folder, db)
        if schema == SCHEMA and _tables(db) == _tables(empty) and store.count_sound() >= max(stored, 1):
            return store
    db.close()
    store = Store(folder, empty)
    for name, result in stored_results(folder, warn=warn).items():
        store.add(name, result.trials)
    return store


_DAMAGE = (sqlite3.Error, MemoryError, UnicodeDecodeError, OverflowError, TypeError, ValueError)
"""What a damaged database raises: itself, or from what stands in it."""


def _made(db: sqlite3.Connection) -> sqlite3.Connection:
    db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT")
    return db


def _tables(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Return what there is in a database; a stranger's view of that name could take for ever."""
    return db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


def _opened(path: Path) -> sqlite3.Connection:
    for one in (path, *(path.with_name(f"{path.name}-{suffix}") for suffix in ("journal", "wal", "shm"))):
        if os.path.lexists(one) and not files.is_file(one):  # SQLite would follow it
            raise EvidenceError(f'could not write index "{one}": it is no regular file')
    db = _connected(path)
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    if schema not in (0, SCHEMA):
        db.close()
        path.unlink()
        db = _connected(path)
        schema = 0
    return _made(db) if schema == 0 else db


def _connected(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    try:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:  # no database: it can be made again
        db.close()
        path.unlink()
        db = sqlite3.connect(path)
        db.execute("PRAGMA synchronous = OFF")
    return db


def _digest(row: tuple[Any, ...], findings: list[tuple[Any, ...]]) -> str:
    return hashlib.sha256(json.dumps([row, findings]).encode()).hexdigest()


def _relative(folder: Path, home: Path) -> str:
    folder, home = folder.resolve(), home.resolve()
    return str(folder.relative_to(home)) if folder.is_relative_to(home) else str(folder)
