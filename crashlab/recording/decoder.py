"""Which operations does a log hold?

Turns the records of `iolog` into `operations.Operation`, one at a time: inodes become file numbers that are never used
twice, the roots' numbers become "pgdata", "tblspc0", ... Memory grows with the number of files, not of records.

What is left out: BIND and START; operations on a file of the base image that lost its name before the recorder first
saw it, which no crash state can show; syncfs of one file system where the roots lie on several.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from crashlab.disk.operations import BaseFile, Kind, Operation, root_label
from crashlab.errors import RecordingError
from crashlab.recording import iolog
from crashlab.recording.filenumbers import FileNumbers, mismatch
from crashlab.recording.iolog import Record

_IGNORED = 0  # the number of files that no name leads to


class Start(msgspec.Struct, frozen=True):
    """One program that ran under the recorder."""

    pid: int
    program: str


class Decoder:
    """The operations of one log, on top of the base image that it began with. Iterate once."""

    def __init__(self, log: Path, files: Iterable[BaseFile]) -> None:
        self.starts: list[Start] = []  # complete after the iteration
        self._log = log
        self._names = FileNumbers(files)
        self._numbers: dict[tuple[int, int], int] = {}  # (device, inode) -> file
        self._devices: set[int] = set()
        self._dropped: set[int] = set()  # begins whose end means nothing
        self._handlers: dict[int, Callable[[Record, int], Operation | None]] = {
            Kind.CREATE: self._created,
            Kind.MKDIR: self._created,
            Kind.SYMLINK: self._created,
            Kind.WRITE: self._changed,
            Kind.COPY: self._changed,
            Kind.CONTENT: self._changed,
            Kind.TRUNCATE: self._changed,
            Kind.ALLOCATE: self._changed,
            Kind.FSYNC_BEGIN: self._flushed,
            Kind.FSYNC_END: self._ended,
            Kind.SYNCFS_BEGIN: self._synced,
            Kind.SYNCFS_END: self._ended,
            Kind.RENAME: self._renamed,
            Kind.LINK: self._renamed,
            Kind.EXCHANGE: self._renamed,
            Kind.UNLINK: self._removed,
            Kind.RMDIR: self._removed,
            Kind.BLIND: self._blind,
            iolog.BIND: self._bound,
        }

    def __iter__(self) -> Iterator[Operation]:
        """Read the log.

        Raises:
            RecordingError: as `iolog.records`; nothing was recorded; the log does not belong to the base image.
        """
        position = 0
        for record in iolog.records(self._log):
            if record.kind == iolog.START:
                self.starts.append(Start(record.pid, os.fsdecode(record.payload)))
                continue
            if not self.starts:
                raise RecordingError(f'the log "{self._log}" does not begin with a start')
            operation = self._handlers[record.kind](record, position)
            if operation is not None:
                yield operation
                position += 1
        if not self.starts:
            raise RecordingError(
                f'nothing was recorded in "{self._log}"',
                detail="No program ran under the recorder.",
                hint="The library must be readable, and of the machine's architecture, where the server runs.",
            )

    def path(self, number: int) -> str:
        """Return where a file is now, after the operation that came last; empty: it has no name any more."""
        return self._names.path(number) or ""

    def is_directory(self, number: int) -> bool:
        """Whether a file is a directory, and has a name."""
        return self._names.is_directory(number)

    def _created(self, record: Record, position: int) -> Operation:
        path, content = _names(record)
        number = self._names.new_number()
        self._names.add(path, number, directory=record.kind == Kind.MKDIR)
        self._know(record, number)
        return Operation(
            position=position,
            kind=Kind(record.kind),
            pid=record.pid,
            file=number,
            path=path,
            offset=record.offset,
            data=content if record.kind == Kind.SYMLINK else b"",
            log_end=record.end,
        )

    def _changed(self, record: Record, position: int) -> Operation | None:
        number = self._number(record)
        if number == _IGNORED:
            return None
        return Operation(
            position=position,
            kind=Kind(record.kind),
            pid=record.pid,
            file=number,
            offset=record.offset,
            length=record.length,
            data=record.payload.ljust(record.length, b"\0"),
            durable=record.flags & iolog.DURABLE != 0,
            log_end=record.end,
            data_at=record.end - len(record.payload),
        )

    def _flushed(self, record: Record, position: int) -> Operation | None:
        number = self._number(record)
        if number == _IGNORED:
            self._dropped.add(record.at)
            return None
        return Operation(
            position=position,
            kind=Kind.FSYNC_BEGIN,
            pid=record.pid,
            file=number,
            token=record.at,
            datasync=record.flags & iolog.DATASYNC != 0,
            log_end=record.end,
        )

    def _synced(self, record: Record, position: int) -> Operation | None:
        if record.device and self._devices - {record.device}:
            self._dropped.add(record.at)
            return None
        kind = Kind(record.kind)
        return Operation(position=position, kind=kind, pid=record.pid, token=record.at, log_end=record.end)

    def _ended(self, record: Record, position: int) -> Operation | None:
        if record.offset in self._dropped:
            self._dropped.discard(record.offset)
            return None
        kind = Kind(record.kind)
        return Operation(position=position, kind=kind, pid=record.pid, token=record.offset, log_end=record.end)

    def _renamed(self, record: Record, position: int) -> Operation:
        path, content = _names(record)
        target = _labelled(content)
        number = self._names.number(path)
        self._know(record, number)
        if record.kind == Kind.RENAME:
            self._names.rename(path, target)
        elif record.kind == Kind.LINK:
            self._names.add(target, number)
        else:
            self._names.exchange(path, target)
        kind = Kind(record.kind)
        return Operation(position=position, kind=kind, pid=record.pid, path=path, target=target, log_end=record.end)

    def _removed(self, record: Record, position: int) -> Operation:
        path, _ = _names(record)
        self._know(record, self._names.remove(path))
        return Operation(position=position, kind=Kind(record.kind), pid=record.pid, path=path, log_end=record.end)

    def _blind(self, record: Record, position: int) -> Operation:
        path, reason = _names(record)
        return Operation(position=position, kind=Kind.BLIND, pid=record.pid, path=path, data=reason, log_end=record.end)

    def _bound(self, record: Record, position: int) -> None:
        key = record.device, record.inode
        path, _ = _names(record)
        if record.flags & iolog.NAMELESS:
            self._numbers.setdefault(key, _IGNORED)
            return
        found = self._names.number(path)
        known = self._numbers.setdefault(key, found)
        self._devices.add(record.device)
        if known != found:
            raise mismatch(f'inode {record.inode} is at "{path}", where the log has another file')

    def _know(self, record: Record, number: int) -> None:
        self._numbers[record.device, record.inode] = number
        self._devices.add(record.device)

    def _number(self, record: Record) -> int:
        number = self._numbers.get((record.device, record.inode))
        if number is None:
            raise RecordingError(
                f'the log "{self._log}" uses an unknown file at byte {record.at}',
                detail=f"Inode {record.inode} was neither created nor bound to a path before.",
            )
        return number


def _names(record: Record) -> tuple[str, bytes]:
    path, _, second = record.payload.partition(b"\0")
    return _labelled(path), second


def _labelled(path: bytes) -> str:
    root, slash, rest = os.fsdecode(path).partition("/")
    try:
        return root_label(int(root)) + slash + rest
    except ValueError:
        raise RecordingError(f'the log has an impossible path "{os.fsdecode(path)}"') from None
