"""What changed between two runs, and is the difference more than chance?

Choices:
    Profiles are matched by their names.
    Shares are compared by Fisher's exact test. Of many profiles a few differ by chance: the level is divided by the
    number of profiles that both runs have (Bonferroni), so that "more than chance" is a statement about the comparison.
    A trial whose server had shut down before it could crash counts in no share, as in the statistics of one run.
    Times depend on what else the machine did: they are named where the medians differ by more than a tenth, and nothing
    is concluded from them.
"""

import statistics as mean
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crashlab.confidence import USUAL, fisher
from crashlab.model import Outcome, PromiseStatus
from crashlab.report.statistics import percent, share
from crashlab.report.statistics import statistics as numbers
from crashlab.results import ProfileResult

LEVEL = 1 - USUAL
NO_DIFFERENCE = "no difference seen"
_TIMES_APART = 0.1
_TOLD_ELSEWHERE = ("name", "description")
_INCONCLUSIVE = "not judged"
_UNTESTED = "not put to the test"
"""A promise that was kept by a server that had shut down before it could crash."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is not the same; None: it is not there."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How many trials show something, in both runs, and how likely chance alone makes the shares so different."""

    what: str
    before: tuple[int, int]  # so many of so many
    after: tuple[int, int]
    p: float
    more_than_chance: bool

    @property
    def says(self) -> str:
        """The conclusion."""
        if self.more_than_chance:
            return f"more than chance (Fisher's exact test, p = {self.p:.2g})"
        return f"{NO_DIFFERENCE} (Fisher's exact test, p = {self.p:.2g})"


@dataclass(frozen=True, kw_only=True)
class ProfileChange:
    """One profile that both runs have."""

    profile: str
    changes: list[Change]  # of the profile, the server, its settings
    outcomes: dict[str, tuple[int, int]]  # trials before and after, by outcome, those of neither left out
    promises: dict[str, tuple[int, int]]
    bounds: tuple[str, str]  # the share of broken promises, in words
    shares: list[Shares]
    codes_gone: list[str]
    codes_new: list[str]
    seconds: dict[str, tuple[float | None, float | None]]  # median of a trial by phase, where they differ


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs side by side."""

    only_before: list[str]
    only_after: list[str]
    profiles: list[ProfileChange]

    @property
    def more_than_chance(self) -> bool:
        """Whether any share differs by more than chance."""
        return any(one.more_than_chance for profile in self.profiles for one in profile.shares)


def compare(
    before: Mapping[str, ProfileResult], after: Mapping[str, ProfileResult], *, ignored: Collection[str] = ()
) -> Comparison:
    """Compare two runs, each by profile.

    Args:
        ignored: settings that crashlab itself decides for each server, such as its port.
    """
    both = [name for name in before if name in after]
    return Comparison(
        only_before=[name for name in before if name not in after],
        only_after=[name for name in after if name not in before],
        profiles=[_profile_change(before[name], after[name], LEVEL / len(both), ignored) for name in both],
    )


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Yield the comparison in words, a line each; those about a profile are indented below its name."""
    for which, names in (("the first", found.only_before), ("the second", found.only_after)):
        if names:
            yield f"only in {which}: {', '.join(names)}"
    for one in found.profiles:
        yield one.profile
        yield from (f"  {change}" for change in one.changes)
        yield f"  outcomes: {_side_by_side(one.outcomes)}"
        yield f"  promises: {_side_by_side(one.promises)}"
        yield f"  broken promises: {one.bounds[0]} -> {one.bounds[1]}"
        yield from (f"  {shares.what}: {shares.says}" for shares in one.shares)
        for label, codes in (("findings gone", one.codes_gone), ("new findings", one.codes_new)):
            if codes:
                yield f"  {label}: {', '.join(codes)}"
        for phase, (old, new) in one.seconds.items():
            yield f"  seconds, {phase}: {_shown(old)} -> {_shown(new)}"
    count = len(found.profiles)
    if not count:
        yield "The runs have no profile in common."
        return
    if count > 1:
        yield f"A share of one of {count} profiles is more than chance from p < {LEVEL / count:.2g} on."
    yield "Something differs by more than chance." if found.more_than_chance else f"Outcomes: {NO_DIFFERENCE}."


def _profile_change(
    before: ProfileResult, after: ProfileResult, level: float, ignored: Collection[str]
) -> ProfileChange:
    return ProfileChange(
        profile=before.profile.name,
        changes=[*_changes(before.profile.resolved, after.profile.resolved), *_server_changes(before, after, ignored)],
        outcomes=_counts([str(one) for one in Outcome], _outcomes(before), _outcomes(after)),
        promises=_counts([*map(str, PromiseStatus), _UNTESTED, _INCONCLUSIVE], _promises(before), _promises(after)),
        bounds=(_bound(before), _bound(after)),
        shares=list(_shares(before, after, level)),
        codes_gone=sorted(_codes(before) - _codes(after)),
        codes_new=sorted(_codes(after) - _codes(before)),
        seconds=_times(before, after),
    )


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> Iterator[Change]:
    """Yield the keys of two tables that differ, dotted."""
    for key in dict.fromkeys([*before, *after]):
        if not path and key in _TOLD_ELSEWHERE:
            continue
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new, f"{path}{key}.")
        elif old != new:
            yield Change(key=f"{path}{key}", before=old, after=new)


def _server_changes(before: ProfileResult, after: ProfileResult, ignored: Collection[str]) -> Iterator[Change]:
    old, new = before.server, after.server
    if old is None or new is None:
        if old is not new:
            yield Change(key="server", before=old and old.version, after=new and new.version)
        return
    for key in ("kind", "version", "source"):
        if getattr(old, key) != getattr(new, key):
            yield Change(key=f"server {key}", before=getattr(old, key), after=getattr(new, key))
    others = [", ".join(one.version for one in result.recovered_with) or None for result in (before, after)]
    if others[0] != others[1]:
        yield Change(key="recovered by", before=others[0], after=others[1])
    for change in _changes(old.settings, new.settings):
        if change.key not in ignored:
            yield Change(key=f"{change.key}, as read back", before=change.before, after=change.after)


def _outcomes(result: ProfileResult) -> list[str]:
    return [str(trial.verdict.outcome) for trial in result.trials]


def _promises(result: ProfileResult) -> list[str]:
    return [
        _UNTESTED if trial.proves_nothing else str(trial.verdict.promise or _INCONCLUSIVE) for trial in result.trials
    ]


def _codes(result: ProfileResult) -> set[str]:
    return {finding.code for trial in result.trials for finding in trial.verdict.findings}


def _counts(names: Sequence[str], before: Sequence[str], after: Sequence[str]) -> dict[str, tuple[int, int]]:
    counted = {name: (before.count(name), after.count(name)) for name in names}
    return {name: both for name, both in counted.items() if any(both)}


def _bound(result: ProfileResult) -> str:
    found = numbers(result)
    return share(found.broken, found.judged) if found.judged else "none was judged"


def _shares(before: ProfileResult, after: ProfileResult, level: float) -> Iterator[Shares]:
    old, new = numbers(before), numbers(after)
    yield _compared("broken promises", (old.broken, old.judged), (new.broken, new.judged), level)
    yield _compared("trials that are not intact", _harmed(before), _harmed(after), level)


def _harmed(result: ProfileResult) -> tuple[int, int]:
    outcomes = [trial.verdict.outcome for trial in result.trials if not trial.proves_nothing]
    judged = len(outcomes) - outcomes.count(Outcome.INCONCLUSIVE)
    return judged - outcomes.count(Outcome.INTACT), judged


def _compared(what: str, before: tuple[int, int], after: tuple[int, int], level: float) -> Shares:
    p = fisher(*before, *after)
    return Shares(what=what, before=before, after=after, p=p, more_than_chance=p < level)


def _times(before: ProfileResult, after: ProfileResult) -> dict[str, tuple[float | None, float | None]]:
    """Return the phases whose medians are more than a tenth apart; None: there is no such phase."""
    old, new = _medians(before), _medians(after)
    if not old or not new:
        return {}
    return {
        phase: (old.get(phase), new.get(phase))
        for phase in dict.fromkeys([*old, *new])
        if phase not in old or phase not in new or abs(old[phase] - new[phase]) > _TIMES_APART * old[phase]
    }


def _medians(result: ProfileResult) -> dict[str, float]:
    phases: dict[str, list[float]] = {}
    for trial in result.trials:
        for phase, seconds in trial.seconds.items():
            phases.setdefault(phase, []).append(seconds)
    return {phase: round(mean.median(times), 4) for phase, times in phases.items()}


def _side_by_side(counts: Mapping[str, tuple[int, int]]) -> str:
    totals = [sum(column) for column in zip(*counts.values(), strict=True)] if counts else []
    parts = []
    for name, both in counts.items():
        old, new = (
            f"{count} of {total} ({percent(count / total)})" if total else "none"
            for count, total in zip(both, totals, strict=True)
        )
        parts.append(f"{name} {old} -> {new}")
    return "; ".join(parts) or "nothing ran"


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)
