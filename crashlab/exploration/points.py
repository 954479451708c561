"""At which positions of a recording may the power be cut?

Choices: points lie after the set-up and up to the end. An aim narrows them: to the time between a checkpoint's first
    flush and its control file, to the moments around flushes, or around switches of the WAL segment. Where recovery
    replays most (`redopoints`) the WAL says, which is not read here.
    If one flush is left out, the power is cut before another flush of that file makes up for it.

Source: design.md "Crash points".
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from crashlab.disk.fileclass import FileClass, classify
from crashlab.disk.operations import Kind
from crashlab.recording.decoder import Decoder

Aim = Literal["any", "checkpoint", "flush", "wal switch", "end"]
"""Of `disk.contract.CutAt` all but "redo"."""


class Survey(msgspec.Struct):
    """What one pass over a recording finds: how long it is, and where its telling moments are."""

    first: int = 0  # position of the first operation that counts
    end: int = 0  # number of operations
    flushes: list[int] = []  # positions right before and right after a flush took effect
    switches: list[int] = []  # ... the making and renaming of a WAL segment, and the first write to another one
    checkpoints: list[tuple[int, int]] = []  # from a checkpoint's first flush of data to its control file


def survey(operations: Decoder, first_bytes: int) -> Survey:
    """Pass over a recording once. Memory grows with the number of flushes only."""
    found = Survey()
    checkpoint: int | None = None
    segment = 0  # the WAL file that was written last
    for operation in operations:
        position = operation.position
        found.end = position + 1
        if operation.log_end <= first_bytes:
            found.first = position + 1
            continue
        if operation.kind is Kind.FSYNC_BEGIN:
            part = classify(operations.path(operation.file))
            if checkpoint is None and part in (FileClass.RELATION, FileClass.XACT):
                checkpoint = position
            if part is FileClass.CONTROL and checkpoint is not None:
                found.checkpoints.append((checkpoint, position + 1))
                checkpoint = None
        elif operation.kind is Kind.FSYNC_END:
            found.flushes += [position, position + 1]
        elif operation.kind in (Kind.RENAME, Kind.CREATE):
            if classify(operation.path) is FileClass.WAL:
                found.switches += [position, position + 1]
        elif operation.kind is Kind.WRITE and operation.file != segment and _is_wal(operations, operation.file):
            if segment:
                found.switches += [position, position + 1]
            segment = operation.file
    return found


def _is_wal(operations: Decoder, file: int) -> bool:
    return classify(operations.path(file)) is FileClass.WAL


class Flush(msgspec.Struct):
    """One flush of a recording, and the crash points at which all depends on it."""

    position: int  # of its begin, or of the write that is its own flush
    path: str
    first: int = 0  # it has ended at crash points from here
    last: int = 0  # ... up to here, and no other flush of the same file covers the same writes


def flushes_of(operations: Decoder, first_bytes: int, classes: Collection[FileClass]) -> list[Flush]:
    """List the flushes of some classes of files, by their end, from the first crash point on."""
    found: list[Flush] = []
    begun: dict[int, tuple[int, Flush]] = {}  # token -> file, flush
    waiting: dict[int, list[Flush]] = {}  # file -> those whose `last` is not known yet
    covered: dict[int, int] = {}  # file -> begin of the latest flush that has ended
    end = 0
    for operation in operations:
        position, file, end = operation.position, operation.file, operation.position + 1
        if operation.kind is Kind.FSYNC_BEGIN and classify(operations.path(file)) in classes:
            begun[operation.token] = file, Flush(position, operations.path(file))
            continue
        if operation.kind is Kind.FSYNC_END and operation.token in begun:
            file, flush = begun.pop(operation.token)
            before = waiting.pop(file, [])
            for other in before:
                other.last = position if other.position < flush.position else 0
            waiting[file] = [other for other in before if not other.last]
            if flush.position < covered.get(file, 0):
                continue
            covered[file] = flush.position
        elif operation.kind is Kind.WRITE and operation.durable and classify(operations.path(file)) in classes:
            flush = Flush(position, operations.path(file))
        else:
            continue
        if operation.log_end > first_bytes:
            flush.first = end
            waiting.setdefault(file, []).append(flush)
            found.append(flush)
    for flush in found:
        flush.last = flush.last or end
    return found


def candidates(found: Survey, aim: Aim, flush: Flush | None = None) -> Sequence[int]:
    """Return the crash points to choose from, ascending, each within first .. end.

    An aim that the recording has no moment for gives none.

    Args:
        flush: only points at which this one counts.
    """
    aimed = _aimed(found, aim)
    return aimed if flush is None else [point for point in aimed if flush.first <= point <= flush.last]


def _aimed(found: Survey, aim: Aim) -> Sequence[int]:
    if aim == "end":
        return [found.end]
    if aim == "any":
        return range(found.first, found.end + 1)
    if aim == "checkpoint":
        return sorted({point for low, high in found.checkpoints for point in range(low, high + 1)})
    moments = sorted(set(found.flushes if aim == "flush" else found.switches))
    return moments[bisect_left(moments, found.first) :]
