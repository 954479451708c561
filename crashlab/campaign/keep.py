"""Which recordings stay once their profile is done?

Choices: one that nobody will want to look into is removed; then a trial of it cannot be made again, only the whole run.
    A run that was cut short keeps its recordings, so that it can be resumed.
    One that several profiles examine shows permitted losses as a matter of course: it is worth keeping if a promise was
    broken, or something could not be judged.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec

from crashlab import evidence
from crashlab.campaign.runner import recording_folder
from crashlab.campaign.task import Job
from crashlab.exploration import recording
from crashlab.exploration.recording import BASE, LOG, RECORDING
from crashlab.model import Outcome, PromiseStatus
from crashlab.results import ProfileResult, TrialResult


def forget_recordings(job: Job, results: Sequence[ProfileResult], command: str | None) -> None:
    """Remove the recordings that a job has made, where `keep` says so; their trials say then how to have them again.

    Args:
        results: of the job itself, and of others that examined its recordings.
    """
    worth = _shows_harm if len(results) > 1 else _not_intact
    worthy = any(worth(trial) for result in results for trial in result.trials)
    if job.plan.keep == "all" or (job.plan.keep == "failed" and worthy):
        return
    made = _made(job.out)
    if not made:
        return
    for folder in made:
        recording.forget_data(folder)
    for result in results:
        again = command or f"crashlab run {job.name} --seed {job.plan.run_seed} --trials {len(result.trials)}"
        for position, trial in enumerate(result.trials):
            stored = evidence.load_trial(trial.folder)
            evidence.save(trial.folder, evidence.TRIAL, msgspec.structs.replace(stored, reproduce=again))
            result.trials[position] = dataclasses.replace(trial, again=again)


def _not_intact(trial: TrialResult) -> bool:
    return trial.verdict.outcome is not Outcome.INTACT


def _shows_harm(trial: TrialResult) -> bool:
    return trial.verdict.promise in (PromiseStatus.BROKEN, None)


def forgotten(job: Job) -> bool:
    """Say whether a recording that a job made has been removed: so its profile was done, whatever else is known."""
    return any(not (folder / part).exists() for folder in _made(job.out) for part in (LOG, BASE))


def _made(out: Path) -> list[Path]:
    made: list[Path] = []
    while (folder := recording_folder(out, len(made))).joinpath(RECORDING).exists():
        made.append(folder)
    return made
