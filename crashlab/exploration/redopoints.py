"""At which few crash points does recovery replay most of what a recording holds?

Recovery begins at the checkpoint that the control file names. Right before that file names the next one, all that was
logged since is replayed: such a point, or the recording's end, lies behind every record. Which record types each of
them replays is read from the log, and those are taken first that add most to the ones before.

Choices: a window begins with the first flush of a checkpoint, which is later than its redo point; so a little more is
    replayed than is counted on.

Sources: postgres-contract.md section 4 (where redo begins); design.md "Crash points".
"""

from bisect import bisect_right
from collections.abc import Container, Sequence

from crashlab.exploration.points import Survey
from crashlab.exploration.recording import Recording
from crashlab.exploration.walcut import read_along
from crashlab.recordtypes import type_name
from crashlab.recovery.wal import WalReader


def points_of_redo(
    recording: Recording, survey: Survey, allowed: Container[int], *, most: int | None = None
) -> list[int]:
    """Return crash points, ascending, behind which recovery replays as many record types as it can be made to.

    Args:
        allowed: only these points.
        most: so many points; None: until none adds a type.

    Raises:
        RecordingError: the recording is damaged.
    """
    ends = [*(high - 1 for _, high in survey.checkpoints), survey.end]  # the flush of the control file begins there
    begins = [0, *(low for low, _ in survey.checkpoints)]
    windows = [(begin, end) for begin, end in zip(begins, ends, strict=True) if end in allowed]
    return sorted(_greedy(_types_within(recording, windows), most))


def _greedy(replayed: dict[int, set[str]], most: int | None) -> list[int]:
    """Return the points that together have most, each of which adds most to those before."""
    chosen: list[int] = []
    known: set[str] = set()
    while replayed and (most is None or len(chosen) < most):
        best = max(replayed, key=lambda point: len(replayed[point] - known))
        if not replayed[best] - known:
            break
        known |= replayed[best]
        chosen.append(best)
    return chosen


def _types_within(recording: Recording, windows: Sequence[tuple[int, int]]) -> dict[int, set[str]]:
    """Return which record types were written in each window of operations, by its end; begins and ends ascend."""
    major = recording.record.server.version_num // 10_000
    begins, ends = [begin for begin, _ in windows], [end for _, end in windows]
    found: dict[int, set[str]] = {end: set() for end in ends}
    for step in read_along(recording, WalReader(), each_write=True):
        if step.operation is None or not step.found.kinds:
            continue
        names = {type_name(major, kind.manager, kind.bits) for kind in step.found.kinds}
        position = step.operation.position
        for end in ends[bisect_right(ends, position) : bisect_right(begins, position)]:
            found[end] |= names
    return found
