"""What does a recording hold, and what was in flight at one point of it?"""

import contextlib
from collections import Counter

import msgspec

from crashlab.disk.fileclass import FileClass, classify
from crashlab.disk.model import Pending
from crashlab.disk.operations import Kind, Operation
from crashlab.errors import UsageProblem
from crashlab.exploration import points
from crashlab.exploration.conditions import conditions_of
from crashlab.exploration.recording import Recording
from crashlab.exploration.walk import Walk
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
    conditions = conditions_of(recording, profile.power_loss, recording.record.run_seed)
    end = conditions.survey.end
    if position > end:
        raise UsageProblem(
            f"the recording has no point {position}", hint=f"Points are numbers of operations, 0 to {end}."
        )
    with contextlib.closing(Walk(recording, conditions.contract, operations=end)) as walk:
        return walk.to(position).pending()


def _class_of(operation: Operation, operations: Decoder) -> FileClass:
    if operation.kind in (Kind.MKDIR, Kind.RMDIR):
        return FileClass.DIRECTORY
    path = operation.path or operations.path(operation.file)
    return FileClass.DIRECTORY if operations.is_directory(operation.file) else classify(path)
