"""Which views of a whole campaign does the page have? One line each: its title, its template, and what it shows.

A view is a pure function from the run to what its template draws, or None where there is nothing to draw. A new one is
a line in PANELS and a file in `templates/panels`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crashlab.model import AsyncWindow, Outcome
from crashlab.report.coverage import RedoCoverage, redo_coverage
from crashlab.report.matrix import HEADS, cell_results, legend, matrix_line
from crashlab.report.phases import phase_rows
from crashlab.report.statistics import statistics_line
from crashlab.report.summary import counted, promise, sentence, tally
from crashlab.report.window import histogram, window_line, windows
from crashlab.results import ProfileResult, RunResult

MANUAL = "https://www.postgresql.org/docs/current/"


@dataclass(frozen=True)
class Panel:
    """One view."""

    anchor: str
    title: str
    template: str  # below templates/panels
    view: Callable[[RunResult], Any]  # None: nothing to draw


@dataclass(frozen=True)
class OutcomeCell:
    """How many trials of a profile had one outcome."""

    outcome: str
    number: int
    percent: float
    expected: bool


@dataclass(frozen=True)
class OutcomeRow:
    """One profile."""

    anchor: str
    profile: str
    promise: str
    says: str
    trials: int
    cells: list[OutcomeCell]
    acked: int
    lost: int


@dataclass(frozen=True)
class WindowBar:
    """One bin of the histogram; places in percent."""

    x: float
    width: float
    height: float
    count: int
    says: str


@dataclass(frozen=True)
class WindowChart:
    """The ages of the oldest lost commits of one profile."""

    profile: str
    line: str
    statistics: str | None
    bars: list[WindowBar]
    ticks: list[tuple[float, str]]
    bound: tuple[float, str] | None


def anchor_of(number: int) -> str:
    """Return the id of a profile's section: its name need not be fit for one."""
    return f"profile-{number}"


def _outcomes(run: RunResult) -> list[OutcomeRow] | None:
    return [_outcome_row(result, number) for number, result in enumerate(run.profiles)] or None


def _outcome_row(result: ProfileResult, number: int) -> OutcomeRow:
    counts = tally(result)
    cells = []
    for outcome in Outcome:
        seen = getattr(counts, outcome)
        share = 100 * seen / counts.trials if counts.trials else 0.0
        cells.append(OutcomeCell(str(outcome), seen, round(share, 1), outcome in result.profile.expect.outcomes))
    return OutcomeRow(
        anchor=anchor_of(number),
        profile=result.profile.name,
        promise=promise(result),
        says=sentence(result),
        trials=counts.trials,
        cells=cells,
        acked=counts.acked,
        lost=counts.lost,
    )


def _matrix(run: RunResult) -> dict[str, Any] | None:
    told = cell_results(run.profiles)
    if not told:
        return None
    number = {id(result): number for number, result in enumerate(run.profiles)}
    rows = [(anchor_of(number[id(one.result)]), one.promise, one.row) for one in told]
    return {"heads": HEADS, "rows": rows, "legend": legend(told), "line": matrix_line(told)}


def _windows(run: RunResult) -> list[WindowChart] | None:
    charts = [_chart(result, found) for result in run.profiles if (found := windows(result))]
    return charts or None


def _chart(result: ProfileResult, found: list[AsyncWindow]) -> WindowChart:
    width_ms, counts = histogram(found)
    span_ms, step, top = width_ms * len(counts), 100 / len(counts), max(counts)
    bars = [
        WindowBar(
            x=round(number * step, 2),
            width=round(step * 0.92, 2),
            height=round(100 * count / top, 1),
            count=count,
            says=f"{number * width_ms:g} to {(number + 1) * width_ms:g} ms: {counted(count)}",
        )
        for number, count in enumerate(counts)
    ]
    bound_ms = max((one.bound_ms for one in found if one.bound_ms is not None), default=None)
    return WindowChart(
        profile=result.profile.name,
        line=window_line(result) or "",
        statistics=statistics_line(result),
        bars=bars,
        ticks=[(100 * part, f"{part * span_ms:g}{' ms' if part == 1 else ''}") for part in (0, 0.5, 1)],
        bound=None if bound_ms is None else (round(100 * bound_ms / span_ms, 2), f"bound {bound_ms:g} ms"),
    )


def _redo(run: RunResult) -> list[RedoCoverage]:
    return [one for one in redo_coverage(run.profiles) if one.recoveries]


PANELS = (
    Panel("outcomes", "Profiles and outcomes", "outcomes.html.jinja", _outcomes),
    Panel("matrix", "Matrix of promises", "matrix.html.jinja", _matrix),
    Panel("windows", "Loss windows", "windows.html.jinja", _windows),
    Panel("redo", "Redo coverage", "redo.html.jinja", lambda run: _redo(run) or None),
    Panel("phases", "Time by phase", "phases.html.jinja", lambda run: phase_rows(run.profiles) or None),
)
