"""Is a crash state of a server that had shut down counted as what it is: a crash, or none?"""

from pathlib import Path

import pytest

from crashlab.disk.states import everything, nothing_extra
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.record import make
from crashlab.profile import load_profile
from crashlab.report.statistics import statistics
from crashlab.results import make_trial_folder
from crashlab.trial.setup import TrialPlan
from tests.made_results import result

pytestmark = pytest.mark.server


def test_only_a_cut_after_the_stop_that_took_nothing_is_no_crash(tmp_path: Path) -> None:
    """One that took something asks whether the stop had flushed it; one before the stop is a crash as any other."""
    profile = load_profile("clean-stop-power-loss", ["power_loss.acks=60"])
    recording = make(TrialPlan(profile=profile, run_seed=5), tmp_path / "recording")
    with Explorer(recording, profile) as explorer:
        before = everything(explorer.walk.to(explorer.conditions.survey.end * 2 // 3))
        tried = [explorer.try_state(before, 0, make_trial_folder(tmp_path, 0))]
        model = explorer.walk.to(explorer.conditions.survey.end)
        for number, state in enumerate((nothing_extra(model), everything(model)), 1):
            tried.append(explorer.try_state(state, number, make_trial_folder(tmp_path, number)))
    assert [one.injections[-1].crashes_server for one in tried] == [True, False, False]
    assert [one.proves_nothing for one in tried] == [False, False, True]
    counted = statistics(result("clean-stop-power-loss", *tried))
    assert (counted.judged, counted.nothing_due) == (2, 1)
