"""What is asked of a campaign, and what does it give back?

Choices: a result knows its profile as plain facts. They come from evidence as well as from a profile, and nothing of
them is held against what a profile may say today.
"""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal, Self

import msgspec

from crashlab.chronicle import Chronicle
from crashlab.errors import CrashlabError, EvidenceError
from crashlab.evidence import RecoveredWith, ServerFacts
from crashlab.model import Contract, CrashClass, Held, Injection, PromiseStatus, RecordCount, Verdict
from crashlab.profile import Profile

Keep = Literal["failed", "all", "none"]
REPLAY = "crashlab replay "
"""What the command begins with that runs a stored trial again."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a profile expects, as it says it."""

    outcomes: list[str]
    promise: list[str]
    note: str


@dataclass(frozen=True, kw_only=True)
class ProfileFacts:
    """What reports tell of a profile, also of one that no crashlab of today would load."""

    name: str
    description: str
    expect: Expected
    resolved: dict[str, Any]  # the whole profile after `extends` and `--set`

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """Return the facts of a profile."""
        return cls.stored(profile.model_dump(mode="json", by_alias=True))

    @classmethod
    def stored(cls, resolved: dict[str, Any], *, name: str | None = None) -> Self:
        """Return the facts that evidence holds; what an older profile did not say is as it was meant then.

        Args:
            name: where the table has none.
        """
        expect = resolved.get("expect")
        expect = expect if isinstance(expect, dict) else {}
        return cls(
            name=_text(resolved.get("name")) or name or "",
            description=_text(resolved.get("description")),
            expect=Expected(
                outcomes=_texts(expect.get("outcomes")) or ["intact"],
                promise=_texts(expect.get("promise")) or ["kept"],
                note=_text(expect.get("note")),
            ),
            resolved=resolved,
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    """Return what of a list is text: what evidence holds of a profile was never held against a schema."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


class CrashPoint(msgspec.Struct, frozen=True):
    """Which crash state of a recording a trial is, in words."""

    position: int  # so many operations of the recording had happened
    note: str
    fingerprint: int = 0  # equal only for equal images

    def __str__(self) -> str:
        return f"operation {self.position} of the recording; {self.note}"


class Redo(msgspec.Struct, frozen=True):
    """Which types of WAL records a trial's recovery replayed, and which its server had written."""

    replayed: list[RecordCount]
    written: list[str]  # what is known of it: of a recorded trial, in the whole run; of a live one, from the redo point


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
    again: str | None = None  # the command that runs it again; None: a replay of its folder
    server: ServerFacts | None = None
    recovered_with: RecoveredWith | None = None  # None: the server that crashed, or one of the same release
    state: CrashPoint | None = None  # None: a live trial
    contract: Contract | None = None  # what was promised to its clients
    redo: Redo | None = None  # None: there was no recovery, or it is not known what it replayed
    drawn: dict[str, str] = field(default_factory=dict)  # settings that the profile left open
    held: list[Held] = field(default_factory=list)  # where processes were held, if the profile has jitter
    error: str | None = None  # the trial could not be run to its end; the verdict is inconclusive
    nothing_due: bool = False  # the server had shut down before it could crash, so there was nothing to recover

    @property
    def proves_nothing(self) -> bool:
        """Whether a promise was kept, but by a server that had shut down: no crash put it to the test."""
        return self.nothing_due and self.verdict.promise is PromiseStatus.KEPT

    @property
    def reproduce(self) -> str:
        """The command that runs this trial again, from where its folder is now."""
        return self.again or self.replayed_from(self.folder)

    def replayed_from(self, folder: Path) -> str:
        """Return the command that runs it again on the server that was chosen for it, from a folder."""
        return replay_command(folder, self.server.chosen if self.server is not None else ())


@dataclass(kw_only=True)
class ProfileResult:
    """Every trial of one profile so far."""

    profile: ProfileFacts
    seed: int
    server: ServerFacts | None
    crash_class: CrashClass
    trials: list[TrialResult] = field(default_factory=list)
    interrupted: bool = False
    stopped_by: str | None = None  # why fewer trials than asked for were run
    complete: bool = False  # as many as asked for, or as there are: there is nothing to resume
    seconds: float = 0.0  # from the first task to the last, of all runs that were needed

    @property
    def recovered_with(self) -> list[RecoveredWith]:
        """Which servers recovered in its trials, of those that are another one than the one that crashed."""
        given = (trial.recovered_with for trial in self.trials)
        crashed = None if self.server is None else (self.server.version, self.server.source)
        return list(dict.fromkeys(one for one in given if one is not None and (one.version, one.source) != crashed))


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """How much there is of a run that has not come to its end, and that can be gone on with."""

    there: int  # trials, of all profiles
    asked: int | None  # None: as many as a rule takes
    resume: str  # the command that goes on


@dataclass(frozen=True, kw_only=True)
class Told:
    """One trial of a run, from its beginning to its end, for whoever draws it."""

    profile: str
    trial: int
    chronicle: Chronicle | None
    problem: str = ""  # why there is no chronicle


@dataclass(kw_only=True)
class RunResult:
    """Everything that one command ran, or judged again."""

    profiles: list[ProfileResult]
    command: str | None = None  # runs all of it again; None: unknown
    error: CrashlabError | None = None  # the environment ended the run during the last of the profiles
    unfinished: Unfinished | None = None  # None: nothing is missing, or nobody noted what was asked for
    damaged: list[CrashlabError] = field(default_factory=list)  # a trial each that cannot be judged, and why
    begun: str | None = None  # when: ISO 8601, UTC; None: nobody noted it
    machine: str | None = None  # on what, in words
    told: list[Told] = field(default_factory=list)  # filled for a report that draws


def replay_command(folder: Path, options: Iterable[str] = ()) -> str:
    """Return the command that runs a stored trial again; `options` are those that chose its server."""
    return REPLAY + shlex.join([str(folder), *options])


def replay_moved(command: str, folder: Path) -> str:
    """Return a replay's command with another folder in it."""
    _, *options = shlex.split(command.removeprefix(REPLAY))
    return replay_command(folder, options)


def trial_name(trial: int) -> str:
    """Return the name of a trial's folder; `trial_order` sorts them, whatever the number of digits."""
    return f"trial-{trial:04d}"


def trial_order(folder: PurePath) -> list[tuple[str, int]]:
    """Return what to sort folders of trials by: names as they are, trials by their number."""
    numbered = (_TRIAL_NAME.fullmatch(part) for part in folder.parts)
    return [
        (part, -1) if match is None else (match[1], int(match[2]))
        for part, match in zip(folder.parts, numbered, strict=True)
    ]


_TRIAL_NAME = re.compile(r"(trial-)(\d+)")


def make_trial_folder(out: Path, trial: int) -> Path:
    """Make the folder that takes a trial's evidence. Raises EvidenceError: it exists, or cannot be made."""
    folder = out / trial_name(trial)
    if out.is_symlink():
        raise EvidenceError(f'cannot write evidence to "{out}": it is a symbolic link, and none is followed')
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
