"""Which release of PostgreSQL is the first in which a profile comes to another verdict?

Assumes: it changed once between the first and the last release; if it changed more often, one of the changes is found.
Choices:
    A release is guilty if a promise is broken in one of so many trials, or the finding is found that was named. It is
    innocent if not: that is a bound, and no proof, so the number of trials stands beside it that could have shown it.
    Where none could, such as where nothing is promised, or some were not judged, it is neither, and the search ends.
    Releases are those of a folder that holds VERSION/bin, in the order of their numbers; releases before 14 are left
    out, for nothing can be checked there.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crashlab.campaign.plan import Asked, Plan, executor_for
from crashlab.errors import UsageProblem
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import Profile
from crashlab.results import TrialResult
from crashlab.server import ServerChoice
from crashlab.server.base import Version

_RANGE = re.compile(r"(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)")
_NAME = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Release:
    """One release of a folder of builds."""

    version: Version
    bindir: Path


@dataclass(frozen=True)
class Tried:
    """What one release came to."""

    release: Release
    wanted: int  # so many trials were asked for
    trials: int
    judged: int  # of these, not inconclusive
    telling: int  # of these, could have shown what makes a release guilty
    codes: tuple[str, ...]  # what broke a promise, or was asked for
    void: bool = False  # a promise was looked at, and in some trial there was none

    @property
    def guilty(self) -> bool:
        """Whether it was found."""
        return bool(self.codes)

    @property
    def undecided(self) -> bool:
        """Whether it is neither guilty nor innocent."""
        return not self.guilty and (self.judged < self.wanted or not self.telling)


@dataclass(frozen=True)
class Bisected:
    """All that were tried, by version, and the first release that is other than the one tried before it."""

    tried: list[Tried]
    first: Release | None  # None: the first and the last one agree, or one is undecided

    @property
    def undecided(self) -> Tried | None:
        """The release that ended the search, as it is neither guilty nor innocent."""
        return next((one for one in self.tried if one.undecided), None)


def releases_in(folder: Path) -> list[Release]:
    """Return the releases of a folder that holds VERSION/bin, oldest first; those before 14 are left out."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if _NAME.fullmatch(path.name) and (path / "bin" / "postgres").is_file():
            version = Version.parse(path.name)
            if not version.too_old:
                found.append(Release(version, path / "bin"))
    return sorted(found, key=lambda release: release.version.num)


def releases_between(folder: Path, text: str) -> list[Release]:
    """Return the releases of a folder within a range such as 15.3..15.18.

    Raises:
        UsageProblem: the range cannot be read, or the folder has fewer than two in it.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        raise UsageProblem(f'cannot use the versions "{text}"', hint="Give a range, such as 15.3..15.18 or 14.0..18.6.")
    low, high = (Version.parse(word).num for word in match.groups())
    there = releases_in(folder)
    found = [release for release in there if low <= release.version.num <= high]
    if len(found) < 2:
        names = ", ".join(release.version.text for release in there) or "none"
        raise UsageProblem(
            f'could not find two releases within {text} in "{folder}"',
            detail=f"It has {names}.",
            hint="It must hold a folder for each release, with its programs in VERSION/bin.",
        )
    return found


Try = Callable[[Release], Tried]


def bisect(releases: list[Release], try_release: Try) -> Bisected:
    """Find the first release that is other than the one before, by halves. Two releases at least, oldest first."""
    low, high = 0, len(releases) - 1
    tried = {low: try_release(releases[low])}
    if not tried[low].undecided:
        tried[high] = try_release(releases[high])
    decided = not any(one.undecided for one in tried.values())
    changed = decided and tried[low].guilty != tried[high].guilty
    while changed and high - low > 1:
        middle = (low + high) // 2
        tried[middle] = try_release(releases[middle])
        if tried[middle].undecided:
            changed = False
        elif tried[middle].guilty == tried[low].guilty:
            low = middle
        else:
            high = middle
    return Bisected([tried[at] for at in sorted(tried)], releases[high] if changed else None)


def trial_of(profile: Profile, *, code: str | None, trials: int, seed: int, out: Path, workers: int | None) -> Try:
    """Return what tries a release: a run that ends as soon as it is guilty.

    Args:
        code: the finding that makes a release guilty; None: whatever breaks a promise.
        out: takes a folder a release.

    Raises, when it is called:
        CrashlabError: the environment ended the run.
        KeyboardInterrupt: it was interrupted: what it had by then says nothing of the release.
    """
    from crashlab.campaign import run_campaign, save_plan, save_run

    def tried(release: Release) -> Tried:
        plan = Plan(
            asked=[Asked(profile=profile)],
            seed=seed,
            trials=trials,
            server=ServerChoice(kind="local", pg_bindir=release.bindir),
            fail_fast=code is None,
        )
        folder = out / release.version.text
        folder.mkdir(parents=True)
        save_plan(folder, plan)
        run = run_campaign(plan.campaign(folder), executor_for(workers))
        save_run(folder, run, plan)
        if run.error is not None:
            raise run.error
        if any(result.interrupted for result in run.profiles):
            raise KeyboardInterrupt
        return what_came_of(release, run.profiles[0].trials, wanted=trials, code=code)

    return tried


def what_came_of(release: Release, results: list[TrialResult], *, wanted: int, code: str | None) -> Tried:
    """Judge a release by its trials.

    Args:
        wanted: so many were asked for.
        code: as for `trial_of`.
    """
    judged = [trial for trial in results if trial.verdict.outcome is not Outcome.INCONCLUSIVE]
    telling = [trial for trial in judged if not trial.proves_nothing and (code is not None or _promised(trial))]
    if code is not None:
        codes = [one.code for trial in results for one in trial.verdict.findings if one.code == code]
    else:
        broken = [trial for trial in results if trial.verdict.promise is PromiseStatus.BROKEN]
        codes = [one.code for trial in broken for one in trial.verdict.findings if not one.permitted]
    return Tried(
        release=release,
        wanted=wanted,
        trials=len(results),
        judged=len(judged),
        telling=len(telling),
        codes=tuple(dict.fromkeys(codes)),
        void=code is None and not all(_promised(trial) for trial in judged),
    )


def _promised(trial: TrialResult) -> bool:
    """Whether a promise was made that this crash could break: one that nobody made is kept where nothing is missing."""
    made = trial.contract is None or trial.contract.sync_commits_survive
    return made and trial.verdict.promise is not PromiseStatus.VOID
