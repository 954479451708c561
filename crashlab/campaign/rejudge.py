"""What does the oracle of today say about the evidence of then? No server is needed.

Judging a whole run again gives its JSON report again, byte for byte, as long as the oracle is the same.
"""

from pathlib import Path

import crashlab
from crashlab import evidence
from crashlab.campaign.runrecord import load_run, trials_then
from crashlab.errors import EvidenceError
from crashlab.model import Verdict
from crashlab.results import ProfileFacts, ProfileResult, RunResult, trial_order
from crashlab.trial.judged import folders_below, result_of, trial_folders


def add_missed(result: ProfileResult, folder: Path) -> None:
    """Add the trials of a profile whose evidence was complete when the run was cut short before it counted them."""
    known = {trial.folder for trial in result.trials}
    missed = [one for one in folders_below(folder) if one not in known]
    result.trials = sorted([*result.trials, *map(result_of, missed)], key=lambda trial: trial.trial)
    if missed:
        result.server = result.trials[-1].server


def judge_run(path: Path) -> RunResult:
    """Judge all evidence at or below a path again; a whole run is told as it was.

    Raises:
        EvidenceError: there is none, or some of it is damaged.
    """
    folders = trial_folders(path)
    run = load_run(path) or RunResult(profiles=[])
    stored = {result.profile.name: result for result in run.profiles}
    others: dict[tuple[str, int], ProfileResult] = {}
    for folder in folders:
        record = evidence.load_trial(folder)
        result = stored.get(record.profile) or others.get((record.profile, record.run_seed))
        if result is None:
            result = others[record.profile, record.run_seed] = ProfileResult(
                profile=ProfileFacts.stored(record.profile_resolved, name=record.profile),
                seed=record.run_seed,
                server=record.server,
                crash_class=record.crash_class,
            )
        result.trials.append(result_of(folder))
    run.profiles += others.values()
    for result in run.profiles:
        result.trials.sort(key=lambda trial: trial.trial)
    return run


def done_so_far(folder: Path, *, any_release: bool = False) -> dict[str, ProfileResult]:
    """Return what a run has done by now, by profile, to go on from there.

    Choices: verdicts that this release made are taken as they are; of 2,000 trials to judge each again takes a while.

    Args:
        any_release: take every verdict that can be read; then nothing is written where each trial has one.

    Raises:
        EvidenceError: some of the evidence is damaged.
    """
    run = load_run(folder)
    found = {result.profile.name: result for result in run.profiles} if run is not None else {}
    for trial in sorted(folders_below(folder), key=trial_order):
        record = evidence.load_trial(trial)
        if record.profile not in found:
            found[record.profile] = ProfileResult(
                profile=ProfileFacts.stored(record.profile_resolved, name=record.profile),
                seed=record.run_seed,
                server=record.server,
                crash_class=record.crash_class,
            )
        known = any_release or record.crashlab == crashlab.__version__
        found[record.profile].trials.append(result_of(trial, verdict=_stored_verdict(trial) if known else None))
    for name, then in trials_then(folder).items():
        if name in found and len(found[name].trials) < then:  # evidence has been removed since
            found[name].complete = False
    return found


def _stored_verdict(trial: Path) -> Verdict | None:
    try:
        return evidence.load_verdict(trial)
    except EvidenceError:  # missing, or not as one is today: it can be made again
        return None


def stored_results(folder: Path) -> dict[str, ProfileResult]:
    """Return what a stored run said of its trials, by profile; only one without a verdict is judged.

    Raises:
        EvidenceError: there is no evidence of a trial, or some of it is damaged.
    """
    trial_folders(folder)  # complains if there is none
    return done_so_far(folder, any_release=True)


def judge_folder(path: Path) -> list[ProfileResult]:
    """Return the profiles of `judge_run`. Raises as that."""
    return judge_run(path).profiles
