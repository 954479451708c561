"""What do the runs say: how much does each variation differ from the first one, by more than chance? Pure.

Choices:
    Cells are compared within each block, as a ratio: what slows down a whole block divides out. The mean is that of
    the ratios' logarithms, the interval Student's over the blocks.
    All ratios of one figure are told at once, so their intervals are as wide as it takes for all of them together to be
    right with 95 %: each one alone at 1 - 5 %/n (Bonferroni). Whose interval holds 1 shows no difference, which is not
    the same as there being none: it may be smaller than these runs can show.
    The mean of a cell has an interval of its own, at 95 %, over the logarithms; it says what a repetition on the
    machine of then may come to, not how two cells compare.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crashlab.confidence import USUAL, mean_interval
from crashlab.tradeoff.measure import Run
from crashlab.tradeoff.plan import Cell, TradeoffPlan

WATCHED = ("LWLock.WALInsert", "LWLock.WALWrite", "LWLock.WALBufMapping", "IO.WalSync", "IO.WalWrite")
"""The waits that the table shows."""
NO_DIFFERENCE = "no difference seen"

Figure = Callable[[Run], float | None]
FIGURES: dict[str, Figure] = {
    "per_second": lambda run: run.per_second,
    "median_ms": lambda run: run.median_ms,
    "p99_ms": lambda run: run.p99_ms,
    "wal_bytes": lambda run: run.wal_bytes,
    "flushes": lambda run: run.flushes,
    "recovery_s": lambda run: run.recovery_s,
}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its ends."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One figure of one cell, and against that of the first variation at as many sessions."""

    value: Interval | None  # None: there are fewer than two figures
    ratio: Interval | None  # None: it is the first variation, or there are fewer than two blocks with both

    @property
    def differs(self) -> bool:
        """Whether more than chance."""
        return self.ratio is not None and not self.ratio.low <= 1 <= self.ratio.high

    @property
    def says(self) -> str:
        """In words, such as "3.1 times as much" or "12 % less"."""
        if self.ratio is None:
            return ""
        if not self.differs:
            return NO_DIFFERENCE
        mean = self.ratio.mean
        if mean >= 2:
            return f"{mean:.3g} times as much"
        return f"{100 * abs(mean - 1):.2g} % {'more' if mean > 1 else 'less'}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Everything that was measured of one cell."""

    cell: Cell
    blocks: int
    figures: dict[str, Compared]
    waits: dict[str, float]  # mean shares over all runs
    redo_bytes: float


def rows(plan: TradeoffPlan, runs: Sequence[Run]) -> list[Row]:
    """Return a row for each cell that was measured, in the plan's order."""
    found: dict[Cell, dict[int, Run]] = {}
    for run in runs:
        found.setdefault(run.cell, {})[run.block] = run
    others = sum(cell.variation != plan.baseline for cell in found)
    confidence = 1 - (1 - USUAL) / max(1, others)
    return [
        _row(cell, found[cell], found.get(Cell(plan.baseline, cell.sessions), {}), plan.baseline, confidence)
        for cell in plan.cells()
        if cell in found
    ]


def _row(cell: Cell, runs: dict[int, Run], base: dict[int, Run], baseline: str, confidence: float) -> Row:
    others = {} if cell.variation == baseline else base
    names = sorted({name for run in runs.values() for name in run.waits})
    return Row(
        cell=cell,
        blocks=len(runs),
        figures={name: _compared(figure, runs, others, confidence) for name, figure in FIGURES.items()},
        waits={name: math.fsum(run.waits.get(name, 0.0) for run in runs.values()) / len(runs) for name in names},
        redo_bytes=math.fsum(run.redo_bytes for run in runs.values()) / len(runs),
    )


def _compared(figure: Figure, runs: dict[int, Run], base: dict[int, Run], confidence: float) -> Compared:
    values = {block: value for block, run in runs.items() if (value := figure(run)) is not None}
    against = {block: value for block, run in base.items() if (value := figure(run)) is not None}
    ratios = [value / against[block] for block, value in values.items() if against.get(block) and value > 0]
    return Compared(value=_interval(list(values.values()), USUAL), ratio=_interval(ratios, confidence))


def _interval(values: Sequence[float], confidence: float) -> Interval | None:
    """Return the geometric mean of positive values with its interval; None: there are fewer than two."""
    if len(values) > 1 and not any(values):
        return Interval(low=0.0, mean=0.0, high=0.0)
    if len(values) < 2 or min(values) <= 0:
        return None
    low, mean, high = (math.exp(end) for end in mean_interval([math.log(value) for value in values], confidence))
    return Interval(low=low, mean=mean, high=high)
