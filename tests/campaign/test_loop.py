"""Does the one loop hand out the right tasks, and end for the right reason?

An executor made by hand answers: what is tested is which task is asked for, when, and what comes of the answers.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from crashlab.campaign import source as sources
from crashlab.campaign.budget import Account, Budget
from crashlab.campaign.events import Event, ProfileBegan, ProfileEnded, RecordedAgain, TrialDone
from crashlab.campaign.executor import Done
from crashlab.campaign.loop import Campaign, Order, run
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
from crashlab.confidence import Until
from crashlab.errors import ServerError
from crashlab.exploration.addresses import Address
from crashlab.exploration.recording import RECORDING
from crashlab.profile import load_profile
from crashlab.results import ProfileResult, RunResult, TrialResult
from crashlab.server import ServerChoice
from crashlab.trial.setup import TrialPlan
from tests.made_results import broken, inconclusive, intact, shut_down

Answer = Callable[[Task], Outcome | BaseException | None]


class ByHand:
    """Answers tasks in the order in which they came, several at a time; one that gets None stays in flight."""

    def __init__(self, answer: Answer, room: int = 1) -> None:
        self._answer = answer
        self._room = room
        self._tasks: deque[Task] = deque()
        self.submitted: list[Task] = []

    def start(self, jobs: Iterable[Job]) -> None:
        """Know nothing."""

    def has_room(self) -> bool:
        """As many as it was made for."""
        return len(self._tasks) < self._room

    def submit(self, task: Task) -> None:
        """Take it."""
        self._tasks.append(task)
        self.submitted.append(task)

    def wait(self, timeout_s: float) -> list[Done]:
        """Answer the first task that has an answer; bounded as asked for."""
        assert 0 < timeout_s <= 1
        for task in list(self._tasks):
            answer = self._answer(task)
            if answer is not None:
                self._tasks.remove(task)
                return [Done(task, answer)]
        time.sleep(0.001)
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def order(out: Path, name: str, trials: int | None, **more: object) -> Order:
    """An order of a shipped profile."""
    plan = TrialPlan(profile=load_profile(name), run_seed=1, server=ServerChoice())
    return Order(job=Job(plan=plan, out=out / name), trials=trials, **more)  # type: ignore[arg-type]


def answered(task: Task, result: TrialResult | None = None) -> Outcome:
    """The usual answer."""
    if isinstance(task, RecordTask):
        return Recorded(Path(f"recording-{task.number}"))
    assert isinstance(task, LiveTask | StateTask)
    return replace(result or intact(), trial=task.trial)


def run_with(
    executor: ByHand, *orders: Order, budget: Budget | None = None, events: list[Event] | None = None
) -> RunResult:
    """Run the loop."""
    campaign = Campaign(orders=orders, budget=budget or Budget())
    return run(campaign, executor, [events.append] if events is not None else [])


def numbers(result: ProfileResult) -> list[int]:
    """Which trials were done."""
    return [trial.trial for trial in result.trials]


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[Path, int]:
    """Let every recording have points without a look at it; how many laps there are is up to the answers."""

    def yield_states(self: sources.Source, folder: Path, level: int, limit: int | None) -> sources.Tasks:
        for lap in count():
            found = self._found
            for position in range(5):
                yield StateTask(self._job.name, self._number(), folder, level, Address(position, lap))
            while any(isinstance(task, StateTask) for task in self._waiting):
                yield None
            if self._found == found:
                return

    monkeypatch.setattr(sources.Source, "_states", yield_states)
    return {}


@pytest.mark.parametrize("room", [1, 2, 5])
def test_profiles_take_their_turn_and_trials_are_numbered_without_a_gap(room, tmp_path):
    """In the order of the command line, whoever does them, whatever number is in flight."""
    executor, events = ByHand(answered, room), list[Event]()
    result = run_with(executor, order(tmp_path, "kill9-all", 3), order(tmp_path, "kill9-backend", 2), events=events)
    assert executor.submitted == [
        *(LiveTask("kill9-all", number) for number in range(3)),
        *(LiveTask("kill9-backend", number) for number in range(2)),
    ]
    assert [numbers(one) for one in result.profiles] == [[0, 1, 2], [0, 1]]
    assert [one.complete for one in result.profiles] == [True, True]
    assert [one.stopped_by for one in result.profiles] == [None, None]
    told = [type(event) for event in events]
    assert told.count(TrialDone) == 5
    assert told.count(ProfileBegan) == told.count(ProfileEnded) == 2


def test_while_a_recording_is_made_the_next_profile_has_its_turn(tmp_path, states):
    """No worker is idle; once the recording is there, its own trials come first again."""
    live = iter(range(3))

    def answer(task: Task) -> Outcome | None:
        if isinstance(task, RecordTask):
            return answered(task) if next(live, None) is None else None
        return answered(task)

    executor = ByHand(answer, 2)
    result = run_with(executor, order(tmp_path, "power-loss", 4), order(tmp_path, "kill9-all", 8))
    kinds = [type(task) for task in executor.submitted]
    assert kinds[:2] == [RecordTask, LiveTask]
    first_state = kinds.index(StateTask)
    assert 0 < kinds[:first_state].count(LiveTask) < 8
    assert kinds[first_state : first_state + 4] == [StateTask] * 4
    assert [len(one.trials) for one in result.profiles] == [4, 8]


@pytest.mark.parametrize("room", [1, 3])
def test_a_state_that_does_not_exist_is_not_a_trial(room, tmp_path, states):
    """Another takes its place: the first so many that there are, however many are in flight."""

    def answer(task: Task) -> Outcome:
        if isinstance(task, StateTask) and task.address.position in (1, 2):
            return NoSuchState()
        return answered(task)

    (result,) = run_with(ByHand(answer, room), order(tmp_path, "power-loss", 7)).profiles
    assert numbers(result) == [0, 3, 4, 5, 8, 9, 10]
    assert (result.complete, result.stopped_by) == (True, None)


@pytest.mark.parametrize("room", [1, 3])
def test_a_recording_without_more_states_is_followed_by_another(room, tmp_path, states):
    """One with another number and seed, which is told; its trials go on counting."""

    def answer(task: Task) -> Outcome:
        return NoSuchState() if isinstance(task, StateTask) and task.address.number > 0 else answered(task)

    events: list[Event] = []
    executor = ByHand(answer, room)
    (result,) = run_with(executor, order(tmp_path, "power-loss", 12), events=events).profiles
    assert [task.number for task in executor.submitted if isinstance(task, RecordTask)] == [0, 1, 2]
    assert [event for event in events if isinstance(event, RecordedAgain)] == [
        RecordedAgain("power-loss", 5),
        RecordedAgain("power-loss", 10),
    ]
    recorded_in = [task.recording.name for task in executor.submitted if isinstance(task, StateTask)]
    assert recorded_in == sorted(recorded_in)
    assert len(result.trials) == 12
    assert result.stopped_by is None


@pytest.mark.parametrize("given", [False, True])
def test_if_no_other_recording_is_wanted_the_run_says_how_many_states_there_were(given, tmp_path, states):
    """That is the end of it: complete, with fewer than asked for."""
    more: dict[str, Any] = {"record_again": False}
    if given:
        more = {"recording": tmp_path / "given"}
        (tmp_path / "given").mkdir()
        (tmp_path / "given" / RECORDING).touch()

    def answer(task: Task) -> Outcome:
        return NoSuchState() if isinstance(task, StateTask) and task.address.number > 0 else answered(task)

    (result,) = run_with(ByHand(answer, 2), order(tmp_path, "power-loss", 12, **more)).profiles
    assert len(result.trials) == 5
    assert result.stopped_by == "a recording with only 5 such crash states"
    assert result.complete


def test_a_recording_without_any_state_does_not_make_another(tmp_path, states):
    """Otherwise the run would record for ever."""
    executor = ByHand(lambda task: NoSuchState() if isinstance(task, StateTask) else answered(task), 2)
    (result,) = run_with(executor, order(tmp_path, "power-loss", 12)).profiles
    assert sum(isinstance(task, RecordTask) for task in executor.submitted) == 1
    assert result.trials == []
    assert result.stopped_by == "a recording with only 0 such crash states"


def test_the_first_broken_promise_ends_the_run_but_not_what_runs(tmp_path):
    """What is in flight comes to its end and is told; no other profile begins."""

    def answer(task: Task) -> Outcome:
        assert isinstance(task, LiveTask)
        return answered(task, broken() if task.trial == 1 else intact())

    executor = ByHand(answer, 3)
    orders = order(tmp_path, "kill9-all", 20), order(tmp_path, "kill9-backend", 2)
    result = run_with(executor, *orders, budget=Budget(fail_fast=True))
    (one,) = result.profiles
    assert numbers(one) == [0, 1, 2, 3]
    assert one.stopped_by == "first broken promise"
    assert {task.job for task in executor.submitted} == {"kill9-all"}
    resumed = run_with(ByHand(answer, 3), replace(orders[0], earlier=one), orders[1], budget=Budget(fail_fast=True))
    assert [numbers(again) for again in resumed.profiles] == [[0, 1]]


def test_the_first_trial_that_was_looked_for_ends_its_profile(tmp_path):
    """Whatever its promise is; the next profile begins."""

    def answer(task: Task) -> Outcome:
        assert isinstance(task, LiveTask)
        return answered(task, inconclusive() if task.trial == 2 else intact())

    budget = Budget(looked_for=lambda trial: trial.verdict.promise is None)
    executor = ByHand(answer, 1)
    orders = order(tmp_path, "kill9-all", 20), order(tmp_path, "kill9-backend", 2)
    first, second = run_with(executor, *orders, budget=budget).profiles
    assert (numbers(first), first.stopped_by) == ([0, 1, 2], "what was looked for")
    assert (numbers(second), second.stopped_by) == ([0, 1], None)


def test_a_rule_ends_a_profile_once_it_is_sure(tmp_path):
    """95 % sure of fewer than 10 %: 29 trials without a broken one; what could not be judged only ends it."""
    rule = Budget(until=Until.parse("95%<10%"))
    (result,) = run_with(ByHand(answered, 2), order(tmp_path, "kill9-all", None), budget=rule).profiles
    assert 29 <= len(result.trials) <= 30
    assert result.stopped_by == "the rule 95%<10%"
    assert result.complete
    unsure = ByHand(lambda task: answered(task, inconclusive()), 2)
    (result,) = run_with(unsure, order(tmp_path, "kill9-all", None), budget=rule).profiles
    assert 50 <= len(result.trials) <= 51
    assert result.stopped_by is not None
    assert result.stopped_by.startswith("the rule 95%<10%, which needs trials")
    assert result.complete  # going on would end at once, for the same reason


@pytest.mark.parametrize(
    ("trials", "said"), [(3, "the number of trials, before the rule 95%<10% was sure"), (29, None)]
)
def test_a_rule_that_the_trials_were_too_few_for_is_told(tmp_path, trials, said):
    """Three intact trials leave 63 % possible; 29 are enough, and end it with the number that was asked for."""
    rule = Budget(until=Until.parse("95%<10%"))
    (result,) = run_with(ByHand(answered, 1), order(tmp_path, "kill9-all", trials), budget=rule).profiles
    assert len(result.trials) == trials
    assert result.stopped_by == (said or "the rule 95%<10%")
    (result,) = run_with(ByHand(answered, 1), order(tmp_path / "b", "kill9-all", trials)).profiles
    assert result.stopped_by is None


def test_a_server_that_had_shut_down_makes_no_rule_sure(tmp_path):
    """Every second trial was no crash: 29 others are needed; and a broken promise counts in any."""

    def answer(task: Task) -> Outcome:
        assert isinstance(task, LiveTask)
        return answered(task, shut_down(intact()) if task.trial % 2 else intact())

    rule = Budget(until=Until.parse("95%<10%"))
    (result,) = run_with(ByHand(answer, 1), order(tmp_path, "docker-stop", None), budget=rule).profiles
    assert sum(not trial.proves_nothing for trial in result.trials) == 29
    guilty = ByHand(lambda task: answered(task, shut_down(broken())), 1)
    (result,) = run_with(guilty, order(tmp_path, "docker-stop", None), budget=rule).profiles
    assert len(result.trials) == 2  # at least 22 % are broken


def test_the_time_is_shared_and_each_profile_has_its_part(tmp_path, monkeypatch):
    """Of 0.6 s for three profiles the first takes a third, the others share what is left; waits are bounded."""

    def answer(task: Task) -> Outcome:
        time.sleep(0.01)
        return answered(task)

    shares: list[float | None] = []
    start = Account.start

    def noted(self: Account, share_s: float | None) -> None:
        shares.append(share_s)
        start(self, share_s)

    monkeypatch.setattr(Account, "start", noted)
    begun = time.monotonic()
    orders = [order(tmp_path, name, None) for name in ("kill9-all", "kill9-backend", "kill9-walwriter")]
    result = run_with(ByHand(answer), *orders, budget=Budget(time_limit_s=0.6))
    assert time.monotonic() - begun < 5
    assert shares[0] == pytest.approx(0.2, abs=0.02)
    assert all(share is not None and 0.05 < share < 0.45 for share in shares)
    assert all(one.trials for one in result.profiles)
    assert all("time limit, " in (one.stopped_by or "") and not one.complete for one in result.profiles)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), ServerError("could not go on")])
def test_an_interrupt_or_an_error_tells_what_was_finished(end, tmp_path):
    """Profiles that are done stay done, the one that runs is cut short, those that wait are not told."""

    def answer(task: Task) -> Outcome | BaseException:
        assert isinstance(task, LiveTask)
        if task.job == "kill9-backend" and task.trial == 2:
            if isinstance(end, KeyboardInterrupt):
                raise end
            return end
        return answered(task)

    names = ("kill9-all", "kill9-backend", "kill9-walwriter")
    result = run_with(ByHand(answer, 2), *(order(tmp_path, name, 4) for name in names))
    interrupted = isinstance(end, KeyboardInterrupt)
    assert [numbers(one) for one in result.profiles] == [[0, 1, 2, 3], [0, 1]]
    assert [(one.complete, one.interrupted) for one in result.profiles] == [(True, False), (False, interrupted)]
    assert result.error is (None if interrupted else end)


@pytest.mark.parametrize("names", [("kill9-all",), ("kill9-all", "kill9-backend")])
def test_an_interrupt_after_the_last_trial_of_a_profile_cuts_short_the_next_one_only(names, tmp_path):
    """What is complete is not interrupted, now or when the run is resumed; the run is, if anything was left to do."""

    def interrupt(event: Event) -> None:
        if isinstance(event, TrialDone) and event.result.trial == 2:
            raise KeyboardInterrupt

    orders = [order(tmp_path, name, 3) for name in names]
    result = run(Campaign(orders=orders), ByHand(answered), [interrupt])
    assert [(one.complete, one.interrupted, one.stopped_by) for one in result.profiles] == [
        (True, False, None),
        (False, True, "interrupt, 0 of 3 trials"),
    ][: len(names)]


def test_a_bug_in_a_worker_is_a_bug_of_the_run(tmp_path):
    """It is raised as it is, not told as a result."""
    with pytest.raises(ZeroDivisionError):
        run_with(ByHand(lambda task: ZeroDivisionError()), order(tmp_path, "kill9-all", 2))


@pytest.mark.parametrize("wanted", [12, 500])
def test_what_is_asked_for_changes_no_task(wanted, tmp_path, monkeypatch):
    """With recoveries that are recorded ahead of need, too: trial k is the same state of the same recovery."""
    submitted = nested(wanted, 1, tmp_path, monkeypatch)
    others = nested(50, 4, tmp_path, monkeypatch)
    assert submitted[:12] == others[:12]
    assert {task.level for task in submitted} == {2}
    assert len({task.recording for task in submitted}) > 1


def nested(wanted: int, room: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[StateTask]:
    """The states that are tried of a made-up recording whose recoveries are cut."""
    from crashlab.exploration import recording

    class Stub:
        def __init__(self, folder: Path) -> None:
            self.folder, self.record = folder, self
            self.seed = sum(folder.name.encode())

    class Points:
        points, states_per_point = range(100, 400), 2

    monkeypatch.setattr(recording, "load", Stub)
    monkeypatch.setattr(sources, "conditions_of", lambda *_: Points)

    def answer(task: Task) -> Outcome:
        if isinstance(task, RecoveryTask):
            return Recorded(task.recording / f"recovery-{task.address}")
        return answered(task)

    executor = ByHand(answer, room)
    with monkeypatch.context() as bounded:
        bounded.setattr(Account, "allows", lambda self: self.begun < min(wanted, 60))
        run_with(executor, order(out, "crash-during-recovery", wanted))
    return [task for task in executor.submitted if isinstance(task, StateTask)]
