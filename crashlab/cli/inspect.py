"""What do the commands say that start no server: profiles, validate, explain, doctor?"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab.cli.options import ProfileName
from crashlab.cli.reports import show_error
from crashlab.errors import CrashlabError, ProfileError, UsageProblem, did_you_mean

if TYPE_CHECKING:
    from crashlab.profile import Profile
    from crashlab.server.builds import Build


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
@click.option(
    "--pg-bindir", type=click.Path(path_type=Path), metavar="DIR", help="Ask this build about the settings, too."
)
def validate(files: Sequence[str], overrides: Sequence[str], pg_bindir: Path | None) -> int:
    """Check profiles, by name or file, and report all mistakes at once.

    Values of settings are held against what PostgreSQL 14 to 18 take, and against a build of this machine: what only
    the one that is found here refuses is a note, unless it is a misspelt name; what the one of --pg-bindir refuses is a
    mistake.
    """
    from crashlab.profile import expand

    build = _build_to_ask(pg_bindir)

    code = 0
    for file in files:
        try:
            found = expand(file, overrides)
        except ProfileError as error:
            show_error(error)
            code = error.exit_code
            continue
        notes, mistakes = _settings(found, build)
        if pg_bindir is not None:
            notes, mistakes = [], mistakes + notes
        if mistakes:
            show_error(ProfileError(f'cannot use profile "{file}"', detail="\n".join(dict.fromkeys(mistakes))))
            code = ProfileError.exit_code
            continue
        click.echo(f"{file}: valid")
        for note in dict.fromkeys(notes):
            click.echo(f"{file}: note: {note}")
        for profile in found:
            if not profile.faults and profile.power_loss is None:
                click.echo(f"{file}: note: no fault, so every trial will be inconclusive")
    return code


def _build_to_ask(pg_bindir: Path | None) -> "Build | None":
    """Return the build that is named, or else the first one here that can be asked; None: there is none."""
    from crashlab.server.asksettings import refusal
    from crashlab.server.builds import find_build

    if pg_bindir is not None:
        return find_build(pg_bindir)
    with contextlib.suppress(CrashlabError):
        build = find_build()
        if build is not None and refusal(build, "fsync", "on") is None:
            return build
    return None


def _settings(profiles: "Sequence[Profile]", build: "Build | None") -> tuple[list[str], list[str]]:
    """Return what a build says about the settings of profiles, and what no server takes."""
    from crashlab.server.asksettings import refusal
    from crashlab.server.settingstable import meant, wrong_with
    from crashlab.trial.beforehand import given_settings
    from crashlab.trial.vary import SEGMENT

    notes: list[str] = []
    mistakes: list[str] = []
    for place, name, value in dict.fromkeys(item for profile in profiles for item in given_settings(profile)):
        said = wrong_with(name, value)
        if said is not None:
            mistakes.append(f"{place}.{name}: {said}")
        elif name != SEGMENT and build is not None and (said := refusal(build, name, value)) is not None:
            near = meant(name)
            text = f"{place}.{name}: PostgreSQL {build.version.text} in {build.bindir} says: {said}"
            (mistakes if near else notes).append(f"{text}. {near}" if near else text)
    return notes, mistakes


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
