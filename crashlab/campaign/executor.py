"""Who does the tasks? One interface: this process, a pool of processes, a dask cluster."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from crashlab.campaign.runner import Runner
from crashlab.campaign.task import Job, Outcome, Task


@dataclass(frozen=True)
class Done:
    """What became of a task."""

    task: Task
    outcome: Outcome | BaseException


class WorkerFailed(Exception):
    """A task ended in an error of crashlab's own; holds the traceback of the process that did it."""


class Executor(Protocol):
    """Does tasks in any order. A context manager: leaving it ends what still runs, and leaves nothing behind."""

    def start(self, jobs: Iterable[Job]) -> None:
        """Learn what the tasks are about; once, before the first of them."""

    def has_room(self) -> bool:
        """Say whether one more task would begin soon."""

    def submit(self, task: Task) -> None:
        """Have a task done."""

    def wait(self, timeout_s: float) -> list[Done]:
        """Return what was done since the last call, as soon as there is anything; nothing when the time is up."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class InlineExecutor:
    """Does one task after the other in this process."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._task: Task | None = None

    def start(self, jobs: Iterable[Job]) -> None:
        """See Executor.start."""
        self._runner = Runner(jobs)

    def has_room(self) -> bool:
        """See Executor.has_room."""
        return self._task is None

    def submit(self, task: Task) -> None:
        """See Executor.submit."""
        self._task = task

    def wait(self, timeout_s: float) -> list[Done]:
        """See Executor.wait: does the task, however long it takes."""
        assert self._runner is not None
        task, self._task = self._task, None
        if task is None:
            return []
        try:
            return [Done(task, self._runner.run(task))]
        except Exception as error:
            return [Done(task, error)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            self._runner.close()
