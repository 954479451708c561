"""Which server runs stored evidence again, and who is told where it is another one?"""

from pathlib import Path

import pytest

from crashlab.errors import CrashlabError, ServerError
from crashlab.server import ServerChoice, Version
from crashlab.server import kinds as kinds_module
from crashlab.server.builds import Build
from crashlab.server.choose import choice_again


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """This machine has 15.18 and 17.4 in its own search, and 15.4 elsewhere."""
    folders = {version: tmp_path / version for version in ("15.18", "17.4", "15.4")}
    for folder in folders.values():
        folder.mkdir()
    builds = {folder: Build(folder, Version.parse(version), "made") for version, folder in folders.items()}
    own = [builds[folders[version]] for version in ("17.4", "15.18")]
    monkeypatch.setattr(kinds_module, "find_builds", lambda: iter(own))
    monkeypatch.setattr(kinds_module, "find_build", lambda folder=None: own[0] if folder is None else builds[folder])
    return folders


def again(source: Path, version: str, choice: ServerChoice, *, trust: bool) -> tuple[Path | None, list[str]]:
    """Choose the server for evidence of a local one; return its folder, and what was told."""
    told: list[CrashlabError] = []
    chosen = choice_again(choice, "local", str(source), Version.parse(version), trust=trust, warn=told.append)
    return chosen.pg_bindir, [str(one) for one in told]


@pytest.mark.parametrize("choice", [ServerChoice(), ServerChoice(kind="local")])
def test_another_release_of_the_same_major_is_taken_and_told(here, choice):
    """Both are named, and how the very one is had."""
    folder, told = again(here["15.4"], "15.4", choice, trust=False)
    assert folder == here["15.18"]
    (text,) = told
    assert text.startswith("PostgreSQL 15.18 takes the place of 15.4\n")
    assert f'The evidence names 15.4 in "{here["15.4"]}"; what runs now is 15.18 in "{here["15.18"]}"' in text
    assert "--pg-bindir DIR; or run the one that the evidence names, with --trust" in text


def test_nothing_is_told_of_the_very_release_or_of_one_that_was_asked_for(here):
    """Wherever the very one lies: a stranger's folder is another."""
    asked = ServerChoice(pg_bindir=here["15.18"])
    assert again(here["15.4"], "15.18", ServerChoice(), trust=False) == (here["15.18"], [])
    assert again(here["15.4"], "15.4", ServerChoice(), trust=True) == (here["15.4"], [])
    assert again(here["15.4"], "15.4", asked, trust=False) == (here["15.18"], [])


def test_a_trusted_build_that_is_gone_has_one_of_its_major_version_in_its_place(here, tmp_path):
    """Never one of another; and a folder that holds another release by now is told, too."""
    gone = tmp_path / "gone"
    folder, (text,) = again(gone, "15.4", ServerChoice(), trust=True)
    assert folder == here["15.18"]
    assert "--trust" not in text
    folder, (text,) = again(here["15.18"], "15.10", ServerChoice(), trust=True)
    assert folder == here["15.18"]
    assert text.startswith("PostgreSQL 15.18 takes the place of 15.10\n")
    with pytest.raises(ServerError, match="could not find a build of PostgreSQL 16"):
        again(gone, "16.14", ServerChoice(), trust=True)
