"""How does `crashlab run` get from a command line to a report?"""

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab import __version__
from crashlab.cli.options import (
    Duration,
    ProfileName,
    ServerKind,
    Telling,
    bindir_option,
    fail_fast_option,
    image_option,
    keep_option,
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
from crashlab.cli.signals import signals_interrupt
from crashlab.errors import CrashlabError, UsageProblem

if TYPE_CHECKING:
    from crashlab.campaign import ProfileResult, RunResult, ServerChoice, TrialResult
    from crashlab.profile import Profile
    from crashlab.report.console import Watch
    from crashlab.results import Keep
    from crashlab.server import SpareDirectories


@click.command()
@click.argument("profiles", nargs=-1, required=True, type=ProfileName(), metavar="PROFILE...")
@click.option(
    "--trials", type=click.IntRange(min=1), metavar="N", help="Trials of each profile. [default: the profile's]"
)
@click.option("--time-limit", type=Duration(), help="Stop after this time, such as 90s or 2m; shared by all profiles.")
@seed_option
@server_option
@image_option
@bindir_option
@set_option
@report_options
@out_option
@fail_fast_option
@keep_option
@click.option("--dry-run", is_flag=True, help="Print the plan and the contract; start nothing.")
def run(
    profiles: tuple[str, ...],
    trials: int | None,
    time_limit: float | None,
    seed: int | None,
    server: ServerKind,
    image: str | None,
    pg_bindir: Path | None,
    overrides: tuple[str, ...],
    telling: Telling,
    out: Path | None,
    fail_fast: bool,
    keep: "Keep",
    dry_run: bool,
) -> int:
    """Crash servers as PROFILE says, recover them, and judge what came back.

    PROFILE is a name (see crashlab profiles) or a TOML file. --set takes profile keys, such as workload.clients=8,
    and PostgreSQL settings, such as fsync=off.
    """
    from crashlab.profile import expand
    from crashlab.seeds import new_seed

    choice = server_choice(server, image, pg_bindir)
    wanted = [profile for name in profiles for profile in expand(name, overrides)]
    _require_runnable(wanted, choice)
    plan = Plan(
        profiles=wanted,
        seed=new_seed() if seed is None else seed,
        trials=trials,
        time_limit_s=time_limit,
        server=choice,
        keep=keep,
        fail_fast=fail_fast,
    )
    if dry_run:
        if telling.json_target or telling.files():
            raise click.UsageError("--dry-run makes no report: leave out --json, --junit-xml and --html")
        from crashlab.cli.dry_run import print_plan

        print_plan(plan)
        return 0
    reports = Reports(telling)
    plan = replace(plan, again=_run_again(profiles, overrides, plan))
    with claimed(out) as folder, signals_interrupt():
        return run_plan(plan, folder, reports)


def _require_runnable(wanted: "list[Profile]", choice: "ServerChoice") -> None:
    seen: set[str] = set()
    for profile in wanted:
        if profile.name in seen:
            raise UsageProblem(
                f'profile "{profile.name}" is asked for twice', hint="Name each once; --trials gives more trials."
            )
        seen.add(profile.name)
        if choice.kind != "auto" and choice.kind not in profile.server.kinds:
            raise UsageProblem(
                f'profile "{profile.name}" cannot run on a {choice.kind} server',
                hint=f"It needs --server {' or '.join(profile.server.kinds)}.",
            )


def run_plan(plan: Plan, folder: Path, reports: Reports) -> int:
    """Do what was planned, report it, and return the exit code."""
    return reports.finish(_run_all(plan, folder, reports), folder)


def _run_all(plan: Plan, folder: Path, reports: Reports) -> "RunResult":
    """Run one profile after the other, sharing the time among those that are left."""
    from crashlab import campaign
    from crashlab.report.console import Watch, print_header
    from crashlab.server import SpareDirectories
    from crashlab.server.leftovers import sweep

    sweep()
    print_header(reports.out, __version__, plan.seed, plan.server.image or plan.server.kind, folder)
    run = campaign.RunResult(profiles=[], command=plan.again)
    deadline = None if plan.time_limit_s is None else time.monotonic() + plan.time_limit_s
    trials = sum(plan.trials_of(profile) for profile in plan.profiles)
    with SpareDirectories() as spares, Watch(reports.progress, trials) as watch:
        for position, profile in enumerate(plan.profiles):
            share_s = _share_s(deadline, len(plan.profiles) - position)
            watch.begin(profile, plan.trials_of(profile))
            try:
                result = _run_one(plan, profile, share_s, folder / profile.name, spares, watch)
            except CrashlabError as error:
                result = _partial(plan, profile, watch.finished, f"an error: {error.primary}")
                run.error = error
            except KeyboardInterrupt:  # outside of a trial; inside, run_profile returns what it has
                result = _partial(plan, profile, watch.finished, "interrupt")
                result.interrupted = True
            if result.interrupted or run.error:
                campaign.add_missed(result, folder / profile.name)
            run.profiles.append(result)
            if result.interrupted or run.error or (plan.fail_fast and _broken(result)):
                break
    return run


def _share_s(deadline: float | None, profiles_left: int) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic()) / profiles_left


def _partial(plan: Plan, profile: "Profile", finished: "list[TrialResult]", stopped_by: str) -> "ProfileResult":
    from crashlab.campaign import ProfileResult

    return ProfileResult(
        profile=profile,
        seed=plan.seed,
        server=finished[-1].server if finished else None,
        crash_class=profile.crash_class,
        trials=list(finished),
        stopped_by=stopped_by,
    )


def _run_one(
    plan: Plan,
    profile: "Profile",
    time_limit_s: float | None,
    folder: Path,
    spares: "SpareDirectories",
    watch: "Watch",
) -> "ProfileResult":
    from crashlab import campaign

    request = campaign.RunRequest(
        profile=profile,
        seed=plan.seed,
        trials=plan.trials_of(profile),
        time_limit_s=time_limit_s,
        server=plan.server,
        out=folder,
        keep=plan.keep,
        fail_fast=plan.fail_fast,
        again=plan.again,
        recording=plan.recording,
    )
    return campaign.run_profile(request, spares=spares, on_trial=watch.trial, on_phase=watch.phase)


def _broken(result: "ProfileResult") -> bool:
    return any(trial.verdict.promise == "broken" for trial in result.trials)


def _run_again(profiles: Sequence[str], overrides: Sequence[str], plan: Plan) -> str:
    """Return the command that repeats the whole run: the seed decides everything but the server's own timing."""
    words = ["crashlab", "run", *profiles, "--seed", str(plan.seed)]
    if plan.trials:
        words += ["--trials", str(plan.trials)]
    for override in overrides:
        words += ["--set", override]
    if plan.server.image:
        words += ["--image", plan.server.image]
    elif plan.server.pg_bindir:
        words += ["--pg-bindir", str(plan.server.pg_bindir)]
    elif plan.server.kind != "auto":
        words += ["--server", plan.server.kind]
    return shlex.join(words)
