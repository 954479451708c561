"""What does a recording add to what is told of a trial: its order, the server's flushes, and the disk at the cut?

Choices:
    A place on the axis is a crash point: that many operations had happened. What a client did stands where the log was
    when it was noted; only the recording of a recovery, whose ledger belongs to another log, keeps the clients' clock.
    WAL counts as written up to the end of the highest write to a segment, which is that of a whole page, so a commit
    record that ends inside of it may be shown as written a little early. Durable is what an ended flush covers, on the
    disk of this trial.
    A page of the map is torn if a part of what was pending of it survived and another part did not. Whether the bytes
    differ is not asked.

Source: design.md "The recorder", "The disk model".
"""

import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal, Self

import msgspec

from crashlab import evidence, files
from crashlab.chronicle import (
    PAGE_BYTES,
    Chronicle,
    DiskMap,
    Happening,
    HappeningKind,
    MappedFile,
    MappedName,
    PageRun,
    QuietClass,
    Transaction,
)
from crashlab.disk.contract import TEAR_SIZES, DiskContract
from crashlab.disk.fileclass import FileClass, classify
from crashlab.disk.filehistory import DURABLE, FileHistory
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.operations import Kind, Operation, root_label
from crashlab.errors import EvidenceError
from crashlab.exploration import points
from crashlab.exploration.conditions import conditions_of
from crashlab.exploration.recording import Recording, load
from crashlab.exploration.walcut import is_kept
from crashlab.exploration.walk import Walk
from crashlab.ledgerfile import read_blocks
from crashlab.profile import stored_profile
from crashlab.recording.decoder import Decoder
from crashlab.recovery.wal import directory, read_control
from crashlab.recovery.walpages import Cluster
from crashlab.trial.judged import recording_of

_SEGMENT = re.compile(r"(?:^|/)([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})$")
Status = Literal["durable", "kept", "lost", "torn"]


class Recordings:
    """Recordings whose trials are told, each read once. Use it as a context manager."""

    def __init__(self) -> None:
        self._opened: dict[tuple[Path, DiskContract], _Told] = {}

    def add_to(self, chronicle: Chronicle, folder: Path) -> Chronicle:
        """Return the chronicle of a recorded trial with all that its recording knows.

        Raises:
            EvidenceError, RecordingError: the recording is gone or damaged.
        """
        record = evidence.load_trial(folder)
        state = evidence.load(folder / evidence.STATE, CrashState, digest=record.digests.get(evidence.STATE))
        place = recording_of(folder, record)
        told = self._told(place, record)
        return told.add_to(chronicle, state, record.crash_io or 0)

    def _told(self, place: Path, record: evidence.TrialRecord) -> "_Told":
        for (known, disk), told in self._opened.items():
            if known == place and record.disk_contract in (None, disk):
                return told
        recording = load(place)
        contract = record.disk_contract
        if contract is None:
            power_loss = stored_profile(record.profile_resolved).profile.power_loss
            if power_loss is None:
                raise EvidenceError(f'cannot tell on which disk "{record.profile}" was tried: it has no power_loss')
            contract = conditions_of(recording, power_loss, record.run_seed).contract
        if contract.tear_bytes not in TEAR_SIZES or contract.size_step_bytes < contract.tear_bytes:
            raise EvidenceError(f"cannot map a disk that tears at {contract.tear_bytes} bytes")
        told = self._opened[place, contract] = _Told(recording, contract)
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for told in self._opened.values():
            told.walk.close()


@dataclass
class _Passed:
    """What one pass over a log finds."""

    ends: "array[int]" = field(default_factory=lambda: array("q"))  # by position: length of the log after it
    written: list[tuple[float, int]] = field(default_factory=list)
    durable: list[tuple[float, int]] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)  # flushes


class _Told:
    """One recording, on one disk."""

    def __init__(self, recording: Recording, contract: DiskContract) -> None:
        self.recording = recording
        self._survey = points.survey(Decoder(recording.log, recording.base.files), recording.record.first_bytes)
        self._passed = _Pass(recording, contract).run()
        self.walk = Walk(recording, contract, operations=self._survey.end)
        self._line_io = list(_io_of_lines(recording.ledger))

    def add_to(self, chronicle: Chronicle, state: CrashState, crash_io: int) -> Chronicle:
        cut, passed = state.position, self._passed
        if not 0 <= cut <= self._survey.end:
            raise EvidenceError(f"the recording has no operation {cut}")
        disk = map_of(self.walk.to(cut), state)
        if self.recording.record.ledger_io is not None:
            without = "The ledger belongs to the run before this recovery, whose operations are not drawn."
            return msgspec.structs.replace(chronicle, disk=disk, without=without)
        transactions = [self._placed(one) for one in chronicle.transactions]
        begun = {one.begin_line: one.begin for one in transactions}
        lines = [one.begin_line for one in chronicle.transactions if one.client]
        happenings = [one for one in passed.happenings if one.at < cut]
        happenings += self._checkpoints(cut)
        return msgspec.structs.replace(
            chronicle,
            axis="operation",
            first=min((begun[line] for line in lines), default=float(self._survey.first)),
            cut=float(cut),
            transactions=transactions,
            levels=[msgspec.structs.replace(one, at=self._place(one.line)) for one in chronicle.levels],
            written=[(at, lsn) for at, lsn in passed.written if at <= cut],
            durable=[(at, lsn) for at, lsn in passed.durable if at <= cut],
            happenings=[
                *(_until(one, cut) for one in happenings),
                *(msgspec.structs.replace(one, at=float(cut)) for one in chronicle.happenings),
            ],
            disk=disk,
            without="",
        )

    def _place(self, line: int) -> float:
        """Return how many operations had happened when a line of the ledger was noted."""
        return float(bisect_right(self._passed.ends, self._line_io[line]))

    def _placed(self, one: Transaction) -> Transaction:
        return msgspec.structs.replace(
            one,
            begin=self._place(one.begin_line),
            sent=self._place(one.sent_line) if one.sent_line else None,
            told=self._place(one.told_line) if one.told_line else None,
        )

    def _checkpoints(self, cut: int) -> Iterator[Happening]:
        for low, high in self._survey.checkpoints:
            if low < cut:
                says = f"checkpoint: from its first flush of data, operation {low}, to its control file, {high}"
                yield Happening(kind="checkpoint", at=float(low), until=float(high), says=says)
        for position in self._survey.switches[1::2]:
            if position <= cut:
                says = f"WAL switch: a segment was made, renamed, or first written to, at operation {position - 1}"
                yield Happening(kind="WAL switch", at=float(position), says=says)


def _until(one: Happening, cut: int) -> Happening:
    """Cut off what had not ended when the power failed."""
    if one.until is None or one.until <= cut:
        return one
    return msgspec.structs.replace(one, until=None, says=f"{one.says}; it had not ended at the cut")


def _io_of_lines(ledger: Path) -> Iterator[int]:
    """Yield the length of the log that was noted with each line; that of line 0, which there is none of, first."""
    yield 0
    with files.opened(ledger) as file:
        for block in read_blocks(ledger, file):
            for event in () if isinstance(block, str) else block:
                yield getattr(event, "io", 0)


class _Pass:
    """Collects how far the WAL was, and all flushes."""

    def __init__(self, recording: Recording, contract: DiskContract) -> None:
        self._recording = recording
        self._contract = contract
        self._operations = Decoder(recording.log, recording.base.files)
        control = read_control(directory(recording.base.image / root_label(0)))
        self._cluster: Cluster | None = None if control is None else control[0]
        self._found = _Passed()
        if control is not None:  # the base is durable as it is, and its server had been stopped
            self._found.written.append((0.0, control[1]))
            self._found.durable.append((0.0, control[1]))
        self._tops: dict[int, int] = {}  # WAL file -> LSN up to which it was written
        self._begun: dict[int, tuple[Operation, str, int]] = {}  # token -> begin, path, LSN

    def run(self) -> _Passed:
        log_end = 0
        for operation in self._operations:
            log_end = max(log_end, operation.log_end)
            self._found.ends.append(log_end)
            if operation.kind in (Kind.WRITE, Kind.COPY):
                self._write(operation)
            elif operation.kind in (Kind.FSYNC_BEGIN, Kind.SYNCFS_BEGIN):
                path = self._operations.path(operation.file) if operation.file else ""
                everything = operation.kind is Kind.SYNCFS_BEGIN
                top = max(self._tops.values(), default=0) if everything else self._tops.get(operation.file, 0)
                self._begun[operation.token] = (operation, path, top)
            elif operation.kind in (Kind.FSYNC_END, Kind.SYNCFS_END):
                self._end(operation)
        return self._found

    def _write(self, operation: Operation) -> None:
        lsn = self._lsn(self._operations.path(operation.file), operation.offset + len(operation.data))
        if not lsn:
            return
        at = float(operation.position + 1)
        self._tops[operation.file] = max(lsn, self._tops.get(operation.file, 0))
        _rise(self._found.written, at, lsn)
        if self._contract.everything_survives or (operation.durable and is_kept(self._contract, operation.position)):
            _rise(self._found.durable, at, lsn)

    def _end(self, operation: Operation) -> None:
        begin, path, lsn = self._begun.pop(operation.token, (None, "", 0))
        if begin is None:
            return
        kept = is_kept(self._contract, begin.position) if lsn else _is_kept_for(self._contract, begin, path)
        kind: HappeningKind = "flush" if kept else "ignored flush"
        what = "fdatasync" if begin.datasync else "fsync" if path else "sync of everything"
        says = f"{what} {path}".rstrip() + f", operations {begin.position} to {operation.position}"
        says += "" if kept else "; this disk ignored it"
        at, until = float(begin.position), float(operation.position + 1)
        self._found.happenings.append(Happening(kind=kind, at=at, until=until, says=says))
        if lsn and kept:
            _rise(self._found.durable, until, lsn)

    def _lsn(self, path: str, end: int) -> int:
        """Return the WAL position that a write to a segment reached; 0: it is none of this timeline."""
        match = _SEGMENT.search(path)
        if match is None or self._cluster is None or int(match[1], 16) != self._cluster.timeline:
            return 0
        size = self._cluster.segment_bytes
        return (int(match[2], 16) * ((1 << 32) // size) + int(match[3], 16)) * size + end


def _rise(steps: list[tuple[float, int]], at: float, lsn: int) -> None:
    if not steps or lsn > steps[-1][1]:
        steps.append((at, lsn))


def _is_kept_for(contract: DiskContract, begin: Operation, path: str) -> bool:
    if begin.position == contract.flush_left_out or classify(path) in contract.flushes_ignored_for:
        return False
    return contract.flushes_ignored_from is None or begin.position < contract.flushes_ignored_from


# --- the map of the disk


def map_of(model: DiskModel, state: CrashState) -> DiskMap:
    """Return what was pending at the model's position, and what a state of it has of that."""
    choices = {choice.file: choice for choice in state.files}
    reached = set(model.paths(state.names).values())
    mapped = []
    for number in sorted(model.volatile):
        file, choice = model.files[number], choices.get(number)
        left = -1 if number not in reached else choice.size if choice else file.durable_size
        chosen = dict(choice.versions) if choice and left >= 0 else {}
        mapped.append(
            MappedFile(
                path=model.names.path_of(number),
                file_class=str(model.class_of(number)),
                seen_bytes=file.size,
                left_bytes=left,
                runs=list(_runs(file, chosen, left)),
            )
        )
    return DiskMap(
        position=model.position,
        note=state.note,
        unit_bytes=model.contract.tear_bytes,
        files=sorted(mapped, key=lambda file: (file.file_class, file.path)),
        names=[
            MappedName(
                position=item.position,
                says=f"{item.kind.name.lower()} {item.path}" + (f" -> {item.target}" if item.target else ""),
                kept=item.position in state.names,
            )
            for item in model.names.pending
        ],
        quiet=_quiet(model),
    )


def _runs(file: FileHistory, chosen: dict[int, int], left: int) -> Iterator[PageRun]:
    """Yield what became of a file's pages; its size may be anything, only pages with something pending are counted."""
    count = _whole_pages(max(file.size, file.durable_size, left))
    safe = _whole_pages(max(file.durable_size, left))  # beyond it the file has not come to be that large
    per_page = max(1, PAGE_BYTES // file.unit_bytes)
    kept: Counter[int] = Counter()
    pending: Counter[int] = Counter()
    for unit, history in file.versions.items():
        page = unit // per_page
        pending[page] += 1
        kept[page] += chosen.get(unit, DURABLE) == history[-1][0] and unit * file.unit_bytes < left
    runs: list[tuple[Status, int]] = []
    done = 0
    for page in sorted(page for page in pending if page < count):
        runs += [("durable", min(page, safe) - done), ("lost", page - max(done, safe))]
        status: Status = "lost" if not kept[page] else "kept" if kept[page] == pending[page] else "torn"
        runs.append((status, 1))
        done = page + 1
    runs += [("durable", min(count, safe) - done), ("lost", count - max(done, safe))]
    for same, group in groupby((run for run in runs if run[1] > 0), key=lambda run: run[0]):
        yield PageRun(same, sum(pages for _, pages in group))


def _whole_pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES)


def _quiet(model: DiskModel) -> list[QuietClass]:
    """Count the files of which nothing was pending, by class, as the server saw them."""
    names = tuple(operation.position for operation in model.names.pending)
    count: Counter[FileClass] = Counter()
    pages: Counter[FileClass] = Counter()
    for number in set(model.paths(names).values()):
        if number in model.files and number not in model.volatile:
            part = model.class_of(number)
            count[part] += 1
            pages[part] += -(-model.files[number].size // PAGE_BYTES)
    return [QuietClass(file_class=str(part), files=count[part], pages=pages[part]) for part in sorted(count)]
