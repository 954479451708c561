"""How is stored evidence judged again, how is a stored trial run again, and how does it become smaller?"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab import evidence
from crashlab.cli.options import (
    Duration,
    FindingCode,
    Telling,
    keep_option,
    out_option,
    report_options,
    server_options,
    trust_option,
)
from crashlab.cli.out_folder import BASE, claimed
from crashlab.cli.reports import Reports, show_warning
from crashlab.cli.signals import first_one_asks, signals_interrupt
from crashlab.errors import CrashlabError, EvidenceError, UsageProblem
from crashlab.model import Outcome, PromiseStatus
from crashlab.server import ServerChoice

if TYPE_CHECKING:
    from crashlab.results import Keep

ENDING = "crashlab: interrupted: the best so far is written down; another Ctrl-C keeps nothing"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@report_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write verdicts and report.json here, and nothing to the evidence. [default: beside each trial]",
)
def judge(folder: Path, telling: Telling, out: Path | None) -> int:
    """Judge stored evidence again, without a server.

    DIR is the folder of one trial, of a profile, or of a whole run, such as .crashlab/latest. The JSON report of a
    whole run is the one that the run itself gave. A trial whose evidence is damaged is named at the end, and the exit
    code is 4 then, unless a promise was broken in another one.
    """
    from crashlab.campaign import judge_run, reindex

    warned: list[CrashlabError] = []

    def warn(problem: CrashlabError) -> None:
        warned.append(problem)
        show_warning(problem)

    reports = Reports(telling)
    if out is not None:
        with claimed(out):
            return reports.judged(judge_run(folder, warn=warn, out=out), out)
    judged = judge_run(folder, warn=warn)
    try:
        reindex(folder, judged)
    except EvidenceError as error:
        if not warned:  # else it is the same disk
            warn(error)
    return reports.judged(judged)


@click.command()
@click.argument("trial", metavar="DIR-or-ID")
@server_options
@report_options
@out_option
@keep_option
@trust_option
def replay(
    trial: str,
    choice: ServerChoice,
    telling: Telling,
    out: Path | None,
    keep: "Keep",
    trust: bool,
) -> int:
    """Run one stored trial again: same profile, seed and kind of server.

    The server is the one asked for, else one of this machine's own of the same major version: of that very release if
    there is one, else a warning says which.

    DIR-or-ID is a trial's folder, or PROFILE:TRIAL of the latest run, such as async-commit:3.
    """
    from crashlab import campaign
    from crashlab.results import RunResult
    from crashlab.server.leftovers import sweep

    stored = trial_folder(trial)
    reports = Reports(telling)
    with claimed(out) as folder, signals_interrupt():
        sweep()
        run = campaign.begun_now(RunResult(profiles=[]))
        run.profiles.append(
            campaign.replay(stored, out=folder, server=choice, keep=keep, trust=trust, warn=show_warning)
        )
        return reports.finish(run, folder)


@click.command()
@click.argument("trial", metavar="DIR-or-ID")
@click.option(
    "--code", type=FindingCode(), metavar="CODE", help="The finding that has to stay. [default: the trial's worst one]"
)
@click.option(
    "--time-limit", type=Duration(), default=600.0, show_default="10m", help="Stop the search after this time."
)
@click.option(
    "--trials",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Try so many crash states, or live trials, of each shorter run; 0: no shorter run.",
)
@server_options
@out_option
@trust_option
def shrink(
    trial: str, code: str | None, time_limit: float, trials: int, choice: ServerChoice, out: Path | None, trust: bool
) -> int:
    """Find the smallest crash state that gives the same finding as a stored trial, and the shortest run.

    Fewest lost or torn writes and names first, then the earliest crash point; then the workload runs anew with fewer
    transactions, clients and kinds. What comes of it is a folder with the state, its evidence, a data directory to
    start a server on, and a README that names each lost write. Of a live trial only the run is made shorter.

    DIR-or-ID is a trial's folder, or PROFILE:TRIAL of the latest run, such as power-loss:3.
    """
    from crashlab.campaign.shorter import Tried
    from crashlab.campaign.shrink import shrink as shrink_trial
    from crashlab.campaign.shrunk import README
    from crashlab.exploration.shrink import Progress
    from crashlab.server.leftovers import sweep

    def told(step: Progress | Tried) -> None:
        if isinstance(step, Tried):
            text = f"shorter run: {step.size}: {'found' if step.found else 'not found'}"
        else:
            text = f"{step.by}: {step.lost} lost, at operation {step.position} ({step.tried} tried)"
        click.echo(text, err=True)

    stored = trial_folder(trial)
    with claimed(out) as folder, signals_interrupt(), first_one_asks(ENDING) as interrupted:
        sweep()
        done = shrink_trial(
            stored,
            out=folder,
            server=choice,
            code=code,
            trust=trust,
            time_limit_s=time_limit,
            trials=trials,
            told=told,
            warn=show_warning,
            interrupted=interrupted,
        )
        for line in done.told():
            click.echo(line)
        click.echo(f"Read {folder / README}")
        return 130 if interrupted() else 0


def trial_folder(trial: str) -> Path:
    """Resolve a folder, or PROFILE:TRIAL below the latest run, before the link moves on to the replay itself."""
    from crashlab.results import trial_name
    from crashlab.trial.judged import trial_folders

    profile, colon, number = trial.rpartition(":")
    if colon and number.isdigit() and not Path(trial).exists():
        folder = BASE / "latest" / profile / trial_name(int(number))
        if not folder.is_dir():
            raise UsageProblem(
                f'unknown trial "{trial}"',
                detail=f'There is no "{folder}".',
                hint="Give a trial's folder, or PROFILE:TRIAL of the latest run.",
            )
    else:
        folder = Path(trial)
        if not folder.exists():
            raise UsageProblem(
                f'unknown trial "{trial}": there is no such folder',
                hint="Give a trial's folder, or PROFILE:TRIAL of the latest run, such as kill9-all:0; "
                "crashlab results lists them.",
            )
    found = trial_folders(folder.resolve())
    if len(found) > 1:
        raise UsageProblem(f'"{trial}" holds {len(found)} trials', hint=_which_one(found))
    return found[0]


def _which_one(folders: list[Path]) -> str:
    """Name the trial that shows most, by the verdicts that are there."""
    verdicts = []
    for folder in folders:
        with contextlib.suppress(EvidenceError):  # judge says what is damaged
            verdicts.append((folder, evidence.load_verdict(folder)))
    broken = [folder for folder, one in verdicts if one.promise is PromiseStatus.BROKEN]
    wrong = [folder for folder, one in verdicts if one.outcome not in (Outcome.INTACT, Outcome.INCONCLUSIVE)]
    if broken:
        return f'Choose one; the first with a broken promise is "{broken[0]}".'
    if wrong:
        return f'Choose one. None has a broken promise; the first that is not intact is "{wrong[0]}".'
    return f'Choose one, such as "{folders[0]}". None that was judged has a broken promise, or lost anything.'
