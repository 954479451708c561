"""Which recordings stay once their profile is done?

Choices: one that nobody will want to look into is removed; then a trial of it cannot be made again, only the whole run.
    A run that was cut short keeps its recordings, so that it can be resumed.
"""

import dataclasses
from pathlib import Path

import msgspec

from crashlab import evidence
from crashlab.campaign.runner import recording_folder
from crashlab.campaign.task import Job
from crashlab.exploration import recording
from crashlab.exploration.recording import BASE, LOG, RECORDING
from crashlab.model import Outcome
from crashlab.results import ProfileResult


def forget_recordings(job: Job, result: ProfileResult, command: str | None) -> None:
    """Remove the recordings that a job has made, where `keep` says so; its trials say then how to have them again."""
    intact = all(trial.verdict.outcome is Outcome.INTACT for trial in result.trials)
    if job.plan.keep == "all" or (job.plan.keep == "failed" and not intact):
        return
    made = _made(job.out)
    if not made:
        return
    for folder in made:
        recording.forget_data(folder)
    again = command or f"crashlab run {job.name} --seed {job.plan.run_seed} --trials {len(result.trials)}"
    for position, trial in enumerate(result.trials):
        stored = evidence.load_trial(trial.folder)
        evidence.save(trial.folder, evidence.TRIAL, msgspec.structs.replace(stored, reproduce=again))
        result.trials[position] = dataclasses.replace(trial, again=again)


def forgotten(job: Job) -> bool:
    """Say whether a recording that a job made has been removed: so its profile was done, whatever else is known."""
    return any(not (folder / part).exists() for folder in _made(job.out) for part in (LOG, BASE))


def _made(out: Path) -> list[Path]:
    made: list[Path] = []
    while (folder := recording_folder(out, len(made))).joinpath(RECORDING).exists():
        made.append(folder)
    return made
