"""Which options do several commands share, and how are their values checked and completed?"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from crashlab.cli.out_folder import BASE
from crashlab.server import SERVER_KINDS, ServerChoice
from crashlab.server.kinds import AUTO


class ProfileName(click.ParamType[str]):
    """A profile's name or path."""

    name = "profile"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the profiles that can be named."""
        from crashlab.profile import list_profiles

        return [CompletionItem(name) for name in list_profiles() if name.startswith(incomplete)]


class Duration(click.ParamType[float]):
    """A time with a unit; held in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Turn "2m" into 120.0."""
        from crashlab.duration import parse_ms

        if isinstance(value, float):
            return value
        try:
            return parse_ms(str(value)) / 1000
        except ValueError as error:
            self.fail(str(error), param, ctx)


SERVER_OPTIONS = (
    click.option(
        "--server",
        type=click.Choice([AUTO, *SERVER_KINDS]),
        default=AUTO,
        show_default=True,
        help="Where PostgreSQL runs.",
    ),
    *(
        click.option(
            kind.option,
            metavar=kind.metavar,
            type=click.Path(path_type=Path) if kind.field_type is Path else kind.field_type,
            help=kind.option_help,
        )
        for kind in reversed(SERVER_KINDS.values())
    ),
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), metavar="S", help="Root seed. [default: random, printed]"
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a profile key or a setting."
)
fail_fast_option = click.option("-x", "--fail-fast", is_flag=True, help="Stop at the first broken promise.")
out_option = click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help=f"Evidence folder. [default: {BASE}/TIME]"
)
keep_option = click.option(
    "--keep",
    type=click.Choice(["failed", "all", "none"]),
    default="failed",
    show_default=True,
    help="Which trials' data directories stay, and recordings.",
)

REPORT_OPTIONS = (
    click.option("--json", "json_target", metavar="FILE|-", help="Write the JSON report; - is stdout."),
    click.option("--junit-xml", "junit_target", metavar="FILE", help="Write a JUnit XML report."),
    click.option("--html", "html_target", metavar="FILE", help="Write the report as one HTML page."),
    click.option("-q", "--quiet", is_flag=True, help="Only the table, and one line for each finding."),
    click.option("-v", "--verbose", is_flag=True, help="With the timeline of each finding."),
)


@dataclass(frozen=True)
class Telling:
    """Where and at what length results are to be told."""

    json_target: str | None = None
    junit_target: str | None = None
    html_target: str | None = None
    quiet: bool = False
    verbose: bool = False

    def files(self) -> list[tuple[str, str]]:
        """Return each option that names a file, with the name."""
        named = (("--json", self.json_target), ("--junit-xml", self.junit_target), ("--html", self.html_target))
        return [(option, target) for option, target in named if target and (option, target) != ("--json", "-")]


def report_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of all reports; it is called with all of them as one argument, `telling`."""

    @functools.wraps(command)
    def told(
        *,
        json_target: str | None,
        junit_target: str | None,
        html_target: str | None,
        quiet: bool,
        verbose: bool,
        **others: Any,
    ) -> int:
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose exclude each other")
        telling = Telling(json_target, junit_target, html_target, quiet, verbose)
        return command(telling=telling, **others)

    for option in reversed(REPORT_OPTIONS):
        told = option(told)
    return told


def server_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that choose a server; it is called with the choice as one argument, `choice`."""

    @functools.wraps(command)
    def chosen(*, server: str, **others: Any) -> int:
        fields = {kind.field: others.pop(kind.field) for kind in SERVER_KINDS.values()}
        return command(choice=_server_choice(server, fields), **others)

    for option in reversed(SERVER_OPTIONS):
        chosen = option(chosen)
    return chosen


def _server_choice(server: str, fields: dict[str, Any]) -> ServerChoice:
    """Return the server that the options ask for. Raises click.UsageError: they contradict each other."""
    given = [kind for kind in SERVER_KINDS.values() if fields[kind.field]]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(kind.option for kind in reversed(given))} exclude each other")
    if given and server not in (AUTO, given[0].name):
        raise click.UsageError(f"{given[0].option} needs --server {given[0].name}")
    return ServerChoice(kind=given[0].name if given else server, **fields)
