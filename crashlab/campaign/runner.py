"""How does a worker do a task? The same in this process, in a process of a pool, and on another machine."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from crashlab import evidence
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
from crashlab.errors import CrashlabError, NoRoom
from crashlab.exploration import record, recording
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.nested import inner_profile, record_recovery, recovery_name
from crashlab.exploration.recording import RECORDING
from crashlab.results import make_trial_folder, trial_name
from crashlab.server import SpareDirectories
from crashlab.trial.live import run_trial

EXPLORERS_MAX = 2
"""Recordings that a worker keeps open; each has a directory and, in between, no server."""
NO_SPACE = os.strerror(errno.ENOSPC)


class Runner:
    """One worker's hands. Use it as a context manager, in one process."""

    def __init__(self, jobs: Iterable[Job], *, local: Callable[[Path], Path] | None = None) -> None:
        """Start nothing yet.

        Args:
            local: gives the folder of a recording on this machine; None: it is where the task says.
        """
        self._jobs = {job.name: job for job in jobs}
        self._local = local or (lambda folder: folder)
        self._spares = SpareDirectories()
        self._explorers: dict[tuple[str, Path, int], Explorer] = {}

    def run(self, task: Task) -> Outcome:
        """Do a task; its evidence is on disk when this returns.

        Raises:
            CrashlabError: the environment does not allow it.
        """
        try:
            return self._do(task)
        except CrashlabError as error:
            if NO_SPACE not in (error.detail or ""):  # a program that was to copy something says so
                raise
            raise NoRoom(error.primary, detail=error.detail) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = error.filename or tempfile.gettempdir()
            raise NoRoom(f'could not write "{where}": no room is left on the disk') from error

    def _do(self, task: Task) -> Outcome:
        job = self._jobs[task.job]
        if isinstance(task, LiveTask):
            return run_trial(job.plan, task.trial, _empty_folder(job.out, task.trial), spares=self._spares)
        if isinstance(task, RecordTask):
            return Recorded(_record(job, task.number))
        explorer = self._explorer(job, task)
        state = explorer.state(task.address)
        if state is None:
            return NoSuchState()
        if isinstance(task, RecoveryTask):
            folder = recovery_folder(job, task)
            _forget_partial(folder, RECORDING)
            if not folder.exists():
                record_recovery(explorer, state, task.address, folder)
            return Recorded(folder)
        return explorer.try_state(state, task.trial, _empty_folder(job.out, task.trial))

    def _explorer(self, job: Job, task: StateTask | RecoveryTask) -> Explorer:
        key = job.name, task.recording, task.level  # two jobs may examine one recording, each on a disk of its own
        explorer = self._explorers.pop(key, None)
        if explorer is None:
            while len(self._explorers) >= EXPLORERS_MAX:
                self._explorers.pop(next(iter(self._explorers))).dispose()
            profile = job.plan.profile
            for _ in range(task.level):
                profile = inner_profile(profile)
            opened = recording.load(self._local(task.recording))
            plan = job.plan
            explorer = Explorer(
                opened,
                profile,
                server=plan.recover_with or plan.server,
                run_seed=plan.run_seed,
                timeout_s=plan.timeout_s,
                keep=plan.keep,
            ).__enter__()
        self._explorers[key] = explorer  # the last one is the one used last
        return explorer

    def close(self) -> None:
        """Remove everything that is kept between tasks."""
        while self._explorers:
            self._explorers.popitem()[1].dispose()
        self._spares.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def recording_folder(out: Path, number: int) -> Path:
    """Return where a job's recording lies."""
    return out / ("recording" if not number else f"recording-{number + 1}")


def recovery_folder(job: Job, task: RecoveryTask) -> Path:
    """Return where a recorded recovery lies: inside its own recording, unless that belongs to another run."""
    home = task.recording if task.recording.is_relative_to(job.out) else job.out
    return home / recovery_name(task.address)


def _record(job: Job, number: int) -> Path:
    folder = recording_folder(job.out, number)
    _forget_partial(folder, RECORDING)
    if not folder.exists():
        record.make(job.plan, folder, number=number)
    return folder


def _empty_folder(out: Path, trial: int) -> Path:
    _forget_partial(out / trial_name(trial), evidence.TRIAL)
    return make_trial_folder(out, trial)


def _forget_partial(folder: Path, last: str) -> None:
    """Remove what a worker left that was killed: the file that is written last is missing."""
    if folder.exists() and not (folder / last).exists():
        shutil.rmtree(folder)
