"""On which disk, and at which points, does a profile cut the power of a recording?

Seeded where there is a choice: which one flush is left out, and from when on a lying disk lies.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from crashlab.disk.contract import DiskContract, disk_contract
from crashlab.disk.fileclass import FileClass
from crashlab.errors import NoSuchPoint, RecordingError
from crashlab.exploration import points
from crashlab.exploration.nearby import points_near
from crashlab.exploration.recording import Recording
from crashlab.exploration.redopoints import points_of_redo
from crashlab.profile import PowerLoss
from crashlab.recording.decoder import Decoder
from crashlab.seeds import stream


@dataclass(frozen=True)
class Conditions:
    """What is known of a recording before its states are drawn."""

    survey: points.Survey
    contract: DiskContract
    left_out: points.Flush | None  # the one flush that is swallowed, if the profile asks for that
    aim: frozenset[FileClass] | None  # only these files vary; None: all do
    states_per_point: int
    find_points: Callable[[], Sequence[int]] = field(repr=False, compare=False)

    @functools.cached_property
    def points(self) -> Sequence[int]:
        """At which the power may be cut, ascending; looked for once asked, as it may take a reading of the whole WAL.

        Raises:
            NoSuchPoint: the profile names crash points that the recording does not have, or nothing of what it names
                happened.
        """
        return self.find_points()


def conditions_of(recording: Recording, power_loss: PowerLoss, seed: int) -> Conditions:
    """Pass over a recording and return under which conditions its states are drawn.

    Raises:
        RecordingError: the recording is damaged, or has no flush that could be swallowed.
    """
    first_bytes = recording.record.first_bytes
    survey = points.survey(Decoder(recording.log, recording.base.files), first_bytes)
    left_out, lies_from = None, None
    if power_loss.swallow_one:
        classes = {FileClass(name) for name in power_loss.swallow_one}
        flushes = points.flushes_of(Decoder(recording.log, recording.base.files), first_bytes, classes)
        if not flushes:
            names = ", ".join(power_loss.swallow_one)
            raise RecordingError(f'cannot swallow a flush of {names}: the recording "{recording.folder}" has none')
        left_out = stream(seed, "swallowed flush").choice(flushes)
    if power_loss.disk == "lying":
        # Early, so that most cuts come after it
        lies_from = stream(seed, "lying disk").randint(survey.first, (3 * survey.first + survey.end) // 4)
    contract = disk_contract(
        power_loss.disk,
        tear_bytes=power_loss.tear_bytes,
        ordered_journal=power_loss.ordered_journal,
        durable_symlinks=power_loss.durable_symlinks,
        flushes_ignored_from=lies_from,
        flushes_ignored_for=frozenset(FileClass(name) for name in power_loss.swallow),
        flush_left_out=left_out.position if left_out else None,
    )
    return Conditions(
        survey=survey,
        contract=contract,
        left_out=left_out,
        aim=frozenset(FileClass(name) for name in power_loss.aim) or None,
        states_per_point=1 if contract.everything_survives else power_loss.states_per_point,
        find_points=functools.partial(_points, recording, power_loss, survey, left_out),
    )


def _points(
    recording: Recording, power_loss: PowerLoss, survey: points.Survey, left_out: points.Flush | None
) -> Sequence[int]:
    """Return the points of an aim, or those of them near to what the profile names.

    Raises:
        NoSuchPoint: it names crash points that the recording does not have, or nothing of what it names happened.
    """
    if power_loss.at:
        beyond = [point for point in power_loss.at if not 0 <= point <= survey.end]
        if beyond:
            raise NoSuchPoint(
                f'the recording "{recording.folder}" has no crash point {beyond[0]}',
                hint=f"Points are numbers of operations, 0 to {survey.end}.",
            )
        return sorted(set(power_loss.at))
    candidates: Sequence[int]
    if power_loss.points == "redo":  # which reads the WAL
        candidates = _of_redo(recording, power_loss, survey, left_out)
    else:
        candidates = points.candidates(survey, power_loss.points, left_out)
    if not power_loss.near:
        return candidates
    near = sorted(set(points_near(recording, power_loss.near)).intersection(candidates))
    if candidates and not near:
        raise NoSuchPoint(
            f'the recording "{recording.folder}" has no crash point near to {", ".join(power_loss.near)}',
            detail="Nothing of that happened in it, at least not where the power may be cut.",
        )
    return near


def _of_redo(
    recording: Recording, power_loss: PowerLoss, survey: points.Survey, left_out: points.Flush | None
) -> list[int]:
    """Return the points behind which most is replayed, as many as one recording's states are taken of."""
    limit = power_loss.states_per_recording
    most = None if limit is None else -(-limit // power_loss.states_per_point)
    return points_of_redo(recording, survey, points.candidates(survey, "any", left_out), most=most)
