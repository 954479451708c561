"""What does a run that is killed make, seen from outside: in what its processes hold, never in its own lists?"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crashlab.server.sharedmemory import attached_sysv_segments, existing, posix_segments

LOOK_EVERY_S = 0.05
SOCKETS = re.compile(r"unix_socket_directories=(/tmp/crashlab-\w+)")


class KilledRun:
    """A program that runs with a temporary folder of its own, and all that was ever seen of it. A context manager."""

    def __init__(self, words: Sequence[str], temporary: Path, out: Path, *, containers: bool = False) -> None:
        self.temporary, self.out = temporary, out
        self.segments: set[Path | tuple[int, int]] = set()
        self.sockets: set[Path] = set()
        self.volumes: set[str] = set()
        self._client: Any = None
        if containers:
            import docker

            self._client = docker.from_env()
        self._stopping = threading.Event()
        environment = {**os.environ, "TMPDIR": str(temporary)}
        self._log = (out.parent / f"{out.name}.log").open("wb")
        self.program = subprocess.Popen([sys.executable, *words], env=environment, stdout=self._log, stderr=self._log)
        self._watch = threading.Thread(target=self._look_on)
        self._watch.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._watch.join()
        self.program.kill()
        self.program.wait()
        self._log.close()
        if self._client is not None:
            self._client.close()

    def kill(self, after_s: float) -> None:
        """Let it run for a while, then kill it and nothing else."""
        deadline = time.monotonic() + after_s
        while self.program.poll() is None and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        assert self.program.poll() is None, self.said()
        self.program.send_signal(signal.SIGSTOP)
        time.sleep(LOOK_EVERY_S)
        self.look()
        self.program.send_signal(signal.SIGKILL)
        self.wait_killed()

    def wait_killed(self) -> None:
        """Wait until it has died of a SIGKILL."""
        assert self.program.wait(timeout=60) == -signal.SIGKILL, self.said()
        self._stopping.set()
        self._watch.join()
        self.look()

    def said(self) -> str:
        """Return what the program printed."""
        return Path(self._log.name).read_text(errors="replace")

    def _look_on(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            self.look()

    def look(self) -> None:
        """Add what can be seen now."""
        pids = self.processes()
        self.segments |= posix_segments(pids) | attached_sysv_segments(pids)
        for pid in pids:
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                self.sockets |= {Path(found) for found in SOCKETS.findall(title)}
        for container in self.containers():
            self.volumes |= {mount["Name"] for mount in container["Mounts"] if mount["Type"] == "volume"}
            mounted = {Path(mount["Source"]) for mount in container["Mounts"] if mount["Type"] == "bind"}
            self.sockets |= {path for path in mounted if path.parent == Path("/tmp")}

    def processes(self) -> list[int]:
        """Return the server's processes and the programs that work for it: what works in or with its folders."""
        wanted, found = str(self.temporary), []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not entry.name.isdigit() or int(entry.name) in (os.getpid(), self.program.pid):
                    continue
                at = str((entry / "cwd").readlink())
                if at.startswith(wanted) or wanted.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def containers(self) -> list[dict[str, Any]]:
        """Return the containers that carry its number."""
        if self._client is None:
            return []
        own = (f'"pid":{self.program.pid},', f'"serves":{self.program.pid}}}')  # its own, and its workers'
        there = self._client.api.containers(all=True, filters={"label": "crashlab.owner"})
        return [one for one in there if any(words in one["Labels"]["crashlab.owner"] for words in own)]

    def left(self) -> list[str]:
        """Return everything of it that is still there, but for its evidence."""
        found = [f"process {pid}" for pid in self.processes()]
        found += [str(path) for path in self.temporary.iterdir()]
        found += [str(path) for path in self.out.rglob("crashlab-*")]
        found += [str(path) for path in self.sockets if path.exists()]
        there = existing()
        found += [str(one) for one in self.segments if (one.exists() if isinstance(one, Path) else one in there)]
        found += [f"list {path}" for path in Path("/tmp").glob(f"crashlab-runs-*/{self.program.pid}-*")]
        found += [f"container {one['Names']}" for one in self.containers()]
        if self._client is not None:
            volumes = {one["Name"] for one in self._client.api.volumes()["Volumes"] or []}
            found += [f"volume {name}" for name in self.volumes & volumes]
        return found
