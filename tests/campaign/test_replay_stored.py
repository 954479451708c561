"""Does a trial that was stored before an address was a crash state's name still come to the same end?

`stored/recorded-schema-1.tar.xz`: a whole run of the release that wrote schema 1 (0.1.0), kept with its recording, base
image and I/O log. The profile: two clients, half of their commits asynchronous, 40 acknowledgements, a disk that lies;
`run ./lying-small.toml --keep all --trials 6`. Of its trials two are loss, two corruption, two did not start. Today's
draws are others: a replay takes state.json as it is.
"""

import json
import shutil
import tarfile
from pathlib import Path

import msgspec
import pytest

from crashlab import evidence
from crashlab.campaign import judge_run
from crashlab.cli import invoke
from crashlab.disk.model import CrashState
from crashlab.exploration.recording import RECORDING
from crashlab.model import Outcome
from crashlab.server.builds import find_build
from tests.oracle.test_stored import essence

pytestmark = pytest.mark.server

ARCHIVE = Path(__file__).parent / "stored" / "recorded-schema-1.tar.xz"
MAJOR = 18
"""A base image is of one major release."""
CALLED_TODAY = {"CORRUPT-UNREADABLE": "CORRUPT-INDEX-AMCHECK"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run; its records name the build of this machine in place of the one that it was run with."""
    return unpacked(tmp_path_factory.mktemp("stored"))


def unpacked(folder: Path) -> Path:
    """Unpack the run, for the build of this machine; skips the test if that is of another major release."""
    build = find_build()
    assert build is not None
    if build.version.major != MAJOR:
        pytest.skip(f"the stored recording is one of PostgreSQL {MAJOR}, the build here is {build.version}")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="tar")
    for name in (RECORDING, evidence.TRIAL):
        for file in folder.rglob(name):
            record = msgspec.json.decode(file.read_bytes())
            record["server"]["source"] = str(build.bindir)
            file.write_bytes(msgspec.json.encode(record))
    return folder


def told_then(folder: Path) -> tuple[object, ...]:
    """The stored verdict; that release told an index without an entry of its table as one that cannot be read."""
    verdict = evidence.load_verdict(folder)
    called = [msgspec.structs.replace(one, code=CALLED_TODAY.get(one.code, one.code)) for one in verdict.findings]
    return essence(msgspec.structs.replace(verdict, findings=called))


def trials(run: Path) -> list[Path]:
    """The folders of a run's trials, in order."""
    return sorted(file.parent for file in run.rglob(evidence.TRIAL))


def test_every_trial_is_replayed_to_the_verdict_that_was_stored(stored, tmp_path, monkeypatch):
    """The identical state, and with today's recovery, observation and oracle the same outcome, promise and codes."""
    monkeypatch.chdir(tmp_path)
    folders = trials(stored)
    then = [told_then(folder) for folder in folders]
    assert {Outcome.LOSS, Outcome.CORRUPTION, Outcome.NO_START} == {one[0] for one in then}
    for number, folder in enumerate(folders):
        assert json.loads((folder / evidence.TRIAL).read_bytes())["schema"] == 1
        assert invoke(["replay", str(folder), "--out", f"again-{number}"]) == 0
        (again,) = trials(tmp_path / f"again-{number}")
        assert evidence.load(again / evidence.STATE, CrashState) == evidence.load(folder / evidence.STATE, CrashState)
        assert essence(evidence.load_verdict(again)) == then[number]


def test_the_run_is_judged_as_it_was(stored):
    """With its recording at hand, and without a server."""
    then = {folder: told_then(folder) for folder in trials(stored)}
    (result,) = judge_run(stored).profiles
    assert {trial.folder: essence(trial.verdict) for trial in result.trials} == then


def test_the_recording_can_be_explored_with_todays_states(stored, tmp_path, monkeypatch, capfd):
    """It is a recording like any other."""
    monkeypatch.chdir(tmp_path)
    (recording,) = (file.parent for file in stored.rglob(RECORDING))
    assert invoke(["explore", str(recording), "--trials", "3", "--json", "-", "-j", "1"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert {trial["promise"] for trial in report["trials"]} == {"void"}
    assert len(report["trials"]) == 3


def of_release(run: Path, version: str) -> None:
    """Let all records of a run name another release."""
    for name in (RECORDING, evidence.TRIAL):
        for file in run.rglob(name):
            record = msgspec.json.decode(file.read_bytes())
            record["server"]["version"] = version
            file.write_bytes(msgspec.json.encode(record))


@pytest.mark.parametrize("command", ["replay", "explore"])
def test_another_release_than_the_evidence_names_is_told(command, stored, tmp_path, monkeypatch, capfd):
    """A warning, where nobody asked for it; and its name beside the one that crashed. Of the very one not a word."""
    monkeypatch.chdir(tmp_path)
    build = find_build()
    assert build is not None
    run = tmp_path / "run"
    shutil.copytree(stored, run, symlinks=True)
    (recording,) = (file.parent for file in run.rglob(RECORDING))
    what = [str(trials(run)[0])] if command == "replay" else [str(recording), "--trials", "1", "-j", "1"]
    asked = ["--pg-bindir", str(build.bindir)]
    here = build.version.text
    for number, (version, words, warns) in enumerate(
        [(here, [], False), (f"{MAJOR}.0", [], True), (f"{MAJOR}.0", ["--trust"], True), (f"{MAJOR}.0", asked, False)]
    ):
        of_release(run, version)
        assert invoke([command, *what, *words, "--out", f"out-{number}"]) == 0
        told = capfd.readouterr()
        assert (f"crashlab: warning: PostgreSQL {here} takes the place of {MAJOR}.0" in told.err) == warns
        recovered = f", recovered by {here}, {build.bindir}" if version != here else ""
        assert f"PostgreSQL {version}, local, {build.bindir}{recovered}\n" in told.out


def impostor(home: Path) -> tuple[Path, Path]:
    """A folder with a program in place of a server, and what it leaves behind where it is run."""
    home.chmod(0o755)
    mark = home / "was-run" / "mark"
    mark.parent.mkdir()
    mark.parent.chmod(0o777)
    bindir = home / "build" / "bin"
    for folder in (bindir, home / "build" / "lib", home / "build" / "share"):
        folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        program = bindir / name
        program.write_text(f"#!/bin/sh\ntouch {mark}\necho 'postgres (PostgreSQL) 18.6'\nexit 1\n")
        program.chmod(0o755)
    return bindir, mark


@pytest.mark.parametrize("command", ["replay", "explore"])
def test_a_program_that_evidence_names_is_run_only_if_it_is_trusted(command, stored, home, tmp_path, monkeypatch):
    """Without a word from the user the server is one of this machine's own; the trusted one is the guilty twin."""
    monkeypatch.chdir(tmp_path)
    bindir, mark = impostor(home)
    run = tmp_path / "run"
    shutil.copytree(stored, run, symlinks=True)
    for name in (RECORDING, evidence.TRIAL):
        for file in run.rglob(name):
            record = msgspec.json.decode(file.read_bytes())
            record["server"]["source"] = str(bindir)
            file.write_bytes(msgspec.json.encode(record))
    (recording,) = (file.parent for file in run.rglob(RECORDING))
    what = [str(trials(run)[0])] if command == "replay" else [str(recording), "--trials", "1", "-j", "1"]
    assert invoke([command, *what, "--out", "own"]) == 0
    assert not mark.exists()
    assert invoke([command, *what, "--out", "trusted", "--trust"]) == 4
    assert mark.exists()


def test_a_server_of_another_version_is_an_error_that_names_both(stored, tmp_path, monkeypatch, capfd):
    """Not the server's own complaint about its files."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(stored, run, symlinks=True)
    (file,) = run.rglob(RECORDING)
    record = msgspec.json.decode(file.read_bytes())
    record["server"]["version"] = "9.6"
    file.write_bytes(msgspec.json.encode(record))
    assert invoke(["explore", str(file.parent), "--trials", "1", "-j", "1", "--out", "out"]) == 4
    assert "could not find a build of PostgreSQL 9 to run this again" in capfd.readouterr().err
