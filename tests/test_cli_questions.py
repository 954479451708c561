"""Questions about stored runs: which trials there are, and what changed; also questions that make no sense."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from crashlab.campaign.events import ProfileBegan, TrialDone
from crashlab.campaign.store import INDEX, Store
from crashlab.cli import invoke
from crashlab.cli.questions import NOT_JUDGED, OUTCOMES, PROMISES
from crashlab.cli.watch import Watch
from crashlab.model import Outcome, PromiseStatus
from crashlab.results import CrashPoint
from tests.made_results import broken, inconclusive, intact, permitted_loss


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """No test leaves .crashlab where it was started."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def indexed(tmp_path) -> Path:
    """A run's folder with an index of trials made by hand."""
    out = tmp_path / "run"
    out.mkdir()
    with contextlib.closing(Store(out)) as store:
        lost = replace(
            permitted_loss(10), state=CrashPoint(907, "all of it", 255), folder=out / "async-commit/trial-0010"
        )
        store.add("async-commit", [intact(2), lost])
        store.add(
            "kill9-all", [broken(0), inconclusive(1), replace(intact(2), again="crashlab run kill9-all --seed 1")]
        )
    return out


def asked(capfd: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    """The rows of an answer."""
    assert invoke(["results", *args, "--json", "-"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert isinstance(rows, list)
    return rows


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], ["async-commit:2", "async-commit:10", "kill9-all:0", "kill9-all:1", "kill9-all:2"]),
        (["--limit", "2"], ["async-commit:2", "async-commit:10"]),
        (["--profile", "kill9-all"], ["kill9-all:0", "kill9-all:1", "kill9-all:2"]),
        (["--outcome", "intact"], ["async-commit:2", "kill9-all:2"]),
        (["--promise", "broken"], ["kill9-all:0"]),
        (["--promise", "none"], ["kill9-all:1"]),
        (["--code", "loss-async-window"], ["async-commit:10"]),
        (["--code", "CORRUPT-PHANTOM"], []),
        (["--profile", "kill9-all", "--outcome", "loss"], []),
    ],
)
def test_filters_say_which_trials_are_listed(indexed, capfd, filters, expected):
    """By profile and number, not by digits; several filters must all hold; an empty answer is one."""
    assert [f"{row['profile']}:{row['trial']}" for row in asked(capfd, str(indexed), *filters)] == expected


def test_a_line_says_what_it_showed_and_how_to_have_it_again(indexed, capfd):
    """From where the run lies now, unless its recording is gone; an empty answer says that it is one."""
    moved = indexed.rename(indexed.parent / "moved here")
    assert invoke(["results", "moved here"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["profile", "trial", "outcome", "promise", "codes", "cut", "at", "seconds", "again"]
    assert lines[2].split(maxsplit=7) == [
        *("async-commit", "10", "loss", "kept", "LOSS-ASYNC-WINDOW", "907", "0.70"),
        "crashlab replay 'moved here/async-commit/trial-0010'",
    ]
    assert lines[5].endswith("crashlab run kill9-all --seed 1")
    assert invoke(["results", str(moved), "--code", "CORRUPT-PHANTOM"]) == 0
    assert capfd.readouterr().out == "No such trial.\n"


def test_an_index_that_is_damaged_or_of_another_schema_is_not_believed(indexed, capfd):
    """There is no evidence here to make another one from, so it is an error; and the file is left alone."""
    (indexed / INDEX).write_bytes(b"no database" * 100)
    assert invoke(["results", str(indexed)]) == 4
    assert "no evidence of a trial" in capfd.readouterr().err
    assert (indexed / INDEX).read_bytes().startswith(b"no database")


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["results", "run", "--profile", "kil9-all"], 2, 'hint: Did you mean "kill9-all"?'),
        (["results", "run", "--profile", "x"], 2, "hint: It has async-commit, kill9-all."),
        (["results", "run", "--code", "LOSS-ASYNK-WINDOW"], 2, 'Did you mean "LOSS-ASYNC-WINDOW"?'),
        (["results", "run", "--outcome", "lossy"], 2, "--outcome"),
        (["results", "run", "--promise", "maybe"], 2, "--promise"),
        (["results", "run", "--limit", "0"], 2, "--limit"),
        (["results", "run", "--json", "/nowhere/x.json"], 4, 'could not write --json "/nowhere/x.json"'),
        (["results"], 4, 'no evidence of a trial in ".crashlab/latest": there is no such folder'),
        (["compare", "run"], 2, "Missing argument 'B'"),
        (["compare", "nowhere", "run"], 4, 'no evidence of a trial in "nowhere"'),
    ],
)
def test_bad_questions_are_named(indexed, capfd, args, code, expected):
    """What is wrong, what was meant perhaps, and no answer."""
    assert invoke(args) == code
    out, err = capfd.readouterr()
    assert expected in err
    assert out == ""


def test_the_words_of_the_filters_are_those_of_the_verdicts():
    """An outcome or a promise that there is can be asked for."""
    assert set(OUTCOMES) == {str(one) for one in Outcome}
    assert set(PROMISES) == {*map(str, PromiseStatus), NOT_JUDGED}


def test_progress_names_a_trial_as_replay_does(capfd):
    """Which trial it was counts from 0 like its folder; how many are done is said in words of its own."""
    target = Console(width=200)
    with Watch(target, 5, {}) as watch:
        watch.handle(ProfileBegan("kill9-all", 5))
        for trial in (3, 0):
            watch.handle(TrialDone("kill9-all", intact(trial)))
    first, second = capfd.readouterr().out.splitlines()
    assert first.startswith("kill9-all:3, 1 of 5 done: intact")
    assert second.startswith("kill9-all:0, 2 of 5 done: intact")
