"""Does the observer end with whoever started it, whatever happens to that process, and leave nothing behind?"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crashlab.errors import LedgerError, ServerError
from crashlab.observer import Observer, Upstream, read_conversation
from crashlab.server import leftovers, processes
from crashlab.server.deadruns import dead_runs

NOWHERE = Upstream("/nonexistent", 1)
CHILD = """
import os, sys, time
from pathlib import Path
from crashlab.observer import Observer, Upstream
folder = Path(sys.argv[1])
observer = Observer(Upstream("/nonexistent", 1), folder / "c.jsonl", folder=folder)
observer.arm(None)
if os.fork() == 0:
    time.sleep(60)  # it holds the pair of sockets open
print(observer._process.pid, observer.address.sockets, flush=True)
time.sleep(60)
"""


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while processes.state(pid) not in ("", "Z"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def start(folder: Path) -> tuple[subprocess.Popen[str], int, Path]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stdout is not None
    pid, sockets = child.stdout.readline().split()
    return child, int(pid), Path(sockets)


def test_it_ends_with_its_parent_and_what_it_knew_is_written(tmp_path: Path):
    """A parent killed by SIGKILL, with a forked child that lives on: the observer ends, and its file is whole."""
    child, pid, _ = start(tmp_path)
    try:
        child.kill()
        child.wait()
        assert ends(pid)
        assert read_conversation(tmp_path / "c.jsonl").epoch == 1
    finally:
        os.killpg(child.pid, signal.SIGKILL)


def test_what_a_killed_run_has_left_is_found(tmp_path: Path):
    """An observer that was stopped when its parent died is on the list of what `crashlab clean` removes."""
    child, pid, sockets = start(tmp_path)
    try:
        os.kill(pid, signal.SIGSTOP)
        child.kill()
        child.wait()
        runs = [run for run in dead_runs() if str(sockets) in run.listed("folder")]
        assert [one.text().split()[0] for run in runs for one in leftovers.find(run) if one.kind == "process"] == [
            str(pid)
        ]
        for run in runs:
            assert leftovers.remove(run, patient=True) == []
        assert ends(pid)
        assert not sockets.exists()
    finally:
        os.killpg(child.pid, signal.SIGKILL)


def test_closed_means_gone(tmp_path: Path):
    """Process and folder; closing again does nothing."""
    with Observer(NOWHERE, tmp_path / "c.jsonl", folder=tmp_path) as observer:
        pid, sockets = observer._process.pid if observer._process else 0, observer.address.sockets
        assert (sockets / f".s.PGSQL.{observer.address.port}").is_socket()
    observer.close()
    assert processes.state(pid) == ""
    assert not sockets.exists()
    with pytest.raises(ServerError, match="the observer has ended"):
        observer.cut()


def test_a_torn_last_line_is_no_damage(tmp_path: Path):
    """It was being written when the observer was killed; a torn line before it is damage."""
    path = tmp_path / "c.jsonl"
    line = json.dumps({"number": 1, "at_ns": 1, "kind": "armed", "epoch": 4})
    path.write_text(f'{line}\n{{"numb')
    assert read_conversation(path).epoch == 4
    path.write_text(f'{{"numb\n{line}\n')
    with pytest.raises(LedgerError, match="line 1"):
        read_conversation(path)
