"""How are the crash states of one recording run as the trials of a profile?

The server runs once; every trial after that is a recovery of one state that the recording allows.
"""

import dataclasses
import time
from pathlib import Path

import msgspec

from crashlab import evidence
from crashlab.campaign import recording as recordings
from crashlab.campaign.explore import Candidate, Explorer, candidates, rebuild
from crashlab.campaign.recording import Recording
from crashlab.campaign.results import OnPhase, OnTrial, ProfileResult, RunRequest
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import Profile
from crashlab.recording.diskmodel import CrashState

RECORDING_FOLDER = "recording"


def record(request: RunRequest) -> Recording:
    """Record a profile's workload once, below the request's folder.

    Raises:
        CrashlabError: the environment does not allow it.
    """
    return recordings.make(request, request.out / RECORDING_FOLDER)


def run_recorded(
    request: RunRequest, result: ProfileResult, *, on_trial: OnTrial | None, on_phase: OnPhase | None
) -> None:
    """Record a profile's workload once and try as many of its crash states as asked for; results go into `result`.

    Raises:
        CrashlabError: the environment does not allow it; trials finished before keep their evidence.
    """
    begun = time.monotonic()
    if on_phase:
        on_phase("recording")
    if request.recording is not None:
        recording = recordings.load(request.recording)
    else:
        recording = record(request)
    left_s = None if request.time_limit_s is None else request.time_limit_s - (time.monotonic() - begun)
    try:
        explore(recording, request, result, time_limit_s=left_s, on_trial=on_trial, on_phase=on_phase)
    except KeyboardInterrupt:
        _keep_or_forget(recording, request, result)
        raise
    _keep_or_forget(recording, request, result)


def _keep_or_forget(recording: Recording, request: RunRequest, result: ProfileResult) -> None:
    """Remove a recording that nobody will want to look into; then a trial cannot be rebuilt, only the run repeated."""
    intact = all(trial.verdict.outcome is Outcome.INTACT for trial in result.trials)
    if request.recording is not None or request.keep == "all" or (request.keep == "failed" and not intact):
        return
    recordings.forget_data(recording)
    again = request.again or f"crashlab run {request.profile.name} --seed {request.seed} --trials {request.trials}"
    for position, trial in enumerate(result.trials):
        stored = evidence.load_trial(trial.folder)
        evidence.save(trial.folder, evidence.TRIAL, msgspec.structs.replace(stored, reproduce=again))
        result.trials[position] = dataclasses.replace(trial, reproduce=again)


def explore(
    recording: Recording,
    request: RunRequest,
    result: ProfileResult,
    *,
    time_limit_s: float | None,
    on_trial: OnTrial | None,
    on_phase: OnPhase | None,
) -> None:
    """Try crash states of a recording under the request's profile, seed and number of trials.

    Raises:
        RecordingError: the recording is damaged.
        CrashlabError: no server to recover with.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    result.server = recording.record.server
    with Explorer(recording, request.profile, request.out, seed=request.seed) as explorer:
        for model, candidate in candidates(
            recording, request.profile, explorer.log, seed=request.seed, trials=request.trials
        ):
            if deadline is not None and time.monotonic() > deadline:
                result.stopped_by = f"time limit, {len(result.trials)} of {request.trials} crash states"
                return
            if on_phase:
                on_phase(f"state {candidate.trial}")
            done = explorer.try_state(model, candidate)
            result.trials.append(done)
            if on_trial:
                on_trial(done)
            if request.fail_fast and done.verdict.promise is PromiseStatus.BROKEN:
                result.stopped_by = "first broken promise"
                return
    if len(result.trials) < request.trials:
        result.stopped_by = f"the recording has no more than {len(result.trials)} different crash states here"


def replay_state(folder: Path, result: ProfileResult, *, out: Path, on_trial: OnTrial | None) -> None:
    """Rebuild exactly the crash state of a stored trial, recover and judge it again.

    Raises:
        EvidenceError: the trial, its state or its recording is missing or damaged.
    """
    stored = evidence.load_trial(folder)
    assert stored.recording is not None
    recording = recordings.load((folder / stored.recording).resolve())
    profile = Profile.model_validate(stored.profile_resolved)
    state = evidence.load(folder / evidence.STATE, CrashState)
    result.server = recording.record.server
    with Explorer(recording, profile, out, seed=stored.run_seed) as explorer:
        model, io_bytes = rebuild(recording, profile, explorer.log, state, seed=stored.run_seed)
        done = explorer.try_state(model, Candidate(stored.trial, state, io_bytes))
    result.trials.append(done)
    if on_trial:
        on_trial(done)
