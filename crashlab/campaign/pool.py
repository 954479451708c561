"""How are tasks done side by side on this machine?

Choices:
    A worker is a program of its own (`worker`), not a fork: a fork of a big parent is slow to fork again.
    A worker has one task, and one more that waits, so that it never has to wait for its parent.
    A worker that dies costs its own task, which another one does again; a task that kills two workers is an error.
    A worker that is stuck is killed, and counts as dead: it was stopped, or its machine is at fault, so the trial is
    worth another try. What it would have written nobody else can write: the faults, the settings that were in force.
    A trial that was written whole before its worker died is done: it may have found something.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from types import TracebackType
from typing import Self

from crashlab import evidence
from crashlab.campaign.executor import Done
from crashlab.campaign.stuck import LOOK_EVERY_S, TaskClock
from crashlab.campaign.task import Job, LiveTask, StateTask, Task
from crashlab.errors import CrashlabError
from crashlab.results import TrialResult, trial_name
from crashlab.server.base import describe_exit
from crashlab.server.leftovers import sweep
from crashlab.trial.judged import result_of

AHEAD = 1
DEATHS_MAX = 2
END_TIMEOUT_S = 8.0
"""For a worker that was asked to end: to kill a server and to remove its folders takes less than 2 s, and some seconds
more for a container or on a busy machine. Nothing is lost if it is too short: what is left is removed from here."""
QUIET_S = 2.0
"""How long nobody is told that there is something to wait for."""
KILLED_TIMEOUT_S = 5.0
"""For the kernel to end a process; one that waits for a dead disk ends when that answers, if ever."""


@dataclass(eq=False)
class _Worker:
    process: "subprocess.Popen[bytes]"
    line: Connection
    clock: TaskClock
    tasks: deque[Task] = field(default_factory=deque)  # the first one is being done


class PoolExecutor:
    """A number of worker processes."""

    def __init__(self, size: int) -> None:
        """Start nothing yet."""
        self._size = size
        self._jobs: dict[str, Job] = {}
        self._workers: list[_Worker] = []
        self._again: deque[Task] = deque()
        self._deaths: dict[Task, int] = {}
        self._looked = time.monotonic()

    def start(self, jobs: Iterable[Job]) -> None:
        """See Executor.start."""
        self._jobs = {job.name: job for job in jobs}

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
        if not idle.tasks:
            idle.clock.restart()
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
            worker.clock.restart()
        return done + self._end_stuck()

    def _end_stuck(self) -> list[Done]:
        """Kill the workers that will never be done with their task."""
        passed_s = time.monotonic() - self._looked
        if passed_s < LOOK_EVERY_S:
            return []
        self._looked += passed_s
        done = []
        for worker in [worker for worker in self._workers if worker.tasks]:
            worker.clock.look(passed_s)
            job = self._jobs.get(worker.tasks[0].job)
            why = worker.clock.stuck(job.plan.timeout_s if job is not None else None)
            # An answer on its way is a task done
            if why is not None and not worker.line.poll():
                _say(f"worker process {worker.process.pid} is stuck at {worker.tasks[0]}: {why}; it is killed")
                worker.process.kill()
                done += self._bury(worker, f"It was stuck ({why}), so crashlab killed it.")
        return done

    def _start_worker(self) -> _Worker:
        ours, theirs = socket.socketpair()
        # Until the worker can answer it: Ctrl-C reaches the whole process group
        with theirs, _held_back(signal.SIGINT):
            process = subprocess.Popen(
                [sys.executable, "-m", "crashlab.campaign.worker", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        worker = _Worker(process, Connection(ours.detach()), TaskClock(process.pid))
        self._workers.append(worker)
        with contextlib.suppress(OSError):  # it is dead: `wait` finds out
            worker.line.send(list(self._jobs.values()))
        return worker

    def _bury(self, worker: _Worker, why: str | None = None) -> list[Done]:
        """Forget a dead worker; have its task done again, or return it as failed if it has killed one before.

        Args:
            why: it was killed; None: it died by itself.
        """
        self._workers.remove(worker)
        worker.line.close()
        status = _ended(worker, END_TIMEOUT_S)
        sweep()  # its server, and its folders
        first, *others = worker.tasks
        self._again.extend(others)
        written = self._written(first)
        if written is not None:
            return [Done(first, written)]
        self._deaths[first] = self._deaths.get(first, 0) + 1
        if self._deaths[first] < DEATHS_MAX:
            self._again.appendleft(first)
            return []
        error = CrashlabError(
            f"could not run {first} of {first.job}: it has ended {DEATHS_MAX} worker processes",
            detail=f"The last one: {describe_exit(status)}." if why is None else why,
            hint="Run it alone, with -j 1, to see why.",
        )
        return [Done(first, error)]

    def _written(self, task: Task) -> TrialResult | CrashlabError | None:
        """Return the trial that a dead worker had written whole, as a resumed run would take it; None: it had not."""
        job = self._jobs.get(task.job)
        if job is None or not isinstance(task, LiveTask | StateTask):
            return None
        folder = job.out / trial_name(task.trial)
        try:
            return result_of(folder) if (folder / evidence.TRIAL).exists() else None
        except CrashlabError as error:
            return error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell all workers to end, those with a task by a signal, and wait for them; then end those that do not."""
        for worker in self._workers:
            if worker.tasks:
                worker.process.send_signal(signal.SIGTERM)
            worker.line.close()
        begun = time.monotonic()
        try:
            self._await_end(begun + QUIET_S)
            late = self._running()
            if late:
                pids = ", ".join(str(worker.process.pid) for worker in late)
                _say(f"waiting up to {END_TIMEOUT_S:g} s for worker processes to remove what they made: {pids}")
                self._await_end(begun + END_TIMEOUT_S)
        finally:  # who asks once more does not want to wait
            self._end_running()

    def _running(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.process.poll() is None]

    def _await_end(self, deadline: float) -> None:
        for worker in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))

    def _end_running(self) -> None:
        """Kill the workers that have not ended, and remove what they had made."""
        running = self._running()
        for worker in running:
            worker.process.kill()
        for worker in running:
            _ended(worker, 0.0)
        if any(worker.process.poll() != 0 for worker in self._workers):
            sweep()
        self._workers.clear()


@contextlib.contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ended(worker: _Worker, timeout_s: float) -> int:
    """Return a worker's exit status; one that does not end in time is killed."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return worker.process.wait(timeout_s)
    worker.process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return worker.process.wait(KILLED_TIMEOUT_S)
    _say(f"worker process {worker.process.pid} waits in the kernel and cannot be killed; run crashlab clean later")
    return -signal.SIGKILL


def _say(what: str) -> None:
    sys.stderr.write(f"crashlab: {what}\n")
    sys.stderr.flush()
