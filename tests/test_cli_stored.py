"""What does the command line say of a stored run where it needs one trial, or where nothing of it is there?"""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from crashlab import evidence
from crashlab.campaign.runrecord import CAMPAIGN
from crashlab.cli import invoke
from crashlab.model import Outcome, PromiseStatus, Verdict
from crashlab.server.builds import find_build
from crashlab.trial.judged import trial_folders
from tests.report.conftest import recorded_folder  # noqa: F401


def given(folder: Path, tmp_path: Path, outcomes: dict[int, tuple[Outcome, PromiseStatus]]) -> Path:
    """A copy of a run of which all trials are intact, but for these."""
    run = shutil.copytree(folder, tmp_path / "run", symlinks=True)
    for number, trial in enumerate(trial_folders(run)):
        outcome, promise = outcomes.get(number, (Outcome.INTACT, PromiseStatus.KEPT))
        verdict: Verdict = evidence.load_verdict(trial)
        evidence.save(trial, evidence.VERDICT, replace(verdict, outcome=outcome, promise=promise))
    return run


@pytest.mark.parametrize("command", ["shrink", "replay"])
def test_of_many_trials_one_is_named_that_shows_something(command, recorded_folder, tmp_path, capsys):  # noqa: F811
    """A broken promise before a loss that was permitted; and if there is neither, that is said."""
    loss, broken = (Outcome.LOSS, PromiseStatus.KEPT), (Outcome.CORRUPTION, PromiseStatus.BROKEN)
    for place, outcomes, says in (
        ("one", {1: loss, 2: broken}, 'Choose one; the first with a broken promise is "{}/lying-small/trial-0002".'),
        ("two", {1: loss}, 'None has a broken promise; the first that is not intact is "{}/lying-small/trial-0001".'),
        ("three", {}, '"{}/lying-small/trial-0000". None that was judged has a broken promise, or lost anything.'),
    ):
        run = given(recorded_folder, tmp_path / place, outcomes)
        assert invoke([command, str(run)]) == 2
        assert says.format(run) in capsys.readouterr().err


@pytest.mark.server
@pytest.mark.parametrize("profiles", [["kill9-backend"], ["kill9-all", "kill9-backend"]])
def test_what_makes_no_sense_is_not_to_be_gone_on_with(profiles, tmp_path, monkeypatch, capsys):
    """A run that ended in an error of usage: not from its own words, nor when it is judged."""
    monkeypatch.chdir(tmp_path)
    build = find_build()
    assert build is not None
    words = ["run", *profiles, "--server", "local", "--trials", "1", "-j", "1", "--recover-with", str(build.bindir)]
    assert invoke([*words, "--out", "run"]) == 2
    told = capsys.readouterr()
    assert "its server restarts by itself" in told.err
    assert "Go on" not in told.out + told.err
    alone = len(profiles) == 1
    assert Path("run", CAMPAIGN).exists() != alone
    assert invoke(["judge", "run"]) in ((4,) if alone else (0, 3))
    told = capsys.readouterr()
    assert "Go on" not in told.out + told.err
