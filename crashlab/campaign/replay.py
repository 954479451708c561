"""How is a stored trial run again?

Live: the same profile, seed and kind of server; what the server makes of it depends on its own timing. Of a recording:
exactly the same crash state, whichever version of crashlab drew it.
"""

from pathlib import Path

from crashlab import evidence
from crashlab.disk.model import CrashState
from crashlab.errors import UsageProblem, Warn
from crashlab.exploration import recording
from crashlab.exploration.explorer import Explorer
from crashlab.profile import Profile, stored_profile
from crashlab.results import Keep, ProfileFacts, ProfileResult, TrialResult, make_trial_folder
from crashlab.server import ServerChoice
from crashlab.server.base import Version
from crashlab.server.choose import choice_again
from crashlab.trial.judged import recording_of
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan


def replay(
    folder: Path,
    *,
    out: Path,
    server: ServerChoice,
    keep: Keep = "failed",
    trust: bool = False,
    warn: Warn | None = None,
) -> ProfileResult:
    """Run a stored trial again, into a folder below `out`; an interrupt is passed on.

    Args:
        trust: run the very server that the evidence names, if no other one is asked for.
        warn: is told of a server of another release that takes the place of the one that the evidence names.

    Raises:
        EvidenceError: the folder holds no trial, or its recording is gone.
        UsageProblem: it is a trial of a pytest test.
        CrashlabError: the environment does not allow it.
    """
    record = evidence.load_trial(folder)
    if record.kind in ("application", "observed"):
        raise UsageProblem(
            f'cannot replay "{folder}": it is a trial of a test, and only the test has its transactions',
            hint=f"Run the test again: {record.reproduce}" if record.reproduce else None,
        )
    profile = stored_profile(record.profile_resolved).profile

    def again(wanted: ServerChoice, of: evidence.ServerFacts | evidence.RecoveredWith) -> ServerChoice:
        kind, version = record.server.kind, Version.parse(of.version)
        return choice_again(wanted, kind, of.source, version, trust=trust, warn=warn)

    other = record.recovered_with
    if record.recording is None:
        plan = TrialPlan(
            profile=profile,
            run_seed=record.run_seed,
            server=again(server, record.server),
            keep=keep,
            recover_with=None if other is None else again(ServerChoice(), other),
        )
        result = run_trial(plan, record.trial, make_trial_folder(out, record.trial))
    else:
        recovers = record.server if other is None or server != ServerChoice() else other
        result = _replay_state(folder, record, profile, out, again(server, recovers), keep)
    return ProfileResult(
        profile=ProfileFacts.stored(record.profile_resolved, name=record.profile),
        seed=record.run_seed,
        server=result.server,
        crash_class=profile.crash_class,
        trials=[result],
    )


def _replay_state(
    folder: Path,
    record: evidence.TrialRecord,
    profile: Profile,
    out: Path,
    server: ServerChoice,
    keep: Keep,
) -> TrialResult:
    recorded = recording.load(recording_of(folder, record))
    state = evidence.load(folder / evidence.STATE, CrashState, digest=record.digests.get(evidence.STATE))
    with Explorer(
        recorded, profile, server=server, run_seed=record.run_seed, contract=record.disk_contract, keep=keep
    ) as explorer:
        return explorer.try_state(state, record.trial, make_trial_folder(out, record.trial))
