"""The matrix of promises: which cells there are, what is promised for each, and what crashes show of four of them."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from crashlab import campaign, evidence
from crashlab.campaign.executor import InlineExecutor
from crashlab.campaign.loop import Campaign, Order, run
from crashlab.campaign.store import INDEX
from crashlab.campaign.task import Job
from crashlab.cli import invoke
from crashlab.errors import RecordingError, UsageProblem
from crashlab.exploration.recording import RECORDING
from crashlab.matrix import Cell, cells, profile_of, promised
from crashlab.profile import Profile
from crashlab.results import ProfileFacts
from crashlab.trial.setup import TrialPlan


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """No test leaves .crashlab where it was started."""
    monkeypatch.chdir(tmp_path)


def test_the_matrix_is_the_product_of_its_axes_and_each_cell_knows_itself():
    """Every combination once; a profile's resolved table gives the cell back, and no other profile is taken for one."""
    whole = cells()
    assert len(whole) == len({one.name for one in whole}) == 2 * 2 * 2 * 4 * 2 * 2
    assert len(cells(["fsync=on", "wal_sync_method=fsync", "wal_sync_method=open_sync"])) == 32
    assert {one.synchronous_commit for one in cells(["synchronous_commit=remote_write"])} == {"remote_write"}
    for cell in whole[::7]:
        assert Cell.of(ProfileFacts.of(profile_of(cell))) == cell
    facts = ProfileFacts.of(profile_of(whole[0]))
    facts.resolved["server"]["settings"]["fsync"] = "off"
    assert Cell.of(facts) is None


@pytest.mark.parametrize(
    ("settings", "process", "power"),
    [
        ({}, "intact", "intact"),
        ({"fsync": "off"}, "intact", "nothing"),
        ({"synchronous_commit": "off"}, "intact or loss", "intact or loss"),
        ({"synchronous_commit": "local", "wal_sync_method": "open_sync"}, "intact", "intact"),
        ({"full_page_writes": "off"}, "intact or torn", "intact or torn"),
        ({"full_page_writes": "off", "synchronous_commit": "off"}, "loss or torn", "loss or torn"),
        ({"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}, "loss or torn", "nothing"),
    ],
)
def test_what_is_documented_for_a_combination(settings, process, power):
    """The manual's promises in a word, for both kinds of crash; the flush method and checksums change none of them."""
    usual = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"} | settings
    found = {
        (one.crash_class, promised(one.contract, one.synchronous_commit).word)
        for one in cells([f"{key}={value}" for key, value in usual.items()])
    }
    assert found == {("process_crash", process), ("power_loss", power)}


@pytest.mark.parametrize(
    ("only", "says"),
    [
        ("fsyn=on", 'Did you mean "fsync"?'),
        ("fsync=maybe", "It is one of on, off."),
        ("wal_sync_method=open_sink", 'Did you mean "open_sync"?'),
        ("fsync", "It is one of on, off."),
    ],
)
def test_a_mistake_in_only_is_named(only, says):
    """With the words that there are, and no folder made."""
    with pytest.raises(UsageProblem) as caught:
        cells([only])
    assert says in (caught.value.hint or "")
    assert invoke(["matrix", "--only", only]) == 2
    assert list(Path().iterdir()) == []


def test_what_was_asked_for_cannot_be_asked_for_again(capfd):
    """A matrix that is resumed knows its cells."""
    assert invoke(["matrix", "--resume", ".", "--only", "fsync=on"]) == 2
    assert "leave out --only" in capfd.readouterr().err


def test_a_profile_that_waits_for_a_recording_which_nobody_makes_ends_the_run(tmp_path):
    """It must not wait for ever."""
    job = Job(plan=TrialPlan(profile=profile_of(cells()[0]), run_seed=1), out=tmp_path / "cell")
    executor = InlineExecutor()
    with executor:
        done = run(Campaign(orders=[Order(job=job, trials=1, recording=tmp_path / "nowhere")]), executor)
    assert isinstance(done.error, RecordingError)
    assert "it is not there" in done.error.primary


ONLY = ("synchronous_commit=on", "full_page_writes=on", "wal_sync_method=fdatasync", "data_checksums=on")


def verdicts(out: Path) -> dict[str, bytes]:
    """Every stored verdict of a run."""
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob(evidence.VERDICT)}


@pytest.mark.server
def test_a_guilty_cell_shows_it_and_its_twins_do_not(capfd):
    """fsync=off loses the power and what was promised to nobody; with fsync, or a kernel that lives, all is there.

    One recording for both kinds of crash; judged again the same; resumed after a kill to the same states and verdicts.
    """
    asked = [word for text in ONLY for word in ("--only", text)]
    assert invoke(["matrix", *asked, "--states", "4", "--seed", "3", "--out", "m", "--keep", "all", "-j", "2"]) == 0
    told = capfd.readouterr().out
    assert "matrix: 4 cells, 16 crash states; no cell contradicts its promise" in told
    reports = json.loads(Path("m/report.json").read_text())
    found = {(one["matrix"]["cell"]["fsync"], one["crash_class"]): one for one in reports}
    for key, one in found.items():
        guilty = key == ("off", "power_loss")
        assert one["promise"] == ("void" if guilty else "kept")
        assert one["matrix"]["promised"] == ("nothing" if guilty else "intact")
        assert one["tally"]["trials"] == one["matrix"]["states"] == 4
        assert one["tally"]["intact"] == 4 or guilty
        assert one["server"]["settings"]["fsync"] == key[0]
    assert found["off", "power_loss"]["tally"]["intact"] < 4
    recorded = sorted(file.parent.parent.name for file in Path("m").rglob(RECORDING))
    assert recorded == sorted(found[fsync, "process_crash"]["profile"] for fsync in ("on", "off"))
    assert invoke(["judge", "m", "--json", "again.json"]) == 0
    assert Path("again.json").read_bytes() == Path("m/report.json").read_bytes()
    _killed_and_resumed(found["off", "power_loss"]["profile"], found["on", "process_crash"]["profile"])


def _killed_and_resumed(*cut_short: str) -> None:
    """Take the end of two cells away, and all that is written when a run ends; go on, and have it all again."""
    before, out = verdicts(Path("m")), Path("m")
    for profile in cut_short:
        for number in (2, 3):
            shutil.rmtree(out / profile / f"trial-{number:04d}")
    (out / INDEX).unlink()
    campaign.save_plan(out, campaign.load_plan(out))
    assert invoke(["matrix", "--resume", "m", "-j", "2"]) == 0
    assert verdicts(out) == before
    with_states = campaign.stored_results(out)
    assert [len(one.trials) for one in with_states.values()] == [4] * 4


@pytest.mark.server
def test_recordings_of_cells_go_when_all_that_examine_them_are_done(capfd):
    """A permitted loss is no reason to keep a recording of the matrix; its trials say how to have them again."""
    asked = [word for text in (*ONLY[1:], "synchronous_commit=off", "fsync=on") for word in ("--only", text)]
    assert invoke(["matrix", *asked, "--states", "3", "--seed", "3", "--out", "m", "-j", "1"]) == 0
    assert list(Path("m").rglob("io.log")) == []
    capfd.readouterr()
    assert invoke(["results", "m", "--json", "-"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert len(rows) == 6
    assert {row["reproduce"].partition(" --only")[0] for row in rows} == {"crashlab matrix --seed 3 --states 3"}
    with contextlib.closing(sqlite3.connect(Path("m", INDEX))) as index:
        index.execute("DELETE FROM trial WHERE trial = 1")
        index.commit()
    assert invoke(["results", "m", "--json", "-"]) == 0  # as a run leaves it that was killed before it noted them
    assert json.loads(capfd.readouterr().out) == rows
    Path("m", INDEX).unlink()
    files = sorted(Path("m").rglob("*"))
    assert invoke(["results", "m", "--json", "-"]) == 0
    assert json.loads(capfd.readouterr().out) == rows
    assert sorted(Path("m").rglob("*")) == files


def test_a_cell_is_a_profile_like_any_other():
    """Its table loads again as an equal profile: what is stored can be run."""
    profile = profile_of(cells()[0])
    assert Profile.model_validate(profile.table()) == profile
