"""Where does a run's evidence go, and who else may write there?

Choices:
    A folder is locked with flock while a run writes to it: the lock ends with the process, however it ends.
    Evidence is never overwritten: a folder that holds anything is refused.
    `.crashlab/latest` points at the newest run that was given no folder and has left evidence; a replay is no run.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from crashlab.errors import EvidenceError, UsageProblem

BASE = Path(".crashlab")
LOCK = ".lock"
DATA = frozenset({"data", "base", "image"})
"""Folders of data directories, in which nothing is tidied up: kept ones, base images, and what shrink leaves."""
NO_EVIDENCE = ("campaign.json", "campaign.sqlite")
"""What a run writes before it has begun: what was asked for, and an index without entries. It can be resumed; another
run may also begin there."""


@contextlib.contextmanager
def claimed(requested: Path | None) -> Iterator[Path]:
    """Create the folder of a run, or take an empty one, and lock it for as long as the context lasts.

    A run that left no evidence in it leaves no folder of its own either; in one that was asked for it can be resumed.

    Raises:
        UsageProblem: it holds something already.
        EvidenceError: it cannot be written, or another run uses it.
    """
    try:
        folder = _default_folder() if requested is None else requested
        folder.mkdir(parents=True, exist_ok=True)
        lock = _open_lock(folder)
    except OSError as error:
        raise EvidenceError(
            f'could not write to output folder "{requested or BASE}": {error.strerror}',
            hint="Choose a folder that you can write to with --out.",
        ) from error
    try:
        _lock(lock, folder)
        _require_empty(folder)
        try:
            yield folder
        finally:
            _tidy(folder, own=requested is None)
    finally:
        os.close(lock)


@contextlib.contextmanager
def claimed_again(folder: Path) -> Iterator[None]:
    """Lock the folder of a run that goes on. Raises EvidenceError: it cannot be written, or another run uses it."""
    try:
        lock = _open_lock(folder)
    except OSError as error:
        raise EvidenceError(f'could not write to output folder "{folder}": {error.strerror}') from error
    try:
        _lock(lock, folder)
        yield
    finally:
        os.close(lock)


def _open_lock(folder: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(folder / LOCK, flags, 0o644)


def _default_folder() -> Path:
    BASE.mkdir(exist_ok=True)
    ignore = BASE / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        with contextlib.suppress(FileExistsError):
            folder = BASE / f"{stamp}{suffix}"
            folder.mkdir()
            return folder
    raise FileExistsError(None, "too many runs in one second", str(BASE))


def _lock(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise EvidenceError(
            f'cannot write to output folder "{folder}": it is in use by another run',
            hint="Wait for that run to end, or choose another --out.",
        ) from error


def _require_empty(folder: Path) -> None:
    held = sorted(entry.name for entry in folder.iterdir() if entry.name not in (LOCK, *NO_EVIDENCE))
    if held:
        raise UsageProblem(
            f'cannot write to output folder "{folder}": it already holds a run or other files',
            detail=f"It holds {', '.join(held[:5])}{', ...' if len(held) > 5 else ''}; evidence is never overwritten.",
            hint=f"Choose a new --out, or judge what is there again: crashlab judge {folder}.",
        )


def _tidy(folder: Path, *, own: bool) -> None:
    """Remove the empty folders of trials that never began, and a folder of our own in which there is no evidence."""
    for path, _, _ in os.walk(folder, topdown=False):
        inside = Path(path).relative_to(folder).parts
        if inside and not DATA.intersection(inside):  # an empty folder of a data directory belongs there
            with contextlib.suppress(OSError):  # not empty
                Path(path).rmdir()
    if own and all(entry.name in (LOCK, *NO_EVIDENCE) for entry in folder.iterdir()):
        for name in (LOCK, *NO_EVIDENCE):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def point_latest(folder: Path) -> None:
    """Make a run's folder the latest one; called again it does nothing."""
    link = BASE / "latest"
    with contextlib.suppress(OSError):
        if link.readlink() == Path(folder.name):
            return
    partial = BASE / f".latest.{os.getpid()}"
    # a convenience: a file system without symbolic links must not end the run
    with contextlib.suppress(OSError):
        partial.symlink_to(folder.name)
        partial.replace(link)
