"""What was a run asked for, and how does that become a campaign?"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crashlab.campaign.budget import Budget
from crashlab.campaign.executor import Executor, InlineExecutor
from crashlab.campaign.loop import Campaign, Order
from crashlab.campaign.pool import PoolExecutor
from crashlab.campaign.runner import recording_folder
from crashlab.campaign.task import Job
from crashlab.confidence import Until
from crashlab.profile import Profile
from crashlab.results import Keep, ProfileResult
from crashlab.server import ServerChoice
from crashlab.trial.setup import TrialPlan


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One profile that is to be run."""

    profile: Profile
    recording: Path | None = None  # examine this one instead of recording the profile's workload
    recording_of: str | None = None  # ... or that of this profile, which is asked for before


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a run was asked for, resolved: with its folder enough to resume it."""

    asked: Sequence[Asked]
    seed: int
    trials: int | None = None  # None: each profile's own number, or, with a rule, as many as it takes
    time_limit_s: float | None = None
    until: Until | None = None
    server: ServerChoice
    keep: Keep = "failed"
    fail_fast: bool = False
    record_again: bool = True  # when a recording has no more states
    trial_timeout_s: float | None = None  # for one trial
    recover_with: ServerChoice | None = None  # another release recovers; None: the one that crashed
    observe_ms: float | None = None  # look at the servers of live trials this often; None: not at all
    again: str | None = None  # the command that repeats it

    def trials_of(self, profile: Profile) -> int | None:
        """Return how many trials of a profile are to be run; None: until the rule is sure."""
        return self.trials or (None if self.until is not None else profile.trials)

    def campaign(self, out: Path, earlier: Mapping[str, ProfileResult] | None = None) -> Campaign:
        """Return what is to be run.

        Args:
            out: takes a folder a profile.
            earlier: what an earlier run has done, by profile.
        """
        orders = [
            Order(
                job=Job(
                    plan=TrialPlan(
                        profile=one.profile,
                        run_seed=self.seed,
                        server=self.server,
                        keep=self.keep,
                        timeout_s=self.trial_timeout_s,
                        recover_with=self.recover_with,
                        observe_ms=self.observe_ms,
                    ),
                    out=out / one.profile.name,
                ),
                trials=self.trials_of(one.profile),
                recording=_recording(one, out),
                record_again=self.record_again,
                earlier=(earlier or {}).get(one.profile.name),
            )
            for one in self.asked
        ]
        budget = Budget(time_limit_s=self.time_limit_s, fail_fast=self.fail_fast, until=self.until)
        return Campaign(orders=orders, budget=budget, command=self.again)


def _recording(asked: Asked, out: Path) -> Path | None:
    return asked.recording if asked.recording_of is None else recording_folder(out / asked.recording_of, 0)


def executor_for(workers: int | None, scheduler: str | None = None) -> Executor:
    """Return who does the work.

    Args:
        workers: processes of this machine; None: one a processor; 1: this process itself.
        scheduler: address of a dask scheduler, whose workers do it instead.

    Raises:
        UsageProblem, ServerError: there is no such scheduler, or no dask.
    """
    if scheduler is not None:
        from crashlab.campaign.dask_executor import DaskExecutor

        return DaskExecutor(scheduler)
    size = workers or len(os.sched_getaffinity(0))
    return InlineExecutor() if size == 1 else PoolExecutor(size)
