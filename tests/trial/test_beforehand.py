"""Is what cannot work refused before anything is started, and nothing else?"""

from pathlib import Path

import pytest

from crashlab.cli import invoke
from crashlab.errors import ProfileError, UsageProblem
from crashlab.profile import load_profile
from crashlab.server import ServerChoice, kinds
from crashlab.server.base import Version
from crashlab.trial.beforehand import refuse_recoverer, refuse_settings
from tests.power.test_known_bugs import build

LOCAL = ServerChoice(kind="local")
IMAGE = ServerChoice(kind="container", image="postgres:17")


def refused(setting: str, choice: ServerChoice = LOCAL) -> str:
    """What is said of a setting; empty: it is let pass."""
    try:
        refuse_settings([load_profile("kill9-all", [f"server.settings.{setting}"])], choice)
    except ProfileError as error:
        return str(error.detail)
    return ""


@pytest.fixture
def seventeen(monkeypatch) -> None:
    """Each image is one of PostgreSQL 17, without a look at it."""
    monkeypatch.setattr(kinds, "version_of_image", lambda image: Version.parse("17.4"))


@pytest.mark.server
def test_a_setting_that_the_server_does_not_have_is_refused_with_what_may_be_meant():
    """Misspelt, of a newer release, or with a value that it does not take."""
    assert "server.settings.fsink: PostgreSQL 18" in refused("fsink=off")
    assert 'has no such setting. Did you mean "fsync"?' in refused("fsink=off")
    assert refused("fsync=maybe") == 'server.settings.fsync: must be on or off, not "maybe"'
    old = ServerChoice(kind="local", pg_bindir=build("16.14"))
    assert "io_method: PostgreSQL 16.14 has no such setting" in refused("io_method=sync", old)


@pytest.mark.server
def test_what_the_server_takes_is_let_pass(monkeypatch):
    """Of an extension, too; of another case; of this release alone; and one that only this build has."""
    for innocent in ("fsync=off", "FSync=off", "io_method=sync", "my_extension.own=3", "work_mem=4MB"):
        assert refused(innocent) == ""
    monkeypatch.setattr(kinds, "refusal", lambda build, name, value: None)
    assert refused("wal_debug_of_ours=on") == ""


def test_an_image_has_the_settings_of_its_version(seventeen):
    """It cannot be asked before it runs."""
    assert 'fsink: PostgreSQL 17.4 has no such setting. Did you mean "fsync"?' in refused("fsink=off", IMAGE)
    assert "io_method: PostgreSQL 17.4 has no such setting" in refused("io_method=sync", IMAGE)
    assert refused("summarize_wal=on", IMAGE) == ""
    assert refused("my_extension.own=3", IMAGE) == ""


def test_of_a_version_that_nobody_knows_yet_nothing_is_said(monkeypatch):
    """Its settings are its own."""
    monkeypatch.setattr(kinds, "version_of_image", lambda image: Version.parse("99.1"))
    assert refused("brand_new=off", IMAGE) == ""


@pytest.mark.server
def test_values_that_are_left_open_are_held_against_the_server_too():
    """Each of them; the size of a segment is no setting of a running server."""
    vary = "vary={ wal_segsize = ['1', '16'], wal_sync_methud = ['fsync'] }"
    with pytest.raises(ProfileError) as caught:
        refuse_settings([load_profile("kill9-all", [vary])], LOCAL)
    (said,) = str(caught.value.detail).splitlines()
    assert said.startswith("vary.wal_sync_methud: ")
    assert said.endswith('Did you mean "wal_sync_method"?')


@pytest.mark.server
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--recover-with", "/nope"], 'cannot recover with "/nope": there is no such folder'),
        (["--recover-with", "./nope"], 'cannot recover with "./nope": there is no such folder'),
        (["--recover-with", "nope"], 'cannot recover a local server with "nope": give a folder of programs'),
        (["--recover-with", "."], 'could not find "postgres" in '),
        (["--set", "fsink=off"], 'has no such setting. Did you mean "fsync"?'),
    ],
)
@pytest.mark.parametrize("profile", ["power-loss", "kill9-all"])
def test_nothing_is_begun_that_cannot_be_ended(profile, words, says, tmp_path: Path, monkeypatch, capfd):
    """A recorded profile is not recorded first; there is no evidence, and no word of a run."""
    monkeypatch.chdir(tmp_path)
    assert invoke(["run", profile, "--trials", "1", "--server", "local", "--out", "run", *words]) in (2, 4)
    told = capfd.readouterr()
    assert says in told.err
    assert "run could not be finished" not in told.out
    assert not Path("run").exists()


@pytest.mark.server
def test_a_dry_run_refuses_what_the_run_refuses(tmp_path, monkeypatch, capfd):
    """A setting that the server here has not; one that it has is let pass, and for an image nothing is fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kinds, "version_of_image", lambda image: pytest.fail(f"{image} was asked for"))
    dry = ["run", "kill9-all", "--dry-run"]
    assert invoke([*dry, "--server", "local", "--set", "fsink=off"]) == 2
    told = capfd.readouterr()
    assert 'has no such setting. Did you mean "fsync"?' in told.err
    assert told.out == ""
    assert invoke([*dry, "--server", "local", "--set", "fsync=off"]) == 0
    assert invoke([*dry, "--server", "container", "--set", "fsink=off"]) == 0
    assert list(Path().iterdir()) == []


@pytest.mark.server
def test_only_a_release_of_the_same_major_version_is_to_recover(seventeen):
    """And only one of the same kind of server."""
    profiles = [load_profile("power-loss")]
    crashes = ServerChoice(kind="local", pg_bindir=build("15.4"))
    refuse_recoverer(profiles, crashes, ServerChoice(kind="local", pg_bindir=build("15.18")))
    with pytest.raises(UsageProblem, match=r"cannot recover PostgreSQL 15\.4 with 16\.14"):
        refuse_recoverer(profiles, crashes, ServerChoice(kind="local", pg_bindir=build("16.14")))
    with pytest.raises(UsageProblem, match="give an image"):
        refuse_recoverer(profiles, IMAGE, ServerChoice(kind="local", pg_bindir=build("17.4")))
    refuse_recoverer(profiles, IMAGE, ServerChoice(kind="container", image="postgres:17.5"))
