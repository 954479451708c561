"""A stored run, judged again: its JSON report comes back byte for byte, however the run ended and wherever it lies."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crashlab import evidence
from crashlab.campaign.runner import Runner
from crashlab.campaign.runrecord import CAMPAIGN
from crashlab.cli import invoke
from crashlab.errors import ServerError
from crashlab.trial import live as live_trial
from crashlab.trial.judged import result_of
from tests.terminal import as_in_a_terminal

pytestmark = pytest.mark.server

RECORDED = ("--set", "power_loss.acks=150", "--set", "workload.synchronous_commit={on=0.3, off=0.7}")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """No test leaves .crashlab where it was started; and how much was acknowledged does not matter here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRASHLAB_RUN_SET", "workload.acked_min=1")


def crashlab(*args: str, hash_seed: int = 0) -> int:
    """Run crashlab in a process of its own, whose sets have an order of their own."""
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-m", "crashlab", *args]
    return subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False).returncode


def assert_judged_alike(folder: Path, code: int) -> Any:
    """Judge a run twice, named in two ways, by processes that order sets differently; return the report."""
    before = (folder / "report.json").read_bytes()
    for number, path in enumerate((folder, folder.resolve())):
        assert crashlab("judge", str(path), "--json", "again.json", hash_seed=number + 1) == code
        assert Path("again.json").read_bytes() == before
    assert (folder / "report.json").read_bytes() == before
    return json.loads(before)


def test_a_live_tour_is_judged_alike_wherever_it_lies(tmp_path):
    """Several profiles in their order; through `latest`, too; where the folder was moved, only its paths change."""
    args = ["two-phase", "async-commit", "kill9-backend", "--trials", "2", "--seed", "5", "--keep", "all"]
    assert invoke(["run", *args, "--json", "run.json"]) == 0
    latest = Path(".crashlab/latest")
    assert Path("run.json").read_bytes() == (latest / "report.json").read_bytes()
    reports = assert_judged_alike(latest, 0)
    assert [one["profile"] for one in reports] == ["two-phase", "async-commit", "kill9-backend"]
    assert all(Path(trial["kept_data"]).is_dir() for one in reports for trial in one["trials"])
    home, moved = str(latest.resolve()), str(tmp_path / "moved")
    shutil.move(home, moved)
    assert crashlab("judge", "moved", "--json", "again.json") == 0
    again = Path("again.json").read_text()
    assert home not in again
    assert again.replace(moved, home) == Path("run.json").read_text()


def test_a_recorded_run_and_what_came_of_it_are_judged_alike(capfd):
    """With and without the recording; states explored from it and a state replayed, each in a folder of its own."""
    args = ["run", "power-loss-async", "--trials", "4", "--seed", "5", *RECORDED]
    assert invoke([*args, "--out", "kept", "--keep", "all"]) == 0
    assert invoke([*args, "--out", "gone", "--keep", "none"]) == 0
    assert invoke(["explore", "kept", "--disk", "lying", "--points", "end", "--trials", "3", "--out", "explored"]) == 0
    assert invoke(["replay", "kept/power-loss-async/trial-0001", "--out", "replayed"]) == 0
    for name, disk in (("kept", "linux"), ("gone", "linux"), ("explored", "lying"), ("replayed", "linux")):
        assert_judged_alike(Path(name), 0)
        for file in Path(name).rglob(evidence.TRIAL):
            record = evidence.load_trial(file.parent)
            assert (record.kind, record.disk) == ("recorded", disk)
            assert record.disk_contract is not None
            assert (record.disk_contract.name, record.disk_contract.ordered_journal) == (disk, True)
            assert (record.disk_contract.flushes_ignored_from is not None) == (disk == "lying")
            assert "database system" in (file.parent / evidence.SERVER_LOG).read_text()


def test_a_run_stopped_by_its_time_limit_is_judged_alike():
    """Why it stopped, and a profile that had no time for a single trial, are known from the run's folder alone."""
    args = ["run", "kill9-all", "fsync-off-kill9", "--trials", "99", "--seed", "5", "--time-limit", "600ms"]
    code = invoke([*args, "--out", "o"])
    reports = assert_judged_alike(Path("o"), code)
    assert code == (0 if all(one["trials"] for one in reports) else 3)
    assert all(one["stopped_by"].startswith("time limit") for one in reports)


def test_an_interrupted_run_is_judged_alike_by_what_it_has():
    """The report says that it was interrupted; the judge's own exit code is about the evidence."""
    command = [sys.executable, "-m", "crashlab", "run", "kill9-all", "kill9-backend", "--trials", "99", "--seed", "5"]
    command += ["--out", "o"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal
    )
    try:
        assert process.stderr is not None
        assert ", 1 of 99 done: " in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    finally:
        process.kill()
    report = assert_judged_alike(Path("o"), 0)
    assert (report["interrupted"], len(report["trials"]) >= 1) == (True, True)


def test_a_trial_whose_evidence_was_complete_at_the_interrupt_counts(monkeypatch):
    """Ctrl-C between a trial's evidence and its result: the run's report has the trial, as the judge has."""
    calls = []

    def interrupted_once(folder, *, verdict=None):
        calls.append(folder)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return result_of(folder, verdict=verdict)

    monkeypatch.setattr(live_trial, "result_of", interrupted_once)
    assert invoke(["run", "kill9-all", "--trials", "5", "--seed", "5", "--out", "o", "-j", "1"]) == 130
    report = assert_judged_alike(Path("o"), 0)
    assert [trial["trial"] for trial in report["trials"]] == [0, 1]


def test_a_run_that_the_environment_ended_is_judged_alike(monkeypatch, capfd):
    """The error stays in the report; judged again it is no error of today, but neither is the run complete: 3."""
    real = Runner.run

    def fail_second(self, task):
        if task.job == "kill9-backend":
            raise ServerError("could not start", detail="No memory.", hint="Buy some.")
        return real(self, task)

    monkeypatch.setattr(Runner, "run", fail_second)
    profiles = ["kill9-all", "kill9-backend", "kill9-walwriter"]
    assert invoke(["run", *profiles, "--trials", "1", "--out", "o", "-j", "1"]) == 4
    reports = assert_judged_alike(Path("o"), 3)
    assert [one["profile"] for one in reports] == ["kill9-all", "kill9-backend"]
    assert reports[1]["error"] == {"primary": "could not start", "detail": "No memory.", "hint": "Buy some."}


def test_evidence_without_the_runs_own_file_is_judged_all_the_same():
    """Older releases wrote none, and a killed run writes none: the trials are judged, in the order of their names."""
    assert invoke(["run", "kill9-backend", "kill9-all", "--trials", "1", "--seed", "5", "--out", "o"]) == 0
    (Path("o") / CAMPAIGN).unlink()
    assert invoke(["judge", "o", "--json", "again.json"]) == 0
    reports = json.loads(Path("again.json").read_text())
    assert [(one["profile"], one["command"], len(one["trials"])) for one in reports] == [
        ("kill9-all", None, 1),
        ("kill9-backend", None, 1),
    ]
    (Path("o") / CAMPAIGN).write_text("{")
    assert invoke(["judge", "o"]) == 0


def test_every_report_can_be_had_from_stored_evidence():
    """JSON, JUnit and the page, quiet or verbose; one trial's folder is enough."""
    assert (
        invoke(["run", "async-commit", "--trials", "1", "--seed", "5", "--out", "o", "--html", "run.html", "-q"]) == 0
    )
    reports = ["--json", "t.json", "--junit-xml", "t.xml", "--html", "t.html", "-v"]
    assert invoke(["judge", "o/async-commit/trial-0000", *reports]) == 0
    for file in ("run.html", "t.html", "t.xml", "t.json"):
        assert "LOSS-ASYNC-WINDOW" in Path(file).read_text()
    assert invoke(["judge", "o", "-q", "-v"]) == 2
