"""How is a recording kept, examined again, and shown?"""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab.cli.options import (
    ProfileName,
    ServerKind,
    Telling,
    bindir_option,
    fail_fast_option,
    image_option,
    out_option,
    report_options,
    seed_option,
    server_choice,
    server_option,
    set_option,
)
from crashlab.cli.out_folder import claimed
from crashlab.cli.plan import Plan
from crashlab.cli.reports import Reports
from crashlab.cli.run import run_plan
from crashlab.cli.signals import signals_interrupt
from crashlab.errors import UsageProblem

if TYPE_CHECKING:
    from crashlab.profile import Profile

DISKS = ("linux", "strict", "lying", "process")
POINTS = ("any", "checkpoint", "flush", "wal switch", "end")
"""The values of power_loss.disk and power_loss.points; a test compares them."""

_RECORDED = ("power_loss.acks", "power_loss.end")
_ANYTHING = ["expect.outcomes=['intact', 'loss', 'corruption', 'no_start']", "expect.promise=['kept', 'void']"]


@click.command()
@click.argument("profile", type=ProfileName())
@seed_option
@server_option
@image_option
@bindir_option
@set_option
@out_option
def record(
    profile: str,
    seed: int | None,
    server: ServerKind,
    image: str | None,
    pg_bindir: Path | None,
    overrides: tuple[str, ...],
    out: Path | None,
) -> int:
    """Run a server under PROFILE once, write down all that it does to its files, and keep that."""
    from crashlab import campaign
    from crashlab.cli.show import print_summary
    from crashlab.profile import load_profile
    from crashlab.seeds import new_seed
    from crashlab.server.leftovers import sweep

    wanted = load_profile(profile, overrides)
    if wanted.power_loss is None:
        raise UsageProblem(
            f'cannot record profile "{profile}": it has no [power_loss] table', hint="Try crashlab record power-loss."
        )
    choice = server_choice(server, image, pg_bindir)
    with claimed(out) as folder, signals_interrupt():
        sweep()
        made = campaign.record(
            campaign.RunRequest(
                profile=wanted,
                seed=new_seed() if seed is None else seed,
                trials=1,
                time_limit_s=None,
                server=choice,
                out=folder / wanted.name,
            )
        )
        print_summary(made)
        click.echo(f"Examine it: {shlex.join(['crashlab', 'explore', str(made.folder)])}")
        return 3 if made.record.differences or made.record.workload_errors else 0


@click.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Crash states. [default: the profile's]")
@click.option("--seed", type=click.IntRange(min=0), metavar="S", help="Root seed. [default: the recording's own]")
@click.option("--disk", type=click.Choice(DISKS), help="What the disk promises.")
@click.option("--tear", type=click.Choice(["512", "4096", "8192"]), help="Bytes that survive whole or not at all.")
@click.option("--aim", multiple=True, metavar="CLASS", help="Let only these files vary, such as wal or relation.")
@click.option("--points", type=click.Choice(POINTS), help="Where the power is cut.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of power_loss.")
@report_options
@out_option
@fail_fast_option
def explore(
    recording: Path,
    trials: int | None,
    seed: int | None,
    disk: str | None,
    tear: str | None,
    aim: tuple[str, ...],
    points: str | None,
    overrides: tuple[str, ...],
    telling: Telling,
    out: Path | None,
    fail_fast: bool,
) -> int:
    """Examine RECORDING again, with another disk, aim or seed; the recorded server does not run again.

    RECORDING is a folder of crashlab record, or of a run that kept its recording. Without options the states are
    those that the run itself tried.
    """
    from crashlab import campaign
    from crashlab.profile import Profile

    stored = campaign.find_recording(recording)
    changes = list(_changes(disk, tear, aim, points, overrides))
    profile = _changed(Profile.model_validate(stored.record.profile_resolved), changes)
    seed = stored.record.run_seed if seed is None else seed
    plan = Plan(
        profiles=[profile],
        seed=seed,
        trials=trials,
        time_limit_s=None,
        server=campaign.ServerChoice(kind="container" if stored.record.server.kind == "container" else "local"),
        keep="all",
        fail_fast=fail_fast,
        again=_again(recording, seed, trials, changes),
        recording=stored.folder,
    )
    reports = Reports(telling)
    with claimed(out) as folder, signals_interrupt():
        return run_plan(plan, folder, reports)


@click.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--at", type=click.IntRange(min=0), metavar="POINT", help="A crash point: that many operations happened.")
def show(recording: Path, at: int | None) -> None:
    """Say what RECORDING holds, or with --at what was in flight at one point of it."""
    from crashlab import campaign
    from crashlab.cli.show import print_point, print_summary

    stored = campaign.find_recording(recording)
    if at is None:
        print_summary(stored)
    else:
        print_point(stored, at)


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
        if not key.startswith("power_loss.") or key in _RECORDED:
            raise UsageProblem(
                f'cannot use --set "{override}": the server has run already',
                hint="Keys of power_loss but acks and end can be changed; record again for all others.",
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


def _again(recording: Path, seed: int, trials: int | None, changes: list[str]) -> str:
    words = ["crashlab", "explore", str(recording), "--seed", str(seed)]
    if trials:
        words += ["--trials", str(trials)]
    for change in changes:
        words += ["--set", change]
    return shlex.join(words)
