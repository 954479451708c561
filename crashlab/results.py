"""What is asked of a campaign, and what does it give back?"""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from crashlab.errors import CrashlabError, EvidenceError
from crashlab.evidence import ServerFacts
from crashlab.model import Contract, CrashClass, Injection, Verdict
from crashlab.profile import Profile

Keep = Literal["failed", "all", "none"]


@dataclass(frozen=True)
class ServerChoice:
    """Where PostgreSQL is to run."""

    kind: Literal["auto", "local", "container"] = "auto"
    image: str | None = None
    pg_bindir: Path | None = None


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


def replay_command(folder: Path) -> str:
    """Return the command that runs a stored trial again."""
    return shlex.join(["crashlab", "replay", str(folder)])


def trial_name(trial: int) -> str:
    """Return the name of a trial's folder."""
    return f"trial-{trial:04d}"


def make_trial_folder(out: Path, trial: int) -> Path:
    """Make the folder that takes a trial's evidence. Raises EvidenceError: it exists, or cannot be made."""
    folder = out / trial_name(trial)
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
