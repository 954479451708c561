"""What do the commands say that start no server: profiles, validate, explain, doctor?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from crashlab.cli.options import ProfileName
from crashlab.cli.reports import show_error
from crashlab.errors import ProfileError, UsageProblem, did_you_mean

if TYPE_CHECKING:
    from crashlab.profile import Profile


@click.command()
@click.argument("name", required=False, type=ProfileName(), metavar="[PROFILE]")
def profiles(name: str | None) -> None:
    """List the profiles, or print one, to make your own from it."""
    from crashlab.profile import find_profile, list_profiles, load_profile

    if name is not None:
        click.echo(find_profile(name).read_text(encoding="utf-8"), nl=False)
        return
    known = list_profiles()
    width = max((len(one) for one in known), default=0)
    for one, path in known.items():
        try:
            click.echo(f"{one:<{width}}  {_described(load_profile(one))}")
        except ProfileError as error:
            click.echo(f"{one:<{width}}  has mistakes: crashlab validate {path} ({error.primary})")


def _described(profile: "Profile") -> str:
    if profile.tour:
        return profile.description
    where = "" if len(profile.server.kinds) > 1 else f"; {profile.server.kinds[0]} only"
    expected = " or ".join(profile.expect.outcomes)
    return f"{profile.description} (expected: {expected}, promise {' or '.join(profile.expect.promise)}{where})"


@click.command()
@click.argument("files", nargs=-1, required=True, type=ProfileName(), metavar="PROFILE...")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Check it with this change.")
def validate(files: Sequence[str], overrides: Sequence[str]) -> int:
    """Check profiles, by name or file, and report all mistakes at once."""
    from crashlab.profile import expand

    code = 0
    for file in files:
        try:
            found = expand(file, overrides)
        except ProfileError as error:
            show_error(error)
            code = error.exit_code
            continue
        click.echo(f"{file}: valid")
        for profile in found:
            if not profile.faults and profile.power_loss is None:
                click.echo(f"{file}: note: no fault, so every trial will be inconclusive")
    return code


@click.command()
@click.argument("code", required=False)
def explain(code: str | None) -> None:
    """Explain a finding's CODE, or list all codes."""
    from crashlab.oracle.codes import CODES

    if code is None:
        width = max(len(name) for name in CODES)
        for name, entry in CODES.items():
            click.echo(f"{name:<{width}}  {entry.title}")
        return
    if code.upper() not in CODES:
        near = did_you_mean(code.upper(), CODES)
        raise UsageProblem(
            f'unknown finding code "{code}"', hint=f"{near + ' ' if near else ''}crashlab explain lists all codes."
        )
    entry = CODES[code.upper()]
    click.echo(f"{entry.code}: {entry.title}\nFamily: {entry.family}\nSeverity: {entry.severity}")
    click.echo(click.wrap_text(f"Contract: {entry.permitted}", width=100, subsequent_indent="  "))
    meaning = f"{entry.explanation} {entry.like}".rstrip()
    click.echo(f"\n{click.wrap_text(meaning, width=100)}")
    click.echo(f"\n{click.wrap_text(f'What helps: {entry.remedy}', width=100)}")
    click.echo(f"\nManual: https://www.postgresql.org/docs/current/{entry.manual}")


@click.command()
def doctor() -> int:
    """Say what this machine can run, and how to get what it cannot."""
    from crashlab.doctor import examine

    report = examine()
    for check in report:
        mark = "ok  " if check.ok else "no  "
        click.echo(f"{mark} {check.name}: {check.says}")
        if check.hint:
            click.echo(f"       {check.hint}")
    able = any(check.ok and check.runs_servers for check in report)
    click.echo("crashlab can run here." if able else "crashlab cannot run any server here.")
    return 0 if able else 4
