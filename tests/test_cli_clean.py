"""`crashlab clean`: what it shows, what it removes, and which exit code answers."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crashlab.cli import invoke
from crashlab.server import caches, leftovers, owned
from crashlab.server.owner import this_process
from tests.conftest import IMAGE
from tests.server.test_leftovers import dead, folder_of, forge


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """See and keep no lists but those of a test, and ask no Docker engine."""
    monkeypatch.setattr(owned, "RUNS_ROOT", tmp_path)
    monkeypatch.setattr(owned, "_list", None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine")
    folder = owned.runs_folder()
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that the server's user can reach, with two templates and a compiled recorder."""
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="crashlab-test-"))
    root.chmod(0o755)
    monkeypatch.setenv("CRASHLAB_CACHE_DIR", str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(root))
    for name in ("idle", "busy"):
        (root / "templates" / name).mkdir(parents=True)
        (root / "templates" / name / "PG_VERSION").write_bytes(b"18\n" * 1000)
    (root / "crashlab").mkdir()
    (root / "crashlab" / "recorder-0123-x86_64.so").write_bytes(b"library")
    yield root
    shutil.rmtree(root)


def test_it_shows_first_and_removes_with_yes(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which dead process, what, how large; without an engine it says so once and goes on."""
    owner = dead()
    folder = folder_of(tmp_path, owner)
    forge(runs, owner, ("folder", str(folder)))
    assert invoke(["clean"]) == 0
    out = capsys.readouterr().out
    assert out.count("Not looked for containers: could not reach a Docker engine.") == 1
    assert f"Process {owner.pid}, dead; it began 20" in out
    assert owner.command in out
    assert f"8.2 kB  {folder}\n" in out
    assert out.endswith("Remove it with: crashlab clean --yes\n")
    assert folder.exists()
    assert invoke(["clean", "--yes"]) == 0
    assert not folder.exists()
    capsys.readouterr()
    assert invoke(["clean"]) == 0
    assert capsys.readouterr().out.endswith("Nothing is left of dead runs.\n")


def test_a_folder_is_found_without_a_list(tmp_path: Path) -> None:
    """It says itself whose it is: something else may have removed the list."""
    left, living = folder_of(tmp_path, dead()), folder_of(tmp_path, this_process(), "crashlab-living")
    assert invoke(["clean", "--yes"]) == 0
    assert not left.exists()
    assert living.exists()


def test_what_cannot_be_removed_is_named(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted file system, and a container while there is no engine: exit code 4, and the list stays for later."""
    owner = dead()
    folder = folder_of(tmp_path, owner)
    listing = forge(runs, owner, ("folder", str(folder)), ("container", "crashlab-abc"))
    os.utime(listing, (0, 0))
    monkeypatch.setattr(leftovers, "_mount_points", lambda: [folder / "mounted"])
    assert invoke(["clean", "--yes"]) == 4
    err = capsys.readouterr().err
    assert "Could not remove crashlab-abc: could not reach a Docker engine" in err
    assert f'Could not remove {folder}: could not remove "{folder}": something is mounted' in err
    assert (folder / "content").exists()
    assert listing.exists()


def test_lists_that_others_could_write_end_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is believed, and it is said why."""
    runs.chmod(0o777)
    assert invoke(["clean"]) == 4
    assert "that nobody else can write to" in capsys.readouterr().err


def test_caches_are_shown_with_sizes_and_go_unless_in_use(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The guilty template goes, its twin that a living process needs stays."""
    busy, idle = cache / "templates" / "busy", cache / "templates" / "idle"
    owned.uses(busy)
    assert invoke(["clean", "--cache"]) == 0
    out = capsys.readouterr().out
    assert f"  template          4.1 kB  {busy}  in use\n" in out
    assert f"  template          4.1 kB  {idle}\n" in out
    assert idle.exists()
    assert invoke(["clean", "--cache", "--yes"]) == 0
    assert not idle.exists()
    assert (busy / "PG_VERSION").exists()
    assert list((cache / "crashlab").iterdir()) == []
    assert not any(cache.rglob("crashlab-old-*"))


def test_a_program_that_runs_from_a_build_keeps_it(cache: Path) -> None:
    """Its run may have no list that can be seen."""
    program = cache / "builds" / "key" / "bin" / "sleep"
    program.parent.mkdir(parents=True)
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"]) as running:
        try:
            (build,) = [one for one in caches.find_caches() if one.kind == "build"]
            assert build.used
            assert not build.remove()
        finally:
            running.kill()
    assert program.exists()
    assert build.remove()
    assert not program.exists()


@pytest.mark.container
def test_an_engine_loses_what_the_dead_made_and_nothing_else(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Container with its volume, named volume, network: those of a dead process go, those of a living one stay."""
    import docker
    from docker.errors import NotFound
    from docker.models.containers import Container

    monkeypatch.delenv("DOCKER_HOST")
    client = docker.from_env()
    name = f"crashlab-{os.urandom(6).hex()}"
    made: list[Any] = []
    volumes: list[str] = []
    try:
        for suffix, owner in (("dead", dead()), ("alive", this_process())):
            labels = {owned.LABEL: owner.text()}
            made.append(client.containers.create(IMAGE, name=f"{name}-{suffix}", labels=labels))
            volumes.append(made[-1].attrs["Mounts"][0]["Name"])
            made.append(client.volumes.create(f"{name}-{suffix}", labels=labels))
            made.append(client.networks.create(f"{name}-{suffix}", labels=labels))
        assert invoke(["clean"]) == 0
        out = capsys.readouterr().out
        assert f"{name}-dead, with volume {volumes[0][:12]}" in out
        assert f"{name}-alive" not in out
        assert invoke(["clean", "--yes"]) == 0
        left = {one.name for one in client.containers.list(all=True, ignore_removed=True)}
        left |= {one.name for one in client.volumes.list()} | {one.name for one in client.networks.list()}
        assert {one for one in left if one is not None and one.startswith(name)} == {f"{name}-alive"}
        assert set(volumes) & left == {volumes[1]}
    finally:
        for one in made:
            with contextlib.suppress(NotFound):
                one.remove(**({"force": True, "v": True} if isinstance(one, Container) else {}))
        client.close()
