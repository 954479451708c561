"""Recordings on the command line: made once, shown, explored, replayed, judged again, and refused when damaged."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crashlab import evidence, sealed
from crashlab.cli import invoke
from crashlab.disk.model import CrashState
from crashlab.server.builds import find_build

pytestmark = pytest.mark.server

SEED = "5"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """No test leaves .crashlab where it was started."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A recording of a short run, for every test of this module to read."""
    out = tmp_path_factory.mktemp("recorded") / "run"
    changes = ("power_loss.acks=400", "workload.checkpoint_every=50ms", "workload.synchronous_commit={on=0.5, off=0.5}")
    options = [option for change in changes for option in ("--set", change)]
    assert invoke(["record", "power-loss-async", "--seed", SEED, "--out", str(out), *options]) == 0
    return out / "power-loss-async" / "recording"


@pytest.fixture
def copied(recorded, tmp_path) -> Path:
    """The recording, to be damaged."""
    return shutil.copytree(recorded, tmp_path / "copied", symlinks=True)


def explored(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    """Run `explore` and return its exit code and its report."""
    code = invoke(["explore", *args, "--json", "-"])
    return code, json.loads(capfd.readouterr().out)


def states(out: Path) -> list[CrashState]:
    """Return the crash states of a run's trials, in order."""
    return [evidence.load(file, CrashState) for file in sorted(out.rglob(evidence.STATE))]


def verdicts(out: Path) -> list[bytes]:
    """Return the stored judgements of a run's trials, in order."""
    return [file.read_bytes() for file in sorted(out.rglob(evidence.VERDICT))]


def test_the_command_to_explore_again_outlives_the_latest_run(recorded, tmp_path, capfd):
    """The run itself moves `latest` on; a path that leads through no link stays as it was given."""
    Path(".crashlab").mkdir()
    shutil.copytree(recorded.parents[1], ".crashlab/first", symlinks=True)
    Path(".crashlab/latest").symlink_to("first")
    given = ".crashlab/latest/power-loss-async/recording"
    for path, printed in ((given, given.replace("latest", "first")), (str(recorded), str(recorded))):
        assert invoke(["explore", path, "--trials", "1"]) == 0
        (again,) = re.findall("Run again: (.*)", capfd.readouterr().out)
        assert f"crashlab explore {printed} --seed" in again
        assert Path(".crashlab/latest").resolve() != (tmp_path / ".crashlab/first")
        assert invoke([*shlex.split(again)[1:], "--out", "again"]) == 0
        shutil.rmtree("again")
        capfd.readouterr()


def test_the_same_seed_gives_the_same_states_and_verdicts(recorded, tmp_path, capfd):
    """Another seed gives others; every report says which state each trial is."""
    runs = {}
    for name, seed in (("first", "5"), ("again", "5"), ("other", "6")):
        code, report = explored(capfd, str(recorded), "--trials", "6", "--seed", seed, "--out", name)
        assert code == 0
        assert report["promise"] == "kept"
        assert [trial["state"]["position"] for trial in report["trials"]] == [
            one.position for one in states(Path(name))
        ]
        assert all("lost " in trial["state"]["note"] for trial in report["trials"])
        runs[name] = [(one.position, one.fingerprint) for one in states(Path(name))], verdicts(Path(name))
    assert runs["first"] == runs["again"]
    assert runs["first"][0] != runs["other"][0]
    assert len(set(runs["first"][0])) == 6


def test_a_state_is_replayed_and_judged_with_the_identical_result(recorded, tmp_path, capfd):
    """From a relative path, through `latest`, and by PROFILE:TRIAL; the judge needs no server and changes nothing."""
    code, report = explored(capfd, str(recorded), "--trials", "4", "--disk", "lying", "--points", "end")
    assert code == 0
    stored = verdicts(Path(".crashlab/latest"))
    assert invoke(["judge", ".crashlab/latest"]) == 0
    assert verdicts(Path(".crashlab/latest")) == stored
    trial = report["trials"][0]
    assert trial["outcome"] != "intact"
    assert trial["reproduce"] == f"crashlab replay {trial['folder']}"
    assert invoke(["replay", "power-loss-async:0", "--out", "by-name"]) == 0
    assert invoke(["replay", str(Path(trial["folder"]).resolve()), "--out", "by-path"]) == 0
    for name in ("by-name", "by-path"):
        (state,), (verdict,) = states(Path(name)), verdicts(Path(name))
        assert state == states(Path(trial["folder"]))[0]
        assert verdict == stored[0]


def test_another_disk_is_another_contract(recorded, capfd):
    """A process crash of the same recording loses nothing that was written; a lying disk makes the promise void."""
    code, report = explored(capfd, str(recorded), "--trials", "5", "--disk", "process", "--points", "flush")
    assert code == 0
    assert report["crash_class"] == "process_crash"
    assert {trial["injection"]["kind"] for trial in report["trials"]} == {"kill"}
    code, report = explored(
        capfd, str(recorded), "--trials", "8", "--disk", "lying", "--tear", "512", "--set", "power_loss.points=end"
    )
    assert code == 0
    assert report["promise"] == "void"
    assert "unexpected" not in report["verdict"]


def test_show_tells_what_a_recording_holds_and_what_was_in_flight(recorded, capfd):
    """The summary names points that can be asked for; at one of them files, names and flushes are listed."""
    assert invoke(["show", str(recorded)]) == 0
    summary = capfd.readouterr().out
    for expected in ("power-loss-async, seed 5", "replaying the log gives the live files", "wal", "relation"):
        assert expected in summary
    (line,) = (line for line in summary.splitlines() if line.startswith("  checkpoints"))
    point, end = line.split(": ")[1].split()[0].split("-")
    assert invoke(["show", str(recorded.parent.parent), "--at", point]) == 0
    told = capfd.readouterr().out
    assert f"At operation {point}, on a linux disk" in told
    assert "pgdata/base/" in told
    assert invoke(["show", str(recorded), "--at", end]) == 0
    assert re.search(r"\bfsync +pgdata/", capfd.readouterr().out)  # the checkpoint's own


def test_what_chose_the_server_is_said_again(recorded, capfd):
    """The run is repeated on the server that was asked for; where none was asked for none is named."""
    build = find_build()
    assert build is not None
    asked = ["--at", "700", "--disk", "linux"]
    for chosen in (["--pg-bindir", str(build.bindir)], ["--server", "local"], ["--trust"], []):
        assert invoke(["explore", str(recorded), "--trials", "1", *asked, *chosen]) == 0
        (again,) = re.findall("Run again: (.*)", capfd.readouterr().out)
        words = shlex.split(again)
        assert words[len(words) - len(chosen) :] == chosen
        assert "power_loss.at=[700]" in words
        assert ("--pg-bindir" in again, "--server" in again) == ("--pg-bindir" in chosen, "--server" in chosen)
        assert "power_loss.disk=linux" in words
        assert invoke(words[1:]) == 0
        capfd.readouterr()


def test_a_recording_stays_only_if_it_is_needed(tmp_path, capfd):
    """Without it a trial can still be judged; its reproduce command and a replay's error name the run to repeat."""
    args = ["run", "power-loss", "--seed", SEED, "--trials", "2", "--set", "power_loss.acks=100"]
    assert invoke([*args, "--keep", "all", "--out", "all"]) == 0
    assert invoke(["show", "all"]) == 0
    assert invoke([*args, "--out", "intact", "--json", "report.json"]) == 0
    assert not list(Path("intact").rglob("io.log"))
    again = "crashlab run power-loss --seed 5 --trials 2 --set power_loss.acks=100"
    assert {trial["reproduce"] for trial in json.loads(Path("report.json").read_text())["trials"]} == {again}
    capfd.readouterr()
    assert invoke(["judge", "intact"]) == 0
    assert invoke(["replay", "intact/power-loss/trial-0001"]) == 4
    assert "its log is gone" in capfd.readouterr().err


def cut_short(folder: Path) -> None:
    """Lose the last bytes of the log."""
    log = folder / "io.log"
    log.write_bytes(log.read_bytes()[:-1000])


def flip_in_log(folder: Path) -> None:
    """Change one bit in the middle of the log."""
    data = bytearray((folder / "io.log").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "io.log").write_bytes(data)


def flip_in_base(folder: Path) -> None:
    """Change one bit of a file that the base image holds."""
    control = folder / "base/image/pgdata/global/pg_control"
    data = bytearray(control.read_bytes())
    data[0] ^= 1
    control.write_bytes(data)


def empty_log(folder: Path) -> None:
    """Put something else in the log's place."""
    (folder / "io.log").write_bytes(b"")


def take_the_log_away(folder: Path) -> None:
    """Lose the log."""
    (folder / "io.log").unlink()


def damage_the_record(folder: Path) -> None:
    """Cut the description of the recording."""
    (folder / "recording.json").write_text("{")


def empty_the_folder(folder: Path) -> None:
    """Leave a folder that is no recording."""
    shutil.rmtree(folder)
    folder.mkdir()


def damage_the_ledger(folder: Path) -> None:
    """Change a byte of the clients' record."""
    ledger = folder / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"event":"ack"', b'"event":"ach"', 1))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut_short, "is cut short"),
        (flip_in_log, "is damaged at byte"),
        (flip_in_base, "does not belong to this recording"),
        (empty_log, "is not an I/O log"),
        (take_the_log_away, "its log is gone"),
        (damage_the_record, "damaged evidence"),
        (empty_the_folder, "no recording in"),
        (damage_the_ledger, "ledger"),
    ],
)
def test_a_damaged_recording_is_refused_and_never_judged(copied, damage, says, capfd):
    """Exit code 4, the reason, and no trial; `show` refuses it, too."""
    damage(copied)
    assert invoke(["explore", str(copied), "--trials", "2", "--out", "o"]) == 4
    err = capfd.readouterr().err
    assert says in err
    assert "this is a bug" not in err
    assert not list(Path("o").rglob(evidence.VERDICT))
    assert invoke(["show", str(copied)]) == 4


@pytest.mark.parametrize("damage", [cut_short, flip_in_log])
def test_a_damaged_recording_without_a_point_is_damaged(copied, damage, capfd):
    """Exit code 4 all the same: what it has no crash point for cannot be known."""
    damage(copied)
    assert invoke(["explore", str(copied), "--at", "99999999"]) == 4
    assert "has no crash point" not in capfd.readouterr().err


def test_the_base_image_of_another_recording_is_refused(copied, tmp_path, capfd):
    """Same profile, same server, same names of files: only the bytes tell."""
    assert invoke(["record", "power-loss", "--out", "other", "--set", "power_loss.acks=50"]) == 0
    shutil.rmtree(copied / "base")
    shutil.copytree("other/power-loss/recording/base", copied / "base", symlinks=True)
    assert invoke(["explore", str(copied), "--trials", "1"]) == 4
    assert "does not belong to this recording" in capfd.readouterr().err


def test_a_recording_that_fails_its_self_check_gives_no_verdict(copied, capfd):
    """It is explored, and every trial is inconclusive."""
    record = msgspec.json.decode((copied / "recording.json").read_bytes())
    record["differences"] = ["pgdata/base/5/1259: the bytes differ at offset 0"]
    (copied / "recording.json").write_bytes(sealed.sealed(record)[0])
    code, report = explored(capfd, str(copied), "--trials", "1", "--disk", "process")
    assert code == 3
    assert [trial["outcome"] for trial in report["trials"]] == ["inconclusive"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["record", "kill9-all"], "it has no [power_loss] table"),
        (["explore", "{}", "--aim", "heap"], "power_loss.aim.0"),
        (["explore", "{}", "--set", "workload.clients=2"], "the server has run already"),
        (["explore", "{}", "--set", "power_loss.acks=2"], "the server has run already"),
        (["explore", "{}", "--set", "power_loss.dsik=lying"], 'did you mean "disk"?'),
        (["explore", "{}", "--at", "99999999"], "has no crash point 99999999"),
        (["explore", "{}", "--near", "BRIN/UPDATE"], "has no crash point near to BRIN/UPDATE"),
        (["show", "{}", "--at", "99999999"], "the recording has no point 99999999"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(recorded, args, expected, capfd):
    """Exit code 2 and the reason, before any server starts."""
    assert invoke([arg.format(recorded) for arg in args]) == 2
    told = capfd.readouterr()
    assert expected in told.err
    assert "--resume" not in told.out + told.err
