"""What can be heard of a campaign while it runs? Console, reports and store subscribe; none of them steers it."""

from collections.abc import Callable
from dataclasses import dataclass

from crashlab.campaign.task import Task
from crashlab.results import ProfileResult, TrialResult


@dataclass(frozen=True)
class ProfileBegan:
    """The first task of a profile is about to be handed out."""

    profile: str
    trials: int | None  # asked for; None: as many as it takes


@dataclass(frozen=True)
class TaskBegan:
    """A task was handed out."""

    task: Task


@dataclass(frozen=True)
class TrialDone:
    """A trial is judged, and its evidence on disk."""

    profile: str
    result: TrialResult


@dataclass(frozen=True)
class RecordedAgain:
    """A recording had no more states to offer; another one is made."""

    profile: str
    states: int  # found so far


@dataclass(frozen=True)
class ProfileEnded:
    """No more trials of this profile will come."""

    result: ProfileResult


Event = ProfileBegan | TaskBegan | TrialDone | RecordedAgain | ProfileEnded
Handler = Callable[[Event], None]
