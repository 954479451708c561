"""How is a result told to people?

The table and the findings go to one console, progress to another: a bar on a terminal, elsewhere a line a trial.
Quiet is the table and one line for each finding, usual is with its paragraph, verbose with its timeline.
Cells of the matrix have a table of their own; of their findings only verbose tells also what was permitted: it is there
to be seen.
"""

import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crashlab.model import Family, Outcome
from crashlab.report.coverage import coverage_line
from crashlab.report.matrix import HEADS, CellResult, cell_results, legend, matrix_line
from crashlab.report.opening import servers
from crashlab.report.short_timeline import COLUMNS, short_timeline
from crashlab.report.statistics import statistics_line
from crashlab.report.story import Length, follow_up, printable, story
from crashlab.report.summary import (
    EVERY_PROMISE_KEPT,
    NOTHING_DUE,
    DistinctFinding,
    circumstances,
    closing,
    counted,
    distinct_findings,
    how_to_go_on,
    promise,
    sentence,
    tally,
)
from crashlab.report.window import window_line
from crashlab.results import ProfileResult, RunResult, TrialResult

PLAIN_WIDTH = 160
"""Columns where there is no terminal to ask."""
PLACES_MAX = 10
_STYLES = {"broken": "bold red", "inconclusive": "yellow", "void": "magenta", "kept": "green"}


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console that takes every text literally, and colours only terminals that want it (NO_COLOR)."""
    plain = Console(stderr=stderr)
    width = None if plain.is_terminal else PLAIN_WIDTH
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False, quiet=quiet)


def trial_line(trial: TrialResult) -> str:
    """Say what one trial showed, in one line."""
    verdict = trial.verdict
    said = f"{verdict.outcome}, promise {verdict.promise}" if verdict.promise else str(verdict.outcome)
    if trial.proves_nothing:
        said = f"{verdict.outcome}, {NOTHING_DUE}"
    lost = "nobody could look for them" if verdict.outcome is Outcome.NO_START else f"{verdict.counts.lost} lost"
    counts = f"{verdict.counts.acked} acked, {lost}"
    around = "".join(f", {one}" for one in circumstances(trial))
    return f"{said} ({counts}, {trial.seconds.get('total', 0.0):.1f} s{around})"


def print_results(target: Console, run: RunResult, length: Length) -> None:
    """Print the table of promises and outcomes, then each distinct finding as long as asked for."""
    results = run.profiles
    if run.error is not None and not any(result.trials for result in results):
        return  # the error says it all
    target.print()
    for server in servers(run):
        target.print(server, soft_wrap=True)
    target.print()
    cells = cell_results(results)
    others = [result for result in results if not any(result is one.result for one in cells)]
    if others:
        target.print(_table(others))
        target.print()
        _print_statistics(target, others, length)
        _print_verdicts(target, others, length)
    if cells:
        _print_matrix(target, cells)
    if (line := coverage_line(results)) is not None and length is not Length.LINE:
        target.print(line, soft_wrap=True, end="\n\n")
    told = distinct_findings(results if length is Length.TIMELINE else [*others, *_to_be_explained(cells)])
    for found in told:
        _print_finding(target, found, length)
    if length is Length.TIMELINE:
        _print_drawn(target, run)
    if told and length is Length.LINE:
        target.print()


def _print_drawn(target: Console, run: RunResult) -> None:
    for one in run.told:
        target.print(Text(printable(f"{one.profile}, trial {one.trial}"), "bold"), soft_wrap=True)
        if one.problem:
            _print_wrapped(target, printable(one.problem), "  ")
        if one.chronicle is not None:
            for line in short_timeline(one.chronicle, min(COLUMNS, target.width) - 2):
                target.print(f"  {printable(line)}", soft_wrap=True)
        target.print()


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


def _print_matrix(target: Console, told: Sequence[CellResult]) -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for head in HEADS:
        table.add_column(head, justify="right" if head == "states" else "left", overflow="fold")
    for one in told:
        *cells, observed = one.row
        table.add_row(*cells, Text(observed, _STYLES[one.promise]))
    target.print(table)
    target.print()
    for line in legend(told):
        _print_wrapped(target, line, "promised ", hanging="  ")
    target.print(f"\nmatrix: {matrix_line(told)}\n", soft_wrap=True)
    _print_verdicts(target, _to_be_explained(told), Length.LINE)


def _to_be_explained(told: Sequence[CellResult]) -> list[ProfileResult]:
    return [one.result for one in told if one.promise in ("broken", "inconclusive")]


def _print_statistics(target: Console, results: Sequence[ProfileResult], length: Length) -> None:
    lines = [(result.profile.name, statistics_line(result)) for result in results]
    if length is Length.LINE or not any(line for _, line in lines):
        return
    for name, line in lines:
        if line is not None:
            target.print(f"{name}: {line}", soft_wrap=True)
    target.print()


def _print_verdicts(target: Console, results: Sequence[ProfileResult], length: Length) -> None:
    """Print what is not simply as it should be, a line a profile; and how old the lost asynchronous commits were."""
    for result in results:
        said = sentence(result)
        if said != EVERY_PROMISE_KEPT:
            target.print(Text.assemble((result.profile.name, _STYLES[promise(result)]), f": {said}"), end="\n\n")
        window = window_line(result)
        if window is not None and length is not Length.LINE:
            target.print(f"{result.profile.name}: {window}", soft_wrap=True, end="\n\n")


def _print_finding(target: Console, found: DistinctFinding, length: Length) -> None:
    finding, told = found.finding, story(found.finding)
    style = "dim" if finding.family is Family.NOTE else "cyan" if finding.permitted else "bold red"
    trials = f"{found.result.profile.name}, {found.trials} of {counted(len(found.result.trials))}"
    title = Text.assemble((told.code, style), f" ({told.grade})  {trials}")
    if length is Length.LINE:
        target.print(title.append(f": {told.line}"), soft_wrap=True)
        return
    target.print(title)
    for text in (told.line, told.paragraph):
        _print_wrapped(target, text, "  ")
    if length is Length.TIMELINE:
        for text in told.timeline:
            _print_wrapped(target, text, "    ", hanging="      ")
    if len(found.places) > 1:
        more = f" and {len(found.places) - PLACES_MAX} more" if len(found.places) > PLACES_MAX else ""
        _print_wrapped(target, f"places: {', '.join(found.places[:PLACES_MAX])}{more}", "  ")
    for label, text in follow_up(found.first):
        target.print(f"  {label}{' ' if label == 'cut at' else ': '}{text}", soft_wrap=True)
    target.print()


def _print_wrapped(target: Console, text: str, indent: str, *, hanging: str | None = None) -> None:
    later = indent if hanging is None else hanging
    lines = textwrap.wrap(
        text,
        target.width,
        initial_indent=indent,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        target.print(line, soft_wrap=True)


def print_header(target: Console, version: str, seed: int, server: str, out: Path) -> None:
    """Print what a run is, before it starts."""
    target.print(f"crashlab {version}  seed {seed}  server {server}  evidence in {out}", soft_wrap=True)


def print_closing(target: Console, run: RunResult, code: int, folder: Path | None) -> None:
    """Print the last lines: what it came to, where it is, how to go on, how to have it again.

    Args:
        folder: of a run that has just been made; None: evidence was judged again.
    """
    target.print(Text(closing(run, code), _CODE_STYLES.get(code, "")))
    quoted = shlex.quote(str(folder))
    made = folder is not None and any(result.trials for result in run.profiles)
    if made:
        target.print(f"Evidence: {folder}  (crashlab judge {quoted} judges it again)", soft_wrap=True)
    if (how := how_to_go_on(run)) is not None:
        target.print(how, soft_wrap=True)
    if made and run.command is not None:
        target.print(f"Run again: {run.command}", soft_wrap=True)


_CODE_STYLES = {0: "bold green", 1: "bold red", 3: "bold yellow", 130: "bold yellow"}
