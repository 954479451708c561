"""How is a recording kept, examined again, and shown?"""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab.cli.options import (
    Duration,
    ProfileName,
    Telling,
    afterlife_option,
    fail_fast_option,
    out_option,
    report_options,
    scheduler_option,
    seed_option,
    server_options,
    set_option,
    trial_timeout_option,
    trust_option,
    with_afterlife,
    workers_option,
)
from crashlab.cli.out_folder import claimed
from crashlab.cli.reports import Reports, show_warning, write_file
from crashlab.cli.run import Hands, limits_of, run_plan
from crashlab.cli.signals import answer_interrupts, signals_interrupt
from crashlab.disk.contract import CONTRACT_NAMES, CUTS, TEAR_SIZES
from crashlab.errors import NoSuchPoint, UsageProblem
from crashlab.server import ServerChoice
from crashlab.server.choose import options_of

if TYPE_CHECKING:
    from crashlab.campaign import Plan
    from crashlab.exploration.recording import Recording
    from crashlab.profile import Profile

_RECORDED = ("power_loss.acks", "power_loss.end")
_ANYTHING = ["expect.outcomes=['intact', 'loss', 'corruption', 'no_start']", "expect.promise=['kept', 'void']"]


@click.command()
@click.argument("profile", type=ProfileName())
@seed_option
@server_options
@set_option
@out_option
def record(
    profile: str,
    seed: int | None,
    choice: ServerChoice,
    overrides: tuple[str, ...],
    out: Path | None,
) -> int:
    """Run a server under PROFILE once, write down all that it does to its files, and keep that."""
    from crashlab.campaign.runner import recording_folder
    from crashlab.cli.show import print_summary
    from crashlab.exploration.record import make
    from crashlab.profile import load_profile
    from crashlab.seeds import new_seed
    from crashlab.server.leftovers import sweep
    from crashlab.trial.beforehand import refuse_settings
    from crashlab.trial.setup import TrialPlan

    wanted = load_profile(profile, overrides)
    if wanted.power_loss is None:
        raise UsageProblem(
            f'cannot record profile "{profile}": it has no [power_loss] table', hint="Try crashlab record power-loss."
        )
    plan = TrialPlan(
        profile=wanted,
        run_seed=new_seed() if seed is None else seed,
        server=choice,
    )
    answer_interrupts()  # an image may have to be fetched
    refuse_settings([wanted], choice)
    with claimed(out) as folder, signals_interrupt():
        sweep()
        made = make(plan, recording_folder(folder / wanted.name, 0))
        print_summary(made)
        click.echo(f"Examine it: {shlex.join(['crashlab', 'explore', str(made.folder)])}")
        return 3 if made.record.differences or made.record.workload_errors else 0


@click.command()
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORDING...")
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Crash states. [default: the profile's]")
@click.option("--seed", type=click.IntRange(min=0), metavar="S", help="Root seed. [default: the recording's own]")
@click.option("--disk", type=click.Choice(CONTRACT_NAMES), help="What the disk promises.")
@click.option(
    "--tear", type=click.Choice([str(size) for size in TEAR_SIZES]), help="Bytes that survive whole or not at all."
)
@click.option("--aim", multiple=True, metavar="CLASS", help="Let only these files vary, such as wal or relation.")
@click.option("--points", type=click.Choice(CUTS), help="Where the power is cut.")
@click.option("--near", multiple=True, metavar="WHAT", help="Only near this, such as unlink or Btree/DEDUP.")
@click.option("--at", multiple=True, type=click.IntRange(min=0), metavar="POINT", help="Only at this crash point.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of power_loss.")
@click.option("--time-limit", type=Duration(), help="Stop after this time, such as 90s or 2m; shared by all.")
@trial_timeout_option
@workers_option
@scheduler_option
@server_options
@trust_option
@afterlife_option
@report_options
@out_option
@fail_fast_option
def explore(
    recordings: tuple[Path, ...],
    trials: int | None,
    seed: int | None,
    disk: str | None,
    tear: str | None,
    aim: tuple[str, ...],
    points: str | None,
    near: tuple[str, ...],
    at: tuple[int, ...],
    overrides: tuple[str, ...],
    time_limit: float | None,
    trial_timeout: float,
    workers: int | None,
    scheduler: str | None,
    choice: ServerChoice,
    trust: bool,
    afterlife: bool | None,
    telling: Telling,
    out: Path | None,
    fail_fast: bool,
) -> int:
    """Examine each RECORDING again, with another disk, aim or seed; the recorded server does not run again.

    RECORDING is a folder of crashlab record, or of a run that kept its recording. Without options the states are
    those that the run itself tried.
    """
    from crashlab.campaign import Asked, Plan
    from crashlab.exploration.recording import find
    from crashlab.profile import stored_profile

    stored = [find(path) for path in recordings]
    changes = list(_changes(disk, tear, aim, points, with_afterlife(overrides, afterlife)))
    changes += [f"power_loss.near={json.dumps(near)}"] if near else []
    changes += [f"power_loss.at={list(at)}"] if at else []
    asked = [
        Asked(profile=_changed(stored_profile(one.record.profile_resolved).profile, changes), recording=one.folder)
        for one in stored
    ]
    names = [one.profile.name for one in asked]
    if len(set(names)) < len(names):
        raise UsageProblem("two recordings are of the same profile", hint="Examine them one after the other.")
    seeds = {one.record.run_seed for one in stored} if seed is None else {seed}
    if len(seeds) > 1:
        raise UsageProblem("the recordings were made with different seeds", hint="Give one for all: --seed.")
    (root,) = seeds
    _require_points(stored, [one.profile for one in asked], root)
    plan = Plan(
        asked=asked,
        seed=root,
        trials=trials,
        time_limit_s=time_limit,
        server=_server_of(stored, choice, trust=trust),
        keep="failed",
        fail_fast=fail_fast,
        record_again=False,
        trial_timeout_s=trial_timeout,
    )
    chosen = [*options_of(choice), *(["--trust"] if trust else [])]
    plan = replace(plan, again=_again([_where(path) for path in recordings], plan, changes, chosen))
    reports = Reports(telling)
    with claimed(out) as folder, signals_interrupt():
        return run_plan(plan, folder, reports, Hands(workers, scheduler), latest=out is None)


@click.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--at", type=click.IntRange(min=0), metavar="POINT", help="A crash point: that many operations happened.")
@click.option(
    "--html", "page", type=click.Path(path_type=Path), metavar="FILE", help="Write a page to step through it, instead."
)
def show(recording: Path, at: int | None, page: Path | None) -> None:
    """Say what RECORDING holds, or with --at what was in flight at one point of it."""
    from crashlab.cli.show import print_point, print_summary
    from crashlab.exploration.recording import find

    stored = find(recording)
    if page is not None:
        from crashlab.exploration.steps import steps_of
        from crashlab.report.recording_page import page_bytes

        write_file(page, page_bytes(steps_of(stored), str(stored.folder), at))
        click.echo(page)
    elif at is None:
        print_summary(stored)
    else:
        print_point(stored, at)


def _server_of(stored: "Sequence[Recording]", choice: ServerChoice, *, trust: bool) -> ServerChoice:
    """Return the one server that examines all recordings."""
    from crashlab.server.base import Version
    from crashlab.server.choose import choice_again

    recorded = (one.record.server for one in stored)
    servers = dict.fromkeys((one.kind, one.source, one.version) for one in recorded)
    answer_interrupts()  # an image may have to be fetched
    found = {
        choice_again(choice, kind, source, Version.parse(version), trust=trust, warn=show_warning): source
        for kind, source, version in servers
    }
    if len(found) > 1:
        raise UsageProblem(
            "the recordings are of different servers",
            detail=", ".join(sorted(found.values())),
            hint="Examine them one after the other.",
        )
    (server,) = found
    return server


def _changes(
    disk: str | None, tear: str | None, aim: tuple[str, ...], points: str | None, overrides: tuple[str, ...]
) -> Iterator[str]:
    """Yield what is to be other than recorded, as for --set."""
    if disk:
        yield f"power_loss.disk={disk}"
    if tear:
        yield f"power_loss.tear_bytes={tear}"
    if aim:
        yield f"power_loss.aim={list(aim)}"
    if points:
        yield f"power_loss.points={points}"
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key != "afterlife" and (not key.startswith("power_loss.") or key in _RECORDED):
            raise UsageProblem(
                f'cannot use --set "{override}": the server has run already',
                hint="Keys of power_loss but acks and end can be changed, and afterlife; record again for all others.",
            )
        yield override


def _changed(profile: "Profile", changes: list[str]) -> "Profile":
    """Return a recording's profile with other keys; on another disk other outcomes are to be expected."""
    from crashlab.profile import change_profile

    disks = [change.partition("=")[2] for change in changes if change.startswith("power_loss.disk=")]
    if disks:
        crash_class = "process_crash" if disks[-1] == "process" else "power_loss"
        return change_profile(profile, [*changes, f"crash_class={crash_class}", *_ANYTHING])
    return change_profile(profile, changes)


def _require_points(stored: "Sequence[Recording]", profiles: "Sequence[Profile]", seed: int) -> None:
    """Raise UsageProblem: a recording has no crash point where its profile is to cut it, and will never have one."""
    from crashlab.exploration.conditions import conditions_of

    for recording, profile in zip(stored, profiles, strict=True):
        power_loss = profile.power_loss
        if power_loss is not None and (power_loss.at or power_loss.near):
            try:
                _ = conditions_of(recording, power_loss, seed).points
            except NoSuchPoint as error:
                raise UsageProblem(error.primary, detail=error.detail, hint=error.hint) from error


def _where(path: Path) -> Path:
    """Return a path as it was given, unless it leads through a link, as `latest` is, which this run moves on."""
    real, here = path.resolve(), Path.cwd()
    if path.absolute() == real:
        return path
    return real.relative_to(here) if real.is_relative_to(here) else real


def _again(recordings: "Sequence[Path]", plan: "Plan", changes: list[str], chosen: list[str]) -> str:
    """Return the command that repeats the whole run.

    Args:
        chosen: the words that chose its server, not the one that was found for want of them.
    """
    words = ["crashlab", "explore", *map(str, recordings), "--seed", str(plan.seed)]
    if plan.trials:
        words += ["--trials", str(plan.trials)]
    for change in changes:
        words += ["--set", change]
    return shlex.join([*words, *limits_of(plan), *chosen])
