"""Which trials of a run are drawn? Those that a finding was first seen in, and one at least; pure."""

from crashlab.model import Family, Outcome
from crashlab.report.summary import distinct_findings
from crashlab.results import RunResult, TrialResult

DRAWN_MAX = 6
"""A page stays below 5 MB with these beside 2,000 rows of trials."""


def trials_to_draw(run: RunResult, limit: int = DRAWN_MAX) -> list[tuple[str, TrialResult]]:
    """Return profile and trial, the worst finding's first, but last where no server started: its fates are unknown.

    Without any finding it is the first trial of each profile.
    """
    found = [
        (one.result.profile.name, one.first)
        for one in distinct_findings(run.profiles)
        if one.finding.family not in (Family.NOTE, Family.INCONCLUSIVE)
    ]
    found += [(result.profile.name, trial) for result in run.profiles for trial in result.trials[:1]][: not found]
    chosen = {(profile, trial.trial): trial for profile, trial in reversed(found)}
    order = list(dict.fromkeys((profile, trial.trial) for profile, trial in found))
    order.sort(key=lambda one: chosen[one].verdict.outcome is Outcome.NO_START)
    return [(profile, chosen[profile, number]) for profile, number in order[:limit]]
