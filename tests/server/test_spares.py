"""Is a used data directory really made fresh again?"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashlab.server import ServerSpec, SpareDirectories, create_server
from crashlab.server.spares import make_equal

NAMES = st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h"])
ACTIONS = st.lists(st.tuples(st.sampled_from(["write", "remove", "link", "folder", "mode"]), NAMES), max_size=8)


def content(root: Path) -> dict[str, object]:
    """Everything below a folder, byte for byte."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = path.readlink()
        else:
            found[name] = (path.stat().st_mode, None if path.is_dir() else path.read_bytes())
    return found


def disturb(root: Path, action: str, name: str) -> None:
    """Do to an entry what a server or a planted damage may do."""
    path = root / name
    if any(parent.is_symlink() or parent.is_file() for parent in path.parents if parent != root):
        return
    if action != "write" and (path.is_symlink() or path.exists()):
        if action == "mode" and not path.is_symlink():
            path.chmod(0o700)
            return
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    if action == "write" and not path.is_dir():
        path.unlink(missing_ok=True) if path.is_symlink() else None
        path.write_bytes(b"new")
    elif action == "link":
        path.symlink_to("/nowhere")
    elif action == "folder":
        path.mkdir(exist_ok=True)


@given(actions=ACTIONS)
def test_any_change_is_undone(tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, str]]) -> None:
    """Written, removed, replaced, added and re-moded entries are all as in the model afterwards."""
    model = tmp_path_factory.mktemp("model")
    for name in ("a", "c/d", "f/g/h"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(b"old")
        os.utime(model / name, ns=(10**18, 10**18))
    copy = model.with_name(f"{model.name}-copy")
    subprocess.run(["cp", "-a", model, copy], check=True)
    for action, name in actions:
        disturb(copy, action, name)
    make_equal(model, copy)
    assert content(copy) == content(model)
    assert make_equal(model, copy) == 0


@pytest.mark.server
def test_server_on_a_spare_directory_is_as_new() -> None:
    """The second server gets the first one's folder, equal to the template byte for byte, and starts."""
    with SpareDirectories() as spares:
        with create_server(ServerSpec(kind="local")) as fresh:
            assert fresh.data_directory is not None
            model = content(fresh.data_directory)
        inodes = set()
        for _ in range(2):
            with create_server(ServerSpec(kind="local"), spares=spares) as server:
                assert server.data_directory is not None
                assert content(server.data_directory) == model
                inodes.add((server.data_directory / "PG_VERSION").stat().st_ino)
                server.start()
                with server.connect(autocommit=True) as connection:
                    connection.execute("CREATE TABLE t AS SELECT generate_series(1, 10000) AS n")
                    connection.execute("CREATE DATABASE other")
                    connection.execute("CHECKPOINT")
                server.kill_all()
                (server.data_directory / "global/pg_control").write_bytes(bytes(8192))
        assert len(inodes) == 1
        kept = [entry[1] for entry in spares._spares]
        assert [path.exists() for path in kept] == [True]
    assert not any(path.exists() for path in kept)


@pytest.mark.server
@pytest.mark.parametrize(
    ("setup", "there"),
    [
        ("CREATE TABLE ready (n integer);\nINSERT INTO ready VALUES (7);", True),
        ("CREATE TABLE ready (n integer);\nSELECT 1 / 0;", False),
    ],
)
def test_what_a_directory_has_seen_already(setup: str, there: bool) -> None:
    """It is in each new directory, and in a used one that is made fresh again; nothing of what could not be run is."""
    spec = ServerSpec(kind="local", settings={"fsync": "off"}, setup=setup)
    with SpareDirectories() as spares:
        for _ in range(2):
            with create_server(spec, spares=spares) as server:
                server.start()
                with server.connect(autocommit=True) as connection:
                    found = connection.execute("SELECT to_regclass('ready') IS NOT NULL").fetchone()
                    assert found == (there,)
                    if there:
                        assert connection.execute("SELECT n FROM ready").fetchall() == [(7,)]
                        connection.execute("DELETE FROM ready")
