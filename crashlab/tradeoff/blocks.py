"""In which order are the cells measured, and what of it is there already?

Choices:
    A block has every cell once, in an order drawn for it: whatever grows or shrinks in the course of a block (a busy
    neighbour, a disk that fills its cache) hits each cell as likely as any other, and cells are compared within blocks.
    Each run is on disk as soon as it is measured, a line of `runs.jsonl`: nothing but the run under way is lost to
    Ctrl-C, and what is there is not measured again.
    The first run of each process is thrown away: the disk, its caches and the WAL's files are not yet as later.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from crashlab import evidence, sealed
from crashlab.errors import EvidenceError
from crashlab.flush.cost import FlushCost
from crashlab.flush.place import Opinion, Place
from crashlab.seeds import derive, stream
from crashlab.tradeoff.measure import Bench, Run
from crashlab.tradeoff.plan import Cell, TradeoffPlan

RUNS = "runs.jsonl"
ASKED = "tradeoff-plan.json"
SCHEMA = 1


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and where it runs: enough to go on, and to tell the figures later."""

    schema: int = SCHEMA
    plan: TradeoffPlan
    seed: int
    work: str  # folder of the data directory
    server: str  # bin directory
    version: str
    pgbench: str
    pg_bindir: str | None  # as asked for
    place: Place
    flushes: list[FlushCost]
    opinion: Opinion
    machine: str
    when: str  # UTC


def save_asked(folder: Path, asked: Asked) -> None:
    """Write it, before anything is measured. Raises EvidenceError: the folder cannot be written."""
    evidence.save(folder, ASKED, asked)


def load_asked(folder: Path) -> Asked:
    """Read it. Raises EvidenceError: there is none, or it is damaged."""
    return evidence.load(folder / ASKED, Asked)


def runs_so_far(folder: Path) -> list[Run]:
    """Return what was measured. A last line that was cut off is no run. Raises EvidenceError: damaged."""
    path = folder / RUNS
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    try:
        return [msgspec.json.decode(line, type=Run) for line in lines[:-1]]
    except (*sealed.PROBLEMS, ValueError) as error:
        raise EvidenceError(f'damaged evidence "{path}": {error}') from error


def orders(plan: TradeoffPlan, seed: int) -> Iterator[tuple[int, int, Cell]]:
    """Yield block, place in its order, and cell, for all that is to be measured."""
    for block in range(plan.blocks):
        cells = list(plan.cells())
        stream(seed, "block", block).shuffle(cells)
        for order, cell in enumerate(cells):
            yield block, order, cell


def measure_all(bench: Bench, asked: Asked, folder: Path, told: Callable[[Run, int], None]) -> list[Run]:
    """Measure all that is missing, and return everything.

    Args:
        told: is called with each run and the number of those that are still to come.

    Raises:
        ServerError: as `Bench.run`; EvidenceError: the folder cannot be written.
    """
    plan, done = asked.plan, runs_so_far(folder)
    there = {(run.block, run.cell) for run in done}
    missing = [(block, order, cell) for block, order, cell in orders(plan, asked.seed) if (block, cell) not in there]
    if not missing:
        return done
    _, _, first = missing[0]
    bench.run(first, plan.settings_of(first.variation), block=-1, order=-1, seed=derive(asked.seed, "first"))
    _end_whole(folder / RUNS)
    with (folder / RUNS).open("ab", buffering=0) as file:
        for left, (block, order, cell) in zip(range(len(missing) - 1, -1, -1), missing, strict=True):
            seed = derive(asked.seed, "pgbench", block)  # one for all cells of a block: the same rows are asked for
            run = bench.run(cell, plan.settings_of(cell.variation), block=block, order=order, seed=seed % (1 << 31))
            file.write(msgspec.json.encode(run) + b"\n")
            done.append(run)
            told(run, left)
    return done


def _end_whole(path: Path) -> None:
    """Cut off what follows the last whole line."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
