"""Is a start that is killed a receipt of what happened, and the trial judged as ever?"""

import pytest

from crashlab import evidence
from crashlab.errors import ProfileError
from crashlab.model import Outcome
from crashlab.profile import load_profile
from crashlab.results import make_trial_folder
from crashlab.seeds import stream
from crashlab.server import ServerChoice
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan
from crashlab.trial.startkills import _SIGNS, BEFORE_THE_LOG
from tests.overrides import kill_after

pytestmark = pytest.mark.server
REACHED = [BEFORE_THE_LOG, *(words for _, words in _SIGNS)]


def run(tmp_path, *overrides: str):
    """Run one trial in which starts are killed."""
    profile = load_profile("kill9-all", overrides=[kill_after(60), *overrides])
    plan = TrialPlan(profile=profile, run_seed=5, server=ServerChoice(kind="local"))
    return run_trial(plan, 0, make_trial_folder(tmp_path, 0))


def test_starts_are_killed_at_drawn_times_and_the_last_one_counts(tmp_path):
    """Three receipts beside that of the crash; intact, and nothing is told twice."""
    result = run(tmp_path, "start_kills.times=3", "start_kills.between=['1ms', '120ms']")
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    first, *kills = result.injections
    assert first.crashes_server
    assert len(kills) == 3
    assert all(kill.confirmed and kill.pids and not kill.crashes_server for kill in kills), kills
    assert all(kill.proof[1].removeprefix("how far it had come: ") in REACHED for kill in kills)
    rng = stream(result.seed, "start kills")
    assert [kill.proof[0] for kill in kills] == [f"{rng.uniform(1, 120):.1f} ms into a start" for _ in kills]
    assert (result.folder / evidence.SERVER_LOG).read_text().count("starting PostgreSQL") >= 2


def test_a_start_that_is_killed_late_had_recovered(tmp_path):
    """A second after the start it was ready; what it recovered is recovered again."""
    result = run(tmp_path, "start_kills.between=['3s', '3s']")
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    assert result.injections[-1].proof[1] == "how far it had come: it was ready"


def test_a_recorded_run_has_none():
    """Its recoveries are recorded and cut."""
    with pytest.raises(ProfileError) as refused:
        load_profile("power-loss", overrides=["start_kills.between=['1ms', '2ms']"])
    assert "recovery_depth" in str(refused.value)
