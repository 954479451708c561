"""Does evidence of an earlier release still say what it said then?

`stored/schema-1.tar.xz`: three runs of the release that first wrote schema 1 (0.1.0, before runs had a campaign.json):
async-commit, two-phase, and power-loss-async with its recording, whose log and base image are left out. Folder names
of the machine are replaced, nothing else.
"""

import shutil
import tarfile
from pathlib import Path

import msgspec
import pytest

from crashlab import evidence
from crashlab.campaign import judge_run, save_run
from crashlab.cli import invoke
from crashlab.model import Injection, Verdict
from crashlab.oracle.codes import CODES
from crashlab.report import json_report

ARCHIVE = Path(__file__).parent / "stored" / "schema-1.tar.xz"
RUNS = ("async-commit", "two-phase", "power-loss-async")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The stored runs, for every test of this module to read."""
    folder = tmp_path_factory.mktemp("stored")
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            (folder / member.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / member.name).write_bytes(content.read())
    return folder


def essence(verdict: Verdict) -> tuple[object, ...]:
    """What must not change while the oracle's words may: outcome, promise, counts, codes."""
    codes = [(one.code, one.permitted, one.count) for one in verdict.findings]
    return verdict.outcome, verdict.promise, verdict.counts, codes


@pytest.mark.parametrize("run", RUNS)
def test_todays_oracle_agrees_with_the_release_that_stored_it(unpacked, run):
    """Same outcome, promise, counts and codes as the verdict that was stored then."""
    then = {path.parent: evidence.load_verdict(path.parent) for path in (unpacked / run).rglob(evidence.VERDICT)}
    (result,) = judge_run(unpacked / run).profiles
    assert {trial.folder: essence(trial.verdict) for trial in result.trials} == {
        folder: essence(verdict) for folder, verdict in then.items()
    }
    assert (result.interrupted, result.stopped_by) == (False, None)


@pytest.mark.parametrize("run", RUNS)
def test_evidence_is_judged_and_told_whatever_a_profile_may_say_today(unpacked, run, tmp_path):
    """A key that is unknown today, one that is missing, a value without a meaning: the report is the same, but those.

    So it is with the trials alone, with a file about the whole run, and once today's schema was written.
    """
    folder = tmp_path / "run"
    shutil.copytree(unpacked / run, folder)
    before = told(folder)
    for file in folder.rglob(evidence.TRIAL):
        record = msgspec.json.decode(file.read_bytes())
        profile = record["profile_resolved"]
        profile |= {"quantum": {"foam": 1}, "crash_class": "meteor", "faults": [{"kind": "kill", "moon": "full"}]}
        del profile["workload"], profile["trials"]
        if profile["power_loss"]:
            profile["power_loss"] |= {"tear_bytes": 3, "moon": "full"}
        file.write_bytes(msgspec.json.encode(record))
    assert told(folder) == before
    save_run(folder, judge_run(folder))
    assert told(folder) == before
    for file in folder.rglob(evidence.TRIAL):
        stored = evidence.load_trial(file.parent)
        evidence.save(file.parent, evidence.TRIAL, stored)
        assert evidence.load_trial(file.parent) == stored
    assert told(folder) == before


def told(folder: Path) -> bytes:
    """The JSON report on a stored run."""
    return json_report.report_bytes(judge_run(folder))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("live", "linux", None)),
        (
            {"reproduce": "crashlab run x --seed 1", "recording": "../r"},
            ("recorded", "linux", "crashlab run x --seed 1"),
        ),
        (
            {"reproduce": "pytest 'a.py::b' --crashlab-seed=1"},
            ("application", "linux", "pytest 'a.py::b' --crashlab-seed=1"),
        ),
        ({"power_loss": {}}, ("live", "linux", None)),
        ({"power_loss": {"disk": "strict", "ordered_journal": False}}, ("live", "strict", None)),
        ({"power_loss": {"disk": "linux", "ordered_journal": False}}, ("live", "unordered", None)),
        ({"power_loss": {"ordered_journal": False, "durable_symlinks": True}}, ("live", "linux", None)),
        ({"power_loss": {"disk": "linux", "swallow": ["wal"]}}, ("live", "lying", None)),
    ],
)
def test_what_schema_1_did_not_say_follows_from_what_it_did(unpacked, tmp_path, changes, expected):
    """Kind, promised disk, and whether the trial is its own replay."""
    folder = one_trial(unpacked, tmp_path)
    record = msgspec.json.decode((folder / evidence.TRIAL).read_bytes())
    assert record["schema"] == 1
    more = {key: value for key, value in changes.items() if key != "power_loss"}
    record["profile_resolved"]["power_loss"] = changes.get("power_loss")
    (folder / evidence.TRIAL).write_bytes(msgspec.json.encode(record | more))
    stored = evidence.load_trial(folder)
    assert (stored.schema, stored.kind, stored.disk, stored.reproduce) == (2, *expected)


def test_a_receipt_older_than_its_disk_is_given_one(unpacked):
    """A cut through a recording is known by its disk, which receipts of schema 1 had in their target only."""
    disks = {run: {one.disk for path in (unpacked / run).rglob(evidence.TRIAL) for one in load(path)} for run in RUNS}
    assert disks == {"async-commit": {None}, "two-phase": {None}, "power-loss-async": {"linux"}}


def load(path: Path) -> list[Injection]:
    return evidence.load_trial(path.parent).injections


def one_trial(unpacked: Path, tmp_path: Path) -> Path:
    """A copy of one stored trial, to be changed."""
    (source,) = (unpacked / "two-phase").rglob(evidence.TRIAL)
    folder = tmp_path / "trial-0000"
    folder.mkdir()
    for file in source.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize("stored", [b'{"outcome": "of a later release", "findings": [{"code": "CORRUPT-NEW"}]}', b"{"])
def test_a_stored_verdict_is_not_read(unpacked, tmp_path, stored):
    """Codes of a later oracle, or a damaged file, are no obstacle: the evidence is judged, the verdict replaced."""
    folder = one_trial(unpacked, tmp_path)
    then = evidence.load_verdict(folder)
    (folder / evidence.VERDICT).write_bytes(stored)
    assert "CORRUPT-NEW" not in CODES
    assert invoke(["judge", str(folder)]) == 0
    assert essence(evidence.load_verdict(folder)) == essence(then)


@pytest.mark.parametrize("change", [{}, {"server": "described in another way"}])
def test_evidence_of_a_newer_schema_is_refused_by_name(unpacked, tmp_path, change, capfd):
    """Exit code 4 and the reason, even where the newer file would look damaged; nothing is judged by guess."""
    folder = one_trial(unpacked, tmp_path)
    (folder / evidence.VERDICT).unlink()
    record = msgspec.json.decode((folder / evidence.TRIAL).read_bytes())
    (folder / evidence.TRIAL).write_bytes(msgspec.json.encode(record | {"schema": 3} | change))
    assert invoke(["judge", str(folder)]) == 4
    err = capfd.readouterr().err
    assert 'trial.json": schema 3 is not 2' in err
    assert "hint: A newer crashlab wrote it" in err
    assert not (folder / evidence.VERDICT).exists()
