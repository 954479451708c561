"""What does another run of a profile find: is it the same again?

Choices: of all runs only the best one so far stays on disk, without its trials but for the one that found it.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crashlab.campaign import run_campaign
from crashlab.campaign.budget import Budget
from crashlab.campaign.executor import InlineExecutor
from crashlab.campaign.loop import Campaign, Order
from crashlab.campaign.same import Same
from crashlab.campaign.task import Job
from crashlab.errors import RecordingError
from crashlab.oracle.afterlife import AFTERLIFE_CODES
from crashlab.profile import Profile
from crashlab.results import TrialResult
from crashlab.server import ServerChoice
from crashlab.trial.setup import TrialPlan


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is run, and what for."""

    same: Same
    run_seed: int
    server: ServerChoice
    recover_with: ServerChoice | None
    trials: int  # crash states of one recording, or live trials


class Anew:
    """Runs profiles, each in a folder of its own below one, and keeps the last one that found the same."""

    def __init__(
        self, wanted: Wanted, folder: Path, *, left_s: Callable[[], float | None], interrupted: Callable[[], bool]
    ) -> None:
        """Run nothing yet."""
        self._wanted = wanted
        self._folder = folder
        self._left_s = left_s
        self._interrupted = interrupted
        self._number = 0
        self.best: Path | None = None  # the trial that found it

    def found(self, profile: Profile, begun_max: int) -> int | None:
        """Run a profile until the same is found; return how many transactions had begun then, None: it was not.

        Args:
            begun_max: where more had begun, it does not count.
        """

        def small(trial: TrialResult) -> bool:
            return trial.verdict.counts.begun <= begun_max and self._wanted.same.found_in(trial.verdict)

        trials = self._run(profile, until=small)
        trial = next(filter(small, trials), None)
        run = self._folder / str(self._number)
        if trial is None:
            shutil.rmtree(run, ignore_errors=True)
            return None
        for other in self._folder.iterdir():
            if other != run:
                shutil.rmtree(other)
        for one in trials:
            if one is not trial:
                shutil.rmtree(one.folder)
        self.best = trial.folder
        return trial.verdict.counts.begun

    def rate(self, profile: Profile) -> tuple[int, int]:
        """Run all trials of a profile; return in how many the same is found, and how many there were."""
        trials = self._run(profile, until=lambda trial: False)
        shutil.rmtree(self._folder / str(self._number), ignore_errors=True)
        return sum(self._wanted.same.found_in(one.verdict) for one in trials), len(trials)

    def _run(self, profile: Profile, *, until: Callable[[TrialResult], bool]) -> list[TrialResult]:
        """Run a profile once, for nothing but the finding. Raises CrashlabError: the environment does not allow it."""
        wanted = self._wanted
        self._number += 1
        plan = TrialPlan(
            profile=looking_for(wanted.same.code, profile),
            run_seed=wanted.run_seed,
            server=wanted.server,
            recover_with=wanted.recover_with,
        )
        order = Order(
            job=Job(plan=plan, out=self._folder / str(self._number)), trials=wanted.trials, record_again=False
        )
        budget = Budget(
            time_limit_s=self._left_s(),
            looked_for=lambda trial: until(trial) or self._interrupted(),
        )
        run = run_campaign(Campaign(orders=[order], budget=budget), InlineExecutor())
        if isinstance(run.error, RecordingError):  # such as one in which nothing happened that it is to be cut at
            return []
        if run.error is not None:
            raise run.error
        if any(result.interrupted for result in run.profiles):
            raise KeyboardInterrupt
        return [trial for result in run.profiles for trial in result.trials]


def looking_for(code: str, profile: Profile) -> Profile:
    """Return a profile with an afterlife in each trial, or in none: whether it can show a finding of this code."""
    return profile.model_copy(update={"afterlife": 1.0 if code in AFTERLIFE_CODES else 0.0})
