"""Is the first release found whose verdict is another one?"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from crashlab.campaign.bisect import Release, Tried, bisect, releases_between, releases_in, trial_of, what_came_of
from crashlab.cli import invoke
from crashlab.errors import UsageProblem
from crashlab.model import PromiseStatus
from crashlab.profile import load_profile
from crashlab.results import RunResult, TrialResult
from crashlab.server.base import Version
from tests.made_results import broken, inconclusive, intact, result, shut_down, void
from tests.power.test_known_bugs import build


def releases(*versions: str) -> list[Release]:
    return [Release(Version.parse(text), Path(text)) for text in versions]


def verdict(release: Release, *, guilty: bool, judged: int = 100, telling: int = 100) -> Tried:
    """What 100 trials of a release come to."""
    codes = ("NO-START",) if guilty else ()
    return Tried(release=release, wanted=100, trials=100, judged=judged, telling=telling, codes=codes)


ALL = releases("15.1", "15.2", "15.3", "15.4", "15.5", "15.6", "15.7", "15.8")


@pytest.mark.parametrize("first_fixed", range(1, 8))
@pytest.mark.parametrize("guilty_first", [True, False])
def test_the_first_release_that_differs_is_found_by_halves(first_fixed, guilty_first):
    """Mended or broken there, wherever that is; in at most five runs of eight releases."""
    asked = []

    def tried(release: Release) -> Tried:
        asked.append(release)
        return verdict(release, guilty=(ALL.index(release) < first_fixed) is guilty_first)

    found = bisect(ALL, tried)
    assert found.first == ALL[first_fixed]
    assert len(asked) == len(set(asked)) <= 5
    assert [one.release for one in found.tried] == sorted(asked, key=ALL.index)


@pytest.mark.parametrize("guilty", [True, False])
def test_where_both_ends_agree_nothing_is_claimed(guilty):
    """Two runs, and no release is named."""
    found = bisect(ALL, lambda release: verdict(release, guilty=guilty))
    assert found.first is None
    assert len(found.tried) == 2


@pytest.mark.parametrize("at", [0, 3, 7])
@pytest.mark.parametrize("counts", [{"judged": 99}, {"telling": 0}])
def test_a_release_that_is_neither_ends_the_search(at, counts):
    """One trial that was not judged, or none that could have shown it; a guilty one is guilty all the same."""

    def tried(release: Release) -> Tried:
        these = counts if release == ALL[at] else {}
        return verdict(release, guilty=ALL.index(release) < at, **these)

    found = bisect(ALL, tried)
    assert found.first is None
    assert found.undecided is not None
    assert found.undecided.release == ALL[at]
    assert not verdict(ALL[at], guilty=True, **counts).undecided


def made(count: int, kind: Callable[[int], TrialResult]) -> list[TrialResult]:
    """So many trials of a kind."""
    return [kind(number) for number in range(count)]


def unpromised(number: int) -> TrialResult:
    """Nothing is missing, and nothing was promised."""
    trial = intact(number)
    assert trial.contract is not None
    return replace(trial, contract=msgspec.structs.replace(trial.contract, sync_commits_survive=False))


@pytest.mark.parametrize(
    ("trials", "code", "telling", "undecided"),
    [
        (made(6, intact), None, 6, False),
        (made(5, intact), None, 5, True),  # it ended before the sixth
        ([], None, 0, True),
        ([*made(5, intact), inconclusive(5)], None, 5, True),
        (made(6, void), None, 0, True),
        (made(6, void), "LOSS-ACKED", 6, False),
        ([*made(5, void), unpromised(5)], None, 0, True),
        ([*made(5, void), intact(5)], None, 1, False),
        (made(6, lambda number: shut_down(intact(number))), None, 0, True),
        (made(6, lambda number: shut_down(intact(number))), "LOSS-ACKED", 0, True),
        ([*made(5, intact), shut_down(intact(5))], None, 5, False),
        ([*made(5, intact), broken(5)], None, 6, False),
    ],
)
def test_only_what_could_have_been_shown_makes_a_release_innocent(trials, code, telling, undecided):
    """Not what was not judged, of which nothing was promised, or which had shut down before it could crash."""
    found = what_came_of(ALL[0], trials, wanted=6, code=code)
    assert (found.telling, found.undecided) == (telling, undecided)
    assert found.guilty == any(trial.verdict.promise is PromiseStatus.BROKEN for trial in trials)


def test_what_is_looked_for_is_what_makes_a_release_guilty():
    """A permitted finding does where it is named, and not otherwise."""
    trials = [*made(5, intact), void(5)]
    assert what_came_of(ALL[0], trials, wanted=6, code="CORRUPT-HOLE").codes == ("CORRUPT-HOLE",)
    assert not what_came_of(ALL[0], trials, wanted=6, code=None).guilty


@pytest.mark.parametrize("interrupted", [True, False])
def test_an_interrupted_run_says_nothing_of_its_release(interrupted, tmp_path, monkeypatch):
    """Whatever was finished by then; an uninterrupted one does."""
    done = RunResult(profiles=[result("kill9-all", intact(), interrupted=interrupted)])
    monkeypatch.setattr("crashlab.campaign.run_campaign", lambda *_: done)
    tried = trial_of(load_profile("kill9-all"), code=None, trials=1, seed=1, out=tmp_path, workers=1)
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            tried(ALL[0])
    else:
        assert not tried(ALL[0]).undecided


def test_releases_are_those_of_the_folder_by_number(tmp_path):
    """15.10 comes after 15.9; what is older than 14 is left out, and so is what is no build."""
    for name in ("15.10", "15.9", "16.1", "13.2", "15.8"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "postgres").touch()
    (tmp_path / "15.7").mkdir()
    assert [one.version.text for one in releases_in(tmp_path)] == ["15.8", "15.9", "15.10", "16.1"]
    assert [one.version.text for one in releases_between(tmp_path, "15.9..16.1")] == ["15.9", "15.10", "16.1"]
    with pytest.raises(UsageProblem, match=r"could not find two releases within 17\.0\.\.17\.9"):
        releases_between(tmp_path, "17.0..17.9")
    with pytest.raises(UsageProblem, match='cannot use the versions "15"'):
        releases_between(tmp_path, "15")


@pytest.mark.server
def test_the_release_that_mended_the_empty_table_is_found(tmp_path, capsys):
    """15.3 loses its file, 15.4 does not (commit e24c02e4d); 15.18 is as innocent."""
    builds = build("15.3").parent.parent
    build("15.4")
    words = ["bisect", "ddl-power-loss", "--versions", "15.3..15.4", "--builds", str(builds), "--trials", "12"]
    assert invoke([*words, "--seed", "31", "-j", "1", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "15.3  guilty in" in told
    assert "CORRUPT-UNREADABLE" in told
    assert "15.4  innocent: no broken promise in 12 trials" in told
    assert "PostgreSQL 15.4 is the first of these that is innocent." in told
