"""How are all trials of a campaign run within its budget? The one loop, for every kind of trial and every executor.

Choices:
    Profiles take their turn in the order in which they were asked for. A later one begins when the ones before have
    nothing to hand out at the moment, so that no worker is idle while a recording is made.
    The time is shared evenly among the profiles that have not begun.
    An interrupt or an error of the environment ends the whole run; what was finished is told.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crashlab.campaign.budget import SETTLED, Account, Budget, Stop
from crashlab.campaign.events import Event, Handler, ProfileBegan, ProfileEnded, RecordedAgain, TaskBegan, TrialDone
from crashlab.campaign.executor import Done, Executor
from crashlab.campaign.keep import forget_recordings, forgotten
from crashlab.campaign.runner import recording_folder
from crashlab.campaign.source import Source
from crashlab.campaign.task import Job, LiveTask, RecordTask, StateTask, Task
from crashlab.errors import CrashlabError, RecordingError
from crashlab.results import ProfileFacts, ProfileResult, RunResult, TrialResult

POLL_S = 0.5
"""How late a time limit is noticed while nothing happens."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One profile, and how much of it is wanted."""

    job: Job
    trials: int | None  # None: until the budget's rule or the time ends it
    recording: Path | None = None  # examine this one instead of recording; an order before this one may make it
    record_again: bool = True  # when a recording has no more states
    earlier: ProfileResult | None = None  # what a run has done that is resumed


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Everything that one command runs."""

    orders: Sequence[Order]
    budget: Budget = field(default_factory=Budget)
    command: str | None = None  # runs all of it again


def run(campaign: Campaign, executor: Executor, handlers: Iterable[Handler] = ()) -> RunResult:
    """Run a campaign; a KeyboardInterrupt or an error of the environment ends it with what was finished.

    Args:
        executor: entered already; not closed here.
    """
    return _Loop(campaign, executor, handlers).run()


class _Progress:
    """One order on its way."""

    def __init__(self, order: Order, budget: Budget) -> None:
        self.order = order
        self.name = order.job.name
        self.account = Account(budget, order.trials)
        self.source = Source(order.job, wanted=order.trials, given=order.recording, again=order.record_again)
        self.earlier = {trial.trial: trial for trial in order.earlier.trials} if order.earlier is not None else {}
        self.complete_before = _complete(order)
        self.trials: list[TrialResult] = []
        self.running: set[Task] = set()
        self.began = False
        self.ended = False
        self.begun_s: float | None = None

    def next(self) -> Task | None:
        """Return a task to hand out now, if there is one; count what an earlier run has done."""
        while self.account.allows() and not self.done_before():
            task = self.source.next()
            if task is None:
                if self.source.exhausted:
                    self.account.end(Stop.EXHAUSTED)
                return None
            self.account.begun += isinstance(task, LiveTask | StateTask)
            known = self.earlier.get(task.trial) if isinstance(task, LiveTask | StateTask) else None
            if known is None:
                return task
            self.source.took(task, known)
            self.note(known)
        return None

    def note(self, trial: TrialResult) -> None:
        """Take in a trial that is done; of what is equal in all of them there is one, or 100,000 are a lot to keep."""
        last = self.trials[-1] if self.trials else trial
        server = last.server if trial.server == last.server else trial.server
        contract = last.contract if trial.contract == last.contract else trial.contract
        other = last.recovered_with if trial.recovered_with == last.recovered_with else trial.recovered_with
        self.trials.append(replace(trial, server=server, contract=contract, recovered_with=other))
        self.account.note(trial)

    def over(self) -> bool:
        """Whether nothing runs and nothing more will."""
        return not self.running and (self.done_before() or not self.account.allows() or self.source.exhausted)

    def done_before(self) -> bool:
        """Whether an earlier run has left nothing to do."""
        return self.complete_before is not None

    def result(self) -> ProfileResult:
        if self.complete_before is not None:
            return self.complete_before
        profile = self.order.job.plan.profile
        trials = sorted(self.trials, key=lambda trial: trial.trial)
        server = next((trial.server for trial in reversed(trials) if trial.server is not None), None)
        return ProfileResult(
            profile=ProfileFacts.of(profile),
            seed=self.order.job.plan.run_seed,
            server=server,
            crash_class=profile.crash_class,
            trials=trials,
            interrupted=self.account.stop is Stop.INTERRUPT and not self.account.complete,
            stopped_by=self.account.reason(),
            complete=self.account.complete or self.account.stop in SETTLED,
            seconds=self._seconds(),
        )

    def _seconds(self) -> float:
        """Return how long it took; 0: not known, as an earlier run was killed before it could say."""
        earlier = self.order.earlier
        if earlier is not None and earlier.trials and not earlier.seconds:
            return 0.0
        now = 0.0 if self.begun_s is None else time.monotonic() - self.begun_s
        return round(now + (earlier.seconds if earlier is not None else 0.0), 3)


def _complete(order: Order) -> ProfileResult | None:
    """Return what an earlier run has done if it has left nothing to do."""
    earlier = order.earlier
    if earlier is None or earlier.complete or order.recording is not None or not forgotten(order.job):
        return earlier if earlier is not None and earlier.complete else None
    done = len(earlier.trials)  # it was killed before it could say that it was complete
    fewer = order.trials is None or done < order.trials
    return replace(earlier, complete=True, stopped_by=f"its recording is gone, {done} trials" if fewer else None)


class _Loop:
    def __init__(self, campaign: Campaign, executor: Executor, handlers: Iterable[Handler]) -> None:
        self._campaign = campaign
        self._executor = executor
        self._handlers = list(handlers)
        self._all = [_Progress(order, campaign.budget) for order in campaign.orders]
        self._by_name = {progress.name: progress for progress in self._all}
        limit_s = campaign.budget.time_limit_s
        self._deadline = None if limit_s is None else time.monotonic() + limit_s
        self._results: dict[str, ProfileResult] = {}

    def run(self) -> RunResult:
        failure = None
        self._executor.start([progress.order.job for progress in self._all])
        try:
            while not all(progress.ended for progress in self._all):
                self._hand_out()
                self._require_work()
                for done in self._executor.wait(POLL_S) if any(progress.running for progress in self._all) else ():
                    self._took(done)
                self._end_those_that_are_over()
        except KeyboardInterrupt:
            self._cut_short(Stop.INTERRUPT)
        except CrashlabError as error:
            failure = error
            self._cut_short(Stop.ERROR, error.primary)
        results = [self._results[progress.name] for progress in self._all if progress.name in self._results]
        return RunResult(profiles=results, command=self._campaign.command, error=failure)

    def _hand_out(self) -> None:
        while self._executor.has_room():
            task = next((task for progress in self._all if (task := self._next_of(progress)) is not None), None)
            if task is None:
                return
            self._by_name[task.job].running.add(task)
            self._publish(TaskBegan(task))
            self._executor.submit(task)

    def _require_work(self) -> None:
        """Raise RecordingError: a profile waits for a recording that nobody will make."""
        waiting = [progress for progress in self._all if progress.began and not progress.ended and not progress.over()]
        if waiting and not any(progress.running for progress in self._all):
            raise RecordingError(
                f'cannot examine the recording "{waiting[0].order.recording}": it is not there',
                hint="Run all of it again, into another folder.",
            )

    def _next_of(self, progress: _Progress) -> Task | None:
        if progress.ended:
            return None
        if not progress.began:
            progress.began = True
            progress.begun_s = time.monotonic()
            progress.account.start(self._share_s())
            self._publish(ProfileBegan(progress.name, progress.order.trials))
        task = progress.next()
        if progress.account.stop is Stop.BROKEN:  # an earlier run has found it
            self._stop_all()
        if isinstance(task, RecordTask) and task.number:
            self._publish(RecordedAgain(progress.name, len(progress.trials)))
        return task

    def _share_s(self) -> float | None:
        """Return the time for a profile that begins now."""
        waiting = 1 + sum(not progress.began for progress in self._all)
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic()) / waiting

    def _took(self, done: Done) -> None:
        progress = self._by_name[done.task.job]
        progress.running.discard(done.task)
        if isinstance(done.outcome, BaseException):
            raise done.outcome
        progress.source.took(done.task, done.outcome)
        if isinstance(done.outcome, TrialResult):
            progress.note(done.outcome)
            self._publish(TrialDone(progress.name, done.outcome))
            if progress.account.stop is Stop.BROKEN:
                self._stop_all()
        elif isinstance(done.task, StateTask):
            progress.account.begun -= 1  # there was no such state

    def _stop_all(self) -> None:
        """A broken promise ends the whole run: what runs comes to its end, what has not begun never does."""
        for progress in self._all:
            progress.account.end(Stop.BROKEN)
            progress.ended = progress.ended or not progress.began

    def _end_those_that_are_over(self) -> None:
        for progress in self._all:
            if progress.began and not progress.ended and progress.over():
                self._end(progress)

    def _end(self, progress: _Progress) -> None:
        progress.ended = True
        result = progress.result()
        if progress.account.stop is Stop.BROKEN and not result.trials:
            return
        self._results[progress.name] = result
        self._forget_recordings_of(progress)
        self._publish(ProfileEnded(result))

    def _forget_recordings_of(self, ended: _Progress) -> None:
        """Remove recordings once all that examine them are done; what a resumed run found there stays as it is."""
        home = ended.order.recording or recording_folder(ended.order.job.out, 0)
        users = [one for one in self._all if home == (one.order.recording or recording_folder(one.order.job.out, 0))]
        results = [self._results.get(one.name) for one in users]
        done = [result for result in results if result is not None and result.complete]
        made_here = users[0].order.recording is None
        new = any(one.order.earlier is not result for one, result in zip(users, results, strict=True))
        if made_here and new and len(done) == len(users):
            forget_recordings(users[0].order.job, done, self._campaign.command)

    def _cut_short(self, stop: Stop, why: str | None = None) -> None:
        for progress in self._all:
            if not progress.ended and (progress.began or progress.earlier):
                progress.account.end(stop, why)
                self._end(progress)
        waiting = [progress for progress in self._all if not progress.ended]
        if stop is Stop.INTERRUPT and waiting and not any(one.interrupted for one in self._results.values()):
            waiting[0].account.end(stop)  # it came between two profiles: the next one is what it has cut short
            self._end(waiting[0])

    def _publish(self, event: Event) -> None:
        for handler in self._handlers:
            handler(event)
