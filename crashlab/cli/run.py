"""How does `crashlab run` get from a command line to a report?"""

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from crashlab import __version__
from crashlab.cli.options import (
    DEFAULT_TRIAL_TIMEOUT_S,
    Duration,
    ProfileName,
    Telling,
    UntilRule,
    afterlife_option,
    fail_fast_option,
    keep_option,
    out_option,
    recover_with_option,
    report_options,
    scheduler_option,
    seed_option,
    server_options,
    set_option,
    trial_timeout_option,
    with_afterlife,
    workers_option,
)
from crashlab.cli.out_folder import claimed, claimed_again, point_latest
from crashlab.cli.reports import Reports
from crashlab.cli.signals import answer_interrupts, signals_interrupt
from crashlab.errors import EvidenceError, UsageProblem
from crashlab.report.formats import FORMATS
from crashlab.server import ServerChoice
from crashlab.server.choose import folder_or_image, options_of
from crashlab.server.kinds import AUTO

if TYPE_CHECKING:
    from crashlab.campaign import Plan
    from crashlab.confidence import Until
    from crashlab.profile import Profile
    from crashlab.results import Keep, ProfileResult


@click.command()
@click.argument("profiles", nargs=-1, type=ProfileName(), metavar="PROFILE...")
@click.option(
    "--trials", type=click.IntRange(min=1), metavar="N", help="Trials of each profile. [default: the profile's]"
)
@click.option("--time-limit", type=Duration(), help="Stop after this time, such as 90s or 2m; shared by all profiles.")
@click.option(
    "--until", type=UntilRule(), metavar="RULE", help="Stop when sure, such as 99%<0.5%: fewer than 0.5 % are broken."
)
@trial_timeout_option
@click.option("--one-recording", is_flag=True, help="Record no second time when a recording has no more states.")
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="OUT", help="Go on with a run that was cut short; no PROFILE."
)
@workers_option
@scheduler_option
@seed_option
@server_options
@set_option
@afterlife_option
@recover_with_option
@report_options
@out_option
@fail_fast_option
@keep_option
@click.option("--observe", is_flag=True, help="Sample what each server waits for, live trials only: crashlab waits.")
@click.option("--dry-run", is_flag=True, help="Print the plan and the contract; start nothing.")
@click.pass_context
def run(
    context: click.Context,
    profiles: tuple[str, ...],
    trials: int | None,
    time_limit: float | None,
    until: "Until | None",
    trial_timeout: float,
    one_recording: bool,
    resume: Path | None,
    workers: int | None,
    scheduler: str | None,
    seed: int | None,
    choice: ServerChoice,
    overrides: tuple[str, ...],
    afterlife: bool | None,
    recover_with: str | None,
    telling: Telling,
    out: Path | None,
    fail_fast: bool,
    keep: "Keep",
    observe: bool,
    dry_run: bool,
) -> int:
    """Crash servers as PROFILE says, recover them, and judge what came back.

    PROFILE is a name (see crashlab profiles) or a TOML file. --set takes profile keys, such as workload.clients=8,
    and PostgreSQL settings, such as fsync=off.
    """
    from crashlab.campaign import Asked, Plan
    from crashlab.observe import EVERY_MS
    from crashlab.profile import expand
    from crashlab.seeds import new_seed

    hands = Hands(workers, scheduler)
    if resume is not None:
        refuse_with_resume(context)
        return resume_run(resume, time_limit, Reports(telling), hands)
    if not profiles:
        raise click.UsageError("Missing argument 'PROFILE...'.", context)
    overrides = with_afterlife(overrides, afterlife)
    wanted = [profile for name in profiles for profile in expand(name, overrides)]
    _require_runnable(wanted, choice, observe=observe, one_recording=one_recording)
    plan = Plan(
        asked=[Asked(profile=profile) for profile in wanted],
        seed=new_seed() if seed is None else seed,
        trials=trials,
        time_limit_s=time_limit,
        until=until,
        server=choice,
        keep=keep,
        fail_fast=fail_fast,
        record_again=not one_recording,
        trial_timeout_s=trial_timeout,
        observe_ms=EVERY_MS if observe else None,
        recover_with=None if recover_with is None else folder_or_image(recover_with),
    )
    if dry_run:
        return _only_tell(wanted, plan, telling, hands)
    reports = Reports(telling)
    if scheduler is None:  # else its workers' machines have the servers
        _refuse_beforehand(wanted, plan)
    plan = replace(plan, again=_run_again(profiles, overrides, plan))
    with claimed(out) as folder, signals_interrupt():
        return run_plan(plan, folder, reports, hands, latest=out is None)


@dataclass(frozen=True)
class Hands:
    """Who is to do the work: see `campaign.executor_for`."""

    workers: int | None = None
    scheduler: str | None = None


RESUMABLE = {
    *("resume", "time_limit", "workers", "scheduler"),
    *(form.parameter for form in FORMATS),
    *("quiet", "verbose"),
}
"""What may be said anew when a run is resumed; all else is as it was asked for then."""


def refuse_with_resume(context: click.Context) -> None:
    """Raise click.UsageError: something is asked for that a resumed run has been told already."""
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)
        if given and name not in RESUMABLE and context.params[name]:
            said = parameter.opts[0] if isinstance(parameter, click.Option) else "PROFILE"
            raise click.UsageError(f"--resume goes on with what was asked for: leave out {said}")


def resume_run(folder: Path, time_limit: float | None, reports: Reports, hands: Hands) -> int:
    """Go on with exactly what is missing of a stored run."""
    from crashlab.campaign import done_so_far, load_plan, require_same_server, unfinished
    from crashlab.results import RunResult

    if not folder.is_dir():
        raise UsageProblem(f'cannot resume "{folder}": there is no such folder')
    plan = replace(load_plan(folder), time_limit_s=time_limit)
    with claimed_again(folder), signals_interrupt():
        earlier = done_so_far(folder)
        if hands.scheduler is None and unfinished(folder, RunResult(profiles=list(earlier.values())), plan):
            require_same_server(folder, plan, earlier)
        done = sum(len(result.trials) for result in earlier.values())
        reports.out.print(f"resuming {folder}: {done} trials are there", soft_wrap=True)
        return run_plan(plan, folder, reports, hands, latest=False, earlier=earlier)


def _require_runnable(wanted: "list[Profile]", choice: ServerChoice, *, observe: bool, one_recording: bool) -> None:
    if observe and all(profile.power_loss is not None for profile in wanted):
        raise UsageProblem(
            "cannot observe a recorded run: --observe looks at the servers of live trials",
            hint="Choose a profile with a fault, such as kill9-all.",
        )
    if one_recording and all(profile.power_loss is None for profile in wanted):
        raise UsageProblem(
            "cannot make one recording of a live run: --one-recording is for trials of recorded runs",
            hint="Leave it out, or choose a profile with [power_loss], such as power-loss.",
        )
    seen: set[str] = set()
    for profile in wanted:
        if profile.name in seen:
            raise UsageProblem(
                f'profile "{profile.name}" is asked for twice', hint="Name each once; --trials gives more trials."
            )
        seen.add(profile.name)
        if choice.kind != AUTO and choice.kind not in profile.server.kinds:
            raise UsageProblem(
                f'profile "{profile.name}" cannot run on a {choice.kind} server',
                hint=f"It needs --server {' or '.join(profile.server.kinds)}.",
            )


def _only_tell(wanted: "list[Profile]", plan: "Plan", telling: Telling, hands: Hands) -> int:
    """Print the plan, or refuse what the run would refuse, as far as nothing has to be fetched to know."""
    from crashlab.cli.dry_run import print_plan
    from crashlab.trial.beforehand import refuse_settings

    if telling.targets:
        named = [form.option for form in telling.targets]
        raise click.UsageError(f"--dry-run makes no report: leave out {' and '.join(named)}")
    if hands.scheduler is None:  # as for a run
        refuse_settings(wanted, plan.server, fetch=False)
    print_plan(plan)
    return 0


def _refuse_beforehand(wanted: "list[Profile]", plan: "Plan") -> None:
    from crashlab.trial.beforehand import refuse_recoverer, refuse_settings

    answer_interrupts()  # an image may have to be fetched
    refuse_settings(wanted, plan.server)
    if plan.recover_with is not None:
        refuse_recoverer(wanted, plan.server, plan.recover_with)


def run_plan(
    plan: "Plan",
    folder: Path,
    reports: Reports,
    hands: Hands,
    *,
    latest: bool,
    earlier: "dict[str, ProfileResult] | None" = None,
) -> int:
    """Do what was planned, report it, and return the exit code.

    Args:
        latest: whether the folder becomes that of the latest run, once there is evidence in it.
        earlier: what was done before, by profile; None: nothing, this is no resumed run.
    """
    from crashlab.campaign import Store, executor_for, run_campaign, save_plan
    from crashlab.campaign.events import Event, TrialDone
    from crashlab.cli.watch import Watch
    from crashlab.report.console import print_header
    from crashlab.server.leftovers import sweep

    def follow(event: Event) -> None:
        if latest and isinstance(event, TrialDone):
            point_latest(folder)

    if earlier is None:
        save_plan(folder, plan)  # first of all: whatever comes, the run can be resumed
    sweep()
    print_header(reports.out, __version__, plan.seed, plan.server.described, folder)
    executor = executor_for(hands.workers, hands.scheduler)
    with contextlib.closing(Store(folder)) as store:
        for name, result in (earlier or {}).items():
            store.add(name, result.trials)
        total = [plan.trials_of(one.profile) for one in plan.asked]
        before = {name: len(result.trials) for name, result in (earlier or {}).items()}
        with Watch(reports.progress, None if None in total else sum(filter(None, total)), before) as watch:
            campaign = plan.campaign(folder, earlier)
            done = run_campaign(campaign, executor, store.handle, follow, watch.handle)
        try:
            for result in done.profiles:  # some may have to be run again in another way: their recording is gone
                store.add(result.profile.name, result.trials)
        except EvidenceError as error:
            done.error = done.error or error
    return reports.finish(done, folder, plan, own=latest)


def _run_again(profiles: Sequence[str], overrides: Sequence[str], plan: "Plan") -> str:
    """Return the command that repeats the whole run: the seed decides everything but the server's own timing."""
    words = ["crashlab", "run", *profiles, "--seed", str(plan.seed)]
    if plan.trials:
        words += ["--trials", str(plan.trials)]
    if plan.until is not None:
        words += ["--until", str(plan.until)]
    for override in overrides:
        words += ["--set", override]
    if not plan.record_again:
        words.append("--one-recording")
    if plan.recover_with is not None:
        words += ["--recover-with", plan.recover_with.described]
    return shlex.join([*words, *limits_of(plan), *options_of(plan.server)])


def limits_of(plan: "Plan") -> list[str]:
    """Return the words of a command line that end a run, or a trial, as this plan does."""
    words = ["--fail-fast"] if plan.fail_fast else []
    if plan.trial_timeout_s not in (None, DEFAULT_TRIAL_TIMEOUT_S):
        words += ["--trial-timeout", f"{plan.trial_timeout_s:g}s"]
    if plan.observe_ms is not None:
        words.append("--observe")
    return words
