"""How is an application's process started, killed with the server, started again, and never left behind?

Each has a process group of its own, which is what is killed: a worker's children go with it.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from crashlab.errors import UsageProblem
from crashlab.model import Injection

KILL_TIMEOUT_S = 10.0
LOG_LINES_TOLD = 20
Kill = Literal["with server", "alone", "never"]
KILLS: tuple[Kill, ...] = get_args(Kill)


class Process:
    """An application's process: `process` is the running one, `log` the file with all that it said."""

    def __init__(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str],
        restart: bool,
        kill: Kill,
        log: Path,
        cwd: Path | None,
        started: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Start it.

        Args:
            started: is called with the leader of its group, each time it was started.
        """
        if kill not in KILLS:
            raise UsageProblem(f'cannot kill a process "{kill}"', hint=f"One of: {', '.join(KILLS)}.")
        self.args = [os.fspath(word) for word in args]
        self.restart = restart
        self.kill_when = kill
        self.log = log
        self.starts = 0
        self._env = dict(env)
        self._cwd = cwd
        self._was_killed = False
        self._started = started
        self.start()

    def start(self) -> None:
        """Start it, once more after it was killed. Raises UsageProblem: it cannot be run."""
        self._was_killed = False
        try:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.args,
                    env={**os.environ, **self._env},
                    cwd=self._cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise UsageProblem(f'cannot run "{self.args[0]}": {error.strerror}') from error
        self.starts += 1
        try:
            self._started(self.pid)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Of the running one."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait until it ends by itself, and return its exit status. Raises subprocess.TimeoutExpired."""
        return self.process.wait(timeout_s)

    def kill(self) -> int | None:
        """SIGKILL the group; return the process's exit status, or None if it had ended before."""
        if not self.running:
            self._kill_group()  # what it started may still be there
            return None
        self._was_killed = True
        self._kill_group()
        return self.process.wait(KILL_TIMEOUT_S)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def receipt(self, status: int | None, at_ns: int) -> Injection:
        """Say that it was killed, which crashes no server.

        Args:
            status: what `kill` returned.
            at_ns: when that was sent.
        """
        return Injection(
            kind="kill",
            target="application process",
            pid=self.pid,
            pids=[self.pid],
            confirmed=status is not None and status < 0,
            proof=[f"process {self.pid} exited with status {status}"],
            crashes_server=False,
            bounds_window=True,
            acked_before=0,
            ledger_position=0,
            at_ns=at_ns,
        )

    def come_back(self) -> None:
        """Start it again if it was killed and is to come back."""
        if self._was_killed and self.restart:
            self.start()

    def last_words(self) -> str:
        """Return the end of what it said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES_TOLD:])
