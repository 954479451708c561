"""How are tasks done by a dask cluster?

Choices:
    A task is done again, on another worker, if its worker dies: it is the same trial.
    A worker has one task, and one more that waits. It does one at a time: start it with one thread.
    A recording is sent to each worker that needs it, once, by dask itself, as the argument of a task. If it goes with
    the only worker that had it, it is sent again.
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
    LiveTask,
    NoSuchState,
    Outcome,
    Recorded,
    RecordTask,
    RecoveryTask,
    StateTask,
    Task,
)
from crashlab.errors import CrashlabError, ServerError, UsageProblem
from crashlab.results import TrialResult, trial_name
from crashlab.trial.judged import result_of

AHEAD = 1
ADDRESS = re.compile(r"((tcp|tls|ws|wss|ucx)://)?[^/\s]+:\d+")
CONNECT_TIMEOUT_S = 30
END_TIMEOUT_S = 30
SLOTS_EVERY_S = 2.0
"""How long the number of workers is taken to be what it was."""
WORKERLESS_MAX_S = 300.0
SENT_MAX = 5
"""How often one task is handed out because what it needs was lost."""


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
        self._shared: Any = None  # the jobs, at every worker
        self._recordings: dict[Path, Any] = {}
        self._running: dict[Any, Task] = {}
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
        """Send what every worker needs; recordings follow with the first task that is about them."""
        self._shared = self._client.scatter(list(self._jobs.values()), broadcast=True, hash=False)
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
        with self._reaching():
            self._submit(task)

    def _submit(self, task: Task) -> None:
        self._submitted += 1
        words: list[Any] = []
        if isinstance(task, StateTask | RecoveryTask):
            if task.recording not in self._recordings:
                self._recordings[task.recording] = self._client.scatter(pack(task.recording), hash=False)
            words = [task.recording, self._recordings[task.recording]]
        key = f"crashlab-{self._run}-{task.job}-{self._submitted}"
        future = self._client.submit(remote.run_task, self._run, self._shared, task, *words, key=key, pure=False)
        self._running[future] = task
        future.add_done_callback(self._ended.put)

    def wait(self, timeout_s: float) -> list[Done]:
        """See Executor.wait."""
        try:
            future = self._ended.get(timeout=timeout_s)
        except queue.Empty:
            self.has_room()
            return []
        task = self._running.pop(future)
        if future.cancelled():  # what it needs went with the only worker that had it, or the scheduler is gone
            return self._lost(task)
        error = future.exception()
        if error is not None:
            return [Done(task, _explained(task, error))]
        return [Done(task, self._received(task, future.result()))]

    def _lost(self, task: Task) -> list[Done]:
        self._sent[task] = self._sent.get(task, 0) + 1
        if self._sent[task] == SENT_MAX:
            return [Done(task, _explained(task, RuntimeError("what it needs was lost on the way, again and again")))]
        with self._reaching():
            self._workers()
            self._share()
            self._submit(task)
        return []

    def _received(self, task: Task, returned: remote.Returned) -> Outcome | CrashlabError:
        """Put a folder that came back where it belongs; what was left there by a run that died is removed."""
        outcome = returned.outcome
        if isinstance(outcome, CrashlabError | NoSuchState):
            return outcome
        assert returned.parcel is not None
        job = self._jobs[task.job]
        if isinstance(task, RecordTask):
            folder = recording_folder(job.out, task.number)
        elif isinstance(task, RecoveryTask):
            folder = recovery_folder(job, task)
        else:
            folder = job.out / trial_name(task.trial)
        shutil.rmtree(folder, ignore_errors=True)
        returned.parcel.unpack(folder)
        if isinstance(outcome, Recorded):
            return Recorded(folder)
        return self._settled(task, outcome, folder)

    def _settled(self, task: Task, result: TrialResult, folder: Path) -> TrialResult:
        """Let a trial's record lead to the recording as it is known here."""
        if isinstance(task, LiveTask):
            return result_of(folder, verdict=result.verdict)
        assert isinstance(task, StateTask)
        record = evidence.load_trial(folder)
        path = os.path.relpath(task.recording.resolve(), folder.resolve())
        evidence.save(folder, evidence.TRIAL, msgspec.structs.replace(record, recording=path))
        return replace(result_of(folder, verdict=result.verdict), trial=task.trial)

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
