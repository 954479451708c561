"""What became of a trial that was shrunk, and how is that told on a page?"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from crashlab.campaign.same import Same
from crashlab.campaign.shorter import size_of
from crashlab.profile import Profile, to_toml
from crashlab.results import TrialResult

README = "README.md"
PROFILE = "profile.toml"
SHORTER = "shorter"
TIME_UP = "the time was up"
INTERRUPTED = "it was interrupted"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The shortest run that was found, beside the one that it was looked for from."""

    size_before: str
    size: str
    profile: str  # as TOML
    tried: int  # runs
    complete: bool  # False: it was ended
    taken: bool  # the result is of this run
    ended_by: str = TIME_UP

    @classmethod
    def of(cls, before: Profile, best: Profile, *, tried: int, complete: bool, ended_by: str) -> Self:
        """Tell of two profiles."""
        return cls(
            size_before=size_of(before),
            size=size_of(best),
            profile=to_toml(best),
            tried=tried,
            complete=complete,
            taken=best is not before,
            ended_by=ended_by,
        )


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """What became of a trial."""

    result: TrialResult
    same: Same
    lost_before: int  # writes and changes of names, sizes and lengths
    lost: int
    position_before: int
    position: int
    begun_before: int  # transactions
    begun: int
    tried: int
    complete: bool  # False: it was ended before nothing smaller was found
    passed_over: int  # states that had the code for another cause
    run: Run | None  # None: no shorter run was tried
    lines: list[str]
    ended_by: str = TIME_UP

    @property
    def code(self) -> str:
        """The finding that had to stay."""
        return self.same.code

    def told(self) -> list[str]:
        """Say it on a terminal, the answer first."""
        told = [
            f"{self.code}: {self.lost} of {self.lost_before} losses are enough, {self.tried} states tried",
            f"  {self.begun} transactions had begun (before: {self.begun_before})",
            *(f"  {line}" for line in self.lines),
        ]
        if self.passed_over:
            told.append(f"{self.passed_over} states had the code for another cause, and were passed over: {self.same}.")
        if self.run is not None and self.run.taken:
            told.append(f"It is of a shorter run: {self.run.size}.")
        elif self.run is not None and self.run.tried:
            told.append(f"{self.run.tried} shorter runs were tried; none was better.")
        if not self.complete or (self.run is not None and not self.run.complete):
            told.append(_there_may_be("smaller", self.ended_by))
        return told


@dataclass(frozen=True, kw_only=True)
class ShrunkRun:
    """What became of a live trial: a run. A rate is in how many trials it was found, and how many there were."""

    same: Same
    folder: Path | None  # the trial of the shortest run that found it; None: no shorter run did
    begun_before: int  # transactions
    begun: int
    rate_before: tuple[int, int]
    rate: tuple[int, int]
    run: Run
    seed: int

    @property
    def code(self) -> str:
        """The finding that had to stay."""
        return self.same.code

    def told(self) -> list[str]:
        """Say it on a terminal, the answer first."""
        told = [
            f"{self.code}: found in {of(self.rate)} trials of {self.run.size}",
            f"  before: in {of(self.rate_before)} trials of {self.run.size_before}",
            f"  {self.begun} of {self.begun_before} transactions had begun; {self.run.tried} other runs tried",
        ]
        if not self.run.complete:
            told.append(_there_may_be("shorter", self.run.ended_by))
        return told


def _there_may_be(better: str, ended_by: str) -> str:
    how = " (--time-limit)" if ended_by == TIME_UP else ""
    return f"{ended_by.capitalize()}: this is the best so far, and there may be a {better} one{how}."


def readme_of_run(shrunk: ShrunkRun, out: Path) -> str:
    """Tell the shortest run on a page."""
    run = shrunk.run
    ended = run.ended_by.capitalize()
    lines = [
        f"# {shrunk.code}, in as short a run as was found",
        "",
        *([f"The same meant: {shrunk.same}.", ""] if shrunk.same.cause else []),
        "| | before | now |",
        "|---|---|---|",
        f"| the run | {run.size_before} | {run.size} |",
        f"| transactions that had begun | {shrunk.begun_before} | {shrunk.begun} |",
        f"| found in | {of(shrunk.rate_before)} trials | {of(shrunk.rate)} trials |",
        "",
        f"{run.tried} other runs were tried." + ("" if run.complete else f" {ended} before the search ended."),
        "A live trial is another one each time it runs: what was not found may be there.",
        "",
        "## Again",
        "",
        f"    {shlex.join(['crashlab', 'run', f'{out}/{PROFILE}', '--seed', str(shrunk.seed)])}",
        "",
    ]
    if shrunk.folder is not None:
        lines += ["The trial that found it last:", "", f"    {shrunk.folder}", ""]
    return "\n".join(lines)


def of(rate: tuple[int, int]) -> str:
    """Say a rate."""
    return f"{rate[0]} of {rate[1]}"


def readme(shrunk: Shrunk, out: Path) -> str:
    """Tell the smallest state on a page."""
    result = shrunk.result
    finding = next((one for one in result.verdict.findings if one.code == shrunk.code), None)
    counts = result.verdict.counts
    assert result.server is not None
    told = [finding.summary, "", finding.explanation] if finding is not None else ["It was not found again at the end."]
    where = (
        f"The crash comes after operation {shrunk.position} of the recording (before: {shrunk.position_before}); "
        f"{counts.begun} transactions had begun by then (before: {shrunk.begun_before}), {counts.acked} were "
        "acknowledged."
        f" {_number(shrunk.lost)} lost of what was written and not flushed (before: {shrunk.lost_before}); "
        "everything else is as the server saw it."
    )
    release = (result.recovered_with or result.server).version
    by_hand = (
        f"does so, as long as the recording is there. Without crashlab, start PostgreSQL {release} "
        "on a copy of `image/`, which is the data directory as the crash leaves it:"
    )
    settings = [word for name, value in result.server.requested.items() for word in ("-c", f"{name}={value}")]
    lines = [
        f"# {shrunk.code}, in as little as was found",
        "",
        *told,
        "",
        "## What the crash has lost",
        "",
        *([f"- {line}" for line in shrunk.lines] or ["Nothing: a kill -9 at this point is enough."]),
        "",
        where,
        *_how_far(shrunk),
        "",
        "## Again",
        "",
        f"    {shlex.join(['crashlab', 'replay', str(out)])}",
        "",
        by_hand,
        "",
        f"    cp -a image again && chmod 700 again && {shlex.join(['postgres', '-D', 'again', *settings])}",
        "",
    ]
    return "\n".join(lines)


def _number(lost: int) -> str:
    return f"{lost} {'write or name is' if lost == 1 else 'writes and names are'}"


def _how_far(shrunk: Shrunk) -> list[str]:
    """Say how much was tried, and what is not known."""
    tried = f"{shrunk.tried} states were recovered on the way"
    if shrunk.complete:
        told = [f"{tried}; of its neighbours none is smaller. That nothing smaller exists is not proven."]
    else:
        told = [f"{tried}; {shrunk.ended_by} before the search ended, so that there may be a smaller one."]
    if shrunk.same.cause:
        told.append(f"The same meant: {shrunk.same}.")
    if shrunk.passed_over:
        told.append(f"{shrunk.passed_over} of the states had the same code for another cause, and were passed over.")
    return told + _of_run(shrunk.run)


def _of_run(run: Run | None) -> list[str]:
    if run is None:
        return []
    ended = run.ended_by.capitalize()
    if run.taken:
        told = f"It is a state of another recording, of a shorter run: {run.size} (before: {run.size_before})."
        told += f" `{PROFILE}` says what ran; it may end otherwise each time."
    elif run.tried:
        told = f"Of {run.tried} shorter runs none showed it in fewer lost writes, or in as few and fewer transactions."
    else:
        return [f"{ended} before a shorter run could be tried."]
    return [
        told,
        *([] if run.complete else [f"{ended} before the search for a shorter run ended."]),
    ]
