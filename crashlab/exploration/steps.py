"""What was not durable after each operation of a recording?

One pass, with the disk of the recording's own profile. Of a long recording the last operations are told, and what was
in flight before them.
"""

from bisect import bisect_right
from collections.abc import Iterator

from crashlab import files
from crashlab.chronicle import Step, Steps
from crashlab.disk.model import DiskModel
from crashlab.disk.operations import Kind, Operation
from crashlab.errors import RecordingError
from crashlab.exploration.conditions import conditions_of
from crashlab.exploration.recording import Recording
from crashlab.ledger import Ack
from crashlab.ledgerfile import read_blocks
from crashlab.profile import stored_profile
from crashlab.recording.decoder import Decoder

STEPS_MAX = 20_000
_WRITES = (Kind.WRITE, Kind.COPY, Kind.CONTENT, Kind.TRUNCATE, Kind.ALLOCATE)
_BEGINS = (Kind.FSYNC_BEGIN, Kind.SYNCFS_BEGIN)
_ENDS = (Kind.FSYNC_END, Kind.SYNCFS_END)


def steps_of(recording: Recording, most: int = STEPS_MAX) -> Steps:
    """Return a recording step by step. Raises RecordingError, LedgerError: it is damaged."""
    record = recording.record
    power_loss = stored_profile(record.profile_resolved).profile.power_loss
    if power_loss is None:
        raise RecordingError(f'cannot step through "{recording.folder}": its profile has no power_loss')
    conditions = conditions_of(recording, power_loss, record.run_seed)
    first = max(0, conditions.survey.end - most)
    passed = _Pass(recording, DiskModel(recording.base.files, conditions.contract), first)
    steps = list(passed.run())
    server = record.server
    return Steps(
        first=first,
        end=conditions.survey.end,
        begin=passed.begin,
        files=passed.files,
        steps=steps,
        checkpoints=[(low, high) for low, high in conditions.survey.checkpoints if low >= first],
        unit_bytes=conditions.contract.tear_bytes,
        about=[
            ("profile", f"{record.profile}, seed {record.run_seed}"),
            ("server", f"PostgreSQL {server.version}, {server.kind}, {server.source}"),
            ("recording", f"{conditions.survey.end} operations, {record.end_bytes / 1e6:.1f} MB of log"),
            ("disk", f"{conditions.contract.name}, in units of {conditions.contract.tear_bytes} bytes"),
            ("self-check", "; ".join(record.differences) or "replaying the log gives the live files"),
        ],
    )


class _Pass:
    """Carries the disk model along the log and notes what each operation changed."""

    def __init__(self, recording: Recording, model: DiskModel, first: int) -> None:
        self.files: list[tuple[str, str]] = []
        self.begin: list[tuple[int, int]] = []
        self._recording = recording
        self._model = model
        self._first = first
        self._index: dict[tuple[int, str], int] = {}  # file and path -> place in `files`
        self._known: dict[int, tuple[int, int]] = {}  # file -> place, units in flight
        self._acks = sorted(_acks(recording)) if recording.record.ledger_io is None else []

    def run(self) -> Iterator[Step]:
        operations = Decoder(self._recording.log, self._recording.base.files)
        paths: dict[int, str] = {}  # token -> what a flush is about
        log_end = 0
        for operation in operations:
            path = operation.path or (operations.path(operation.file) if operation.file else "")
            if operation.kind in _BEGINS:
                paths[operation.token] = path or "everything"
            elif operation.kind in _ENDS:
                path = paths.pop(operation.token, "")
            if operation.position == self._first:
                self.begin = self._changes()
            self._model.apply(operation)
            log_end = max(log_end, operation.log_end)
            if operation.position < self._first:
                continue
            alone = operation.kind in _WRITES and not operation.durable
            changes = self._changes(operation.file if alone else None)
            acked = bisect_right(self._acks, log_end)
            kind, says = _told(operation, path)
            yield Step(says, kind, changes, len(self._model.names.pending), acked)

    def _changes(self, only: int | None = None) -> list[tuple[int, int]]:
        """Return what is in flight now and was not before, of one file or of all; one that was renamed is another."""
        concerned = {*self._known, *self._model.volatile} if only is None else {only}
        found = []
        for number in sorted(concerned):
            now = self._in_flight(number)
            before = self._known.pop(number, None)
            if now is not None:
                self._known[number] = now
            if now == before:
                continue
            if before is not None and (now is None or now[0] != before[0]):
                found.append((before[0], -1))
            if now is not None:
                found.append(now)
        return found

    def _in_flight(self, number: int) -> tuple[int, int] | None:
        """Return the place of a file's name in `files`, and its units in flight; None: all of it is durable."""
        if number not in self._model.volatile:
            return None
        name = (number, self._model.names.path_of(number))
        if name not in self._index:
            self._index[name] = len(self.files)
            self.files.append((name[1] or "(no name left)", str(self._model.class_of(number))))
        return self._index[name], len(self._model.files[number].versions)


def _acks(recording: Recording) -> Iterator[int]:
    with files.opened(recording.ledger) as file:
        for block in read_blocks(recording.ledger, file):
            for event in () if isinstance(block, str) else block:
                if type(event) is Ack and event.client:
                    yield event.io


def _told(operation: Operation, path: str) -> tuple[str, str]:
    """Return the kind of an operation, and what it was in words."""
    who = f", process {operation.pid}" if operation.pid else ""
    if operation.kind in (Kind.WRITE, Kind.COPY, Kind.CONTENT):
        size, durable = len(operation.data), ", durable at once" if operation.durable else ""
        return "write", f"write of {size} bytes at {operation.offset} to {path}{durable}{who}"
    if operation.kind in _BEGINS:
        return "flush", f"{'fdatasync' if operation.datasync else 'fsync'} of {path or 'everything'} begins{who}"
    if operation.kind in _ENDS:
        return "flush ended", f"flush of {path or 'a file'} ended{who}"
    if operation.kind in (Kind.TRUNCATE, Kind.ALLOCATE):
        return "write", f"{operation.kind.name.lower()} of {path} to {operation.offset + operation.length} bytes{who}"
    target = f" -> {operation.target}" if operation.target else ""
    return "name", f"{operation.kind.name.lower()} {path}{target}{who}"
