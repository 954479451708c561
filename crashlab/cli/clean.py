"""How does what dead runs left go away?

Choices:
    Shown first, removed only with --yes. What cannot be removed is named with the reason, and the exit code is 4.
    What a living run has made is never shown, and never touched.
"""

import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from crashlab.errors import CrashlabError, ServerError

if TYPE_CHECKING:
    from crashlab.server.leftcontainers import LeftInEngine
    from crashlab.server.leftovers import Leftover, Problems
    from crashlab.server.owner import Owner

COULD_NOT = 4
ORPHANS_TIMEOUT_S = 30.0


@click.command()
@click.option("--yes", is_flag=True, help="Remove it; otherwise it is only shown.")
@click.option("--cache", is_flag=True, help="Show, or remove, what is kept to be faster the next time, too.")
def clean(*, yes: bool, cache: bool) -> int:
    """Show what dead runs left on this machine and in Docker, and with --yes remove it."""
    problems = _leftovers(yes=yes)
    if cache:
        problems += _caches(yes=yes)
    for what, why in problems:
        click.echo(f"Could not remove {what}: {why}", err=True)
    return COULD_NOT if problems else 0


def _leftovers(*, yes: bool) -> "Problems":
    from crashlab.server.deadruns import await_orphans, dead_runs, runs_of_folders
    from crashlab.server.leftovers import find, remove, try_to_remove

    with contextlib.ExitStack() as stack:
        await_orphans(ORPHANS_TIMEOUT_S)
        in_engine = _in_engine(stack)
        runs = dead_runs()
        runs += [run for run in runs_of_folders() if not any(run.owner.same(other.owner) for other in runs)]
        found: list[tuple[Owner, Sequence[Leftover]]] = []
        for run in runs:
            of_run = [one for one in in_engine if one.owner.same(run.owner)]
            found.append((run.owner, [*of_run, *find(run)]))
        others = [one for one in in_engine if not any(one.owner.same(run.owner) for run in runs)]
        found += [(one.owner, [one]) for one in others]
        _show(found)
        if not yes:
            if any(left for _, left in found):
                click.echo("Remove it with: crashlab clean --yes")
            return []
        problems = [problem for one in in_engine for problem in try_to_remove(one)]
        for run in runs:
            problems += remove(run, patient=True)
        return problems


def _in_engine(stack: contextlib.ExitStack) -> list["LeftInEngine"]:
    from crashlab.server.leftcontainers import engine, find_in_engine

    try:
        return find_in_engine(stack.enter_context(engine()))
    except ServerError as error:
        click.echo(f"Not looked for containers: {error.primary}.")
        return []


def _show(found: "Iterable[tuple[Owner, Sequence[Leftover]]]") -> None:
    lines = []
    for owner, left in found:
        if not left:
            continue
        begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.started_s))
        lines.append(f"Process {owner.pid}, dead; it began {begun}: {owner.command}")
        lines += [f"  {one.kind:<14} {size_text(one.size_bytes()):>9}  {one.text()}" for one in left]
    click.echo("\n".join(lines) or "Nothing is left of dead runs.")


def _caches(*, yes: bool) -> "Problems":
    from crashlab.server.caches import find_caches

    found = find_caches()
    problems: Problems = []
    for one in found:
        told = "  in use" if one.used else ""
        try:
            if yes and not one.used and not one.remove():
                told = "  in use"
        except CrashlabError as error:
            problems.append((str(one.path), error.primary))
        click.echo(f"  {one.kind:<14} {size_text(one.size_bytes):>9}  {one.path}{told}")
    total = sum(one.size_bytes for one in found)
    click.echo(f"The cache {'was' if yes else 'is'} {size_text(total)} large." if found else "The cache is empty.")
    return problems


def size_text(size_bytes: int | None) -> str:
    """Write a size for people; "-" where there is none."""
    if size_bytes is None:
        return "-"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"
