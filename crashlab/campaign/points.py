"""At which positions of a recording is the power cut?

Choices: points are drawn from the seed, after the set-up and up to the end. An aim narrows them: to the time between a
    checkpoint's first flush and its control file, to the moments around flushes, or around switches of the WAL segment.

Source: issue "Power loss", "A workload can aim".
"""

from bisect import bisect_left
from random import Random
from typing import Literal

import msgspec

from crashlab.recording.decoder import Decoder
from crashlab.recording.fileclass import FileClass, classify
from crashlab.recording.operations import Kind

Aim = Literal["any", "checkpoint", "flush", "wal switch", "end"]


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


def choose_points(found: Survey, aim: Aim, count: int, rng: Random) -> list[int]:
    """Return `count` crash points in ascending order, fewer if there are not as many; each within first .. end.

    An aim that the recording has no moment for gives none.
    """
    if aim == "end":
        return [found.end]
    if aim == "any":
        candidates: range | list[int] = range(found.first, found.end + 1)
    elif aim == "checkpoint":
        candidates = sorted({point for low, high in found.checkpoints for point in range(low, high + 1)})
    else:
        moments = sorted(set(found.flushes if aim == "flush" else found.switches))
        candidates = moments[bisect_left(moments, found.first) :]
    return sorted(rng.sample(candidates, min(count, len(candidates))))
