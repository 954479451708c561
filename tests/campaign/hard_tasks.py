"""Tasks that are hard on whoever takes them: they do something when they arrive in a worker."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from crashlab.campaign.task import LiveTask
from crashlab.server import owned


@dataclass(frozen=True)
class Deadly(LiveTask):
    """Kills the worker that takes it; only the first one, if it is given a file to remember that in."""

    once: Path | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Arrive as what `_kill` returns, if that returns."""
        return _kill, (self.job, self.trial, self.once)


@dataclass(frozen=True)
class Stopped(LiveTask):
    """Stops the worker that takes it; only the first one, if it is given a file to remember that in."""

    once: Path | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Arrive as what `_stop` returns, if that returns."""
        return _stop, (self.job, self.trial, self.once)


@dataclass(frozen=True)
class Slow(LiveTask):
    """Holds up its worker; notes the worker's process id in a file before."""

    note: Path = Path()
    seconds: float = 60.0

    def __reduce__(self) -> tuple[object, ...]:
        """Arrive late."""
        return _sleep, (self.job, self.trial, self.note, self.seconds)


@dataclass(frozen=True)
class Astray(LiveTask):
    """Arrives as a task of a job that the worker has never heard of."""

    def __reduce__(self) -> tuple[object, ...]:
        """Arrive as another."""
        return LiveTask, ("no-such-job", self.trial)


def _kill(job: str, trial: int, once: Path | None) -> LiveTask:
    return _signal(signal.SIGKILL, job, trial, once)


def _stop(job: str, trial: int, once: Path | None) -> LiveTask:
    return _signal(signal.SIGSTOP, job, trial, once)


def _signal(number: signal.Signals, job: str, trial: int, once: Path | None) -> LiveTask:
    if once is None or not once.exists():
        if once is not None:
            once.write_text(str(owned.make_folder()))  # what it had made goes with it
        os.kill(os.getpid(), number)
    return LiveTask(job, trial)


def _sleep(job: str, trial: int, note: Path, seconds: float) -> LiveTask:
    note.write_text(str(os.getpid()))
    time.sleep(seconds)
    return LiveTask(job, trial)
