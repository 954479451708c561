"""Is the log the whole truth?

The self-check of a recording: apply every operation to a copy of the base image; the result must be the live
directory, byte for byte. Whatever the recorder did not see, or saw in the wrong order, shows here.

What is checked: names, kinds, link contents, sizes and bytes of all files below the recorded roots; that nothing was
written in a way that the recorder cannot see.
What is not checked: owners, modes and times, which no crash state varies; sockets and pipes; and the files below,
written by stdio or through shared memory, none of which recovery reads:
    postmaster.opts                      written at start, read by pg_ctl only
    log/*                                the server's own log
    pg_wal/*.backup                      history of a base backup
    pg_dynshmem/*                        shared memory of live processes
Source: postgres-contract.md 5.2. Other stdio files of that list are renamed or synced, and so logged whole.
"""

import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from crashlab.disk.operations import BaseFile, Kind, Operation, root_label
from crashlab.recording.base import BaseImage, copy_tree
from crashlab.recording.decoder import Decoder
from crashlab.recording.filenumbers import FileNumbers
from crashlab.server import owned

EXCEPTIONS = re.compile(
    r"pgdata/(postmaster\.opts|log/.*|pg_wal/[0-9A-F]{24}\.[0-9A-F]{8}\.backup|pg_dynshmem/.*"
    r"|pg_stat(_tmp)?/(global|db_\d+)\.(tmp|stat))",  # up to 14: the collector writes these while it is killed
    re.DOTALL,
)
DIFFERENCES_MAX = 100
_OPEN_FILES_MAX = 200
_COMPARE_BYTES = 1 << 20


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One place where the replayed log and the live directory disagree."""

    path: str  # as in the operations
    offset: int | None  # first byte that differs; None: not a matter of bytes
    reason: str

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.path}{'' if self.offset is None else f' at byte {self.offset}'}: {self.reason}"


def self_check(base: BaseImage, log: Path, live: Sequence[Path] | None = None) -> list[Difference]:
    """Replay a whole log and compare the result with the live directories; none different means a sound recording.

    Args:
        base: what the recording began with; the copy of it that the replay needs is made beside it, and removed.
        live: the recorded roots of the stopped server, in their order; the base image's by default.

    Returns:
        at most DIFFERENCES_MAX differences, what the recorder could not see first.

    Raises:
        RecordingError: the log is damaged, or does not belong to the base image.
    """
    roots = list(base.roots if live is None else live)
    with owned.temporary_folder(base.folder, "crashlab-replay-") as folder:
        image = folder / "image"
        differences = replay(base, log, image)
        for index, root in enumerate(roots):
            differences += _compare(image / root_label(index), root, root_label(index))
    return differences[:DIFFERENCES_MAX]


def replay(base: BaseImage, log: Path, image: Path) -> list[Difference]:
    """Make the image that the whole log leads to.

    Returns:
        the places that the recorder could not see.
    """
    copy_tree(base.image, image)
    blind: list[Difference] = []
    replayer = Replayer(image, base.files)
    try:
        for operation in Decoder(log, base.files):
            replayer.apply(operation)
            if operation.kind is Kind.BLIND and not EXCEPTIONS.fullmatch(operation.path):
                reason = f"changed unseen by the recorder: {os.fsdecode(operation.data)}"
                blind.append(Difference(path=operation.path, offset=None, reason=reason))
    finally:
        replayer.close()
    return blind


class Replayer:
    """Applies operations to a directory tree that starts as the base image."""

    def __init__(self, image: Path, files: Iterable[BaseFile]) -> None:
        self._image = image
        self._names = FileNumbers(files)
        self._open: OrderedDict[int, int] = OrderedDict()  # file -> descriptor, last used last

    def apply(self, operation: Operation) -> None:
        """Apply one operation; what only makes durable changes nothing here."""
        kind = operation.kind
        if kind in (Kind.WRITE, Kind.COPY, Kind.CONTENT, Kind.TRUNCATE, Kind.ALLOCATE):
            self._change(operation)
        elif kind in (Kind.CREATE, Kind.MKDIR, Kind.SYMLINK):
            self._create(operation)
        elif kind in (Kind.RENAME, Kind.LINK, Kind.EXCHANGE):
            self._rename(operation)
        elif kind in (Kind.UNLINK, Kind.RMDIR):
            path = self._at(operation.path)
            path.rmdir() if kind is Kind.RMDIR else path.unlink()
            self._forget_nameless(self._names.remove(operation.path))

    def close(self) -> None:
        """Close the files."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _at(self, path: str) -> Path:
        return self._image / path

    def _create(self, operation: Operation) -> None:
        path = self._at(operation.path)
        if operation.kind is Kind.CREATE:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, operation.offset or 0o600))
        elif operation.kind is Kind.MKDIR:
            path.mkdir(operation.offset or 0o700)
        else:
            path.symlink_to(os.fsdecode(operation.data))
        self._names.add(operation.path, operation.file, directory=operation.kind is Kind.MKDIR)

    def _change(self, operation: Operation) -> None:
        fd = self._descriptor(operation.file)
        if fd is None:  # unlinked, only an open descriptor led to it
            return
        if operation.kind is Kind.ALLOCATE:
            if os.fstat(fd).st_size < operation.offset + operation.length:
                os.ftruncate(fd, operation.offset + operation.length)
            return
        if operation.kind in (Kind.TRUNCATE, Kind.CONTENT):
            os.ftruncate(fd, operation.offset)
        done = 0
        while done < len(operation.data):
            done += os.pwrite(fd, memoryview(operation.data)[done:], operation.offset + done)

    def _rename(self, operation: Operation) -> None:
        path, target = operation.path, operation.target
        if operation.kind is Kind.LINK:
            os.link(self._at(path), self._at(target))
            self._names.add(target, self._names.number(path))
        elif operation.kind is Kind.RENAME:
            replaced = self._names.find(target)
            self._at(path).rename(self._at(target))
            self._names.rename(path, target)
            if replaced is not None:
                self._forget_nameless(replaced)
        else:
            between = self._image / "exchanging"
            self._at(path).rename(between)
            self._at(target).rename(self._at(path))
            between.rename(self._at(target))
            self._names.exchange(path, target)

    def _descriptor(self, number: int) -> int | None:
        fd = self._open.get(number)
        if fd is not None:
            self._open.move_to_end(number)
            return fd
        path = self._names.path(number)
        if path is None:
            return None
        fd = os.open(self._at(path), os.O_WRONLY | os.O_NOFOLLOW)
        self._open[number] = fd
        if len(self._open) > _OPEN_FILES_MAX:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def _forget_nameless(self, number: int) -> None:
        fd = self._open.pop(number, None) if self._names.path(number) is None else None
        if fd is not None:
            os.close(fd)


def _compare(replayed: Path, live: Path, label: str) -> Iterator[Difference]:
    ours, theirs = (dict(_entries(str(root), "")) for root in (replayed, live))
    for name in sorted(ours.keys() | theirs.keys()):
        path = f"{label}/{name}"
        if EXCEPTIONS.fullmatch(path):
            continue
        if name not in ours or name not in theirs:
            reason = "only in the live directory" if name in theirs else "only in the replayed log"
            yield Difference(path=path, offset=None, reason=reason)
        elif stat.S_IFMT(ours[name].st_mode) != stat.S_IFMT(theirs[name].st_mode):
            yield Difference(path=path, offset=None, reason="not of the same kind")
        elif stat.S_ISLNK(ours[name].st_mode):
            if (replayed / name).readlink() != (live / name).readlink():
                yield Difference(path=path, offset=None, reason="the links lead elsewhere")
        elif stat.S_ISREG(ours[name].st_mode):
            yield from _compare_bytes(replayed / name, live / name, path)


def _entries(root: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(f"{root}/{prefix}") as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield prefix + entry.name, status
                yield from _entries(root, f"{prefix}{entry.name}/")
            elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield prefix + entry.name, status


def _compare_bytes(replayed: Path, live: Path, path: str) -> Iterator[Difference]:
    with replayed.open("rb", buffering=0) as ours, live.open("rb", buffering=0) as theirs:
        at = 0
        while True:
            a, b = ours.read(_COMPARE_BYTES), theirs.read(_COMPARE_BYTES)
            if a != b:
                same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
                sizes = f"{replayed.stat().st_size} bytes replayed, {live.stat().st_size} live"
                yield Difference(path=path, offset=at + same, reason=f"the bytes differ ({sizes})")
                return
            if not a:
                return
            at += len(a)
