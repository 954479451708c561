"""Which options do several commands share, and how are their values checked and completed?"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from crashlab.cli.out_folder import BASE
from crashlab.report.formats import FORMATS, STDOUT, Format
from crashlab.server import SERVER_KINDS, ServerChoice
from crashlab.server.kinds import AUTO

if TYPE_CHECKING:
    from crashlab.confidence import Until


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
            seconds = parse_ms(str(value)) / 1000
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not seconds:
            self.fail("no time at all", param, ctx)
        return seconds


class UntilRule(click.ParamType["Until"]):
    """A rule that ends a run, such as 99%<0.5%."""

    name = "rule"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Until":
        """Read it."""
        from crashlab.confidence import Until

        try:
            return value if isinstance(value, Until) else Until.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class FindingCode(click.ParamType[str]):
    """The code of a finding, in any case."""

    name = "code"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Look it up."""
        from crashlab.errors import did_you_mean
        from crashlab.oracle.codes import CODES

        code = str(value).upper()
        if code not in CODES:
            near = f" {near}" if (near := did_you_mean(code, CODES)) else ""
            self.fail(f'there is no finding "{value}".{near} crashlab explain lists all codes', param, ctx)
        return code

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer all of them."""
        from crashlab.oracle.codes import CODES

        return [CompletionItem(code) for code in CODES if code.startswith(incomplete.upper())]


class Workers(click.ParamType[int]):
    """A number of worker processes; "auto" is None: one a processor."""

    name = "workers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:  # type: ignore[override]
        """Turn "auto" into None."""
        if value == "auto" or isinstance(value, int):
            return None if value == "auto" else value
        if not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is neither a number from 1 on nor auto", param, ctx)
        return int(value)


workers_option = click.option(
    "-j",
    "--jobs",
    "workers",
    type=Workers(),
    default="auto",
    show_default=True,
    metavar="N|auto",
    help="Worker processes; auto is one a processor.",
)
scheduler_option = click.option(
    "--scheduler", metavar="ADDRESS", help="Have a dask cluster do it: its scheduler, such as tcp://10.0.0.1:8786."
)
DEFAULT_TRIAL_TIMEOUT_S = 120.0
trial_timeout_option = click.option(
    "--trial-timeout",
    type=Duration(),
    default=DEFAULT_TRIAL_TIMEOUT_S,
    show_default="2m",
    help="Give up a trial after this time; it is inconclusive then.",
)
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
recover_with_option = click.option(
    "--recover-with",
    metavar="DIR|IMAGE",
    help="Another release of the same major version recovers: its programs' folder, or an image.",
)
afterlife_option = click.option(
    "--afterlife/--no-afterlife",
    default=None,
    help="Use, restart and crash again all recovered servers, or none. [default: all live ones, 1/8 of recorded ones]",
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

trust_option = click.option(
    "--trust", is_flag=True, help="Run the very server that the evidence names, whatever it is."
)

FORMAT_OPTIONS = tuple(
    click.option(form.option, form.parameter, metavar=form.metavar, help=form.help) for form in FORMATS
)


def with_afterlife(overrides: tuple[str, ...], afterlife: bool | None) -> tuple[str, ...]:
    """Return what --set changes, with what --afterlife does."""
    return overrides if afterlife is None else (*overrides, f"afterlife={float(afterlife)}")


REPORT_OPTIONS = (
    *FORMAT_OPTIONS,
    click.option("-q", "--quiet", is_flag=True, help="Only the table, and one line for each finding."),
    click.option("-v", "--verbose", is_flag=True, help="With the timeline of each finding, and trials drawn."),
)


@dataclass(frozen=True)
class Telling:
    """Where and at what length results are to be told."""

    targets: Mapping[Format, str] = field(default_factory=dict)  # files; or STDOUT, instead of the console's report
    quiet: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        """Raise click.UsageError: two reports are to be on stdout."""
        wanted = [form for form, target in self.targets.items() if form.to_stdout and target == STDOUT]
        if len(wanted) > 1:
            both = " and ".join(f"{form.option} {STDOUT}" for form in wanted)
            raise click.UsageError(f"{both} exclude each other: stdout takes one report")

    @property
    def on_stdout(self) -> Format | None:
        """What is to be on stdout and nothing else; None: the console's report."""
        return next((form for form, target in self.targets.items() if form.to_stdout and target == STDOUT), None)

    def files(self) -> list[tuple[Format, Path]]:
        """Return each form that goes into a file, with the file."""
        return [(form, Path(target)) for form, target in self.targets.items() if form is not self.on_stdout]


def report_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of all reports; it is called with all of them as one argument, `telling`."""

    @functools.wraps(command)
    def told(*, quiet: bool, verbose: bool, **others: Any) -> int:
        targets = {form: others.pop(form.parameter) for form in FORMATS}
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose exclude each other")
        given = {form: target for form, target in targets.items() if target}
        return command(telling=Telling(given, quiet, verbose), **others)

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
