"""How is the matrix of promises tried? As a campaign like any other, with a profile a cell."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab.cli.options import (
    Duration,
    Telling,
    fail_fast_option,
    keep_option,
    out_option,
    report_options,
    scheduler_option,
    seed_option,
    server_options,
    trial_timeout_option,
    workers_option,
)
from crashlab.cli.out_folder import claimed
from crashlab.cli.reports import Reports
from crashlab.cli.run import Hands, limits_of, refuse_with_resume, resume_run, run_plan
from crashlab.cli.signals import signals_interrupt
from crashlab.server import ServerChoice
from crashlab.server.choose import options_of

if TYPE_CHECKING:
    from crashlab.campaign import Asked, Plan
    from crashlab.matrix import Cell
    from crashlab.results import Keep


@click.command()
@click.option(
    "--only",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only cells with this value, such as fsync=off or crash_class=power_loss; several of a key are all tried.",
)
@click.option("--states", type=click.IntRange(min=1), metavar="N", help="Crash states of each cell. [default: 10]")
@click.option("--time-limit", type=Duration(), help="Stop after this time, such as 90s or 2m; shared by all cells.")
@trial_timeout_option
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="OUT", help="Go on with a matrix that was cut short."
)
@workers_option
@scheduler_option
@seed_option
@server_options
@report_options
@out_option
@fail_fast_option
@keep_option
@click.pass_context
def matrix(
    context: click.Context,
    only: tuple[str, ...],
    states: int | None,
    time_limit: float | None,
    trial_timeout: float,
    resume: Path | None,
    workers: int | None,
    scheduler: str | None,
    seed: int | None,
    choice: ServerChoice,
    telling: Telling,
    out: Path | None,
    fail_fast: bool,
    keep: "Keep",
) -> int:
    """Hold what is documented for each combination of settings against what crashes show, cell by cell.

    The axes are fsync, synchronous_commit, full_page_writes, wal_sync_method, data_checksums and crash_class. Each
    combination of settings is recorded once; process crash and power loss examine the same recording.
    """
    from crashlab.campaign import Plan
    from crashlab.matrix import STATES, cells
    from crashlab.seeds import new_seed

    hands = Hands(workers, scheduler)
    if resume is not None:
        refuse_with_resume(context)
        return resume_run(resume, time_limit, Reports(telling), hands)
    plan = Plan(
        asked=list(_asked(cells(only), states or STATES)),
        seed=new_seed() if seed is None else seed,
        trials=states or STATES,
        time_limit_s=time_limit,
        server=choice,
        keep=keep,
        fail_fast=fail_fast,
        record_again=False,
        trial_timeout_s=trial_timeout,
    )
    plan = replace(plan, again=_again(only, plan))
    reports = Reports(telling)
    with claimed(out) as folder, signals_interrupt():
        return run_plan(plan, folder, reports, hands, latest=out is None)


def _asked(wanted: "Sequence[Cell]", states: int) -> "Iterator[Asked]":
    """Yield a profile a cell; the first one of those that differ in the kind of crash alone makes the recording."""
    from crashlab.campaign import Asked
    from crashlab.matrix import profile_of

    makers: dict[Cell, str] = {}
    for cell in wanted:
        alike = replace(cell, crash_class="")
        maker = makers.setdefault(alike, cell.name)
        yield Asked(profile=profile_of(cell, states), recording_of=None if maker == cell.name else maker)


def _again(only: tuple[str, ...], plan: "Plan") -> str:
    words = ["crashlab", "matrix", "--seed", str(plan.seed), "--states", str(plan.trials)]
    for text in only:
        words += ["--only", text]
    return shlex.join([*words, *limits_of(plan), *options_of(plan.server)])
