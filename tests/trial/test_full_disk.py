"""What does a run say when the disk under its servers is full? That, and where; never loss, corruption or "no crash".

The disk is a small tmpfs, which takes root. Its twin is one with room: the same runs are intact there.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashlab.cli import invoke
from tests.campaign.command import temporary_home

pytestmark = pytest.mark.server

LIVE = ["kill9-all", "--trials", "1", "--set"]
RECORDED = ["power-loss", "--set", "power_loss.acks=300", "--trials", "4"]
LARGE = ["--set", 'workload.kinds=["toast"]', "--set", "max_wal_size=1GB", "--seed", "1", "-j", "1"]


class SmallDisk:
    """Becomes the folder for temporary files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def hold(self, size: str) -> None:
        """Mount it with so much room."""
        words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(self.folder)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            problem = f"cannot mount a small tmpfs: {done.stderr.strip() or 'only root may'}"
            if "kernel" in os.environ.get("CRASHLAB_REQUIRE", ""):
                pytest.fail(problem)
            pytest.skip(problem)
        self._monkeypatch.setenv("TMPDIR", str(self.folder))
        self._monkeypatch.setattr(tempfile, "tempdir", str(self.folder))


@pytest.fixture
def small_disk(tmp_path, monkeypatch) -> Iterator[SmallDisk]:
    """A disk that is unmounted at the end; reports go beside it."""
    monkeypatch.chdir(tmp_path)
    with temporary_home() as home:
        folder = home / "small"
        folder.mkdir()
        yield SmallDisk(folder, monkeypatch)
        left = list(folder.iterdir())
        subprocess.run(["umount", str(folder)], capture_output=True, timeout=30)
        assert left == []


def run(*args: str) -> tuple[int, list[str]]:
    """Run and judge again; return the exit code, and the codes of the findings."""
    code = invoke([*args, "--out", "out", "--json", "report.json"])
    report = json.loads(Path("report.json").read_text())
    return code, [finding["code"] for trial in report["trials"] for finding in trial["findings"]]


def test_a_live_trial_names_the_full_disk(small_disk):
    """The log fills it; the server panics, and cannot come back."""
    small_disk.hold("44m")
    assert run("run", *LIVE, "faults.0.when={acks=1000000}", *LARGE) == (3, ["INCONCLUSIVE-DISK-FULL"])
    (finding,) = json.loads(Path("report.json").read_text())["trials"][0]["findings"]
    assert finding["count"] == 1
    assert "No space left on device" in finding["explanation"]
    assert str(small_disk.folder) in finding["explanation"]


def test_with_room_the_same_trial_is_intact(small_disk):
    """The innocent twin."""
    small_disk.hold("1g")
    assert run("run", *LIVE, "faults.0.when={acks=300}", *LARGE) == (0, [])


def test_a_recording_on_a_full_disk_is_refused_by_name(small_disk, capfd):
    """Neither a traceback nor a recording that somebody could take for one."""
    small_disk.hold("44m")
    assert invoke(["run", *RECORDED, *LARGE, "--out", "out"]) == 3
    told = capfd.readouterr().err
    assert "could not record: no room is left on the disk" in told
    assert str(small_disk.folder) in told
    assert "Traceback" not in told


def test_a_recording_is_explored_until_the_disk_is_full(small_disk, capfd):
    """What was finished counts, and nothing that a full disk left unfinished; with room there is more of it."""
    small_disk.hold("1g")
    assert invoke(["run", *RECORDED, *LARGE, "--keep", "all", "--out", "made"]) == 0
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk.folder)], check=True, timeout=30)
    capfd.readouterr()
    assert invoke(["explore", "made", "--trials", "4", "-j", "1", "--out", "full"]) == 3
    told = capfd.readouterr()
    assert f'could not write "{small_disk.folder}' in told.err
    assert "no room is left on the disk" in told.err
    assert "Traceback" not in told.err
    for word in ("LOSS", "CORRUPT", "NO-START", "NO-CRASH", "damaged"):
        assert word not in told.out + told.err
