"""How is the release found in which a verdict changes?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab.cli.options import FindingCode, ProfileName, out_option, seed_option, set_option, workers_option
from crashlab.cli.out_folder import claimed
from crashlab.cli.signals import answer_interrupts, signals_interrupt
from crashlab.errors import UsageProblem
from crashlab.server import ServerChoice
from crashlab.server.kinds import LocalKind

if TYPE_CHECKING:
    from crashlab.campaign.bisect import Release, Tried
    from crashlab.profile import Profile

DEFAULT_TRIALS = 100


@click.command()
@click.argument("profile", type=ProfileName())
@click.option("--versions", required=True, metavar="A..B", help="From which release to which, such as 15.3..15.18.")
@click.option(
    "--builds",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Holds the releases, each with its programs in VERSION/bin.",
)
@click.option(
    "--code",
    type=FindingCode(),
    metavar="CODE",
    help="The finding that makes a release guilty. [default: any broken promise]",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=DEFAULT_TRIALS,
    show_default=True,
    metavar="N",
    help="Trials of a release before it counts as innocent.",
)
@seed_option
@set_option
@workers_option
@out_option
def bisect(
    profile: str,
    versions: str,
    builds: Path,
    code: str | None,
    trials: int,
    seed: int | None,
    overrides: tuple[str, ...],
    workers: int | None,
    out: Path | None,
) -> int:
    """Find the first release of PostgreSQL in which PROFILE comes to another verdict.

    The first and the last release of the range are tried, then the one in the middle, and so on. Exit code 3 if one
    of these is neither guilty nor innocent: some trials could not be judged, or none could show what is looked for.
    """
    from crashlab.campaign.bisect import bisect as search
    from crashlab.campaign.bisect import releases_between, trial_of
    from crashlab.profile import load_profile
    from crashlab.seeds import new_seed
    from crashlab.server.leftovers import sweep
    from crashlab.trial.beforehand import refuse_settings

    wanted = load_profile(profile, overrides)
    if wanted.tour:
        raise click.UsageError(f"{profile} is a tour: choose one of its profiles")
    _refuse_other_servers(wanted)
    releases = releases_between(builds, versions)
    answer_interrupts()
    for release in releases:
        refuse_settings([wanted], ServerChoice(kind="local", pg_bindir=release.bindir))
    root = new_seed() if seed is None else seed
    click.echo(f"{wanted.name}, seed {root}: {', '.join(release.version.text for release in releases)}")
    with claimed(out) as folder, signals_interrupt():
        sweep()
        run = trial_of(wanted, code=code, trials=trials, seed=root, out=folder, workers=workers)

        def tell(release: "Release") -> "Tried":
            tried = run(release)
            click.echo(f"  {_line(tried, code)}")
            return tried

        found = search(releases, tell)
    if found.undecided is not None:
        click.echo(f"Inconclusive: {_why_undecided(found.undecided)}.")
        return 3
    if found.first is None:
        same = "guilty" if found.tried[0].guilty else "innocent in so many trials"
        click.echo(f"No change: the first and the last are both {same}.")
        return 0
    other = next(tried for tried in found.tried if tried.release == found.first)
    word = "guilty" if other.guilty else "innocent"
    click.echo(f"PostgreSQL {found.first.version.text} is the first of these that is {word}.")
    return 0


def _refuse_other_servers(profile: "Profile") -> None:
    """Raise UsageProblem: the profile has no use for the builds of a folder."""
    if LocalKind.name not in profile.server.kinds:
        raise UsageProblem(
            f'cannot bisect profile "{profile.name}": it cannot run on a {LocalKind.name} server',
            detail=f"It needs {' or '.join(profile.server.kinds)}; releases of a folder are {LocalKind.name} servers.",
            hint="Run it with each release: crashlab run --image IMAGE.",
        )


def _line(tried: "Tried", code: str | None) -> str:
    from crashlab.report.summary import counted

    version = tried.release.version.text
    if tried.guilty:
        return f"{version}  guilty in {counted(tried.trials)}: {', '.join(tried.codes)}"
    found = f"no {code or 'broken promise'} in {counted(tried.telling)}"
    others = tried.trials - tried.telling
    more = f"; {others} more could not show it" if others else ""
    return f"{version}  {'undecided' if tried.undecided else 'innocent'}: {found}{more}"


def _why_undecided(tried: "Tried") -> str:
    if tried.judged < tried.wanted:
        return f"of {tried.wanted} trials of {tried.release.version.text}, {tried.judged} could be judged"
    if tried.void:
        return "nothing is promised here; name a finding with --code"
    return f"every server of {tried.release.version.text} had shut down before it could crash"
