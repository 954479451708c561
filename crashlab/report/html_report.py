"""How is a result told on one page, to be read on a phone, sent by mail or printed?

One file that needs no network and no script; light or dark as the reader's device is. The texts are those of the
other reports. The template is `report.html.jinja`, beside this module.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import crashlab
from crashlab.model import AsyncWindow, Clause
from crashlab.oracle.codes import CODES
from crashlab.report.coverage import redo_coverage
from crashlab.report.matrix import HEADS, cell_results, legend, matrix_line
from crashlab.report.statistics import statistics_line
from crashlab.report.story import follow_up, printable, story
from crashlab.report.summary import closing, counted, distinct_findings, how_to_go_on, promise, sentence, tally
from crashlab.report.window import histogram, window_line, windows
from crashlab.results import ProfileResult, RunResult

MANUAL = "https://www.postgresql.org/docs/current/"
TEMPLATE = "report.html.jinja"
WIDTH, HEIGHT = 480, 120
"""Of the histogram's bars, in its own units; the picture is scaled to the page."""


@dataclass(frozen=True)
class Bar:
    """One bin of the histogram, and where it is drawn."""

    x: float
    y: float
    width: float
    height: float
    count: int
    says: str


@dataclass(frozen=True)
class Chart:
    """The ages of the oldest lost commits; positions on the axis in the picture's units, with their labels."""

    bars: list[Bar]
    ticks: list[tuple[float, str]]
    bound: tuple[float, str] | None


def report_bytes(run: RunResult, code: int) -> bytes:
    """Return the page, UTF-8.

    Args:
        code: the exit code of the command; its sentence stands on top.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    page = environment.get_template(TEMPLATE).render(
        version=crashlab.__version__,
        verdict=closing(run, code),
        tone={0: "good", 1: "bad"}.get(code, "unsure"),
        command=run.command,
        errors=[*([] if run.error is None else [run.error]), *run.damaged],
        unfinished=how_to_go_on(run),
        redo=[one for one in redo_coverage(run.profiles) if one.recoveries],
        seeds=dict.fromkeys(str(result.seed) for result in run.profiles),
        servers=dict.fromkeys(
            f"PostgreSQL {result.server.version}, {result.server.kind}, {result.server.source}"
            for result in run.profiles
            if result.server
        ),
        matrix=_matrix(run),
        profiles=[_profile(result, number) for number, result in enumerate(run.profiles)],
        findings=[
            {
                "found": found,
                "told": story(found.finding),
                "of": counted(len(found.result.trials)),
                "manual": MANUAL + CODES[found.finding.code].manual,
                "follow_up": follow_up(found.first),
                "trial": _anchor(_number(run, found.result), found.first.trial),
            }
            for found in distinct_findings(run.profiles)
        ],
    )
    return page.encode()


def _profile(result: ProfileResult, number: int) -> dict[str, Any]:
    found = windows(result)
    return {
        "result": result,
        "tally": tally(result),
        "promise": promise(result),
        "sentence": sentence(result),
        "statistics": statistics_line(result),
        "clauses": [(clause, *_manual(clause)) for clause in _clauses(result)],
        "window": window_line(result),
        "chart": _chart(found) if found else None,
        "trials": [(_anchor(number, trial.trial), trial) for trial in result.trials],
        "lines": [[story(finding) for finding in trial.verdict.findings] for trial in result.trials],
    }


def _matrix(run: RunResult) -> dict[str, Any] | None:
    told = cell_results(run.profiles)
    if not told:
        return None
    rows = [(f"profile-{_number(run, one.result)}", one.promise, one.row) for one in told]
    return {"heads": HEADS, "rows": rows, "legend": legend(told), "line": matrix_line(told)}


def _number(run: RunResult, result: ProfileResult) -> int:
    return next(number for number, one in enumerate(run.profiles) if one is result)


def _anchor(number: int, trial: int) -> str:
    """Return the id of a trial's row: a profile's name need not be fit for one."""
    return f"profile-{number}-trial-{trial}"


def _clauses(result: ProfileResult) -> list[Clause]:
    """Return what was promised to any of the trials: a fault may void a bound in one of them only."""
    contracts = [trial.contract for trial in result.trials if trial.contract is not None]
    return list(dict.fromkeys(clause for contract in contracts for clause in contract.clauses))


def _manual(clause: Clause) -> tuple[str, str]:
    """Return the title and the address of a clause's section of the manual, written "Title, page.html#anchor"."""
    title, _, page = clause.manual.rpartition(", ")
    return title, MANUAL + page


def _chart(found: list[AsyncWindow]) -> Chart:
    width_ms, counts = histogram(found)
    span_ms = width_ms * len(counts)
    step, top = WIDTH / len(counts), max(counts)
    bars = [
        Bar(
            x=round(number * step + 1, 1),
            y=round(HEIGHT - HEIGHT * count / top, 1),
            width=round(step - 2, 1),
            height=round(HEIGHT * count / top, 1),
            count=count,
            says=f"{number * width_ms:g} to {(number + 1) * width_ms:g} ms: {counted(count)}",
        )
        for number, count in enumerate(counts)
    ]
    bound_ms = max((one.bound_ms for one in found if one.bound_ms is not None), default=None)
    return Chart(
        bars=bars,
        ticks=[(round(part * WIDTH, 1), f"{part * span_ms:g}") for part in (0, 0.5, 1)],
        bound=None if bound_ms is None else (round(WIDTH * bound_ms / span_ms, 1), f"bound {bound_ms:g} ms"),
    )


def _printable(value: Any) -> Any:
    """Make texts printable; what jinja has made safe itself stays as it is."""
    return printable(value) if type(value) is str else value
