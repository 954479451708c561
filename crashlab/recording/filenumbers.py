"""Which file has which path now?

One table path -> file number, changed by the operations of a recording in their order. The decoder needs it to tell
which file of the base image a descriptor is, the replay to find a file by its number.

A recording may come from a stranger, and what it names is written below a folder of ours. So each name stands in a
directory that is one here, and never in a link to somewhere else; and no directory stands in itself.
"""

from collections.abc import Iterable

from crashlab import files
from crashlab.disk.operations import BaseFile
from crashlab.errors import RecordingError


class FileNumbers:
    """The namespace of the recorded roots. A name that is missing, or taken, means log and base do not match."""

    def __init__(self, entries: Iterable[BaseFile]) -> None:
        self._numbers: dict[str, int] = {}
        self._paths: dict[int, list[str]] = {}
        self._directories: set[int] = set()
        self.next_number = 1
        for file in entries:
            self.add(file.path, file.file, directory=file.kind == "dir")
            self.next_number = max(self.next_number, file.file + 1)

    def new_number(self) -> int:
        """Give out a number that no file has had."""
        self.next_number += 1
        return self.next_number - 1

    def find(self, path: str) -> int | None:
        """Return the number of the file at this path, None if there is none."""
        return self._numbers.get(path)

    def path(self, number: int) -> str | None:
        """Return one of the paths of a file, None if it has no name any more."""
        paths = self._paths.get(number)
        return paths[0] if paths else None

    def is_directory(self, number: int) -> bool:
        """Whether a file is a directory, and has a name."""
        return number in self._directories

    def number(self, path: str) -> int:
        """Return the number of the file at this path. Raises RecordingError: there is none."""
        found = self._numbers.get(path)
        if found is None:
            raise mismatch(f'the log uses "{path}", which neither the base image has nor the log created')
        return found

    def add(self, path: str, number: int, *, directory: bool = False) -> None:
        """Note a new name of a new or an old file."""
        if path in self._numbers:
            raise mismatch(f'the log creates "{path}", which exists already')
        self._require_place(path)
        if number in self._directories or (directory and number in self._paths):
            raise mismatch(f'"{path}" would be a second name of a directory')
        self._numbers[path] = number
        self._paths.setdefault(number, []).append(path)
        if directory:
            self._directories.add(number)

    def _require_place(self, path: str) -> None:
        parent, _, _ = path.rpartition("/")
        if not files.leads_below(path) or (parent and self._numbers.get(parent) not in self._directories):
            raise mismatch(f'"{path}" is in no directory of the recording')

    def remove(self, path: str) -> int:
        """Take a name away and return the number of its file, which may have other names."""
        number = self.number(path)
        del self._numbers[path]
        self._paths[number].remove(path)
        if not self._paths[number]:
            del self._paths[number]
            self._directories.discard(number)
        return number

    def rename(self, path: str, target: str) -> None:
        """Move a file or a directory with all that it holds; an existing target goes."""
        self._require_place(target)
        if target.startswith(f"{path}/"):
            raise mismatch(f'the log moves "{path}" into itself')
        if target in self._numbers:
            self.remove(target)
        self._move(path, target)

    def exchange(self, path: str, target: str) -> None:
        """Swap two names, with all that they hold."""
        between = "\0"  # no path has it
        self._move(path, between)
        self._move(target, path)
        self._move(between, target)

    def _move(self, path: str, target: str) -> None:
        number = self.number(path)
        moved = [path]
        if number in self._directories:
            moved += [name for name in self._numbers if name.startswith(path + "/")]
        for name in moved:
            child = self._numbers.pop(name)
            renamed = target + name[len(path) :]
            self._numbers[renamed] = child
            paths = self._paths[child]
            paths[paths.index(name)] = renamed


def mismatch(detail: str) -> RecordingError:
    """Say that a log and a base image contradict each other."""
    return RecordingError(
        "the log does not belong to the base image",
        detail=detail,
        hint="Give the base image taken just before this recording; every program that writes must run under it.",
    )
