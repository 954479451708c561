"""crashlab as a process of its own, to be interrupted and killed, and what it leaves behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from crashlab import evidence
from tests.terminal import as_in_a_terminal

PROFILES = ("power-loss-async", "lying-disk")
TRIALS = 16
SEED = "9"
PATIENCE_S = 180.0
Told = dict[str, tuple[bytes, bytes]]


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder for temporary files that the server's user can reach, which pytest's own is not."""
    home = Path(tempfile.mkdtemp(prefix="crashlab-test-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


class Command:
    """One crashlab on its way."""

    def __init__(self, *args: str, cwd: Path, home: Path) -> None:
        """Start it in a process group of its own, its temporary files below `home`."""
        self.said = cwd / f"said-{time.monotonic_ns()}"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TMPDIR": str(home),
        }
        with self.said.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "crashlab", *args],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=as_in_a_terminal,
            )

    def wait_for_trials(self, out: Path, count: int) -> None:
        """Wait until so many trials are judged, or the command has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and sum(1 for _ in out.rglob(evidence.VERDICT)) < count:
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def wait_until_loading(self) -> None:
        """Wait until Python itself is up, and crashlab's own first lines hold back Ctrl-C while the rest is loaded."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("SigBlk:") and int(line.split()[1], 16) & 1 << (signal.SIGINT - 1):
                    return
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.001)

    def wait_until_begun(self) -> None:
        """Wait until it has said what it runs: from then on a signal is its own to answer."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and "seed" not in self.text():
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def wait_for(self, path: Path) -> None:
        """Wait until a file is there."""
        deadline = time.monotonic() + PATIENCE_S
        while not path.exists():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.005)

    def wait_for_text(self, words: str) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """The process ids of its pool."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and b"crashlab.campaign.worker" in (entry / "cmdline").read_bytes():
                    words = (entry / "stat").read_text().rpartition(") ")[2].split()
                    if int(words[1]) == self.process.pid and words[0] != "Z":
                        found.append(int(entry.name))
        return sorted(found)

    def interrupt(self) -> None:
        """Press Ctrl-C: the whole process group gets it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait(PATIENCE_S)

    def text(self) -> str:
        """What it has said so far."""
        return self.said.read_text(errors="replace")

    def end(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.wait()


def left_behind(home: Path, within_s: float = 15.0) -> list[str]:
    """What is left below a temporary home, and the processes that work there, once that has settled."""
    deadline = time.monotonic() + within_s
    while (
        left := [*(f"process {pid}" for pid in _processes(home)), *map(str, home.iterdir())]
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def kill_orphans(home: Path) -> None:
    """Kill the servers of a worker that was killed: they are known by where they work."""
    for pid in _processes(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _processes(home: Path) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str((entry / "cwd").readlink()).startswith(str(home)):
                yield int(entry.name)


def told_by(out: Path) -> Told:
    """Every trial's crash state and verdict, to the byte."""
    return {
        f"{file.parent.parent.name}/{file.parent.name}": (
            (file.parent / evidence.STATE).read_bytes(),
            (file.parent / evidence.VERDICT).read_bytes(),
        )
        for file in out.rglob(evidence.TRIAL)
    }
