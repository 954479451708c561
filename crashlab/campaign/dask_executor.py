"""How are tasks done by a dask cluster?

Choices:
    A batch is done again, on another worker, if its worker dies: they are the same trials.
    A worker has one batch, and one more that waits. It does one at a time: start it with one thread.
    What dask does for a task costs a fifth of a crash state, so a few states are one batch. Whatever takes seconds,
    such as a live trial, goes alone.
    A recording is no argument of a task, since dask drops copies of arguments as it sees fit, and sends them again: a
    worker is told under which key it can fetch what it lacks, and does so once. If it goes with the only worker that
    had it, it is sent again.
    No worker, or no scheduler any more, is an error after a while: nobody would notice an endless wait.

Source: https://distributed.dask.org/en/stable/client.html, on futures, scatter and Client.run.
"""

import contextlib
import logging
import os
import queue
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from crashlab import evidence
from crashlab.campaign import remote
from crashlab.campaign.executor import Done
from crashlab.campaign.parcel import pack
from crashlab.campaign.runner import recording_folder, recovery_folder
from crashlab.campaign.task import (
    Job,
    NoSuchState,
    Outcome,
    Recorded,
    RecordTask,
    RecoveryTask,
    StateTask,
    Task,
    recording_of,
)
from crashlab.errors import CrashlabError, ServerError, UsageProblem
from crashlab.exploration.recording import RECORDING
from crashlab.results import trial_name

AHEAD = 1
BATCH = 6
"""So many crash states are one batch."""
ADDRESS = re.compile(r"((tcp|tls|ws|wss|ucx)://)?[^/\s]+:\d+")
CONNECT_TIMEOUT_S = 30
END_TIMEOUT_S = 30
SLOTS_EVERY_S = 2.0
"""How long the number of workers is taken to be what it was."""
WORKERLESS_MAX_S = 300.0
SENT_MAX = 5
"""How often one batch is handed out because what it needs was lost."""


class DaskExecutor:
    """The workers of one scheduler."""

    def __init__(self, scheduler: str) -> None:
        """Connect to a scheduler, such as tcp://10.0.0.1:8786.

        Raises:
            UsageProblem: that is no address, or dask is not installed.
            ServerError: no scheduler answers there.
        """
        if ADDRESS.fullmatch(scheduler) is None:
            raise UsageProblem(
                f'"{scheduler}" is no address of a dask scheduler',
                hint="Give what dask scheduler prints, such as tcp://10.0.0.1:8786.",
            )
        try:
            import distributed
        except ImportError as error:
            raise UsageProblem(
                "cannot use a scheduler: dask is not installed", hint="pip install 'crashlab[dask]'"
            ) from error
        for name in ("distributed", "distributed.client"):  # what goes wrong is told here, without tracebacks
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            connect: Any = distributed.Client
            self._client = connect(scheduler, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ServerError(
                f'could not reach a dask scheduler at "{scheduler}"',
                detail=str(error) or None,
                hint="Start one with dask scheduler; it prints its address.",
            ) from error
        self._run = os.urandom(8).hex()
        self._jobs: dict[str, Job] = {}
        self._shared: Any = None  # the jobs, with the workers
        self._recordings: dict[Path, Any] = {}
        self._open: list[Task] = []  # a batch that has room
        self._running: dict[Any, list[Task]] = {}
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._submitted = 0
        self._sent: dict[Task, int] = {}
        self._slots = 0
        self._looked_s = 0.0
        self._worked_s = time.monotonic()  # when there was a worker, as far as is known

    def start(self, jobs: Iterable[Job]) -> None:
        """See Executor.start."""
        self._jobs = {job.name: job for job in jobs}
        with self._reaching():
            self._client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
            self._share()

    def _share(self) -> None:
        """Send what every worker needs; recordings follow when the first task is about them."""
        [self._shared] = self._client.scatter([list(self._jobs.values())], hash=False)
        self._recordings.clear()

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """Raise ServerError: the scheduler does not answer, or has no worker."""
        try:
            yield
        except (OSError, TimeoutError) as error:
            raise ServerError(
                "could not reach the dask cluster, or it has no worker",
                detail=str(error) or None,
                hint="Start workers with dask worker and the scheduler's address.",
            ) from error

    def has_room(self) -> bool:
        """See Executor.has_room."""
        now = time.monotonic()
        if now - self._looked_s > SLOTS_EVERY_S:
            self._slots = self._workers()
            self._looked_s = now
        if self._slots:
            self._worked_s = now
        return len(self._running) < self._slots * (1 + AHEAD)

    def _workers(self) -> int:
        """Return how many workers there are. Raises ServerError: for long there was none, or no scheduler any more."""
        with self._reaching():
            if self._client.status in ("closing", "closed"):
                raise TimeoutError("the scheduler has ended the connection")
            if time.monotonic() - self._worked_s > WORKERLESS_MAX_S:
                raise TimeoutError(f"for {WORKERLESS_MAX_S:g} s there was no worker")
            return len(self._client.scheduler_info(n_workers=-1).get("workers", ()))

    def submit(self, task: Task) -> None:
        """See Executor.submit."""
        if not isinstance(task, StateTask):
            self._send([task])
            return
        self._open.append(task)
        if len(self._open) == BATCH:
            self._send_open()

    def _send_open(self) -> None:
        tasks, self._open = self._open, []
        if tasks:
            self._send(tasks)

    def _send(self, tasks: list[Task]) -> None:
        with self._reaching():
            self._submitted += 1
            keys = {path: self._key_of(path) for path in map(recording_of, tasks) if path is not None}
            batch = remote.Batch(run=self._run, jobs=self._shared.key, tasks=tuple(tasks), recordings=keys)
            key = f"crashlab-{self._run}-{tasks[0].job}-{self._submitted}"
            future = self._client.submit(remote.run_batch, batch, key=key, pure=False)
            self._running[future] = tasks
            future.add_done_callback(self._ended.put)

    def _key_of(self, recording: Path) -> str:
        """Return under which key the workers find a recording; it is sent to one of them if it has not been."""
        if recording not in self._recordings:
            self._recordings[recording] = self._client.scatter(pack(recording), hash=False)
        key: str = self._recordings[recording].key
        return key

    def wait(self, timeout_s: float) -> list[Done]:
        """See Executor.wait."""
        self._send_open()  # whoever waits has no more tasks, or there is no room for them
        try:
            future = self._ended.get(timeout=timeout_s)
        except queue.Empty:
            self.has_room()
            return []
        tasks = self._running.pop(future)
        if future.cancelled():  # the scheduler is gone, or has given up
            return self._lost(tasks)
        error = future.exception()
        if isinstance(error, remote.Lost):
            return self._lost(tasks)
        if error is not None:
            return [Done(tasks[0], _explained(tasks[0], error))]
        return [Done(task, self._received(task, one)) for task, one in zip(tasks, future.result(), strict=True)]

    def _lost(self, tasks: list[Task]) -> list[Done]:
        first = tasks[0]
        self._sent[first] = self._sent.get(first, 0) + 1
        if self._sent[first] == SENT_MAX:
            return [Done(first, _explained(first, RuntimeError("what it needs was lost on the way, again and again")))]
        with self._reaching():
            self._workers()
            self._share()
        self._send(tasks)
        return []

    def _received(self, task: Task, returned: remote.Returned) -> Outcome | CrashlabError:
        """Put a folder that came back where it belongs; what was left there by a run that died is removed."""
        outcome = returned.outcome
        if isinstance(outcome, CrashlabError | NoSuchState):
            return outcome
        assert returned.parcel is not None
        folder, last = self._home_of(task)
        shutil.rmtree(folder, ignore_errors=True)
        settle = partial(_lead_to, task.recording, folder) if isinstance(task, StateTask) else None
        returned.parcel.unpack(folder, last=last, settle=settle)
        if isinstance(outcome, Recorded):
            return Recorded(folder)
        data = folder / evidence.DATA
        return replace(outcome, folder=folder, kept_data=data if data.exists() else None)

    def _home_of(self, task: Task) -> tuple[Path, str]:
        """Return where what a task makes lies here, and the name of the file that is there when all of it is."""
        job = self._jobs[task.job]
        if isinstance(task, RecordTask):
            return recording_folder(job.out, task.number), RECORDING
        if isinstance(task, RecoveryTask):
            return recovery_folder(job, task), RECORDING
        return job.out / trial_name(task.trial), evidence.TRIAL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what has not begun, have the workers tidy up, and disconnect; the cluster stays."""
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self._client.cancel(list(self._running), force=True)
            self._client.run(remote.end, self._run, on_error="ignore")
        with contextlib.suppress(Exception):
            self._client.close(timeout=END_TIMEOUT_S)


def _explained(task: Task, error: BaseException) -> CrashlabError:
    return CrashlabError(
        f"could not run {task} of {task.job} on the cluster",
        detail=f"{type(error).__name__}: {error}",
        hint="Look at the workers' logs; each needs the same version of crashlab, and PostgreSQL.",
    )


def _lead_to(recording: Path, folder: Path, stored: Path) -> None:
    """Let a trial that was made elsewhere say where its recording is, seen from its folder here."""
    record = evidence.load(stored, evidence.TrialRecord)
    path = os.path.relpath(recording.resolve(), folder.resolve())
    evidence.save(stored.parent, stored.name, msgspec.structs.replace(record, recording=path))
