"""One profile, run as a test wants it: in this process, trial after trial, into a folder of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from crashlab.campaign import Campaign, run_campaign
from crashlab.campaign.budget import Budget
from crashlab.campaign.executor import Executor, InlineExecutor
from crashlab.campaign.loop import Order
from crashlab.campaign.runner import recording_folder
from crashlab.campaign.task import Job
from crashlab.disk.model import CrashState
from crashlab.exploration.addresses import laps
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.record import make
from crashlab.exploration.recording import Recording
from crashlab.profile import Profile
from crashlab.results import Keep, ProfileResult
from crashlab.server import ServerChoice
from crashlab.trial.setup import TrialPlan


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One profile, run a number of times."""

    profile: Profile
    seed: int
    trials: int
    time_limit_s: float | None
    server: ServerChoice
    out: Path  # this profile's folder; created
    keep: Keep = "failed"
    fail_fast: bool = False


def plan_of(request: RunRequest) -> TrialPlan:
    """Return what a request says about each of its trials."""
    return TrialPlan(profile=request.profile, run_seed=request.seed, server=request.server, keep=request.keep)


def run_profile(
    request: RunRequest, *, recording: Path | None = None, executor: Executor | None = None
) -> ProfileResult:
    """Run a profile within its budget. An error of the environment is raised.

    Args:
        recording: examine this one instead of recording the workload.
    """
    job = Job(plan=plan_of(request), out=request.out)
    order = Order(job=job, trials=request.trials, recording=recording)
    budget = Budget(time_limit_s=request.time_limit_s, fail_fast=request.fail_fast)
    result = run_campaign(Campaign(orders=[order], budget=budget), executor or InlineExecutor())
    if result.error is not None:
        raise result.error
    return result.profiles[0]


def record(request: RunRequest) -> Recording:
    """Record a profile's workload once."""
    return make(plan_of(request), recording_folder(request.out, 0))


def states_of(explorer: Explorer, count: int) -> Iterator[CrashState]:
    """Yield the first crash states that a run would try."""
    conditions = explorer.conditions
    lap = next(laps(conditions.points, explorer.seed, conditions.states_per_point))
    yield from islice((state for address in lap if (state := explorer.state(address)) is not None), count)
