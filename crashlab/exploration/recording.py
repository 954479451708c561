"""What is a recorded run on disk?

    recording.json   what was run, on which server, and what the self-check said
    base/            the data directory before the recorded start, and the list of its files
    io.log           every file operation of the server, format in `recording.iolog`
    ledger.jsonl     what the clients were told, each intent and answer with the length of io.log at that moment
    told.json        what an application told its own users, and the query that finds it, if a test was recorded
    server.log       the server's own log

`record` makes one. Its record is written last: a folder without it is none.
"""

import os
import shutil
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from crashlab import evidence, files
from crashlab.errors import RecordingError
from crashlab.model import Broken, Held, Invariant, Survivors
from crashlab.recording import base, iolog
from crashlab.recording.base import BaseImage
from crashlab.workload.relations import Relation

SCHEMA = 1
RECORDING = evidence.RECORDING
BASE = "base"
LOG = evidence.LOG


class InTest(msgspec.Struct, frozen=True, kw_only=True):
    """What a test of an unchanged application has looked at after a crash, beside what it told (`intest`)."""

    invariants: list[tuple[str, str]] = []  # name and query
    databases: bool = False  # there are others than postgres


class RecordingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a recording but its base, its log and its ledger."""

    schema: int = SCHEMA
    crashlab: str
    profile: str
    profile_resolved: dict[str, Any]
    run_seed: int
    seed: int
    server: evidence.ServerFacts
    first_bytes: int  # length of io.log when enough was acknowledged: the power is cut later
    end_bytes: int
    roots: list[str]  # the recorded directories, as the server saw them
    digests: dict[str, str] = {}  # of the log and the ledger; empty: an older recording
    base_digest: str  # of the base image: no other one fits the log
    ledger_io: int | None = None  # of a recorded recovery: the log's length at the first crash, where the ledger ends
    first_survivors: Survivors | None = None  # ... who is there if the first crash state is recovered in one go
    differences: list[str]  # what the self-check found; empty: it passed
    workload_errors: list[str] = []
    tables: list[Relation] = []  # the user's own ledgered tables
    invariants_before: list[Invariant] = []  # those that did not hold while the run was recorded
    broken_before: Broken = Broken()  # ... and what was broken at its end, although nothing had crashed
    in_test: InTest | None = None  # None: it is one of a profile's workload
    seconds: dict[str, float] = {}
    drawn: dict[str, str] = {}  # what of the profile's table [vary] the server had
    held: list[Held] = []  # where its processes were held: the table [jitter]
    written: list[str] = []  # the types of WAL records of the whole run; empty: an older recording


class Recording(msgspec.Struct, frozen=True):
    """A recording on disk."""

    folder: Path
    record: RecordingRecord
    base: BaseImage

    @property
    def log(self) -> Path:
        """The I/O log."""
        return self.folder / LOG

    @property
    def ledger(self) -> Path:
        """The ledger."""
        return self.folder / evidence.LEDGER


def load(folder: Path) -> Recording:
    """Open a recording.

    Raises:
        RecordingError, EvidenceError: it is missing, damaged, of another schema, or its parts do not belong together.
    """
    if not files.is_folder(folder):
        raise RecordingError(f'cannot use the recording "{folder}": it is no folder, or a link to one')
    record = evidence.load(folder / RECORDING, RecordingRecord)
    log = folder / LOG
    if not os.path.lexists(log) or not os.path.lexists(folder / BASE):
        raise RecordingError(
            f'cannot use the recording "{folder}": its {"base image" if os.path.lexists(log) else "log"} is gone',
            detail="A run that finds nothing removes what it recorded, and so does --keep none.",
            hint=f"Record again: crashlab record {record.profile} --seed {record.run_seed}; or run with --keep all.",
        )
    image = base.load(folder / BASE)
    if base.digest(image) != record.base_digest:
        raise RecordingError(
            f'the base image "{image.folder}" does not belong to this recording',
            detail="Its files are not those that were copied before the recorded start.",
        )
    for name, digest in record.digests.items():
        if not evidence.is_same(folder / name, digest):
            if name == LOG:
                deque(iolog.records(log), maxlen=0)  # says where, if its own checksums tell
            raise RecordingError(f'the recording "{folder}" is damaged: "{name}" is not what was recorded')
    return Recording(folder, record, image)


def digests_of(folder: Path) -> dict[str, str]:
    """Return what `load` holds the files of a recording against. Raises EvidenceError: one cannot be read."""
    return {name: evidence.digest_of(folder / name) for name in (LOG, evidence.LEDGER)}


def share_ledger(ledger: Path, target: Path) -> None:
    """Put a ledger into another folder, too."""
    try:
        target.hardlink_to(ledger)
    except OSError:  # another file system
        with files.opened(ledger) as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy)


def find(path: Path) -> Recording:
    """Open the one recording at or below a path. Raises RecordingError: there is none, or several; and as `load`."""
    found = [path] if files.is_file(path / RECORDING) else sorted(file.parent for file in path.rglob(RECORDING))
    found = [one for one in found if not set(one.parents).intersection(found)]  # a recorded recovery lies inside
    if len(found) != 1:
        raise RecordingError(
            f'no recording in "{path}"' if not found else f'"{path}" holds {len(found)} recordings',
            hint=f'Choose one, such as "{found[0]}".' if found else "Make one with crashlab record.",
        )
    return load(found[0].resolve())


def forget_data(folder: Path) -> None:
    """Remove base images and logs, which only a replay needs; the ledger and the facts stay, for the judge."""
    for log in list(folder.rglob(LOG)):  # those of recorded recoveries, too
        shutil.rmtree(log.parent / BASE, ignore_errors=True)  # it may be gone: this may be the second attempt
        log.unlink()
