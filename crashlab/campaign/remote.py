"""What does a worker on another machine do with a task?

It has no folder in common with its client: a recording comes in a parcel, once, and stays; evidence goes back in one.
It fetches what it lacks by its key, from whichever worker has it.
Of several clients it serves the newest: what it made for the one before is removed.

Choices: a client that is killed cannot say that it has gone. So a worker that had nothing to do for a while removes
    what it has made; should a task come after all, it makes it again.
"""

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crashlab.campaign.parcel import Parcel, pack
from crashlab.campaign.runner import Runner
from crashlab.campaign.task import Job, NoSuchState, Outcome, Recorded, Task
from crashlab.errors import CrashlabError
from crashlab.results import TrialResult
from crashlab.server import owned, registry

FETCH_MAX_S = 300.0
IDLE_MAX_S = 120.0


class Lost(Exception):
    """What a batch needs is with no worker any more."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tasks that are handed out together, and under which keys their worker finds what they need."""

    run: str  # names the client's run
    jobs: str
    tasks: tuple[Task, ...]
    recordings: dict[Path, str]  # by where the client has them


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

    def take(self, recordings: dict[Path, str]) -> None:
        """Fetch the recordings that are not here yet."""
        for recording, key in recordings.items():
            if recording in self._recordings:
                continue
            parcel: Parcel = fetch(key)
            folder = self._home / "recordings" / parcel.digest
            if not folder.exists():
                parcel.unpack(folder)
            self._recordings[recording] = folder

    def do(self, task: Task) -> Returned:
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


def run_batch(batch: Batch) -> list[Returned]:
    """Do the tasks in this process.

    Raises:
        Lost: it cannot be fetched what they need; the client may send it again.
    """
    global _hands
    with _lock:
        if _hands is None or _hands.run != batch.run:
            if _hands is not None:
                _hands.dispose()
            _hands = _Hands(batch.run, fetch(batch.jobs))
        if _hands.idle is not None:
            _hands.idle.cancel()
        try:
            _hands.take(batch.recordings)
            return [_hands.do(task) for task in batch.tasks]
        finally:
            _hands.idle = threading.Timer(IDLE_MAX_S, end, [batch.run])
            _hands.idle.daemon = True
            _hands.idle.start()


def fetch(key: str) -> Any:
    """Return what a client has handed to some worker.

    Raises:
        Lost: nobody has it.
    """
    import distributed

    try:
        make: Any = distributed.Future
        future = make(key, distributed.get_client(), state="memory")  # nothing to wait for
        return future.result(timeout=FETCH_MAX_S)
    except (CancelledError, KeyError, OSError, TimeoutError) as error:
        raise Lost(key) from error


def end(run: str) -> None:
    """Remove what was made for a run, once its last task is done."""
    global _hands
    with _lock:
        if _hands is not None and _hands.run == run:
            _hands.dispose()
            _hands = None
