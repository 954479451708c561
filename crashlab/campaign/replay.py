"""How is a stored trial run again?

Live: the same profile, seed and kind of server; what the server makes of it depends on its own timing. Of a recording:
exactly the same crash state, whichever version of crashlab drew it.
"""

from pathlib import Path

from crashlab import evidence
from crashlab.disk.model import CrashState
from crashlab.errors import UsageProblem
from crashlab.exploration import recording
from crashlab.exploration.explorer import Explorer
from crashlab.profile import Profile, stored_profile
from crashlab.results import Keep, ProfileFacts, ProfileResult, TrialResult, make_trial_folder
from crashlab.server import SERVER_KINDS, ServerChoice
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan


def replay(folder: Path, *, out: Path, server: ServerChoice, keep: Keep = "failed") -> ProfileResult:
    """Run a stored trial again, into a folder below `out`; an interrupt is passed on.

    Raises:
        EvidenceError: the folder holds no trial, or its recording is gone.
        UsageProblem: it is a trial of a pytest test.
        CrashlabError: the environment does not allow it.
    """
    record = evidence.load_trial(folder)
    if record.kind == "application":
        raise UsageProblem(
            f'cannot replay "{folder}": it is a trial of a test, and only the test has its transactions',
            hint=f"Run the test again: {record.reproduce}" if record.reproduce else None,
        )
    profile = stored_profile(record.profile_resolved).profile
    if record.recording is None:
        if server.kind == "auto" and not server.image and not server.pg_bindir:
            server = SERVER_KINDS[record.server.kind].again(record.server.source)
        plan = TrialPlan(profile=profile, run_seed=record.run_seed, server=server, keep=keep)
        result = run_trial(plan, record.trial, make_trial_folder(out, record.trial))
    else:
        result = _replay_state(folder, record, profile, out)
    return ProfileResult(
        profile=ProfileFacts.stored(record.profile_resolved, name=record.profile),
        seed=record.run_seed,
        server=result.server,
        crash_class=profile.crash_class,
        trials=[result],
    )


def _replay_state(folder: Path, record: evidence.TrialRecord, profile: Profile, out: Path) -> TrialResult:
    assert record.recording is not None
    recorded = recording.load((folder / record.recording).resolve())
    state = evidence.load(folder / evidence.STATE, CrashState)
    with Explorer(recorded, profile, run_seed=record.run_seed, contract=record.disk_contract) as explorer:
        return explorer.try_state(state, record.trial, make_trial_folder(out, record.trial))
