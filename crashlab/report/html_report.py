"""How is a result told on one page, to be read on a phone, sent by mail or printed?

One file that needs no network; light or dark as the reader's device is. The texts are those of the other reports. What
is drawn is computed elsewhere: `lanes`, `diskview`, `panels`; the templates put it into markup.
"""

from dataclasses import dataclass
from typing import Any

from crashlab.chronicle import Chronicle, Fate, Happening, Transaction
from crashlab.model import Clause
from crashlab.oracle.codes import CODES
from crashlab.oracle.wal import lsn
from crashlab.report.diskview import DiskView, disk_view
from crashlab.report.lanes import SAYS, Drawing, drawing, kind_of, place, redo_says
from crashlab.report.opening import opening, servers, surprises
from crashlab.report.page import render
from crashlab.report.panels import MANUAL, PANELS, anchor_of
from crashlab.report.statistics import statistics_line
from crashlab.report.story import follow_up, story
from crashlab.report.summary import (
    NOTHING_DUE,
    circumstances,
    closing,
    counted,
    distinct_findings,
    how_to_go_on,
    promise,
    sentence,
    tally,
    verdict,
)
from crashlab.results import ProfileResult, RunResult, Told

ROWS_MAX = 120
"""Of the transactions of one trial in its table; the last ones, and of the others those that are not simply there."""
EVENTS_MAX = 60
TRIALS_OPEN_MAX = 40
"""More trials than these are folded up."""
LINES_MAX = 4
"""Findings that are told in a trial's row."""


@dataclass(frozen=True)
class TrialView:
    """One trial that is drawn."""

    anchor: str
    title: str
    drawing: Drawing | None
    disk: DiskView | None
    rows: list[tuple[str, str, Transaction]]  # class, fate, transaction
    left_out: int  # transactions that are not in the table
    events: list[Happening]
    chronicle: Chronicle | None
    notes: list[str]
    redo: str
    wal_redo: str = ""  # LSNs between which the WAL was valid
    wal_end: str = ""


def report_bytes(run: RunResult, code: int) -> bytes:
    """Return the page, UTF-8.

    Args:
        code: the exit code of the command; its sentence stands on top.
    """
    drawn = {(told.profile, told.trial): told for told in run.told}
    findings = [
        {
            "found": found,
            "told": story(found.finding),
            "of": counted(len(found.result.trials)),
            "manual": MANUAL + CODES[found.finding.code].manual,
            "follow_up": follow_up(found.first),
            "trial": _anchor(_number(run, found.result), found.first.trial),
            "drawn": _drawn_anchor(drawn, found.result.profile.name, found.first.trial),
        }
        for found in distinct_findings(run.profiles)
    ]
    return render(
        "report.html.jinja",
        title=closing(run, code),
        verdict=verdict(run, code),
        code=code,
        tone={0: "good", 1: "bad"}.get(code, "unsure"),
        opening=opening(run),
        facts=_facts(run),
        errors=[*([] if run.error is None else [run.error]), *run.damaged],
        unfinished=how_to_go_on(run),
        surprises=surprises(run),
        numbers={result.profile.name: anchor_of(number) for number, result in enumerate(run.profiles)},
        panels=[(panel, view) for panel in PANELS if (view := panel.view(run)) is not None],
        findings=findings,
        trials_told=[_trial_view(told, number) for number, told in enumerate(run.told)],
        profiles=[_profile(result, number) for number, result in enumerate(run.profiles)],
        trials_open_max=TRIALS_OPEN_MAX,
        place=place,
        circumstances=circumstances,
        lines_max=LINES_MAX,
        nothing_due=NOTHING_DUE,
    )


def _facts(run: RunResult) -> list[tuple[str, str, bool]]:
    """Return what the opening does not say, as (label, text, whether it is a command)."""
    facts = [
        *(("server", server, False) for server in servers(run)),
        ("command", run.command, True),
    ]
    return [(label, text, is_command) for label, text, is_command in facts if text]


def _drawn_anchor(drawn: dict[tuple[str, int], Told], profile: str, trial: int) -> str | None:
    number = next((number for number, key in enumerate(drawn) if key == (profile, trial)), None)
    return None if number is None else f"drawn-{number}"


def _trial_view(told: Told, number: int) -> TrialView:
    chronicle = told.chronicle
    title = f"{told.profile}, trial {told.trial}"
    notes = [note for note in (told.problem, chronicle.without if chronicle and not told.problem else "") if note]
    if chronicle is None:
        return TrialView(f"drawn-{number}", title, None, None, [], 0, [], None, notes, "")
    rows, left_out = _rows(chronicle)
    return TrialView(
        anchor=f"drawn-{number}",
        title=title,
        drawing=drawing(chronicle),
        disk=None if chronicle.disk is None else disk_view(chronicle.disk),
        rows=[(kind_of(one.fate), SAYS[one.fate], one) for one in rows],
        left_out=left_out,
        events=sorted(chronicle.happenings, key=lambda one: one.at)[-EVENTS_MAX:],
        chronicle=chronicle,
        notes=notes,
        redo=redo_says(chronicle) if chronicle.recovery.ran else "",
        wal_redo=lsn(chronicle.redo),
        wal_end=lsn(chronicle.wal_end),
    )


def _rows(chronicle: Chronicle) -> tuple[list[Transaction], int]:
    """Return the transactions that the table lists, by their begin, and how many it does not."""
    plain = (Fate.SURVIVED, Fate.READ_ONLY, Fate.TRACELESS, Fate.UNKNOWN)
    by_begin = sorted(chronicle.transactions, key=lambda one: one.begin_line)
    telling = [one for one in by_begin if one.fate not in plain]
    telling = telling[: ROWS_MAX // 2]
    last = by_begin[-(ROWS_MAX - len(telling)) :]
    chosen = {one.tx for one in (*telling, *last)}
    return [one for one in by_begin if one.tx in chosen], len(by_begin) - len(chosen)


def _profile(result: ProfileResult, number: int) -> dict[str, Any]:
    return {
        "anchor": anchor_of(number),
        "result": result,
        "tally": tally(result),
        "promise": promise(result),
        "sentence": sentence(result),
        "statistics": statistics_line(result),
        "clauses": [(clause, *_manual(clause)) for clause in _clauses(result)],
        "trials": [(_anchor(number, trial.trial), trial) for trial in result.trials],
        "lines": [[story(finding) for finding in trial.verdict.findings[:LINES_MAX]] for trial in result.trials],
    }


def _number(run: RunResult, result: ProfileResult) -> int:
    return next(number for number, one in enumerate(run.profiles) if one is result)


def _anchor(number: int, trial: int) -> str:
    return f"{anchor_of(number)}-trial-{trial}"


def _clauses(result: ProfileResult) -> list[Clause]:
    """Return what was promised to any of the trials: a fault may void a bound in one of them only."""
    contracts = [trial.contract for trial in result.trials if trial.contract is not None]
    return list(dict.fromkeys(clause for contract in contracts for clause in contract.clauses))


def _manual(clause: Clause) -> tuple[str, str]:
    """Return the title and the address of a clause's section of the manual, written "Title, page.html#anchor"."""
    title, _, page = clause.manual.rpartition(", ")
    return title, MANUAL + page
