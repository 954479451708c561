"""Which settings does a trial run with whose profile leaves them open?

A profile's table `[vary]` names for a setting the values that it may have. Each trial draws one of each, a recorded run
once for the whole recording. Each setting has a stream of its own, so that one more in the table changes no other.

Choices: what was drawn takes the place of the table in the trial's record. So a replay has the same server, whatever
    the table says by then.
"""

from dataclasses import replace

from crashlab.profile import Profile
from crashlab.seeds import stream
from crashlab.trial.setup import TrialPlan

SEGMENT = "wal_segsize"
"""No setting but an option of initdb, in MB."""


def drawn(plan: TrialPlan, seed: int) -> tuple[TrialPlan, dict[str, str]]:
    """Return the plan with every open setting drawn, and what was drawn.

    Args:
        seed: of the trial, or of the recording.
    """
    table = plan.profile.vary
    chosen = {name: stream(seed, "vary", name).choice(values) for name, values in sorted(table.items())}
    return replace(plan, profile=_with(plan.profile, chosen)), chosen


def _with(profile: Profile, chosen: dict[str, str]) -> Profile:
    if not chosen:
        return profile
    settings = {name: value for name, value in chosen.items() if name != SEGMENT}
    options = [f"--wal-segsize={chosen[SEGMENT]}"] if SEGMENT in chosen else []
    server = profile.server.model_copy(
        update={
            "settings": profile.server.settings | settings,
            "initdb": [*(one for one in profile.server.initdb if not (options and "wal-segsize" in one)), *options],
        }
    )
    return profile.model_copy(update={"server": server, "vary": {}})
