"""How are tasks done side by side on this machine?

Choices:
    A worker is a program of its own (`worker`), not a fork: a fork of a big parent is slow to fork again.
    A worker has one task, and one more that waits, so that it never has to wait for its parent.
    A worker that dies costs its own task, which another one does again; a task that kills two workers is an error.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from types import TracebackType
from typing import Self

from crashlab.campaign.executor import Done
from crashlab.campaign.task import Job, Task
from crashlab.errors import CrashlabError
from crashlab.server.base import describe_exit
from crashlab.server.leftovers import sweep

AHEAD = 1
DEATHS_MAX = 2
END_TIMEOUT_S = 30.0


@dataclass(eq=False)
class _Worker:
    process: "subprocess.Popen[bytes]"
    line: Connection
    tasks: deque[Task] = field(default_factory=deque)  # the first one is being done


class PoolExecutor:
    """A number of worker processes."""

    def __init__(self, size: int) -> None:
        """Start nothing yet."""
        self._size = size
        self._jobs: list[Job] = []
        self._workers: list[_Worker] = []
        self._again: deque[Task] = deque()
        self._deaths: dict[Task, int] = {}

    def start(self, jobs: Iterable[Job]) -> None:
        """See Executor.start."""
        self._jobs = list(jobs)

    def has_room(self) -> bool:
        """See Executor.has_room."""
        return self._handed_out() + len(self._again) < self._size * (1 + AHEAD)

    def _handed_out(self) -> int:
        return sum(len(worker.tasks) for worker in self._workers)

    def submit(self, task: Task) -> None:
        """See Executor.submit."""
        idle = min(self._workers, key=lambda worker: len(worker.tasks), default=None)
        if (idle is None or idle.tasks) and len(self._workers) < self._size:
            idle = self._start_worker()
        assert idle is not None
        idle.tasks.append(task)
        with contextlib.suppress(OSError):  # it is dead: `wait` finds out
            idle.line.send(task)

    def wait(self, timeout_s: float) -> list[Done]:
        """See Executor.wait."""
        while self._again and self._handed_out() < self._size * (1 + AHEAD):
            self.submit(self._again.popleft())
        by_line = {worker.line: worker for worker in self._workers if worker.tasks}
        done = []
        for line in wait_for(list(by_line), timeout_s):
            assert isinstance(line, Connection)
            worker = by_line[line]
            try:
                outcome = line.recv()
            except (EOFError, OSError):
                done += self._bury(worker)
                continue
            done.append(Done(worker.tasks.popleft(), outcome))
        return done

    def _start_worker(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "crashlab.campaign.worker", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        worker = _Worker(process, Connection(ours.detach()))
        self._workers.append(worker)
        with contextlib.suppress(OSError):  # it is dead: `wait` finds out
            worker.line.send(self._jobs)
        return worker

    def _bury(self, worker: _Worker) -> list[Done]:
        """Forget a dead worker; have its task done again, or return it as failed if it has killed one before."""
        self._workers.remove(worker)
        worker.line.close()
        status = _ended(worker, END_TIMEOUT_S)
        sweep()  # its server, and its folders
        first, *others = worker.tasks
        self._again.extend(others)
        self._deaths[first] = self._deaths.get(first, 0) + 1
        if self._deaths[first] < DEATHS_MAX:
            self._again.appendleft(first)
            return []
        error = CrashlabError(
            f"could not run {first} of {first.job}: it has ended {DEATHS_MAX} worker processes",
            detail=f"The last one: {describe_exit(status)}.",
            hint="Run it alone, with -j 1, to see why.",
        )
        return [Done(first, error)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell all workers to end, those with a task by a signal, and wait for them."""
        deadline = time.monotonic() + END_TIMEOUT_S
        for worker in self._workers:
            if worker.tasks:
                worker.process.send_signal(signal.SIGTERM)
            worker.line.close()
        for worker in self._workers:
            _ended(worker, max(0.0, deadline - time.monotonic()))
        self._workers.clear()


def _ended(worker: _Worker, timeout_s: float) -> int:
    """Return a worker's exit status; one that does not end in time is killed."""
    try:
        return worker.process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        return worker.process.wait()
