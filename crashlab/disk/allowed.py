"""Could a power cut have left what is on this disk?

The check of the model against real kernels: a real file system is cut off and mounted again, and whatever is found
must be one of the states that the model allows at that point.

Checks: paths and their kinds, links' contents, sizes, every byte of every regular file.
Does not check: modes, owners, times (not modelled); that two names are one inode (but their bytes must be equal).
Under a contract whose names vary independently all sets of pending names are tried, which is exponential: meant for a
handful of them.

Source: design.md "The disk model".
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from crashlab.disk.content import FileImage
from crashlab.disk.filehistory import FileHistory
from crashlab.disk.model import DiskModel

_REASONS_AT_MOST = 20

Logged = Callable[[int], bytes]
"""position -> the data of that operation."""

BaseBytes = Callable[[int, int, int], bytes]
"""file, offset, length -> bytes of the base image."""


class ObservedDisk(Protocol):
    """What was found on the disk, by path as in the recording."""

    def paths(self) -> Mapping[str, str]:
        """Return every path with its kind: file, dir or link, as in BaseFile; anything else is a reason."""

    def link(self, path: str) -> str:
        """Return a symbolic link's content."""

    def read(self, path: str) -> bytes:
        """Return a regular file's bytes."""


def allows(
    model: DiskModel,
    observed: ObservedDisk,
    logged: Logged,
    base: BaseBytes,
    unseen: re.Pattern[str] = re.compile(r"(?!)"),
) -> list[str]:
    """Return why the observed disk is none of the states allowed at the model's position; nothing if it is one.

    Of the files whose path matches `unseen` only the names are checked: the recorder did not see their bytes.
    """
    checker = _Checker(model, observed, logged, base, unseen)
    names: list[list[str]] = []
    contents: list[list[str]] = []  # told first: where the names fit, the bytes are what is wrong
    for kept in _name_sets(model):
        if reasons := checker.wrong_names(kept):
            names.append(reasons)
        elif reasons := checker.wrong_contents(kept):
            contents.append(reasons)
        else:
            return []
    return min(contents or names, key=len)


def _name_sets(model: DiskModel) -> Iterator[tuple[int, ...]]:
    if not model.contract.names_in_order:
        yield from model.names.subsets()
        return
    positions = tuple(operation.position for operation in model.names.pending)
    for count in range(len(positions), -1, -1):
        yield positions[:count]


class _Checker:
    def __init__(
        self, model: DiskModel, observed: ObservedDisk, logged: Logged, base: BaseBytes, unseen: re.Pattern[str]
    ) -> None:
        self._model, self._observed, self._logged, self._base = model, observed, logged, base
        self._unseen = unseen
        self._kinds = observed.paths()
        self._verdicts: dict[tuple[str, int], list[str]] = {}

    def wrong_names(self, kept: tuple[int, ...]) -> list[str]:
        expected = {path: self._kind(number) for path, number in self._model.names.paths(kept).items()}
        reasons = [f'"{path}" is missing' for path in sorted(expected.keys() - self._kinds.keys())]
        reasons += [f'"{path}" should not exist' for path in sorted(self._kinds.keys() - expected.keys())]
        for path in sorted(expected.keys() & self._kinds.keys()):
            if expected[path] != self._kinds[path]:
                reasons.append(f'"{path}" is a {self._kinds[path]}, not a {expected[path]}')
        return reasons

    def _kind(self, number: int) -> str:
        if self._model.names.is_directory(number):
            return "dir"
        return "link" if number in self._model.links else "file"

    def wrong_contents(self, kept: tuple[int, ...]) -> list[str]:
        reasons: list[str] = []
        first_path: dict[int, str] = {}
        for path, number in self._model.names.paths(kept).items():
            kind = self._kinds[path]
            other = first_path.setdefault(number, path)
            if kind == "file" and other != path and self._observed.read(other) != self._observed.read(path):
                reasons.append(f'"{path}" and "{other}" are one file, but differ')
            if kind == "link" and self._observed.link(path) != self._model.links[number]:
                reasons.append(f'"{path}" points to "{self._observed.link(path)}"')
            elif kind == "file" and not self._unseen.fullmatch(path):
                if (path, number) not in self._verdicts:
                    self._verdicts[path, number] = self._wrong_file(path, self._model.files[number])
                reasons += self._verdicts[path, number]
            if len(reasons) > _REASONS_AT_MOST:
                break
        return reasons

    def _wrong_file(self, path: str, file: FileHistory) -> list[str]:
        found = self._observed.read(path)
        best: list[str] | None = None
        for cuts in range(len(file.cuts), -1, -1):
            if len(found) not in set(file.sizes(cuts)):
                continue
            reasons = self._wrong_units(path, file, cuts, found)
            if not reasons:
                return []
            if best is None or len(reasons) < len(best):
                best = reasons
        if best is not None:
            return best
        known = sorted({size for cuts in range(len(file.cuts) + 1) for size in file.sizes(cuts)})
        return [f'"{path}" has {len(found)} bytes, which is none of {_some(known)}']

    def _wrong_units(self, path: str, file: FileHistory, cuts: int, found: bytes) -> list[str]:
        """Compare with the durable content first: only units that differ from it need their versions."""
        durable = file.image(cuts, len(found), {})
        expected = durable.read(self._logged, self._base)
        if expected == found:
            return []
        reasons = []
        for start in range(0, len(found), file.unit_bytes):
            end = min(start + file.unit_bytes, len(found))
            unit, bytes_found = start // file.unit_bytes, found[start:end]
            if expected[start:end] == bytes_found:
                continue
            choices = file.choices(unit, cuts)
            if not any(self._holds(file, unit, position, cuts, bytes_found) for position in choices[1:]):
                reasons.append(f'"{path}" holds at offset {start} none of its {len(choices)} versions')
                if len(reasons) > _REASONS_AT_MOST:
                    break
        return reasons

    def _holds(self, file: FileHistory, unit: int, position: int, cuts: int, found: bytes) -> bool:
        alone = FileImage(
            file=file.number,
            size=len(found),
            base_bytes=0,
            unit_bytes=file.unit_bytes,
            units={0: file.version(unit, position, cuts)},
            fingerprint=0,
        )
        return alone.read(self._logged, self._base) == found


def _some(sizes: list[int]) -> str:
    text = [str(size) for size in sizes]
    return ", ".join(text if len(text) <= 6 else [*text[:3], "...", *text[-2:]])
