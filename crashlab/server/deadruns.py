"""Which runs of this user are dead, and what is on their lists?

A list is believed only where nobody else could have written it. It says where to look, never what may be removed:
that is for `leftovers` to see at the thing itself.
"""

import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from crashlab.server import owned
from crashlab.server.owned import Entry, Kind
from crashlab.server.owner import Owner, runs

KINDS = get_args(Kind)
POLL_S = 0.05


@dataclass
class Run:
    """A process that has ended, or still runs, and what its list says it has made and not removed."""

    owner: Owner
    file: Path | None = None  # None: the list itself is lost
    entries: list[Entry] = field(default_factory=list)
    noted_s: float = 0.0  # since 1970: when the last line was written

    def listed(self, kind: Kind) -> list[str]:
        """Return what the list says of one kind."""
        return [what for of, what in self.entries if of == kind]

    def age_s(self) -> float:
        """Return how long ago the list was written to."""
        return time.time() - self.noted_s


def dead_runs() -> list[Run]:
    """Return this user's dead runs that have a list.

    Raises:
        ServerError: somebody else could have written the lists.
    """
    return [run for run in _runs(living=False) if run.owner.life() == "dead"]


def living_runs() -> list[Run]:
    """Return this user's living runs, and those of which nobody here can say whether they are. Raises as above."""
    return [run for run in _runs(living=True) if run.owner.life() != "dead"]


def await_orphans(timeout_s: float) -> None:
    """Wait for workers whose run was killed: they notice, and remove what they have made, by themselves."""
    deadline = time.monotonic() + timeout_s
    while any(run.owner.orphaned() for run in living_runs()) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def runs_of_folders() -> list[Run]:
    """Return this user's dead runs whose list is lost, by what folders in the temporary folders say."""
    found: list[Run] = []
    for root in {os.path.realpath(tempfile.gettempdir()), str(owned.RUNS_ROOT)}:
        for path in sorted(Path(root).glob(f"{owned.PREFIX}*")):
            owner = owner_of_folder(path)
            if owner is None or owner.uid != os.geteuid() or owner.life() != "dead":
                continue
            run = next((run for run in found if run.owner.same(owner)), None)
            if run is None:
                run = Run(owner)
                found.append(run)
            run.entries.append(("folder", str(path)))
    return found


def owner_of_folder(path: Path) -> Owner | None:
    """Return who made a folder; None: nobody that can be believed, or it is no folder."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return owned.owner_of(fd)
    finally:
        os.close(fd)


def _runs(*, living: bool) -> Iterator[Run]:
    folder = owned.runs_folder()
    owned.require_own(folder)
    try:
        lists = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    for path in lists:
        # Most lists are of processes that run: those are not even read.
        if path.suffix == owned.LIST_SUFFIX and (living or not _named_for_living(path.stem)):
            run = read(path)
            if run is not None:
                yield run


def _named_for_living(name: str) -> bool:
    pid, _, start = name.partition("-")
    return pid.isdigit() and start.isdigit() and runs(int(pid), int(start))


def read(path: Path) -> Run | None:
    """Read a list; None: it is gone, is not this user's, or its process was killed before it had a first line."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return None
        first, *lines = file.read().split("\n")
    owner = Owner.parse(first)
    if owner is None or owner.uid != os.geteuid():
        return None
    entries: dict[Entry, None] = {}
    for line in lines:
        match _words(line):
            case ["made", str(kind), str(what)] if kind in KINDS:
                entries[kind, what] = None
            case ["gone", str(kind), str(what)]:
                entries.pop((kind, what), None)
    return Run(owner, path, list(entries), status.st_mtime)


def _words(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:  # the last line of a process that was killed while the disk was full
        return None


@contextmanager
def taken(run: Run, *, timeout_s: float = 0.0) -> Iterator[bool]:
    """Say whether nobody else cleans up after a run right now, and keep it so; wait so long for whoever does."""
    if run.file is None:
        yield True
        return
    try:
        fd = os.open(run.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _locked(fd, time.monotonic() + timeout_s)
    finally:
        os.close(fd)


def _locked(fd: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        else:
            return True
