"""How is a result told to people?

The table and the findings go to one console, progress to another: a bar on a terminal, elsewhere a line a trial.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from crashlab.campaign.results import ProfileResult, TrialResult
from crashlab.model import Family
from crashlab.profile import Profile
from crashlab.report.summary import (
    EVERY_PROMISE_KEPT,
    DistinctFinding,
    counted,
    distinct_findings,
    promise,
    sentence,
    tally,
)

PLAIN_WIDTH = 160
"""Columns where there is no terminal to ask."""
_STYLES = {"broken": "bold red", "inconclusive": "yellow", "void": "magenta", "kept": "green"}


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes every text literally, and colours only terminals that want it (NO_COLOR)."""
    plain = Console(stderr=stderr)
    width = None if plain.is_terminal else PLAIN_WIDTH
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


class Watch:
    """Progress while trials run; a context manager around the whole run."""

    def __init__(self, target: Console, total: int) -> None:
        self._console = target
        self.finished: list[TrialResult] = []  # of the profile that runs
        self._profile = ""
        self._of = 0
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=target,
            disable=not target.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def begin(self, profile: Profile, trials: int) -> None:
        """Another profile starts."""
        self.finished = []
        self._profile, self._of = profile.name, trials
        self._bar.update(self._task, description=profile.name)

    def phase(self, text: str) -> None:
        """Something that may take a while starts."""
        self._bar.update(self._task, description=f"{self._profile}: {text}")

    def trial(self, trial: TrialResult) -> None:
        """One more trial is judged."""
        self.finished.append(trial)
        self._bar.advance(self._task)
        if not self._console.is_terminal:
            self._console.print(f"{self._profile} {len(self.finished)}/{self._of}: {trial_line(trial)}", soft_wrap=True)


def trial_line(trial: TrialResult) -> str:
    """Say what one trial showed, in one line."""
    verdict = trial.verdict
    said = f"{verdict.outcome}, promise {verdict.promise}" if verdict.promise else str(verdict.outcome)
    counts = f"{verdict.counts.acked} acked, {verdict.counts.lost} lost"
    return f"{said} ({counts}, {trial.seconds.get('total', 0.0):.1f} s)"


def print_results(target: Console, results: Sequence[ProfileResult]) -> None:
    """Print the table of promises and outcomes, then each distinct finding with its explanation."""
    servers = dict.fromkeys(
        f"PostgreSQL {result.server.version}, {result.server.kind}, {result.server.source}"
        for result in results
        if result.server
    )
    target.print()
    for server in servers:
        target.print(server, soft_wrap=True)
    target.print()
    target.print(_table(results))
    target.print()
    _print_verdicts(target, results)
    for result in results:
        for found in distinct_findings(result):
            _print_finding(target, result, found)


def _table(results: Sequence[ProfileResult]) -> Table:
    """Return a table that fits 80 columns; what does not fit in there is said below it."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column("profile", overflow="fold")
    table.add_column("promise", min_width=7)
    for name in ("trials", "intact", "loss", "corrupt", "no\nstart", "incon-\nclusive", "acked", "lost"):
        table.add_column(name, justify="right")
    for result in results:
        counts = tally(result)
        state = promise(result)
        numbers = (
            counts.trials,
            counts.intact,
            counts.loss,
            counts.corruption,
            counts.no_start,
            counts.inconclusive,
            counts.acked,
            counts.lost,
        )
        table.add_row(
            result.profile.name,
            Text("-" if state == "inconclusive" else state, _STYLES[state]),
            *(Text(str(number), "" if number else "dim") for number in numbers),
        )
    return table


def _print_verdicts(target: Console, results: Sequence[ProfileResult]) -> None:
    """Print one line for each profile that is not simply as it should be."""
    for result in results:
        said = sentence(result)
        if said != EVERY_PROMISE_KEPT:
            target.print(Text.assemble((result.profile.name, _STYLES[promise(result)]), f": {said}"), end="\n\n")


def _print_finding(target: Console, result: ProfileResult, found: DistinctFinding) -> None:
    finding = found.finding
    grade = ", permitted" if finding.permitted else ", forbidden"
    if finding.family in (Family.NOTE, Family.INCONCLUSIVE):
        grade = ""
    style = "dim" if finding.family is Family.NOTE else "cyan" if finding.permitted else "bold red"
    title = Text.assemble((finding.code, style), f" ({finding.family}{grade})  {result.profile.name}")
    title.append(f", {found.trials} of {counted(len(result.trials))}")
    target.print(title)
    for text in (finding.summary, finding.explanation):
        for line in textwrap.wrap(text, target.width - 2):
            target.print(f"  {line}", markup=False, highlight=False)
    if found.first.state:
        target.print(f"  cut at {found.first.state}", soft_wrap=True)
    target.print(f"  reproduce: {found.first.reproduce}", soft_wrap=True)
    if found.first.kept_data:
        target.print(f"  data kept in: {found.first.kept_data}", soft_wrap=True)
    target.print()


def print_header(target: Console, version: str, seed: int, server: str, out: Path) -> None:
    """Print what a run is, before it starts."""
    target.print(f"crashlab {version}  seed {seed}  server {server}  evidence in {out}", soft_wrap=True)


def print_closing(
    target: Console, results: Sequence[ProfileResult], code: int, *, folder: Path | None, again: str | None
) -> None:
    """Print the last lines of a run: what it came to, where it is, how to have it again."""
    target.print(
        Text(f"{_CLOSING.get(code, 'The run could not be finished.')} (exit code {code})", _CODE_STYLES.get(code, ""))
    )
    if not any(result.trials for result in results):
        return
    if folder is not None:
        target.print(f"Evidence: {folder}  (crashlab judge {folder} judges it again)", soft_wrap=True)
    if again is not None:
        target.print(f"Run again: {again}", soft_wrap=True)


_CLOSING = {
    0: "No promise was broken.",
    1: "A promise was broken.",
    3: "Inconclusive: something could not be judged, or nothing ran.",
    130: "Interrupted: this is what was finished.",
}
_CODE_STYLES = {0: "bold green", 1: "bold red", 3: "bold yellow", 130: "bold yellow"}
