"""Is the first release found whose verdict is another one?"""

from pathlib import Path

import pytest

from crashlab.campaign.bisect import Release, Tried, bisect, releases_between, releases_in
from crashlab.cli import invoke
from crashlab.errors import UsageProblem
from crashlab.server.base import Version
from tests.power.test_known_bugs import build


def releases(*versions: str) -> list[Release]:
    return [Release(Version.parse(text), Path(text)) for text in versions]


ALL = releases("15.1", "15.2", "15.3", "15.4", "15.5", "15.6", "15.7", "15.8")


@pytest.mark.parametrize("first_fixed", range(1, 8))
@pytest.mark.parametrize("guilty_first", [True, False])
def test_the_first_release_that_differs_is_found_by_halves(first_fixed, guilty_first):
    """Mended or broken there, wherever that is; in at most five runs of eight releases."""
    asked = []

    def tried(release: Release) -> Tried:
        asked.append(release)
        guilty = (ALL.index(release) < first_fixed) is guilty_first
        return Tried(release, guilty, 100, 100, ("NO-START",) if guilty else ())

    found = bisect(ALL, tried)
    assert found.first == ALL[first_fixed]
    assert len(asked) == len(set(asked)) <= 5
    assert [one.release for one in found.tried] == sorted(asked, key=ALL.index)


@pytest.mark.parametrize("guilty", [True, False])
def test_where_both_ends_agree_nothing_is_claimed(guilty):
    """Two runs, and no release is named."""
    found = bisect(ALL, lambda release: Tried(release, guilty, 100, 100, ()))
    assert found.first is None
    assert len(found.tried) == 2


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
    assert "15.4  innocent: nothing found in 12 trials" in told
    assert "PostgreSQL 15.4 is the first of these that is innocent." in told
