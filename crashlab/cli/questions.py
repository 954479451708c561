"""What can be asked about runs that are over: which trials there were, and what changed from one run to another?"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crashlab.cli.out_folder import BASE
from crashlab.cli.reports import json_target_checked, show_warning, write_file, write_json
from crashlab.errors import UsageProblem

if TYPE_CHECKING:
    from crashlab.campaign import Store
    from crashlab.campaign.store import TrialRow

NOT_JUDGED = "none"
"""What --promise calls a trial without one; the index does so, too."""
OUTCOMES = ("intact", "loss", "corruption", "no_start", "inconclusive")
PROMISES = ("kept", "broken", "void", NOT_JUDGED)
"""The values of model.Outcome and model.PromiseStatus; a test compares them."""

json_option = click.option("--json", "json_target", metavar="FILE|-", help="Write it as JSON; - is stdout.")


@click.command()
@click.argument("out", type=click.Path(path_type=Path), metavar="[OUT]", default=BASE / "latest")
@click.option("--profile", metavar="NAME", help="Only trials of this profile.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only trials with this outcome.")
@click.option("--promise", type=click.Choice(PROMISES), help="Only such trials; none: nobody could judge.")
@click.option("--code", metavar="CODE", help="Only trials with this finding, such as LOSS-ASYNC-WINDOW.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="No more than so many trials.")
@json_option
def results(
    out: Path,
    profile: str | None,
    outcome: str | None,
    promise: str | None,
    code: str | None,
    limit: int | None,
    json_target: str | None,
) -> int:
    """List the trials of a run, by profile and number.

    OUT is the folder of a run. [default: .crashlab/latest]

    The answer may be empty. The exit code is 0 all the same: it says nothing about what the trials showed.
    """
    from crashlab.campaign.store import Filter, opened_to_read
    from crashlab.report.console import console
    from crashlab.report.trials import trial_lines

    json_target_checked(json_target)
    with contextlib.closing(opened_to_read(out, warn=show_warning)) as store:
        _require_known(store, profile, code)
        wanted = Filter(profile=profile, outcome=outcome, promise=promise, code=code and code.upper())
        rows = [_placed(row, out) for _, row in zip(range(limit or sys.maxsize), store.rows(wanted), strict=False)]
    if json_target is not None:
        write_json(json_target, [asdict(row) for row in rows])
    if json_target != "-":
        target = console()
        for line in trial_lines([_shown(row) for row in rows]) if rows else ["No such trial."]:
            target.print(line, soft_wrap=True)
    return 0


@click.command()
@click.argument("before", type=click.Path(path_type=Path), metavar="A")
@click.argument("after", type=click.Path(path_type=Path), metavar="B")
@json_option
@click.option("--html", "page", type=click.Path(path_type=Path), metavar="FILE", help="Write it as one HTML page.")
def compare(before: Path, after: Path, json_target: str | None, page: Path | None) -> int:
    """Say what changed from run A to run B: profiles, settings, outcomes, findings, times.

    A and B are folders of runs. Shares are held against chance; the exit code is 0, whatever they come to.
    """
    from crashlab.campaign import stored_results
    from crashlab.report.compare import compare as compared
    from crashlab.report.compare import comparison_lines
    from crashlab.report.console import console
    from crashlab.server.settings import MANAGED_SETTINGS

    json_target_checked(json_target)
    runs = [stored_results(folder, warn=show_warning) for folder in (before, after)]
    found = compared(*runs, ignored=MANAGED_SETTINGS)
    if json_target is not None:
        write_json(json_target, {**asdict(found), "more_than_chance": found.more_than_chance})
    if page is not None:
        from crashlab.report.compare_page import page_bytes

        write_file(page, page_bytes(found, str(before), str(after)))
    if json_target != "-":
        target = console()
        for line in comparison_lines(found):
            target.print(line, soft_wrap=True)
    return 0


def _require_known(store: "Store", profile: str | None, code: str | None) -> None:
    """Raise UsageProblem: no profile of the run, or no finding, has this name."""
    from crashlab.oracle.codes import CODES
    from crashlab.profile import did_you_mean

    profiles, codes = store.profiles(), {*CODES, *store.codes()}
    if profile is not None and profile not in profiles:
        near = did_you_mean(profile, profiles)
        raise UsageProblem(
            f'the run has no profile "{profile}"', hint=near or f"It has {_some(profiles)}." if profiles else None
        )
    if code is not None and code.upper() not in codes:
        near = did_you_mean(code.upper(), codes)
        raise UsageProblem(
            f'unknown finding code "{code}"', hint=f"{near + ' ' if near else ''}crashlab explain lists all codes."
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _placed(row: "TrialRow", out: Path) -> "TrialRow":
    """Return a row whose paths lead to where the run is now."""
    from crashlab.results import REPLAY, replay_moved

    folder = out / row.folder
    again = replay_moved(row.reproduce, folder) if row.reproduce.startswith(REPLAY) else row.reproduce
    return replace(row, folder=str(folder), reproduce=again)


def _shown(row: "TrialRow") -> tuple[str, ...]:
    cells: tuple[Any, ...] = (
        *(row.profile, row.trial, row.outcome, row.promise or "-", ",".join(dict.fromkeys(row.codes)) or "-"),
        *("-" if row.position is None else row.position, f"{row.seconds:.2f}", row.reproduce),
    )
    return tuple(str(cell) for cell in cells)
