"""What is the smallest thing that a worker can be asked for?

A task is an address: with the jobs of its campaign it is enough to run it anywhere, and it gives the same whoever runs
it, in whatever order, and however often.

Source: design.md "Campaigns".
"""

from dataclasses import dataclass
from pathlib import Path

from crashlab.exploration.addresses import Address
from crashlab.results import TrialResult
from crashlab.trial.setup import TrialPlan


@dataclass(frozen=True, kw_only=True)
class Job:
    """One profile of a campaign, as its workers know it."""

    plan: TrialPlan
    out: Path  # takes a folder a trial, and the recordings

    @property
    def name(self) -> str:
        """The profile's."""
        return self.plan.profile.name


@dataclass(frozen=True)
class LiveTask:
    """Run a workload, crash the server, judge."""

    job: str
    trial: int

    def __str__(self) -> str:
        return f"trial {self.trial}"


@dataclass(frozen=True)
class RecordTask:
    """Record a workload."""

    job: str
    number: int  # of the recording; each has its own seed

    def __str__(self) -> str:
        return "recording" if not self.number else f"recording {self.number + 1}"


@dataclass(frozen=True)
class StateTask:
    """Recover one crash state of a recording, judge."""

    job: str
    trial: int
    recording: Path
    level: int  # 0: a recorded run; 1: a recorded recovery of one of its states; ...
    address: Address

    def __str__(self) -> str:
        return f"state {self.trial}"


@dataclass(frozen=True)
class RecoveryTask:
    """Recover one crash state of a recording under the recorder."""

    job: str
    recording: Path
    level: int
    address: Address

    def __str__(self) -> str:
        return f"recovery from operation {self.address}"


Task = LiveTask | RecordTask | StateTask | RecoveryTask


def recording_of(task: Task) -> Path | None:
    """Return which recording a task examines, if it does."""
    return task.recording if isinstance(task, StateTask | RecoveryTask) else None


@dataclass(frozen=True)
class Recorded:
    """A recording has been made."""

    folder: Path


@dataclass(frozen=True)
class NoSuchState:
    """The point has fewer different states."""


Outcome = TrialResult | Recorded | NoSuchState
