"""Which tasks does a profile come to, and in which order?

A source is a generator of tasks that waits for a result only where the next task depends on it. What it yields depends
on the seed and on the recordings alone: not on how many trials are asked for, who runs them, or which were done before.

Choices:
    If a recording has no more states, another one is made, with another seed, unless that is not wanted.
    Of a recorded recovery as many states are tried as of a crash point; meanwhile the next recovery is recorded.
"""

from collections.abc import Generator, Iterable
from itertools import count, islice
from pathlib import Path

from crashlab.campaign.task import Job, LiveTask, Outcome, Recorded, RecordTask, RecoveryTask, StateTask, Task
from crashlab.exploration import recording
from crashlab.exploration.addresses import Address, laps
from crashlab.exploration.conditions import conditions_of
from crashlab.exploration.nested import STATES_PER_POINT, inner_profile
from crashlab.results import TrialResult

Tasks = Generator[Task | None, None, None]
"""None: nothing before a result arrives."""


class Source:
    """The tasks of one job. Tell it what became of each."""

    def __init__(self, job: Job, *, wanted: int | None = None, given: Path | None = None, again: bool = True) -> None:
        """Begin with the first task.

        Args:
            wanted: so many trials will be asked for; it decides what is recorded ahead of need, and nothing else.
            given: examine this recording instead of making one; another job of the campaign may still have to make it.
            again: record once more when a recording has no more states.
        """
        self._job = job
        self._wanted = wanted
        self._given = given
        self._again = again and given is None
        self._outcomes: dict[Task, Outcome] = {}  # of tasks that others wait for
        self._waiting: set[Task] = set()
        self._trials = 0  # numbered so far
        self._found = 0  # crash states that there were
        self._tasks = self._live() if job.plan.profile.power_loss is None else self._recorded()
        self.exhausted = False  # there are no more tasks, and never will be

    def next(self) -> Task | None:
        """Return the next task; None: not before a result arrives, or never, see `exhausted`."""
        try:
            task = next(self._tasks)
        except StopIteration:
            self.exhausted = True
            return None
        if task is not None:
            self._waiting.add(task)
        return task

    def took(self, task: Task, outcome: Outcome) -> None:
        """Take in what became of a task."""
        self._waiting.discard(task)
        if isinstance(outcome, TrialResult):
            self._found += 1
        if isinstance(task, RecordTask | RecoveryTask):
            self._outcomes[task] = outcome

    def _live(self) -> Tasks:
        while True:
            yield LiveTask(self._job.name, self._number())

    def _number(self) -> int:
        self._trials += 1
        return self._trials - 1

    def _recorded(self) -> Tasks:
        if self._given is not None:
            while not (self._given / recording.RECORDING).is_file():
                yield None
            yield from self._states(self._given, 0, None)
            return
        for number in count():
            task = RecordTask(self._job.name, number)
            yield task
            folder = yield from self._made(task)
            assert folder is not None
            found = self._found
            assert self._job.plan.profile.power_loss is not None
            yield from self._states(folder, 0, self._job.plan.profile.power_loss.states_per_recording)
            while any(isinstance(task, StateTask) for task in self._waiting):
                yield None
            if not self._again or self._found == found:
                return

    def _states(self, folder: Path, level: int, limit: int | None) -> Tasks:
        """Yield the states of one recording, or, with a recovery depth, those of recoveries that are cut in their turn.

        Args:
            limit: so many; None: all that there are.
        """
        profile = self._job.plan.profile
        for _ in range(level):
            profile = inner_profile(profile)
        power_loss = profile.power_loss
        assert power_loss is not None
        opened = recording.load(folder)
        seed = self._job.plan.run_seed if not level else opened.record.seed
        conditions = conditions_of(opened, power_loss, seed)
        nested = bool(level or power_loss.recovery_depth)  # rather from many points
        per_point = min(conditions.states_per_point, STATES_PER_POINT) if nested else conditions.states_per_point
        for lap in laps(conditions.points, seed, per_point):
            found = self._found
            if power_loss.recovery_depth:
                share = power_loss.states_per_point
                recoveries = None if limit is None else -(-limit // share)
                yield from self._recoveries(folder, level, islice(lap, recoveries), share)
            else:
                for address in islice(lap, limit):
                    yield StateTask(self._job.name, self._number(), folder, level, address)
            if limit is not None:
                return
            while any(isinstance(task, StateTask) for task in self._waiting):
                yield None
            if self._found == found:
                return

    def _recoveries(self, folder: Path, level: int, addresses: Iterable[Address], share: int) -> Tasks:
        """Record recoveries, each while the states of the one before are tried."""
        begun: list[RecoveryTask] = []
        for address in addresses:
            if begun and self._wanted is not None and self._trials + share >= self._wanted:
                yield from self._inside(begun.pop(0), share)
            begun.append(RecoveryTask(self._job.name, folder, level, address))
            yield begun[-1]
            if len(begun) > 1:
                yield from self._inside(begun.pop(0), share)
        for task in begun:
            yield from self._inside(task, share)

    def _inside(self, task: RecoveryTask, share: int) -> Tasks:
        folder = yield from self._made(task)
        if folder is not None:
            yield from self._states(folder, task.level + 1, share)

    def _made(self, task: Task) -> Generator[None, None, Path | None]:
        """Wait for a recording; None: there was no such state to record from."""
        while task not in self._outcomes:
            yield None
        outcome = self._outcomes.pop(task)
        return outcome.folder if isinstance(outcome, Recorded) else None
