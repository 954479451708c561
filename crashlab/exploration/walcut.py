"""What became of the WAL of a recorded run when the power was cut, and where are the commits that are missing?

Three readings are held against each other: the WAL of the crash state, that which the server had written by then, and
that which was durable in any case. The commit records behind the end come from the WAL of the whole run, which is read
once.

The last flush of WAL before the cut is dated by the ledger's clock (`logclock`), which gives bounds.

Does not tell: which page image would have healed a torn data page; that is not a matter of commits. The role of the
    process that flushed: the log knows its pid only.

Source: postgres-contract.md 1.1 (Write, Flush), section 0 (E).
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from crashlab.disk.content import BASE, ZERO, FileImage
from crashlab.disk.contract import DiskContract
from crashlab.disk.fileclass import FileClass, classify
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.operations import Kind, Operation, root_label
from crashlab.disk.states import everything, nothing_extra
from crashlab.exploration.images import ImageFolder
from crashlab.exploration.logclock import LogClock
from crashlab.exploration.recording import Recording
from crashlab.history import ACKED, COMMITTING_PREPARED, PREPARED, History
from crashlab.ledger import SETUP_CLIENT
from crashlab.model import LostRecord, RecordCount, RecordFate, WalAtCut, WalFacts, WalFlush, WalRecord
from crashlab.recording.base import copy_part
from crashlab.recording.decoder import Decoder
from crashlab.recording.logbytes import LogBytes
from crashlab.recording.replay import Replayer
from crashlab.recovery.wal import (
    CLEAN_STOP,
    ReadPart,
    WalReader,
    counted,
    directory,
    file_of,
    file_pages,
    read_control,
    start_at,
)
from crashlab.recovery.walpages import Cluster, Found
from crashlab.server import owned

WAL_FOLDER = f"{root_label(0)}/pg_wal"
_BLOCK_BYTES = 64 << 10
_ANSWERED = (ACKED, PREPARED, COMMITTING_PREPARED)
_LOSABLE = ("commit", "commit prepared", "prepare")


@dataclass(frozen=True)
class _Point:
    """How far the WAL was at one crash point."""

    position: int
    redo: int
    written: int
    durable: int
    flushing: bool
    seen: ReadPart  # reads the files as the server saw them


@dataclass(frozen=True)
class _Flush:
    """A flush of a WAL file that ended."""

    begin: int  # positions in the recording; a write that is its own flush has the same twice
    end: int
    log_end: int  # length of the log when it had ended
    pid: int


@dataclass(frozen=True)
class _Run:
    """The WAL of the whole run."""

    records: list[WalRecord]
    end: int  # LSN
    flushes: list[_Flush]  # by their end
    kinds: list[RecordCount]  # of all records


class RecordedWal:
    """Reads the WAL of one recording's crash states."""

    def __init__(self, recording: Recording, images: ImageFolder, log: LogBytes) -> None:
        """Read nothing yet; `images` holds the states, `log` notes every operation that the disk model applies."""
        self._recording = recording
        self._images = images
        self._log = log
        self._reader = WalReader()
        self._last: _Point | None = None
        self._looked_at: tuple[Cluster, int] | None = None

    def look(self, model: DiskModel, state: CrashState, history: History) -> tuple[WalFacts | None, WalAtCut | None]:
        """Read a state that was made real and in which no server ran yet, and where its lost commits are.

        Returns:
            None and None if its control file cannot be understood; no WalAtCut if no commit is lost.
        """
        part = directory(self._images.data_directory)
        control = self._looked_at = read_control(part)
        if control is None:
            return None, None
        cluster, redo = control
        facts = self._reader.read(cluster, file_pages(cluster, part), redo)
        promised = {
            xid & 0xFFFF_FFFF
            for xid, state, client in zip(history.xid, history.state, history.client, strict=True)
            if xid and state in _ANSWERED and client != SETUP_CLIENT  # which is in the base image
        }
        run = self._run
        missing = [
            record
            for record in run.records
            if record.end > facts.end and record.xid in promised and record.decision in _LOSABLE
        ]
        # In the recording of a recovery they were written before it, or lost with the first crash
        dated = self._recording.record.ledger_io is None
        never = promised.difference(record.xid for record in run.records) if dated else set()
        if not missing and not never:
            return facts, None
        point = self._point(cluster, redo, model)
        lost = [
            LostRecord(record.decision, record.xid, record.end, _fate(cluster, record, point, part), record.flushed)
            for record in missing
        ]
        if run.end >= point.written:
            lost += [LostRecord("commit", xid, 0, "not written") for xid in sorted(never)]
        return facts, self._at_cut(point, lost, model, history)

    def at_cut(self, model: DiskModel, history: History) -> WalAtCut | None:
        """Return how far the WAL was for the state that was looked at last, though no commit may be lost there.

        Returns:
            None if its control file could not be understood.
        """
        if self._looked_at is None:
            return None
        return self._at_cut(self._point(*self._looked_at, model), [], model, history)

    def _at_cut(self, point: _Point, lost: list[LostRecord], model: DiskModel, history: History) -> WalAtCut:
        return WalAtCut(
            written=point.written,
            durable=point.durable,
            flushing=point.flushing,
            lost=lost,
            last_flush=self._last_flush(model, max(history.end_ns)),
        )

    def _last_flush(self, model: DiskModel, fault_ns: int) -> WalFlush | None:
        """Return the last flush of WAL that had ended at the model's position, dated against the fault."""
        ended = bisect_left(self._run.flushes, model.position, key=lambda flush: flush.end)
        if not ended or not fault_ns:
            return None
        flush = self._run.flushes[ended - 1]
        # In the recording of a recovery the ledger's positions are those of another log
        dated = self._recording.record.ledger_io is None
        since_ns, until_ns = self._clock.bounds_ns(flush.log_end) if dated else (None, None)
        return WalFlush(
            operation=flush.end,
            pid=flush.pid,
            kept=is_kept(model.contract, flush.begin),
            # It came before the cut, even if the ledger notes nothing between the two
            least_ms=0.0 if until_ns is None else max(0.0, round((fault_ns - until_ns) / 1e6, 3)),
            most_ms=None if since_ns is None else max(0.0, round((fault_ns - since_ns) / 1e6, 3)),
        )

    def _point(self, cluster: Cluster, redo: int, model: DiskModel) -> "_Point":
        """Return how far the WAL was at the model's position, which has several states as a rule."""
        if self._last is None or (self._last.position, self._last.redo) != (model.position, redo):
            seen = self._part_of(model, everything(model))
            kept = self._part_of(model, nothing_extra(model))
            self._last = _Point(
                position=model.position,
                redo=redo,
                written=self._end_of(seen, cluster, redo),
                durable=self._end_of(kept, cluster, redo),
                flushing=any(
                    flush.end is None and classify(flush.path) is FileClass.WAL for flush in model.pending().flushes
                ),
                seen=seen,
            )
        return self._last

    def _end_of(self, part: ReadPart, cluster: Cluster, redo: int) -> int:
        """Return where the WAL ends that a server would find there, from the redo point that it would find there, too.

        That of another state may lie in a segment that has been removed by then. If there is none, it has to do.
        """
        cluster, redo = read_control(part) or (cluster, redo)
        return self._reader.read(cluster, file_pages(cluster, part), redo).end

    @cached_property
    def _run(self) -> _Run:
        return read_run(self._recording, self._reader)

    @cached_property
    def _clock(self) -> LogClock:
        return LogClock(self._recording.ledger)

    def _part_of(self, model: DiskModel, state: CrashState) -> ReadPart:
        """Return what reads the files of a state that is not made real."""
        paths = model.paths(state.names)

        @cache
        def opened(path: str) -> FileImage | None:
            number = paths.get(f"{root_label(0)}/{path}")
            return model.image(state, number) if number in model.files else None

        @cache
        def block(path: str, number: int) -> bytes:
            image, low = opened(path), number * _BLOCK_BYTES
            return b"" if image is None else self._bytes(image, low, min(low + _BLOCK_BYTES, image.size))

        def part(path: str, offset: int, length: int) -> bytes:
            first, last = offset // _BLOCK_BYTES, (offset + length - 1) // _BLOCK_BYTES
            found = b"".join(block(path, number) for number in range(first, last + 1))
            return found[offset - first * _BLOCK_BYTES :][:length]

        return part

    def _bytes(self, image: FileImage, low: int, high: int) -> bytes:
        found = []
        for at, length, source, offset in image.pieces():
            begin, end = max(at, low), min(at + length, high)
            if begin >= end:
                continue
            offset += begin - at
            if source == ZERO:
                found.append(bytes(end - begin))
            elif source == BASE:
                found.append(self._images.contents.base_bytes(image.file, offset, end - begin))
            else:
                found.append(self._log.read(source, offset, end - begin))
        return b"".join(found)


class Step(NamedTuple):
    """One operation of a recording, and what was read of the WAL by then, since the step before."""

    operation: Operation | None  # None: behind the last one
    on_wal: bool  # the operation is on a file of the WAL
    found: Found
    end: int  # LSN up to which it was read


def read_run(recording: Recording, reader: WalReader) -> _Run:
    """Return every record of a recorded run that decides a transaction, whenever it was written, and every flush."""
    found, flushes, end = Found(), _Flushes(), 0
    for step in read_along(recording, reader):
        found.add(step.found)
        end = step.end
        if step.operation is not None:
            flushes.note(step.operation, is_wal=step.on_wal)
    if found.first == CLEAN_STOP:  # of the set-up
        found.kinds[CLEAN_STOP] -= 1
    major = recording.record.server.version_num // 10_000
    return _Run(found.records, end, flushes.ended, counted(major, found.kinds))


def read_along(recording: Recording, reader: WalReader, *, each_write: bool = False) -> Iterator[Step]:
    """Read the WAL of a recorded run while it is written; nothing if the base's control file cannot be understood.

    The operations on pg_wal are applied to a copy of it; before a segment is renamed or removed, it is read.

    Args:
        each_write: read after each write, too: then a record is found with the operation that made it whole.
    """
    base = recording.base
    control = read_control(directory(base.image / root_label(0)))
    if control is None:
        return
    cluster, redo = control
    place = start_at(cluster, redo)
    nothing = Found()
    with owned.temporary_folder(prefix="crashlab-wal-") as image:
        (image / root_label(0)).mkdir()
        copy_part(base, WAL_FOLDER, image)
        part = directory(image / root_label(0))
        numbers = {entry.file for entry in base.files if entry.path.startswith(f"{WAL_FOLDER}/")}
        replayer = Replayer(image, base.files)
        for operation in Decoder(recording.log, base.files):
            found, on_wal = nothing, operation.file in numbers
            named = operation.path.startswith(f"{WAL_FOLDER}/")
            if named or on_wal:
                if operation.kind in (Kind.RENAME, Kind.UNLINK):
                    found, place = reader.read_on(cluster, file_pages(cluster, part), place)
                elif named and operation.file:
                    numbers.add(operation.file)
                replayer.apply(operation)
                if each_write and operation.kind is Kind.WRITE:
                    found, place = reader.read_on(cluster, file_pages(cluster, part), place)
            yield Step(operation, on_wal, found, place.at)
        replayer.close()
        found, place = reader.read_on(cluster, file_pages(cluster, part), place)
        yield Step(None, False, found, place.at)


class _Flushes:
    """Collects the flushes of WAL files."""

    def __init__(self) -> None:
        self.ended: list[_Flush] = []
        self._begun: dict[int, int] = {}  # token -> position

    def note(self, operation: Operation, *, is_wal: bool) -> None:
        """Take in the next operation; the end of a flush names no file."""
        position, kind = operation.position, operation.kind
        if kind is Kind.FSYNC_BEGIN and is_wal:
            self._begun[operation.token] = position
        elif kind is Kind.FSYNC_END and (begin := self._begun.pop(operation.token, None)) is not None:
            self.ended.append(_Flush(begin, position, operation.log_end, operation.pid))
        elif kind is Kind.WRITE and operation.durable and is_wal:
            self.ended.append(_Flush(position, position, operation.log_end, operation.pid))


def is_kept(contract: DiskContract, begin: int) -> bool:
    """Say whether a disk keeps what a flush of WAL covers, as the disk model has it."""
    if begin == contract.flush_left_out or FileClass.WAL in contract.flushes_ignored_for:
        return False
    return contract.flushes_ignored_from is None or begin < contract.flushes_ignored_from


def _fate(cluster: Cluster, record: WalRecord, point: _Point, found: ReadPart) -> RecordFate:
    """Say what became of a record behind the end, given what the server saw and what the state holds."""
    if record.end > point.written:
        return "not written"
    there = True
    position = record.start
    while position < record.end:
        path, offset = file_of(cluster, position), position % cluster.segment_bytes
        length = min(record.end - position, cluster.segment_bytes - offset)
        if not found(path, 0, 1):
            return "no file"
        there = there and point.seen(path, offset, length) == found(path, offset, length)
        position += length
    return "behind a hole" if there else "not durable"
