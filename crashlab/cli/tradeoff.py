"""How is it measured what settings cost, and tried what they risk?"""

import os
import platform
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab.cli.options import out_option, seed_option, workers_option
from crashlab.cli.out_folder import claimed, claimed_again
from crashlab.cli.questions import json_option
from crashlab.cli.reports import json_target_checked, write_json
from crashlab.cli.signals import signals_interrupt

if TYPE_CHECKING:
    from crashlab.report.tradeoff import Tradeoff
    from crashlab.server.base import Server
    from crashlab.tradeoff.blocks import Asked
    from crashlab.tradeoff.crashes import Crashes
    from crashlab.tradeoff.measure import Run
    from crashlab.tradeoff.plan import TradeoffPlan

CRASHES = "crashes"
"""The folder of the crash trials, a run like any other."""
PAGE, DATA = "tradeoff.html", "tradeoff.json"
FLUSH_SECONDS = 0.4


@click.command()
@click.argument("plan_name", metavar="[PLAN]", default="quick")
@click.option("--work", type=click.Path(path_type=Path), metavar="DIR", help="Data directory here. [default: --out]")
@click.option("--blocks", type=click.IntRange(min=3), metavar="N", help="Repeat everything so often. [the plan's]")
@click.option("--states", type=click.IntRange(min=0), metavar="N", help="Crash states a variation and kind of crash.")
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="OUT", help="Go on with what was cut short; no PLAN."
)
@click.option("--pg-bindir", type=click.Path(path_type=Path), metavar="DIR", help="The PostgreSQL build.")
@workers_option
@seed_option
@out_option
@json_option
@click.pass_context
def tradeoff(
    context: click.Context,
    plan_name: str,
    work: Path | None,
    blocks: int | None,
    states: int | None,
    resume: Path | None,
    pg_bindir: Path | None,
    workers: int | None,
    seed: int | None,
    out: Path | None,
    json_target: str | None,
) -> int:
    """Measure what settings cost, and try what they risk, side by side.

    PLAN is quick, wal-buffers, checkpoints, flush-methods, or a TOML file. Every variation is measured in every block,
    in random order, by pgbench; then crash states of a recording under it are judged. All of it stays in the folder,
    with a page to look at, tradeoff.html. Measure on a machine that does nothing else.
    """
    from crashlab.report.console import console
    from crashlab.seeds import new_seed
    from crashlab.tradeoff.plan import load_plan

    json_target_checked(json_target)
    if resume is not None:
        _refuse_with_resume(context)
        _require_resumable(resume)
        with claimed_again(resume), signals_interrupt():
            return _Tradeoff(resume, workers, json_target).go_on()
    plan = _changed(load_plan(plan_name), blocks, states)
    with claimed(out) as folder, signals_interrupt():
        session = _Tradeoff(folder, workers, json_target)
        seed = new_seed() if seed is None else seed
        console(stderr=json_target == "-").print(
            f"crashlab tradeoff, seed {seed}; evidence in {folder}", soft_wrap=True
        )
        return session.begin(plan, seed, work or folder, pg_bindir)


def _refuse_with_resume(context: click.Context) -> None:
    from click.core import ParameterSource

    for name in ("plan_name", "work", "blocks", "states", "pg_bindir", "seed", "out"):
        if context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT):
            said = "PLAN" if name == "plan_name" else f"--{name.replace('_', '-')}"
            raise click.UsageError(f"--resume goes on with what was asked for: leave out {said}")


def _require_resumable(folder: Path) -> None:
    from crashlab.errors import UsageProblem
    from crashlab.tradeoff.blocks import ASKED

    if not folder.is_dir():
        raise UsageProblem(f'cannot resume "{folder}": there is no such folder')
    if not os.path.lexists(folder / ASKED):
        raise UsageProblem(
            f'cannot resume "{folder}": it is not the folder of a crashlab tradeoff',
            detail=f"It has no {ASKED}.",
            hint=f"If it is that of a run: crashlab run --resume {shlex.quote(str(folder))}",
        )


def _changed(plan: "TradeoffPlan", blocks: int | None, states: int | None) -> "TradeoffPlan":
    import msgspec

    wanted = {"blocks": blocks, "states": states}
    return msgspec.structs.replace(plan, **{name: value for name, value in wanted.items() if value is not None})


@dataclass(frozen=True)
class _Tradeoff:
    """One command, in its folder."""

    folder: Path
    workers: int | None
    json_target: str | None

    def begin(self, plan: "TradeoffPlan", seed: int, work: Path, pg_bindir: Path | None) -> int:
        from crashlab.flush.cost import measure
        from crashlab.flush.place import opinion, place_of, usual
        from crashlab.tradeoff.blocks import Asked, save_asked

        with self._server(work, pg_bindir) as server:
            flushes = measure(work, seed, seconds=FLUSH_SECONDS)
            place = place_of(work)
            asked = Asked(
                plan=plan,
                seed=seed,
                work=str(work.resolve()),
                server=server.source,
                version=str(server.version),
                pgbench=str(_pgbench(server)),
                pg_bindir=None if pg_bindir is None else str(pg_bindir.resolve()),
                place=place,
                flushes=flushes,
                opinion=opinion(place, usual(flushes).quick_ms),
                machine=_machine(),
                when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            )
            save_asked(self.folder, asked)
            return self._all(server, asked)

    def go_on(self) -> int:
        from crashlab.tradeoff.blocks import load_asked

        asked = load_asked(self.folder)
        bindir = None if asked.pg_bindir is None else Path(asked.pg_bindir)
        with self._server(Path(asked.work), bindir) as server:
            return self._all(server, asked)

    @contextmanager
    def _server(self, work: Path, pg_bindir: Path | None) -> "Iterator[Server]":
        from crashlab.errors import Unreachable, UsageProblem
        from crashlab.server import ServerSpec, create_server
        from crashlab.server.leftovers import sweep

        if not work.is_dir():
            raise UsageProblem(f'cannot work in "{work}": it is no folder')
        sweep()
        try:
            server = create_server(ServerSpec(kind="local", pg_bindir=pg_bindir), work=work)
        except Unreachable as error:
            hint = f'Make every folder on the way to "{work}" searchable, or choose another one (--work).'
            raise Unreachable(error.primary, detail=error.detail, hint=hint) from error
        with server:
            yield server

    def _all(self, server: "Server", asked: "Asked") -> int:
        """Measure what is missing, crash what has not been crashed, and tell whatever there is by then."""
        from crashlab.report.console import console
        from crashlab.tradeoff.blocks import measure_all, runs_so_far
        from crashlab.tradeoff.measure import Bench

        progress = console(stderr=True)
        bench = Bench(server, Path(asked.pgbench), asked.plan.workload, asked.plan.seconds)

        def told(run: "Run", left: int) -> None:
            rate = f"{run.per_second:,.0f} a second"
            progress.print(f"block {run.block + 1}: {run.cell.told}: {rate}; {left} to go")

        crashed: list[Crashes] = []
        try:
            runs = measure_all(bench, asked, self.folder, told)
            server.dispose()
            crashed, code = self._crashes(asked)
            self._tell(asked, runs, crashed, finished=code in (0, 1))
            return code
        except BaseException:
            self._tell(asked, runs_so_far(self.folder), crashed, finished=False)
            raise

    def _crashes(self, asked: "Asked") -> "tuple[list[Crashes], int]":
        """Try what is missing of the crashes; return what all of them came to, and the exit code."""
        from crashlab.campaign import (
            Asked as AskedProfile,
        )
        from crashlab.campaign import (
            Plan,
            done_so_far,
            executor_for,
            run_campaign,
            save_plan,
            save_run,
        )
        from crashlab.cli.watch import Watch
        from crashlab.report.console import console
        from crashlab.report.summary import exit_code
        from crashlab.server import ServerChoice
        from crashlab.tradeoff.crashes import crashes, profiles

        if not asked.plan.states:
            return [], 0
        folder = self.folder / CRASHES
        folder.mkdir(exist_ok=True)
        plan = Plan(
            asked=[AskedProfile(profile=one, recording_of=maker) for one, maker in profiles(asked.plan)],
            seed=asked.seed,
            trials=asked.plan.states,
            server=ServerChoice(kind="local", pg_bindir=None if asked.pg_bindir is None else Path(asked.pg_bindir)),
            record_again=False,
        )
        earlier = done_so_far(folder)
        save_plan(folder, plan)
        before = {name: len(result.trials) for name, result in earlier.items()}
        with Watch(console(stderr=True), len(plan.asked) * asked.plan.states, before) as watch:
            done = run_campaign(plan.campaign(folder, earlier), executor_for(self.workers), watch.handle)
        save_run(folder, done, plan)
        if done.error is not None:
            raise done.error
        return crashes(asked.plan, done.profiles), exit_code(done)

    def _tell(self, asked: "Asked", runs: "list[Run]", crashed: "list[Crashes]", *, finished: bool) -> None:
        from crashlab import files
        from crashlab.report.tradeoff import Tradeoff, as_json, page

        words = ["crashlab", "tradeoff", asked.plan.name, "--seed", str(asked.seed), "--blocks", str(asked.plan.blocks)]
        words += ["--states", str(asked.plan.states)]
        words += ["--work", asked.work] if Path(asked.work) != self.folder.resolve() else []
        words += ["--pg-bindir", asked.pg_bindir] if asked.pg_bindir is not None else []
        resume = None if finished else shlex.join(["crashlab", "tradeoff", "--resume", str(self.folder)])
        told = Tradeoff.of(asked, runs, crashed, again=shlex.join(words), resume=resume)
        write_json(str(self.folder / DATA), as_json(told))
        files.write_whole(self.folder / PAGE, page(told))
        if self.json_target is not None:
            write_json(self.json_target, as_json(told))
        if self.json_target != "-":
            _print(told, self.folder)


def _print(told: "Tradeoff", folder: Path) -> None:
    from crashlab.report.console import console
    from crashlab.report.tradeoff import crash_table, heading, notes, summary_table, verdict, waits_lines

    out = console()
    for line in heading(told):
        out.print(line, soft_wrap=True)
    out.print(summary_table(told))
    crashed = crash_table(told)
    if crashed is not None:
        out.print(crashed)
    for line in (*waits_lines(told), *notes(told), verdict(told), f"The chart: {folder / PAGE}"):
        out.print(line, soft_wrap=True)


def _pgbench(server: "Server") -> Path:
    from crashlab.server.builds import find_builds
    from crashlab.tradeoff.measure import PROGRAM, find_pgbench

    on_path = shutil.which(PROGRAM)
    places = [Path(server.source), *(build.bindir for build in find_builds())]
    return find_pgbench([*places, *([Path(on_path).parent] if on_path else [])])


def _machine() -> str:
    processors, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    busy = f", BUSY with other work: load average {load:.1f} before" if load > processors / 2 else ""
    return f"{platform.system()} {platform.release()}, {platform.machine()}, {processors} processors{busy}"
