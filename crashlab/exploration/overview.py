"""What does a recording hold, and what was in flight at one point of it?"""

from collections import Counter

import msgspec

from crashlab.disk.fileclass import FileClass, classify
from crashlab.disk.model import DiskModel, Pending
from crashlab.disk.operations import Kind, Operation
from crashlab.errors import UsageProblem
from crashlab.exploration import points
from crashlab.exploration.explorer import plan
from crashlab.exploration.recording import Recording
from crashlab.profile import stored_profile
from crashlab.recording.decoder import Decoder

_FLUSHES = (Kind.FSYNC_BEGIN, Kind.SYNCFS_BEGIN)
_WRITES = (Kind.WRITE, Kind.COPY, Kind.CONTENT)
_ENDS = (Kind.FSYNC_END, Kind.SYNCFS_END)


class ClassTotal(msgspec.Struct):
    """The operations on one class of files."""

    writes: int = 0
    written_bytes: int = 0
    flushes: int = 0
    others: int = 0  # files made, renamed, removed, truncated, allocated


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """A whole recording in numbers."""

    survey: points.Survey
    kinds: Counter[Kind]
    classes: dict[FileClass, ClassTotal]


def overview(recording: Recording) -> Overview:
    """Pass over a recording twice. Raises RecordingError: it is damaged."""
    kinds: Counter[Kind] = Counter()
    classes: dict[FileClass, ClassTotal] = {}
    operations = Decoder(recording.log, recording.base.files)
    for operation in operations:
        kinds[operation.kind] += 1
        if operation.kind in _ENDS:
            continue
        total = classes.setdefault(_class_of(operation, operations), ClassTotal())
        if operation.kind in _WRITES:
            total.writes += 1
            total.written_bytes += len(operation.data)
        elif operation.kind in _FLUSHES:
            total.flushes += 1
        else:
            total.others += 1
    found = points.survey(Decoder(recording.log, recording.base.files), recording.record.first_bytes)
    return Overview(survey=found, kinds=kinds, classes=classes)


def in_flight(recording: Recording, position: int) -> Pending:
    """Return what a power cut at a point would have met, on the disk of the recording's profile.

    Raises:
        UsageProblem: the recording has no such point.
        RecordingError: it is damaged.
    """
    profile = stored_profile(recording.record.profile_resolved).profile
    assert profile.power_loss is not None
    planned = plan(recording, profile.power_loss, recording.record.run_seed)
    if position > planned.survey.end:
        raise UsageProblem(
            f"the recording has no point {position}",
            hint=f"Points are numbers of operations, 0 to {planned.survey.end}.",
        )
    model = DiskModel(recording.base.files, planned.contract)
    for operation in Decoder(recording.log, recording.base.files):
        if model.position == position:
            break
        model.apply(operation)
    return model.pending()


def _class_of(operation: Operation, operations: Decoder) -> FileClass:
    if operation.kind in (Kind.MKDIR, Kind.RMDIR):
        return FileClass.DIRECTORY
    path = operation.path or operations.path(operation.file)
    return FileClass.DIRECTORY if operations.is_directory(operation.file) else classify(path)
