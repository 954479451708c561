"""What became of the WAL of a recorded run when the power was cut, and where are the commits that are missing?

Three readings are held against each other: the WAL of the crash state, that which the server had written by then, and
that which was durable in any case. The commit records behind the end come from the WAL of the whole run, which is read
once.

Does not tell: which page image would have healed a torn data page; that is not a matter of commits.

Source: postgres-contract.md 1.1 (Write, Flush), section 0 (E).
"""

import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from crashlab.campaign.recording import Recording
from crashlab.history import ACKED, COMMITTING_PREPARED, PREPARED, History
from crashlab.model import LostRecord, RecordFate, WalAtCut, WalFacts, WalRecord
from crashlab.recording.base import copy_tree
from crashlab.recording.content import BASE, ZERO, FileImage
from crashlab.recording.decoder import Decoder, root_label
from crashlab.recording.diskmodel import CrashState, DiskModel
from crashlab.recording.fileclass import FileClass, classify
from crashlab.recording.images import ImageFolder
from crashlab.recording.logbytes import LogBytes
from crashlab.recording.operations import Kind
from crashlab.recording.replay import Replayer
from crashlab.recording.states import everything, nothing_extra
from crashlab.recovery.wal import ReadPart, WalReader, directory, file_of, file_pages, read_control, start_at
from crashlab.recovery.walpages import Cluster

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


class RecordedWal:
    """Reads the WAL of one recording's crash states."""

    def __init__(self, recording: Recording, images: ImageFolder, log: LogBytes) -> None:
        """Read nothing yet; `images` holds the states, `log` notes every operation that the disk model applies."""
        self._recording = recording
        self._images = images
        self._log = log
        self._reader = WalReader()
        self._last: _Point | None = None

    def look(self, model: DiskModel, state: CrashState, history: History) -> tuple[WalFacts | None, WalAtCut | None]:
        """Read a state that was made real and in which no server ran yet, and where its lost commits are.

        Returns:
            None and None if its control file cannot be understood; no WalAtCut if no commit is lost.
        """
        part = directory(self._images.data_directory)
        control = read_control(part)
        if control is None:
            return None, None
        cluster, redo = control
        facts = self._reader.read(cluster, file_pages(cluster, part), redo)
        promised = {
            xid & 0xFFFF_FFFF
            for xid, state in zip(history.xid, history.state, strict=True)
            if xid and state in _ANSWERED
        }
        run, run_end = self._run
        missing = [
            record
            for record in run
            if record.end > facts.end and record.xid in promised and record.decision in _LOSABLE
        ]
        never = promised.difference(record.xid for record in run)
        if not missing and not never:
            return facts, None
        point = self._point(cluster, redo, model)
        lost = [
            LostRecord(record.decision, record.xid, record.end, _fate(cluster, record, point, part))
            for record in missing
        ]
        if run_end >= point.written:
            lost += [LostRecord("commit", xid, 0, "not written") for xid in sorted(never)]
        return facts, WalAtCut(written=point.written, durable=point.durable, flushing=point.flushing, lost=lost)

    def _point(self, cluster: Cluster, redo: int, model: DiskModel) -> "_Point":
        """Return how far the WAL was at the model's position, which has several states as a rule."""
        if self._last is None or (self._last.position, self._last.redo) != (model.position, redo):
            seen = self._part_of(model, everything(model))
            kept = self._part_of(model, nothing_extra(model))
            self._last = _Point(
                position=model.position,
                redo=redo,
                written=self._reader.read(cluster, file_pages(cluster, seen), redo).end,
                durable=self._reader.read(cluster, file_pages(cluster, kept), redo).end,
                flushing=any(
                    flush.end is None and classify(flush.path) is FileClass.WAL for flush in model.pending().flushes
                ),
                seen=seen,
            )
        return self._last

    @cached_property
    def _run(self) -> tuple[list[WalRecord], int]:
        return run_records(self._recording, self._reader)

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
                found.append(self._images.base_bytes(image.file, offset, end - begin))
            else:
                found.append(self._log.read(source, offset, end - begin))
        return b"".join(found)


def run_records(recording: Recording, reader: WalReader) -> tuple[list[WalRecord], int]:
    """Return every record of a recorded run that decides a transaction, whenever it was written, and the WAL's end.

    The operations on pg_wal are applied to a copy of it; before a segment is renamed or removed, it is read.
    """
    base = recording.base
    control = read_control(directory(base.image / root_label(0)))
    if control is None:
        return [], 0
    cluster, redo = control
    place = start_at(cluster, redo)
    records: list[WalRecord] = []
    with tempfile.TemporaryDirectory(prefix="crashlab-wal-") as folder:
        image = Path(folder)
        (image / root_label(0)).mkdir()
        copy_tree(base.image / WAL_FOLDER, image / WAL_FOLDER)
        part = directory(image / root_label(0))
        numbers = {entry.file for entry in base.files if entry.path.startswith(f"{WAL_FOLDER}/")}
        replayer = Replayer(image, base.files)
        for operation in Decoder(recording.log, base.files):
            named = operation.path.startswith(f"{WAL_FOLDER}/")
            if not named and operation.file not in numbers:
                continue
            if operation.kind in (Kind.RENAME, Kind.UNLINK):
                found, place = reader.read_on(cluster, file_pages(cluster, part), place)
                records += found
            elif named and operation.file:
                numbers.add(operation.file)
            replayer.apply(operation)
        replayer.close()
        found, place = reader.read_on(cluster, file_pages(cluster, part), place)
    return records + found, place.at


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
