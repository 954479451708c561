"""What does a worker on another machine do with a task?

It has no folder in common with its client: a recording comes in a parcel, once, and stays; evidence goes back in one.
Of several clients it serves the newest: what it made for the one before is removed.

Choices: a client that is killed cannot say that it has gone. So a worker that had nothing to do for a while removes
    what it has made; should a task come after all, it makes it again.
"""

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crashlab.campaign.parcel import Parcel, pack
from crashlab.campaign.runner import Runner
from crashlab.campaign.task import Job, NoSuchState, Outcome, Recorded, Task
from crashlab.errors import CrashlabError
from crashlab.results import TrialResult
from crashlab.server import owned, registry

IDLE_MAX_S = 120.0


@dataclass(frozen=True)
class Returned:
    """What became of a task, and the folder that it left."""

    outcome: Outcome | CrashlabError
    parcel: Parcel | None = None


class _Hands(registry.Disposable):
    """A runner in a folder of its own, for one client."""

    def __init__(self, run: str, jobs: Sequence[Job]) -> None:
        self.run = run
        self.idle: threading.Timer | None = None
        registry.add(self)
        self._home = owned.make_folder(prefix="crashlab-remote-")
        self._recordings: dict[Path, Path] = {}  # as the client knows it -> here
        mine = [replace(job, out=self._home / "out" / job.name) for job in jobs]
        self._runner = Runner(mine, local=self._recordings.__getitem__)

    def do(self, task: Task, recording: Path | None, parcel: Parcel | None) -> Returned:
        if recording is not None and parcel is not None and recording not in self._recordings:
            folder = self._home / "recordings" / parcel.digest
            if not folder.exists():
                parcel.unpack(folder)
            self._recordings[recording] = folder
        try:
            outcome = self._runner.run(task)
        except CrashlabError as error:
            return Returned(error)
        if isinstance(outcome, NoSuchState):
            return Returned(outcome)
        folder = outcome.folder
        returned = Returned(outcome, pack(folder))
        if isinstance(outcome, TrialResult | Recorded):
            shutil.rmtree(folder)
        return returned

    def dispose(self, keep_data_to: Path | None = None) -> None:
        if self.idle is not None:
            self.idle.cancel()
        self._runner.close()
        owned.remove_folder(self._home)
        registry.remove(self)


_hands: _Hands | None = None
_lock = threading.Lock()
"""One task at a time, however many threads the worker has."""


def run_task(
    run: str, jobs: Sequence[Job], task: Task, recording: Path | None = None, parcel: Parcel | None = None
) -> Returned:
    """Do a task in this process.

    Args:
        run: names the client's run.
        recording: where the client has the recording that the task is about, and `parcel`, what is in it.
    """
    global _hands
    with _lock:
        if _hands is None or _hands.run != run:
            if _hands is not None:
                _hands.dispose()
            _hands = _Hands(run, jobs)
        if _hands.idle is not None:
            _hands.idle.cancel()
        try:
            return _hands.do(task, recording, parcel)
        finally:
            _hands.idle = threading.Timer(IDLE_MAX_S, end, [run])
            _hands.idle.daemon = True
            _hands.idle.start()


def end(run: str) -> None:
    """Remove what was made for a run, once its last task is done."""
    global _hands
    with _lock:
        if _hands is not None and _hands.run == run:
            _hands.dispose()
            _hands = None
