"""Does a trial of a recording shrink to a small crash state with the same finding, told so that it can be followed?

The trials are those of `stored/recorded-schema-1.tar.xz`, see `test_replay_stored`.
"""

from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.campaign.shrink import IMAGE, README, shrink
from crashlab.cli import invoke
from crashlab.errors import UsageProblem
from crashlab.model import Outcome
from crashlab.server import ServerChoice
from tests.campaign.test_replay_stored import trials, unpacked

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(tmp_path_factory.mktemp("stored"))


def trial_with(run: Path, outcome: Outcome) -> Path:
    """Return the first trial with an outcome."""
    return next(folder for folder in trials(run) if evidence.load_verdict(folder).outcome is outcome)


@pytest.mark.parametrize("outcome", [Outcome.CORRUPTION, Outcome.NO_START, Outcome.LOSS])
def test_a_trial_shrinks_to_few_lost_writes_with_the_same_finding(stored, tmp_path, monkeypatch, outcome):
    """Fewer losses than drawn, no later point, a README that names each, and a folder that replays to the same code."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "small"
    out.mkdir()
    done = shrink(trial_with(stored, outcome), out=out, server=ServerChoice(), time_limit_s=120)
    assert done.code in [one.code for one in done.result.verdict.findings]
    # An asynchronous commit is gone by a kill -9 at the right point, with nothing lost by the disk
    assert (0 if outcome is Outcome.LOSS else 1) <= done.lost < done.lost_before
    assert done.position <= done.position_before
    told = (out / README).read_text()
    assert len(done.lines) == done.lost
    assert all(line in told for line in done.lines)
    assert all("operation" in line or "size of" in line for line in done.lines)
    assert (out / IMAGE / "PG_VERSION").is_file()
    assert not (out / IMAGE / "postmaster.pid").exists()
    assert invoke(["replay", str(out), "--out", "again"]) == 0
    (again,) = trials(tmp_path / "again")
    assert done.code in [one.code for one in evidence.load_verdict(again).findings]


def test_what_cannot_be_shrunk_is_refused_with_the_reason(stored, tmp_path):
    """A code that it did not find; a live trial."""
    out = tmp_path / "small"
    out.mkdir()
    with pytest.raises(UsageProblem, match="it did not find CORRUPT-HOLE-OF-ANOTHER-KIND"):
        shrink(trial_with(stored, Outcome.LOSS), out=out, server=ServerChoice(), code="CORRUPT-HOLE-OF-ANOTHER-KIND")
    assert invoke(["run", "kill9-all", "--trials", "1", "--seed", "1", "-q", "--out", str(tmp_path / "live")]) == 0
    (live,) = trials(tmp_path / "live")
    with pytest.raises(UsageProblem, match="it is no trial of a recording"):
        shrink(live, out=out, server=ServerChoice())
