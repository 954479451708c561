"""Does evidence of an earlier release still say what it said then?

`stored/schema-1.tar.xz`: three runs of the release that first wrote schema 1 (0.1.0, before runs had a campaign.json):
async-commit, two-phase, and power-loss-async with its recording, whose log and base image are left out. Folder names
of the machine are replaced, nothing else.
"""

import tarfile
from pathlib import Path

import msgspec
import pytest

from crashlab import evidence
from crashlab.campaign import judge_run
from crashlab.cli import invoke
from crashlab.model import Injection, Verdict
from crashlab.oracle.codes import CODES

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
    (folder / evidence.TRIAL).write_bytes(msgspec.json.encode(record | {"schema": 2} | change))
    assert invoke(["judge", str(folder)]) == 4
    err = capfd.readouterr().err
    assert 'trial.json": schema 2 is not 1' in err
    assert "hint: A newer crashlab wrote it" in err
    assert not (folder / evidence.VERDICT).exists()
