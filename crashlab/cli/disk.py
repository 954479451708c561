"""What does a flush cost at a place, and does it keep what it says across a real power cut?"""

import contextlib
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crashlab.cli.options import Duration, seed_option
from crashlab.cli.questions import json_option
from crashlab.cli.reports import json_target_checked, write_json

if TYPE_CHECKING:
    from crashlab.flush.cost import FlushCost
    from crashlab.flush.place import Opinion, Place
    from crashlab.flush.powercut import Held

METHODS = ("open_datasync", "fdatasync", "fsync", "open_sync", "none")
"""Those of flush.cost.METHODS; a test compares them."""
SHOWN_MAX = 5


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="PATH")
@click.option("--seconds", type=Duration(), metavar="TIME", help="For each method, or for --client. [1s; no end]")
@click.option("--listen", metavar="HOST:PORT", help="Keep the ledger here, in folder PATH, for another machine.")
@click.option("--client", metavar="HOST:PORT", help="Write and flush below PATH until the power is cut.")
@click.option("--verify", metavar="HOST:PORT", help="After the cut: hold PATH against the ledger there.")
@click.option("--disk-alone", is_flag=True, help="Only the disk was cut off: this machine ran on. With --verify.")
@click.option(
    "--method", type=click.Choice(METHODS), default="fdatasync", show_default=True, help="How --client flushes."
)
@click.option("--pages", type=click.IntRange(1, 1 << 20), default=1024, show_default=True, help="Of the client's file.")
@seed_option
@json_option
def disk(
    path: Path,
    seconds: float | None,
    listen: str | None,
    client: str | None,
    verify: str | None,
    disk_alone: bool,
    method: str,
    pages: int,
    seed: int | None,
    json_target: str | None,
) -> int:
    """Say what a flush costs in folder PATH, and whether it can have reached a medium that fast.

    Three more steps show it for certain, with a second machine and a hand on the plug: --listen there, --client here,
    pull the plug, and --verify after the restart. The exit code of --verify is 0 if every flushed page is there, 1 if
    not, and 3 if it shows nothing.
    """
    from crashlab.errors import UsageProblem
    from crashlab.seeds import new_seed

    asked = [option for option in (listen, client, verify) if option is not None]
    if len(asked) > 1:
        raise click.UsageError("--listen, --client and --verify exclude each other")
    if disk_alone and verify is None:
        raise click.UsageError("--disk-alone needs --verify")
    if listen is not None:
        return _listen(path, listen)
    if not path.is_dir():
        raise UsageProblem(f'cannot examine "{path}": it is no folder')
    json_target_checked(json_target)
    if verify is not None:
        return _verify(path, verify, json_target, disk_alone=disk_alone)
    seed = new_seed() if seed is None else seed
    if client is not None:
        return _client(path, client, seed, pages, method, seconds)
    return _measure(path, seed, seconds or 1.0, json_target)


def _measure(path: Path, seed: int, seconds: float, json_target: str | None) -> int:
    from crashlab.flush.cost import measure
    from crashlab.flush.place import opinion, place_of, usual

    place = place_of(path)
    costs = measure(path, seed, seconds=seconds)
    found = opinion(place, usual(costs).quick_ms)
    if json_target is not None:
        write_json(json_target, _as_json(place, costs, found, seed))
    if json_target != "-":
        _print_costs(place, costs, found, seed)
    return 0


def _as_json(place: "Place", costs: "list[FlushCost]", found: "Opinion", seed: int) -> dict[str, Any]:
    told = [{**asdict(cost), "per_second": cost.per_second} for cost in costs]
    return {"schema": 1, "seed": seed, "place": asdict(place), "methods": told, "opinion": asdict(found)}


def _print_costs(place: "Place", costs: "list[FlushCost]", found: "Opinion", seed: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from crashlab.flush.cost import NONE, PAGE_BYTES, UNAVAILABLE
    from crashlab.flush.place import milliseconds
    from crashlab.report.console import console

    out = console()
    out.print(f"{place.path}: {place.described}", soft_wrap=True)
    table = Table("method", "median", "95 % interval", "1 in 20 below", "99 %", "a second", box=SIMPLE_HEAD)
    for cost in costs:
        name = "no flush" if cost.method == NONE else cost.method
        interval = f"{milliseconds(cost.low_ms)} to {milliseconds(cost.high_ms)}"
        quick, p99 = milliseconds(cost.quick_ms), milliseconds(cost.p99_ms)
        table.add_row(name, milliseconds(cost.median_ms), interval, quick, p99, f"{cost.per_second:,.0f}")
    for name, why in UNAVAILABLE.items():
        table.add_row(name, "-", why, "-", "-", "-")
    out.print(table)
    out.print(f"A page of {PAGE_BYTES} bytes written over and made durable; seed {seed}.", soft_wrap=True)
    out.print(f"{found.plausible}: {found.says}", soft_wrap=True)
    for limit in found.limits:
        out.print(f"  but {limit}", soft_wrap=True)
    out.print("Certainty needs a power cut: crashlab disk --help", soft_wrap=True)


def _listen(folder: Path, address: str) -> int:
    from crashlab.cli.signals import signals_interrupt
    from crashlab.flush.ledgerserver import Ledger, LedgerServer, address_of

    ledger = Ledger(folder)
    with LedgerServer(address_of(address), ledger) as server, signals_interrupt():
        host, port = server.server_address[:2]
        click.echo(f"keeping the ledger {ledger.path} on {host!s}:{port}; Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ledger.close()
    run = ledger.run
    click.echo("no run" if run is None else f"last run: {run.flushed} flushed pages, by {run.begun.method}")
    return 0


def _client(path: Path, address: str, seed: int, pages: int, method: str, seconds: float | None) -> int:
    from crashlab.flush.ledgerserver import Begin, Flushed, LedgerClient, address_of, boot_id
    from crashlab.flush.powercut import write_pages

    end = None if seconds is None else time.monotonic() + seconds
    with LedgerClient(address_of(address)) as ledger:

        def begin() -> None:
            ledger.ask(Begin(seed=seed, pages=pages, method=method, boot=boot_id()))
            click.echo(f"writing below {path}, each page flushed by {method} and then noted; seed {seed}")
            click.echo("Cut the power now. After the restart: crashlab disk PATH --verify HOST:PORT")

        def noted(number: int) -> bool:
            ledger.ask(Flushed(number))
            return end is None or time.monotonic() < end

        done = write_pages(path, seed, pages, method, begin, noted)
    click.echo(f"{done} flushed pages are in the ledger, and nobody cut the power")
    return 0


def _verify(path: Path, address: str, json_target: str | None, *, disk_alone: bool) -> int:
    from crashlab.errors import EvidenceError
    from crashlab.flush.ledgerserver import Last, LedgerClient, address_of, boot_id
    from crashlab.flush.powercut import hold_against

    with LedgerClient(address_of(address)) as ledger:
        run = ledger.ask(Last()).run
    if run is None:
        raise EvidenceError("the ledger has no run", hint="Write first: crashlab disk PATH --client HOST:PORT")
    begun = run.begun
    held = hold_against(path, begun.seed, begun.pages, run.flushed)
    cut = disk_alone or begun.boot != boot_id()
    code, says = _said_of(held, begun.method, cut=cut)
    if json_target is not None:
        write_json(json_target, {"schema": 1, "code": code, "says": says, "method": begun.method, **asdict(held)})
    if json_target != "-":
        click.echo(says)
        for wrong in held.wrong[:SHOWN_MAX]:
            found = ", ".join("damaged" if number is None else str(number) for number in wrong.found)
            click.echo(f"  page {wrong.page}: flushed by write {wrong.flushed}; its sectors are of {found}")
        if len(held.wrong) > SHOWN_MAX:
            click.echo(f"  and {len(held.wrong) - SHOWN_MAX} pages more")
    return code


def _said_of(held: "Held", method: str, *, cut: bool) -> tuple[int, str]:
    """Return the exit code, and what the comparison comes to."""
    if held.wrong:
        damaged = sum(wrong.damaged for wrong in held.wrong)
        lost = len(held.wrong) - damaged
        told = f"{lost} pages are older than flushed" + (f", {damaged} are damaged" if damaged else "")
        return 1, f"NOT KEPT: of {held.flushed} flushed writes by {method} to {held.written} pages, {told}"
    if not held.flushed:
        return 3, "inconclusive: the ledger has no flushed page"
    if not cut:
        return 3, (
            "inconclusive: this machine has not been restarted since, so nothing was cut;"
            " with --disk-alone if it was the disk alone"
        )
    under_way = f"; the one under way is {held.under_way}" if held.under_way else ""
    return 0, f"kept: all {held.flushed} flushed writes by {method} to {held.written} pages are there{under_way}"
