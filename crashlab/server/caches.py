"""What does crashlab keep to be faster the next time, how large is it, and may it go?

Whatever a living run of this user has noted that it needs stays. A thing is first moved aside and then looked at
again: a run that notes its need afterwards finds nothing there, and makes it anew.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crashlab.errors import ServerError
from crashlab.server import owned
from crashlab.server.deadruns import living_runs
from crashlab.server.leftovers import folder_bytes
from crashlab.server.locks import locked
from crashlab.server.privileges import cache_root
from crashlab.server.processes import PROC

RECORDER_GLOB = "recorder-*.so"
PARTS = {"templates": "template", "builds": "build", "recordings": "recording"}
"""A folder of the cache -> what one thing in it is called."""


@dataclass(frozen=True)
class Cached:
    """One thing in the cache."""

    kind: str
    path: Path
    size_bytes: int
    used: bool  # by a living run

    def remove(self) -> bool:
        """Remove it, whole or not at all; False: a living run needs it.

        Raises:
            ServerError: it could not be removed, or somebody is making it right now.
        """
        try:
            if self.path.is_file():
                self.path.unlink(missing_ok=True)  # copied where it is used
                return True
            with locked(self.path.with_name(f"{self.path.name}.lock")):
                return _remove_folder(self.path)
        except OSError as error:
            raise ServerError(f'could not remove "{self.path}": {error.strerror}') from error


def _remove_folder(path: Path) -> bool:
    if _used(path, _needed()):
        return False
    with owned.temporary_folder(path.parent, "crashlab-old-") as folder:
        with contextlib.suppress(FileNotFoundError):
            path.rename(folder / path.name)
        if _used(path, _needed()):
            (folder / path.name).rename(path)
            return False
    if os.path.lexists(folder):
        raise ServerError(f'could not remove "{folder}": not all of its content could be removed')
    return True


def find_caches() -> list[Cached]:
    """Return everything in this user's cache.

    Raises:
        ServerError: the cache cannot be reached.
    """
    root, needed = cache_root(), _needed()
    found = []
    for kind, path in _things(root):
        size_bytes = folder_bytes(path) if path.is_dir() else path.stat().st_size
        found.append(Cached(kind, path, size_bytes, _used(path, needed)))
    return found


def _things(root: Path) -> Iterator[tuple[str, Path]]:
    for part, kind in PARTS.items():
        for path in sorted((root / part).glob("*")):
            if path.is_dir() and not path.is_symlink() and not path.name.startswith(owned.PREFIX):
                yield kind, path
    for folder in sorted({root, recorder_cache()}):
        for path in sorted(folder.glob(RECORDER_GLOB)):
            yield "recorder", path


def recorder_cache() -> Path:
    """Return where compiled recorders are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crashlab"


def _needed() -> set[Path]:
    return {Path(what) for run in living_runs() for what in run.listed("uses")}


def _used(path: Path, needed: set[Path]) -> bool:
    return path in needed or any(path in program.parents for program in _programs())


def _programs() -> Iterator[Path]:
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield (entry / "exe").readlink()
