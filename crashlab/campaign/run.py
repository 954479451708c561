"""How are the trials of a profile run one after the other, within a budget, and how is one run again?"""

import contextlib
import time
from pathlib import Path

from crashlab import evidence
from crashlab.campaign.recorded import plan_of, replay_state, run_recorded
from crashlab.model import PromiseStatus
from crashlab.profile import Profile
from crashlab.results import (
    Keep,
    OnPhase,
    OnTrial,
    ProfileResult,
    RunRequest,
    make_trial_folder,
)
from crashlab.server import SERVER_KINDS, ServerChoice, SpareDirectories
from crashlab.trial.live import run_trial


def run_profile(
    request: RunRequest,
    *,
    spares: SpareDirectories | None = None,
    on_trial: OnTrial | None = None,
    on_phase: OnPhase | None = None,
) -> ProfileResult:
    """Run a profile's trials until their number, the time or the patience is used up.

    A KeyboardInterrupt ends the run: what was finished is in the result, which is marked interrupted.

    Args:
        spares: shared with other profiles of the same run.

    Raises:
        CrashlabError: the environment does not allow it; trials finished before keep their evidence.
    """
    profile = request.profile
    result = ProfileResult(profile=profile, seed=request.seed, server=None, crash_class=profile.crash_class)
    try:
        with contextlib.nullcontext(spares) if spares is not None else SpareDirectories() as used:
            if profile.power_loss is not None:
                run_recorded(request, result, on_trial=on_trial, on_phase=on_phase)
            else:
                _run_trials(request, result, used, on_trial, on_phase)
    except KeyboardInterrupt:
        result.interrupted = True
        result.stopped_by = f"interrupt, {len(result.trials)} of {request.trials} trials"
    return result


def _run_trials(
    request: RunRequest,
    result: ProfileResult,
    spares: SpareDirectories,
    on_trial: OnTrial | None,
    on_phase: OnPhase | None,
) -> None:
    deadline = None if request.time_limit_s is None else time.monotonic() + request.time_limit_s
    for trial in range(request.first_trial, request.first_trial + request.trials):
        if deadline is not None and time.monotonic() > deadline:
            result.stopped_by = f"time limit, {len(result.trials)} of {request.trials} trials"
            return
        if on_phase:
            on_phase(f"trial {trial}")
        done = run_trial(plan_of(request), trial, make_trial_folder(request.out, trial), spares=spares)
        result.trials.append(done)
        result.server = done.server
        if on_trial:
            on_trial(done)
        if request.fail_fast and done.verdict.promise is PromiseStatus.BROKEN:
            result.stopped_by = "first broken promise"
            return


def replay(
    folder: Path, *, out: Path, server: ServerChoice, keep: Keep = "failed", on_trial: OnTrial | None = None
) -> ProfileResult:
    """Run a stored trial again: the same profile, seed and kind of server, into another folder.

    Raises:
        EvidenceError: the folder holds no trial.
        CrashlabError: the environment does not allow it.
    """
    record = evidence.load_trial(folder)
    if record.recording is not None:
        result = ProfileResult(
            profile=Profile.model_validate(record.profile_resolved),
            seed=record.run_seed,
            server=record.server,
            crash_class=record.crash_class,
        )
        replay_state(folder, result, out=out, on_trial=on_trial)
        return result
    if server.kind == "auto" and not server.image and not server.pg_bindir:
        server = SERVER_KINDS[record.server.kind].again(record.server.source)
    request = RunRequest(
        profile=Profile.model_validate(record.profile_resolved),
        seed=record.run_seed,
        trials=1,
        time_limit_s=None,
        server=server,
        out=out,
        keep=keep,
        first_trial=record.trial,
    )
    return run_profile(request, on_trial=on_trial)
