"""What is asked of a campaign, and what does it give back?"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from crashlab.errors import CrashlabError, EvidenceError
from crashlab.evidence import ServerFacts
from crashlab.model import Contract, CrashClass, Injection, Verdict
from crashlab.profile import Profile
from crashlab.server import ServerChoice

Keep = Literal["failed", "all", "none"]


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One profile, run a number of times."""

    profile: Profile
    seed: int
    trials: int
    time_limit_s: float | None
    server: ServerChoice
    out: Path  # this profile's folder; created
    keep: Keep = "failed"  # which trials' data directories stay
    fail_fast: bool = False
    first_trial: int = 0  # for a replay of a later one
    again: str | None = None  # the command that runs all of this again
    recording: Path | None = None  # examine this one instead of recording the profile's workload


class CrashPoint(msgspec.Struct, frozen=True):
    """Which crash state of a recording a trial is, in words."""

    position: int  # so many operations of the recording had happened
    note: str

    def __str__(self) -> str:
        return f"operation {self.position} of the recording; {self.note}"


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trial as it is reported."""

    trial: int
    seed: int
    verdict: Verdict
    injections: list[Injection]
    seconds: dict[str, float]
    folder: Path
    kept_data: Path | None
    reproduce: str
    server: ServerFacts | None = None
    state: CrashPoint | None = None  # None: a live trial
    contract: Contract | None = None  # what was promised to its clients
    error: str | None = None  # the trial could not be run to its end; the verdict is inconclusive


@dataclass(kw_only=True)
class ProfileResult:
    """Every trial of one profile so far."""

    profile: Profile
    seed: int
    server: ServerFacts | None
    crash_class: CrashClass
    trials: list[TrialResult] = field(default_factory=list)
    interrupted: bool = False
    stopped_by: str | None = None  # why fewer trials than asked for were run


@dataclass(kw_only=True)
class RunResult:
    """Everything that one command ran, or judged again."""

    profiles: list[ProfileResult]
    command: str | None = None  # runs all of it again; None: unknown
    error: CrashlabError | None = None  # the environment ended the run during the last of the profiles


OnTrial = Callable[[TrialResult], None]
OnPhase = Callable[[str], None]


def replay_command(folder: Path) -> str:
    """Return the command that runs a stored trial again."""
    return shlex.join(["crashlab", "replay", str(folder)])


def make_trial_folder(out: Path, trial: int) -> Path:
    """Make the folder that takes a trial's evidence. Raises EvidenceError: it exists, or cannot be made."""
    folder = out / f"trial-{trial:04d}"
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise EvidenceError(
            f'cannot write evidence to "{folder}": it exists',
            hint="Choose another --out; evidence is never overwritten.",
        ) from error
    except OSError as error:
        raise EvidenceError(f'could not create "{folder}": {error.strerror}') from error
    return folder
