"""Can somebody start a server on the data directory that a run has kept, and look into it?"""

import contextlib
import shutil
from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.cli import invoke
from crashlab.server.base import ServerSpec
from crashlab.server.builds import find_build
from crashlab.server.local import LocalServer
from crashlab.server.privileges import server_user

pytestmark = pytest.mark.server
LIVE = ["run", "kill9-all", "--trials", "1", "--server", "local", "-j", "1", "--set", "workload.acked_min=1"]
RECORDED = ["run", "power-loss", "--trials", "2", "--server", "local", "-j", "1", "--set", "power_loss.acks=60"]


def rows_in(data: Path, home: Path) -> int:
    """Start a server on a copy where the server's user may go, and count the transactions that are there."""
    build = find_build()
    assert build is not None
    home.mkdir()
    home.chmod(0o755)
    place = home / "data"
    shutil.copytree(data, place, symlinks=True)
    user = server_user()
    for path in [place, *place.rglob("*")]:
        if not path.is_symlink():
            user.own(path)
    with contextlib.closing(_Disposed(LocalServer(ServerSpec(kind="local"), build, data_directory=place))) as held:
        held.server.start()
        with held.server.connect() as connection:
            row = connection.execute("SELECT count(*) FROM crashlab.marker").fetchone()
    assert row is not None
    return int(row[0])


class _Disposed:
    def __init__(self, server: LocalServer) -> None:
        self.server = server

    def close(self) -> None:
        self.server.dispose()


@pytest.mark.parametrize("command", [LIVE, RECORDED], ids=["live", "recorded"])
def test_a_server_starts_on_what_was_kept(command, tmp_path, home):
    """Of a live trial and of a crash state: with its empty folders, such as pg_notify, and its owner."""
    out = tmp_path / "out"
    assert invoke([*command, "--out", str(out), "--keep", "all"]) == 0
    trials = sorted(file.parent for file in out.rglob(evidence.TRIAL))
    assert trials
    for number, trial in enumerate(trials):
        data = trial / evidence.DATA
        assert (data / "pg_notify").is_dir()
        assert data.stat().st_uid == server_user().uid
        assert rows_in(data, home / str(number)) > 0


def test_without_being_asked_nothing_is_kept_of_a_sound_server(tmp_path):
    """The innocent twin."""
    out = tmp_path / "out"
    assert invoke([*LIVE, "--out", str(out)]) == 0
    (trial,) = (file.parent for file in out.rglob(evidence.TRIAL))
    assert not (trial / evidence.DATA).exists()
