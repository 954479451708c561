"""What is said of a stored run when some of it is damaged, gone, unfinished, or cannot be written? No server is needed.

The run is one of an earlier release (see tests/oracle/test_stored.py), with the file about the whole run that one of
today writes, and its one trial three times.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

import crashlab
from crashlab import evidence
from crashlab.campaign import Asked, Plan, judge_run, save_plan, save_run
from crashlab.campaign.runrecord import CAMPAIGN
from crashlab.cli import invoke
from crashlab.cli.options import Telling
from crashlab.cli.reports import Reports
from crashlab.errors import EvidenceError
from crashlab.ledger import End, ledger_digest
from crashlab.model import PromiseStatus
from crashlab.profile import load_profile
from crashlab.results import trial_name
from crashlab.server import ServerChoice
from tests.campaign.command import left_behind
from tests.campaign.test_dask import no_namespaces
from tests.conftest import required
from tests.oracle.test_stored import ARCHIVE

PROFILE, TRIALS = "async-commit", 3


def unpacked(run: str, target: Path) -> Path:
    """Unpack a stored run; return its folder."""
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if member.isfile() and member.name.startswith(f"{run}/"):
                file = target / member.name
                file.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                file.write_bytes(content.read())
    return target / run


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A whole run that came to its end."""
    return Path(shutil.copytree(whole, tmp_path / PROFILE))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that each test has a copy of."""
    folder = unpacked(PROFILE, tmp_path_factory.mktemp("whole"))
    (first,) = trials_of(folder)
    mark(first / evidence.LEDGER)
    for number in range(1, TRIALS):
        copy = shutil.copytree(first, first.with_name(trial_name(number)))
        stored = evidence.load_trial(copy)
        evidence.save(copy, evidence.TRIAL, msgspec.structs.replace(stored, trial=number))
    run = judge_run(folder)
    run.profiles[0].complete = True
    save_run(folder, run, plan(TRIALS))
    return folder


def mark(ledger: Path) -> None:
    """Give a ledger of schema 1 the header and the end mark of today's."""
    lines = ledger.read_bytes().replace(b'"schema":1', b'"schema":2', 1)
    digest = ledger_digest()
    digest.update(lines)
    ledger.write_bytes(lines + msgspec.json.encode(End(lines.count(b"\n"), digest.hexdigest())) + b"\n")


def plan(trials: int) -> Plan:
    """What the run was asked for."""
    asked = [Asked(profile=load_profile(PROFILE))]
    return Plan(asked=asked, seed=1, trials=trials, server=ServerChoice(), again="crashlab run it")


def trials_of(out: Path) -> list[Path]:
    return sorted(file.parent for file in out.rglob(evidence.TRIAL))


def judged(out: Path, capfd, *more: str) -> tuple[int, Any, str, str]:
    """The judge's exit code, JSON report, and what it said."""
    capfd.readouterr()
    code = invoke(["judge", str(out), "--json", str(out.parent / "report.json"), *more])
    said = capfd.readouterr()
    return code, json.loads((out.parent / "report.json").read_text()), said.out, said.err


def test_an_undamaged_run_is_judged_without_a_word_of_warning(out, capfd):
    """The innocent twin of all others."""
    code, report, said, warned = judged(out, capfd)
    assert (code, warned, report["unfinished"], report["tally"]["trials"]) == (0, "", None, TRIALS)
    assert "damaged" not in report
    assert "Not finished" not in said


@pytest.mark.parametrize(
    ("file", "size"),
    [
        (evidence.TRIAL, 0),
        (evidence.TRIAL, 100),
        (evidence.OBSERVATION, 100),
        (evidence.LEDGER, 0),
        (evidence.LEDGER, 100),
    ],
)
def test_a_damaged_trial_takes_no_other_with_it(file, size, out, capfd):
    """The others are judged and shown; it is named last, with what helps; in every report."""
    first, *others = trials_of(out)
    with (first / file).open("r+b") as damaged:
        damaged.truncate(size)
    xml = out.parent / "report.xml"
    code, report, said, warned = judged(out, capfd, "--junit-xml", str(xml))
    assert (code, report["tally"]["trials"]) == (4, len(others))
    assert "The evidence of 1 trial cannot be judged. (exit code 4)" in said
    (error,) = report["damaged"]
    assert str(first / file) in error["primary"]
    assert str(first) in error["hint"]
    assert f"crashlab run --resume {out}" in error["hint"]
    assert warned.startswith(f"crashlab: error: {error['primary']}\n")
    (suite,) = ElementTree.parse(xml).getroot()
    assert (suite.get("errors"), suite.get("tests")) == ("1", str(len(others) + 1))
    shutil.rmtree(first)
    code, report, said, warned = judged(out, capfd)
    assert (code, report["tally"]["trials"], warned) == (0, len(others), "")


def test_a_ledger_cut_between_two_lines_gives_no_verdict(tmp_path, capfd):
    """A live trial's, and the one of a recording that all of its trials share; whole, each is judged as ever."""
    for run in (PROFILE, "power-loss-async"):
        folder = unpacked(run, tmp_path)
        (ledger,) = folder.rglob(evidence.LEDGER)
        mark(ledger)
        assert judged(folder, capfd)[0] == 0
        lines = ledger.read_bytes().splitlines(keepends=True)
        ledger.write_bytes(b"".join(lines[: len(lines) // 2]))
        capfd.readouterr()
        assert invoke(["judge", str(folder)]) == 4
        said = capfd.readouterr()
        assert f"{ledger.resolve()}: damaged ledger: its end is missing" in said.err.replace("trial-0000/../", "")
        assert "CORRUPT" not in said.out


def test_a_broken_promise_beside_a_damaged_trial_is_the_exit_code(out, capfd):
    """It is a fact about the server, as in a run that an error ended; the damage is told all the same."""
    first, second, *_ = trials_of(out)
    (first / evidence.TRIAL).write_bytes(b"")
    observation = second / evidence.OBSERVATION
    table = msgspec.json.decode(observation.read_bytes())
    del table["marker"]["rows"][3]  # what came after it is there: a hole
    observation.write_bytes(msgspec.json.encode(table))
    code, report, said, warned = judged(out, capfd)
    assert PromiseStatus.BROKEN in [trial["promise"] for trial in report["trials"]]
    assert code == 1
    assert "A promise was broken. The evidence of 1 trial cannot be judged. (exit code 1)" in said
    assert str(first / evidence.TRIAL) in warned


def test_where_nothing_can_be_judged_the_damage_is_an_error(out, capfd):
    """One trial's folder, or all of them."""
    for trial in trials_of(out):
        (trial / evidence.TRIAL).write_bytes(b"{")
    for folder in (out, trials_of(out)[0]):
        assert invoke(["judge", str(folder)]) == 4
        assert f"Delete the trial's folder, {trials_of(out)[0]}" in capfd.readouterr().err


def test_a_damaged_file_about_the_run_is_a_warning(out, capfd):
    """Its trials are judged and compared; what is not known is said; to resume it is an error that says what can be."""
    with (out / CAMPAIGN).open("r+b") as damaged:
        damaged.truncate(100)
    code, report, _, warned = judged(out, capfd)
    assert (code, report["tally"]["trials"], report["unfinished"]) == (0, TRIALS, None)
    assert warned.startswith(f'crashlab: warning: damaged evidence "{out / CAMPAIGN}"')
    assert "what was asked for" in warned
    assert invoke(["compare", str(out), str(out)]) == 0
    assert "crashlab: warning: damaged evidence" in capfd.readouterr().err
    assert invoke(["run", "--resume", str(out)]) == 4
    assert f"crashlab judge {out}" in capfd.readouterr().err
    with pytest.raises(EvidenceError, match="damaged evidence"):
        judge_run(out)


@pytest.mark.parametrize("file", [evidence.TRIAL, evidence.OBSERVATION, evidence.LEDGER])
def test_a_run_with_a_hole_is_not_resumed_as_if_it_were_whole(file, out, capfd):
    """A verdict is there, but not what it was made from: an error that says how to have the trial again."""
    first, *_ = trials_of(out)
    for trial in trials_of(out):  # as if this release had run them, so that their verdicts are taken as they are
        stored = evidence.load_trial(trial)
        evidence.save(trial, evidence.TRIAL, msgspec.structs.replace(stored, crashlab=crashlab.__version__))
    if file == evidence.TRIAL:
        (first / file).write_bytes(b"")
    else:
        (first / file).unlink()
    assert invoke(["run", "--resume", str(out)]) == 4
    said = capfd.readouterr().err
    assert str(first / file) in said
    assert f"Delete the trial's folder, {first}, and run crashlab run --resume {out}" in said


def test_a_killed_run_is_said_to_be_unfinished(out, capfd):
    """Only its plan tells that there should be more; once all are there, nothing is missing."""
    save_plan(out, plan(10))
    code, report, said, warned = judged(out, capfd)
    resume = f"crashlab run --resume {out}"
    assert (code, warned) == (0, "")
    assert report["unfinished"] == {"there": TRIALS, "asked": 10, "resume": resume}
    assert f"Not finished, {TRIALS} of 10 trials so far. Go on: {resume}\n" in said
    save_plan(out, plan(TRIALS))
    code, report, said, _ = judged(out, capfd)
    assert (code, report["unfinished"], "Not finished" in said) == (0, None, False)


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'
FULL = """
mkdir "$1.full" && mount -t tmpfs -o size=8m none "$1.full" && cp -r "$1/." "$1.full" && mount --bind "$1.full" "$1"
find "$1" -name verdict.json -delete
dd if=/dev/zero of="$1/filler" bs=4k 2>/dev/null; test -s "$1/filler"
"""


def need_namespaces() -> None:
    """Skip, or fail where that is asked for, without mounts of one's own."""
    problem = no_namespaces()
    if problem is not None and "unshare" in required():
        pytest.fail(f"CRASHLAB_REQUIRE names unshare, but: {problem}", pytrace=False)
    if problem is not None:
        pytest.skip(problem)


@pytest.mark.parametrize(("mount", "why"), [(READ_ONLY, "Read-only file system"), (FULL, "No space left on device")])
def test_what_cannot_be_written_is_judged_all_the_same(mount, why, out):
    """Verdicts and exit code as ever, and one warning, however many trials there are."""
    need_namespaces()
    for verdict in out.rglob(evidence.VERDICT):
        verdict.unlink()
    script = f'{mount}\n[ $? = 0 ] || exit 99\nexec "$2" -m crashlab judge "$1"'
    command = ["unshare", "-m", "sh", "-c", script, "-", str(out), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "No promise was broken. (exit code 0)" in done.stdout
    warnings = [line for line in done.stderr.splitlines() if line.startswith("crashlab: warning:")]
    assert warnings == [f'crashlab: warning: could not keep the verdicts in "{out}": {why}']
    assert "error" not in done.stderr


@pytest.mark.server
@pytest.mark.parametrize(("size", "code"), [("300k", 4), ("50m", 0)])
def test_a_run_on_a_full_disk_tells_what_it_has_and_how_to_go_on(size, code, tmp_path, home):
    """It leaves nothing that runs; where there is room it says nothing of all that."""
    need_namespaces()
    script = 'mount -t tmpfs -o "size=$2" none "$1" && exec "$3" -m crashlab run kill9-all --server local -j 2 '
    script += '--trials 4 --out "$1/run" --set workload.acked_min=1'
    command = ["unshare", "-m", "sh", "-c", script, "-", str(tmp_path), size, sys.executable]
    environment = {**os.environ, "TMPDIR": str(home)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("Go on: crashlab run --resume" in done.stdout) == (code == 4)
    # whoever meets it first: a file of the evidence, or the index, in SQLite's words
    assert any(word in done.stderr for word in ("No space left on device", "disk is full")) == (code == 4)
    assert f"(exit code {code})" in done.stdout
    assert left_behind(home) == []


@pytest.mark.parametrize(
    ("stopped_by", "complete", "fail_fast", "more"),
    [
        ("time limit, 3 of 10 trials", False, False, True),
        ("interrupt, 3 of 10 trials", False, False, True),
        ("the rule 95%<10%, which needs trials for which something was promised", True, False, False),
        ("first broken promise", False, True, False),
    ],
)
def test_going_on_is_offered_where_it_brings_something(stopped_by, complete, fail_fast, more, out, capfd):
    """By the run itself and by each later judgement of it, in the same words; nobody comes back for nothing."""
    asked = dataclasses.replace(plan(10), fail_fast=fail_fast)
    run = judge_run(out)
    (result,) = run.profiles
    result.stopped_by, result.complete, result.interrupted = stopped_by, complete, stopped_by.startswith("interrupt")
    if fail_fast:
        verdict = msgspec.structs.replace(result.trials[0].verdict, promise=PromiseStatus.BROKEN)
        result.trials[0] = dataclasses.replace(result.trials[0], verdict=verdict)
    Reports(Telling()).finish(run, out, asked)
    told = f"Not finished, {TRIALS} of 10 trials so far. Go on: crashlab run --resume {out}\n"
    said = capfd.readouterr().out
    assert (told in said, "Go on" in said) == (more, more)
    report = json.loads((out / "report.json").read_bytes())
    assert (report["unfinished"] is not None) == more
    if not fail_fast:  # judged again, no promise is broken in it
        _, again, said, _ = judged(out, capfd)
        assert (told in said, again["unfinished"]) == (more, report["unfinished"])


def test_a_run_whose_record_cannot_be_written_is_told_all_the_same(out, capsys):
    """With its table, and the error at the end: a full disk is one such reason, here it is a folder in the way."""
    run = judge_run(out)
    assert Reports(Telling()).finish(run, out, plan(TRIALS)) == 0
    (out / CAMPAIGN).unlink()
    (out / CAMPAIGN).mkdir()
    capsys.readouterr()
    assert Reports(Telling()).finish(run, out, plan(TRIALS)) == 4
    said = capsys.readouterr()
    assert f"{PROFILE}" in said.out
    assert f"Evidence: {out}" in said.out
    assert "could not write evidence" in said.err
