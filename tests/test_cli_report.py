"""crashlab report: the page of a stored run, wherever it is, and of the trials that somebody wants to see."""

import shutil

import msgspec
import pytest

from crashlab import evidence
from crashlab.campaign import Asked, Plan, judge_run, save_plan, save_run
from crashlab.cli import invoke
from crashlab.disk.contract import disk_contract
from crashlab.disk.model import CrashState
from crashlab.profile import load_profile
from crashlab.server import ServerChoice
from tests.report.conftest import live_folder, recorded_folder  # noqa: F401


@pytest.fixture
def folder(recorded_folder, tmp_path):  # noqa: F811
    """A copy of a recorded run."""
    return shutil.copytree(recorded_folder, tmp_path / "run", symlinks=True)


def test_the_page_lies_in_the_run_and_verdicts_stay(folder, capsys):
    """Exit code 0; nothing but the page is written."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert invoke(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {folder / "report.html"}
    assert after | before == after
    assert "lying-small, trial 2" in (folder / "report.html").read_text()


def test_where_nothing_can_be_written_or_nothing_is_yet_the_hint_says_what_helps(folder, tmp_path, capsys):
    """A folder that is in the page's way; a run that was cut short before its first trial."""
    (folder / "report.html").mkdir()
    assert invoke(["report", str(folder)]) == 4
    assert "--html FILE" in capsys.readouterr().err
    run = tmp_path / "run of today"
    run.mkdir()
    asked = [Asked(profile=load_profile("power-loss"))]
    save_plan(run, Plan(asked=asked, seed=1, trials=6, server=ServerChoice()))
    assert invoke(["report", str(run)]) == 4
    assert f"Go on: crashlab run --resume '{run}'" in capsys.readouterr().err
    (run / "campaign.json").unlink()
    assert invoke(["report", str(run)]) == 4
    assert "--resume" not in capsys.readouterr().err


def test_a_link_in_a_strangers_run_is_not_written_through(folder, tmp_path, capsys):
    """The page replaces it."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (folder / "report.html").symlink_to(precious)
    assert invoke(["report", str(folder)]) == 0
    assert precious.read_text() == "mine"


def test_other_trials_and_forms_can_be_asked_for(folder, tmp_path, capsys):
    """As a page elsewhere, a trace, and JSON alone on stdout; each file that was written is named."""
    page, trace = tmp_path / "page.html", tmp_path / "trace.json"
    words = ["report", str(folder), "--trial", "lying-small:5", "--html", str(page), "--trace", str(trace)]
    assert invoke(words) == 0
    assert capsys.readouterr().out == f"{page}\n{trace}\n"
    other = tmp_path / "other.json"
    assert invoke(["report", str(folder), "--trace", str(other)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n{other}\n"
    text = page.read_text()
    assert "lying-small, trial 5</h3>" in text
    assert "lying-small, trial 2</h3>" not in text
    assert '"lying-small, trial 5 ' in trace.read_text()
    capsys.readouterr()
    assert invoke(["report", str(folder), "--html", str(page), "--json", "-"]) == 0
    assert capsys.readouterr().out.startswith("{")


def test_what_cannot_be_told_is_said(folder, capsys):
    """An unknown trial is a mistake; a recording that is gone takes its part of the drawing, and not the page."""
    assert invoke(["report", str(folder), "--trial", "lying-small:99"]) == 2
    assert 'the run has no trial "lying-small:99"' in capsys.readouterr().err
    (folder / "lying-small" / "recording" / "io.log").unlink()
    assert invoke(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "The recording could not be read: cannot use the recording" in text
    assert "client 1" in text
    assert invoke(["report", str(folder / "nothing")]) == 4


def test_whole_evidence_that_makes_no_sense_takes_a_drawing_and_not_the_page(folder, capsys):
    """A stranger can seal anything: a cut beyond the recording, a disk whose pages have no size."""
    first, second = folder / "lying-small" / "trial-0000", folder / "lying-small" / "trial-0001"
    state = evidence.load(first / evidence.STATE, CrashState)
    evidence.save(first, evidence.STATE, msgspec.structs.replace(state, position=10**9))
    broken = msgspec.structs.replace(evidence.load_trial(second), disk_contract=disk_contract("lying"))
    object.__setattr__(broken.disk_contract, "tear_bytes", 0)
    evidence.save(second, evidence.TRIAL, broken)
    assert invoke(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "the recording has no operation 1000000000" in text
    assert "cannot map a disk that tears at 0 bytes" in text
    assert capsys.readouterr().err == ""


def test_a_damaged_trial_is_made_again_only_where_it_can_be(folder, capsys):
    """Not of a recording that is gone, nor of a run that nobody asked to go on: the hint leads nowhere then."""
    asked = [Asked(profile=load_profile("power-loss"))]
    plan = Plan(asked=asked, seed=1, trials=6, server=ServerChoice(), again="crashlab run it")
    run = judge_run(folder)
    run.command = plan.again

    def hint() -> str:
        assert invoke(["report", str(folder)]) == 4
        return capsys.readouterr().err.partition("hint: ")[2]

    save_run(folder, run, plan)
    trial = folder / "lying-small" / "trial-0001"
    (trial / evidence.TRIAL).write_bytes(b"{")
    resume = f"Delete the trial's folder, {trial}, and run crashlab run --resume {folder}, which makes it again.\n"
    assert hint() == resume
    log = folder / "lying-small" / "recording" / "io.log"
    log.rename(log.with_suffix(".away"))
    assert hint().endswith("Its recording is gone, and the whole run makes it again: crashlab run it\n")
    log.with_suffix(".away").rename(log)
    assert hint() == resume
    save_run(folder, run)
    assert hint().endswith("without it the others can be judged.\n")
