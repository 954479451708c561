"""What happened in some trials of a run, for a report that draws them?

Choices: whatever keeps a trial from being told is said in the report, beside the trials that can be: a report of what
    was found is worth more than none.
"""

from collections.abc import Iterable

from crashlab.errors import CrashlabError
from crashlab.exploration.chronicle import Recordings
from crashlab.results import Told, TrialResult
from crashlab.trial.chronicle import chronicle_of


def chronicles_of(trials: Iterable[tuple[str, TrialResult]]) -> list[Told]:
    """Read each of these trials of these profiles."""
    with Recordings() as recordings:
        return [_told(profile, trial, recordings) for profile, trial in trials]


def _told(profile: str, trial: TrialResult, recordings: Recordings) -> Told:
    try:
        chronicle = chronicle_of(trial.folder)
    except CrashlabError as error:
        return Told(profile=profile, trial=trial.trial, chronicle=None, problem=str(error))
    problem = ""
    if trial.state is not None:
        try:
            chronicle = recordings.add_to(chronicle, trial.folder)
        except CrashlabError as error:
            problem = f"The recording could not be read: {error}"
    return Told(profile=profile, trial=trial.trial, chronicle=chronicle, problem=problem)
