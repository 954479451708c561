"""How are the crash states of one recording run as the trials of a profile?

The server runs once; every trial after that is a recovery of one state that the recording allows.
"""

import dataclasses
import time
from pathlib import Path

import msgspec

from crashlab import evidence
from crashlab.disk.model import CrashState
from crashlab.exploration import recording as recordings
from crashlab.exploration.explorer import Candidate, Explorer, candidates, rebuild
from crashlab.exploration.nested import few_states_a_point, inner_request, record_recovery, recoveries_of
from crashlab.exploration.recording import Recording
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import stored_profile
from crashlab.results import OnPhase, OnTrial, ProfileResult, RunRequest
from crashlab.trial.setup import TrialPlan

RECORDING_FOLDER = "recording"


def plan_of(request: RunRequest) -> TrialPlan:
    """Return what a request says about each of its trials."""
    return TrialPlan(profile=request.profile, run_seed=request.seed, server=request.server, keep=request.keep)


def record(request: RunRequest) -> Recording:
    """Record a profile's workload once, below the request's folder.

    Raises:
        CrashlabError: the environment does not allow it.
    """
    return recordings.make(plan_of(request), request.out / RECORDING_FOLDER)


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
    recording = record(request) if request.recording is None else recordings.load(request.recording)
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
        result.trials[position] = dataclasses.replace(trial, again=again)


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
    _explore(recording, request, result, deadline, on_trial, on_phase)
    if len(result.trials) < request.trials and result.stopped_by is None:
        result.stopped_by = f"a recording with only {len(result.trials)} such crash states"


def _explore(
    recording: Recording,
    request: RunRequest,
    result: ProfileResult,
    deadline: float | None,
    on_trial: OnTrial | None,
    on_phase: OnPhase | None,
) -> None:
    """Try crash states of a recording, or, with a recovery depth, of recorded recoveries from its crash states."""
    assert request.profile.power_loss is not None
    depth = request.profile.power_loss.recovery_depth
    count = recoveries_of(request) if depth else request.trials
    profile = few_states_a_point(request.profile) if depth else request.profile
    seed = request.seed if recording.record.ledger_io is None else recording.record.seed
    before = len(result.trials)
    with Explorer(recording, request.profile, request.out, seed=request.seed) as explorer:
        for model, candidate in candidates(recording, profile, explorer.log, seed=seed, trials=count):
            if deadline is not None and time.monotonic() > deadline:
                result.stopped_by = f"time limit, {len(result.trials)} crash states"
            if result.stopped_by is not None:
                return
            done = len(result.trials) - before
            if depth:
                if on_phase:
                    on_phase(f"recovery {candidate.trial}")
                nested = record_recovery(explorer, model, candidate)
                inner = inner_request(request, done, recoveries=count - candidate.trial)
                _explore(nested, inner, result, deadline, on_trial, on_phase)
            else:
                if on_phase:
                    on_phase(f"state {request.first_trial + done}")
                result.trials.append(explorer.try_state(model, _numbered(candidate, request.first_trial + done)))
                if on_trial:
                    on_trial(result.trials[-1])
                if request.fail_fast and result.trials[-1].verdict.promise is PromiseStatus.BROKEN:
                    result.stopped_by = "first broken promise"


def _numbered(candidate: Candidate, trial: int) -> Candidate:
    return dataclasses.replace(candidate, trial=trial)


def replay_state(folder: Path, result: ProfileResult, *, out: Path, on_trial: OnTrial | None) -> None:
    """Rebuild exactly the crash state of a stored trial, recover and judge it again.

    Raises:
        EvidenceError: the trial, its state or its recording is missing or damaged.
    """
    stored = evidence.load_trial(folder)
    assert stored.recording is not None
    recording = recordings.load((folder / stored.recording).resolve())
    profile = stored_profile(stored.profile_resolved).profile
    state = evidence.load(folder / evidence.STATE, CrashState)
    result.server = recording.record.server
    with Explorer(recording, profile, out, seed=stored.run_seed) as explorer:
        model, io_bytes = rebuild(recording, profile, explorer.log, state, seed=stored.run_seed)
        done = explorer.try_state(model, Candidate(stored.trial, state, io_bytes))
    result.trials.append(done)
    if on_trial:
        on_trial(done)
