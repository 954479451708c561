"""Does a run that was killed, and resumed, come to what it would have been if nobody had touched it?"""

import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import msgspec
import pytest

from crashlab import evidence, sealed
from crashlab.campaign.runrecord import CAMPAIGN
from crashlab.campaign.store import INDEX
from crashlab.cli import invoke
from crashlab.exploration.recording import LOG, RECORDING
from crashlab.seeds import stream, trial_seed
from tests.campaign.command import SEED, TRIALS, Command, kill_orphans, left_behind, told_by

pytestmark = pytest.mark.server


def indexed(out: Path) -> list[tuple[str, int]]:
    """What the index holds."""
    with sqlite3.connect(out / INDEX) as db:
        return list(db.execute("SELECT profile, trial FROM trial ORDER BY profile, trial"))


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_moment_and_resumed_it_is_the_same_run(seed, recordings, whole, tmp_path, home):
    """Ctrl-C, SIGTERM, kill -9 of the parent and of a worker, at seeded moments: trial for trial the same.

    The moments lie in the first half: a run that has just ended cannot be interrupted.
    """
    rng = stream(seed, "moments")
    out = tmp_path / "run"
    args = ["explore", *recordings, "--trials", str(TRIALS), "--out", str(out)]
    blows = ["interrupt", "parent", "terminate"]
    rng.shuffle(blows)
    for moment, blow in zip(sorted(rng.sample(range(1, TRIALS), 3)), blows, strict=True):
        command = Command(*args, "-j", "2", cwd=tmp_path, home=home)
        try:
            command.wait_until_begun()
            command.wait_for_trials(out, moment)
            time.sleep(rng.random() * 0.15)
            strike(command, blow)
        finally:
            command.end()
        assert left_behind(home) == []
        args = ["run", "--resume", str(out)]
    command = Command(*args, "-j", "2", cwd=tmp_path, home=home)
    try:
        command.wait_for_trials(out, 2 * TRIALS - 4)
        os.kill(command.workers()[0], signal.SIGKILL)
        assert command.ended() in (0, 1), command.text()
    finally:
        command.end()
    kill_orphans(home)
    assert told_by(out) == whole
    assert [f"{name}/trial-{trial:04d}" for name, trial in indexed(out)] == sorted(whole)


def strike(command: Command, blow: str) -> None:
    """End a run and see how it takes that."""
    if blow == "parent":
        command.process.kill()
        assert command.ended() == -signal.SIGKILL
        return
    if blow == "interrupt":
        command.interrupt()
    else:
        command.process.terminate()
    assert command.ended() == 130, command.text()
    assert "Traceback" not in command.text()


def test_a_complete_run_is_resumed_by_doing_nothing(recordings, whole, tmp_path, capfd):
    """No evidence is touched, and it is told again; so also if its index is damaged, gone, or of another schema."""
    out = tmp_path / "run"
    assert invoke(["explore", *recordings, "--trials", "3", "-j", "1", "--out", str(out)]) in (0, 1)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("trial-*/*")}
    index = indexed(out)
    assert len(index) == 6
    assert told_by(out).items() <= whole.items()  # three trials, or ten: the first three are the same
    for damage in ("none", "cut off", "gone", "of another schema", "no database"):
        damage_index(out / INDEX, damage)
        capfd.readouterr()
        assert invoke(["run", "--resume", str(out)]) in (0, 1)
        assert "resuming" in capfd.readouterr().out
        assert {file: file.stat().st_mtime_ns for file in out.rglob("trial-*/*")} == before
        assert indexed(out) == index, damage


def damage_index(path: Path, damage: str) -> None:
    """Do something to the index of a run."""
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "gone":
        path.unlink()
    elif damage == "of another schema":
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
    elif damage == "no database":
        path.write_bytes(b"this is no database, whatever its name says. " * 50)


def test_what_a_killed_run_left_half_made_is_made_again(tmp_path, home):
    """Killed while it records, killed while a trial is written: the halves are replaced, no trial is lost."""
    out = tmp_path / "run"
    args = ["power-loss-async", "--trials", "6", "--seed", SEED, "--set", "power_loss.acks=50", "--keep", "all"]
    command = Command("run", *args, "-j", "2", "--out", str(out), cwd=tmp_path, home=home)
    recording = out / "power-loss-async" / "recording"
    try:
        command.wait_for(recording / evidence.LEDGER)
        command.process.kill()
    finally:
        command.end()
    assert not (recording / RECORDING).exists()
    assert left_behind(home) == []
    (recording / "left over").touch()
    assert invoke(["run", "--resume", str(out), "--time-limit", "1ms"]) in (0, 3)
    assert invoke(["run", "--resume", str(out), "-j", "1"]) == 0
    assert not (recording / "left over").exists()
    told = told_by(out)
    assert len(told) == 6
    for killed in (True, False):  # also in a run that has ended, what is gone is made again
        half = out / "power-loss-async" / "trial-0003"
        (half / evidence.TRIAL).unlink()
        (half / "left over").touch()
        shutil.rmtree(out / "power-loss-async" / "trial-0005")
        if killed:
            as_if_it_never_ended(out)
        assert invoke(["run", "--resume", str(out), "-j", "1"]) == 0
        assert told_by(out) == told
        assert not (half / "left over").exists()


def as_if_it_never_ended(out: Path) -> None:
    """Make a run's record that of one that was killed."""
    record = msgspec.json.decode((out / CAMPAIGN).read_bytes())
    (out / CAMPAIGN).write_bytes(sealed.sealed(record | {"profiles": []})[0])


def test_a_profile_that_was_done_when_the_run_was_killed_is_done(tmp_path, capfd):
    """Its recording has been removed, as nothing was found: that is no reason to fail, or to record it again."""
    out = tmp_path / "run"
    args = ["--trials", "3", "--seed", SEED, "--set", "power_loss.acks=50", "--out", str(out), "-j", "1"]
    assert invoke(["run", "power-loss", *args]) == 0
    told = told_by(out)
    assert not (out / "power-loss" / "recording" / LOG).exists()
    as_if_it_never_ended(out)
    assert invoke(["run", "--resume", str(out)]) == 0
    assert told_by(out) == told
    assert ended_as(out) == [(True, None)]
    shutil.rmtree(out / "power-loss" / "trial-0001")
    capfd.readouterr()
    assert invoke(["run", "--resume", str(out)]) == 0
    assert ended_as(out) == [(True, "its recording is gone, 2 trials")]
    assert "stopped by its recording is gone, 2 trials" in capfd.readouterr().out


def ended_as(out: Path) -> list[tuple[bool, str | None]]:
    """Return of each profile of a run whether it is complete, and why it has fewer trials than asked for."""
    record = msgspec.json.decode((out / CAMPAIGN).read_bytes())
    return [(one["complete"], one["stopped_by"]) for one in record["profiles"]]


def test_a_run_that_ended_before_its_first_trial_can_be_resumed(tmp_path, home, capfd):
    """From the moment its plan is there; and where no more than that was left, another run may begin."""
    out = tmp_path / "a run"
    out.mkdir()
    (out / INDEX).touch()
    args = ["run", "power-loss", "--seed", SEED, "--trials", "1", "--set", "power_loss.acks=50", "--out", str(out)]
    command = Command(*args, cwd=tmp_path, home=home)
    try:
        command.wait_for(out / CAMPAIGN)
        command.interrupt()
        assert command.ended() == 130, command.text()
    finally:
        command.end()
    assert invoke(["run", "--resume", str(out), "--time-limit", "1ms"]) == 3
    assert f"Go on: crashlab run --resume '{out}'" in capfd.readouterr().out
    assert invoke(["run", "--resume", str(out)]) == 0
    said = capfd.readouterr().out
    assert f"crashlab judge '{out}' judges" in said
    assert "Go on" not in said
    assert len(told_by(out)) == 1


def test_live_trials_go_on_with_the_same_seeds(tmp_path, home, capfd):
    """Two profiles, interrupted: what is missing is run with the seeds that it would have had, on the same release."""
    out = tmp_path / "run"
    args = ["kill9-all", "kill9-backend", "--trials", "3", "--seed", SEED]
    command = Command("run", *args, "-j", "2", "--out", str(out), cwd=tmp_path, home=home)
    try:
        command.wait_for_trials(out, 2)
        command.interrupt()
        assert command.ended() == 130, command.text()
    finally:
        command.end()
    assert left_behind(home) == []
    done = {file.parent: file.read_bytes() for file in out.rglob(evidence.TRIAL)}
    assert 2 <= len(done) < 6
    as_ran_on, resumed = (out / CAMPAIGN).read_bytes(), ["run", "--resume", str(out), "-j", "2"]
    record = msgspec.json.decode(as_ran_on)
    for server in filter(None, (one["server"] for one in record["profiles"])):
        server["version"] = "14.1"  # and has been upgraded since
    (out / CAMPAIGN).write_bytes(sealed.sealed(record)[0])
    assert invoke(resumed) == 4
    assert "its trials were made on PostgreSQL 14.1, and" in capfd.readouterr().err
    assert {file.parent for file in out.rglob(evidence.TRIAL)} == done.keys()
    (out / CAMPAIGN).write_bytes(as_ran_on)
    assert invoke(resumed) in (0, 3)  # a busy machine may acknowledge too little
    folders = [file.parent for file in out.rglob(evidence.TRIAL)]
    trials = [evidence.load_trial(folder) for folder in folders]
    assert sorted((one.profile, one.trial, one.seed) for one in trials) == [
        (name, number, trial_seed(int(SEED), name, number))
        for name in ("kill9-all", "kill9-backend")
        for number in range(3)
    ]
    assert all((folder / evidence.TRIAL).read_bytes() == before for folder, before in done.items())


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["--resume", "nowhere"], 2, "there is no such folder"),
        (["--resume", "."], 4, "it does not say what was asked for"),
        (["--resume", "{}", "--trials", "3"], 2, "leave out --trials"),
        (["--resume", "{}", "--seed", "3"], 2, "leave out --seed"),
        (["--resume", "{}", "--set", "fsync=off"], 2, "leave out --set"),
        (["--resume", "{}", "--until", "99%<0.5%"], 2, "leave out --until"),
        (["--resume", "{}", "--out", "other"], 2, "leave out --out"),
        (["--resume", "{}", "kill9-all"], 2, "leave out PROFILE"),
    ],
)
def test_what_contradicts_a_stored_plan_is_refused(args, code, expected, recordings, tmp_path, monkeypatch, capfd):
    """By name, before anything is touched."""
    monkeypatch.chdir(tmp_path)
    assert invoke(["run", *(arg.format(recordings[0]) for arg in args)]) == code
    assert expected in capfd.readouterr().err


def test_a_folder_in_use_is_not_resumed(recordings, tmp_path, home, capfd):
    """Two runs never write to one folder, also if one of them goes on with the other's."""
    out = tmp_path / "run"
    command = Command("explore", recordings[0], "--trials", "50", "-j", "1", "--out", str(out), cwd=tmp_path, home=home)
    try:
        command.wait_for_trials(out, 1)
        assert invoke(["run", "--resume", str(out)]) == 4
        assert "in use by another run" in capfd.readouterr().err
        command.interrupt()
        assert command.ended() == 130
    finally:
        command.end()
