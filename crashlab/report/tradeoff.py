"""How is it told what settings cost and what they risk: one table, one chart, the same facts as JSON?

The table and the chart have a row for each cell. Throughput is told as a ratio to the first variation, for that is what
repeats; what a crash took stands beside it, in words and in a shape, never by a colour alone.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crashlab.flush.place import milliseconds
from crashlab.model import Outcome
from crashlab.tradeoff.blocks import Asked
from crashlab.tradeoff.compare import NO_DIFFERENCE, WATCHED, Compared, Row, rows
from crashlab.tradeoff.crashes import Crashes
from crashlab.tradeoff.measure import Run

if TYPE_CHECKING:
    from rich.table import Table

TEMPLATE = "tradeoff.html.jinja"
CHECKPOINTS = {"max_wal_size", "checkpoint_timeout"}
"""Settings that say when a checkpoint begins."""
Risk = Literal["kept", "loss", "damage", "untried"]
RISKS: dict[Risk, str] = {
    "kept": "every acknowledged commit survived every crash that was tried",
    "loss": "a crash lost acknowledged commits",
    "damage": "a crash left damage, or a server that does not start",
    "untried": "no crash was tried",
}
"""What the crashes of a variation come to, the worst of them -> in words."""


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """Everything that a report tells."""

    asked: Asked
    runs: list[Run]
    rows: list[Row]
    crashes: list[Crashes]
    again: str  # the command that measures all of it anew
    resume: str | None  # ... that goes on with what is missing; None: nothing is

    @classmethod
    def of(cls, asked: Asked, runs: list[Run], crashed: list[Crashes], *, again: str, resume: str | None) -> "Tradeoff":
        """Compare what was measured."""
        return cls(asked=asked, runs=runs, rows=rows(asked.plan, runs), crashes=crashed, again=again, resume=resume)

    def crashes_of(self, variation: str) -> list[Crashes]:
        """Return what the crashes under a variation came to."""
        return [one for one in self.crashes if one.variation == variation and one.trials]

    def risk(self, variation: str) -> Risk:
        """Return the worst that was seen under a variation."""
        seen = self.crashes_of(variation)
        if any(one.outcomes[Outcome.CORRUPTION] or one.outcomes[Outcome.NO_START] for one in seen):
            return "damage"
        if any(one.outcomes[Outcome.LOSS] for one in seen):
            return "loss"
        judged = any(sum(one.outcomes.values()) > one.outcomes[Outcome.INCONCLUSIVE] for one in seen)
        return "kept" if judged else "untried"


def heading(told: Tradeoff) -> Iterator[str]:
    """Yield where and how it was measured."""
    asked, plan = told.asked, told.asked.plan
    yield f"Plan {plan.name}, seed {asked.seed}; PostgreSQL {asked.version} in {asked.server}; {asked.machine}"
    yield f"Data directory in {asked.work}: {asked.place.described}"
    usual = next(one for one in asked.flushes if one.method == "fdatasync")
    yield f"A flush there (fdatasync): median {milliseconds(usual.median_ms)}; {asked.opinion.says}"
    if asked.opinion.plausible == "impossible":
        yield "So what saves flushes cannot show here what it saves: measure on a disk, with --work DIR."
    yield (
        f"{plan.blocks} blocks in random order, {plan.seconds} s of pgbench a run, workload {plan.workload};"
        f" {len(told.runs)} runs measured"
    )


def summary_table(told: Tradeoff) -> "Table":
    """Return the table for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(*_HEADS, box=SIMPLE_HEAD)
    for row in told.rows:
        table.add_row(*cells(told, row))
    return table


_HEADS = (
    *("variation", "sessions", "a second", "95 %", "against the first"),
    *("latency, 99 %", "WAL each", "flushes each", "recovery, WAL"),
)


def cells(told: Tradeoff, row: Row) -> tuple[str, ...]:
    """Return a row of the table, as text."""
    found = row.figures
    rate = found["per_second"]
    return (
        row.cell.variation,
        str(row.cell.sessions),
        _mean(rate, lambda value: f"{value:,.0f}"),
        "-" if rate.value is None else f"{rate.value.low:,.0f} to {rate.value.high:,.0f}",
        against(told, row),
        f"{_mean(found['median_ms'], milliseconds)}, {_mean(found['p99_ms'], milliseconds)}",
        _mean(found["wal_bytes"], size),
        _mean(found["flushes"], lambda value: f"{value:.2g}"),
        f"{_mean(found['recovery_s'], lambda value: f'{value:.2f} s')}, {size(row.redo_bytes)}",
    )


def against(told: Tradeoff, row: Row, figure: str = "per_second") -> str:
    """Say how a figure compares with the first variation's, with the interval of the ratio."""
    found = row.figures[figure]
    if row.cell.variation == told.asked.plan.baseline:
        return "the first"
    if found.ratio is None:
        return "too few blocks"
    return f"{found.says} ({found.ratio.low:.2f} to {found.ratio.high:.2f})"


def _mean(found: Compared, told: Any) -> str:
    return "-" if found.value is None else str(told(found.value.mean))


def size(count: float) -> str:
    """Return bytes in a unit that suits them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def crash_table(told: Tradeoff) -> "Table | None":
    """Return what crashes took, a row each variation; None: none was tried."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    if not any(one.trials for one in told.crashes):
        return None
    table = Table("variation", "crash", "promised", "seen", box=SIMPLE_HEAD)
    for one in told.crashes:
        broken = f"; BROKEN in {one.broken}" if one.broken else ""
        table.add_row(one.variation, one.crash_class.replace("_", " "), one.promised, one.says + broken)
    return table


def waits_lines(told: Tradeoff) -> Iterator[str]:
    """Yield what the sessions waited for, in each cell where the watched events were seen at all."""
    seen = [name for name in WATCHED if any(row.waits.get(name) for row in told.rows)]
    if not seen:
        return
    yield "What the sessions were doing, of 100 samples of one that was at work:"
    for row in told.rows:
        shares = ", ".join(f"{name} {100 * row.waits.get(name, 0.0):.1f}" for name in seen)
        yield f"  {row.cell.told}: {shares}"


def notes(told: Tradeoff) -> Iterator[str]:
    """Yield how the figures are to be read."""
    others = len([row for row in told.rows if row.cell.variation != told.asked.plan.baseline])
    yield (
        f"Intervals of one cell: 95 %. Ratios: 95 % for all {others} at once; where one holds 1, {NO_DIFFERENCE},"
        " but there may be a small one. Recovery: kill -9 until a session gets in, and the WAL it had to replay."
    )
    idle = _without_checkpoint(told)
    if idle:
        yield (
            f"No checkpoint ended in any run of {'; '.join(idle)}: what these set about checkpoints changed nothing."
            " Give each run more seconds, in a plan of your own."
        )
    yield f"Again: {told.again}"
    if told.resume is not None:
        yield f"Not finished. Go on: {told.resume}"


def _without_checkpoint(told: Tradeoff) -> list[str]:
    """Return the variations that set when checkpoints begin, and in whose runs none came to its end."""
    plan = told.asked.plan
    if not any(CHECKPOINTS & one.settings.keys() for one in plan.variation):
        return []
    ended = {run.cell.variation for run in told.runs if run.checkpointed}
    measured = {run.cell.variation for run in told.runs}
    return [one.title for one in plan.variation if one.title in measured - ended]


def as_json(told: Tradeoff) -> dict[str, Any]:
    """Return all of it: what was asked, every run, every comparison, every crash."""
    return {
        "schema": 1,
        "asked": told.asked,
        "rows": [_row_json(told, row) for row in told.rows],
        "runs": told.runs,
        "crashes": [{**asdict(one), "says": one.says} for one in told.crashes],
        "again": told.again,
        "resume": told.resume,
    }


def _row_json(told: Tradeoff, row: Row) -> dict[str, Any]:
    figures = {
        name: {"value": found.value, "ratio": found.ratio, "differs": found.differs, "says": found.says}
        for name, found in row.figures.items()
    }
    return {
        "variation": row.cell.variation,
        "sessions": row.cell.sessions,
        "settings": told.asked.plan.settings_of(row.cell.variation),
        "blocks": row.blocks,
        "figures": figures,
        "waits": row.waits,
        "redo_bytes": row.redo_bytes,
        "risk": told.risk(row.cell.variation),
    }


# --- the chart

WIDTH, STEP, TOP = 480, 34, 20
LETTER, TICK_APART = 7.5, 48


@dataclass(frozen=True)
class Mark:
    """One row of the chart, in its own units."""

    y: float
    label: str
    x: float
    low: float
    high: float
    risk: Risk
    says: str


@dataclass(frozen=True)
class Chart:
    """Ratios of throughput on a logarithmic axis."""

    marks: list[Mark]
    ticks: list[tuple[float, str]]
    one: float  # where no difference is
    left: float  # where the axis begins
    height: float


def chart(told: Tradeoff) -> Chart | None:
    """Return the chart; None: there is nothing to compare yet."""
    known = [row for row in told.rows if _ratio(told, row) is not None]
    if not known:
        return None
    spans = [_ratio(told, row) or (1.0, 1.0, 1.0) for row in known]
    left = round(LETTER * max(len(_label(row)) for row in known) + 20)
    least = math.log(min(0.8, *(low for low, _, _ in spans)) / 1.05)
    most = math.log(max(1.25, *(high for _, _, high in spans)) * 1.05)

    def at(value: float) -> float:
        return round(left + WIDTH * (math.log(value) - least) / (most - least), 1)

    marks = [
        Mark(
            y=TOP + STEP * number + STEP / 2,
            label=_label(row),
            x=at(mean),
            low=at(low),
            high=at(high),
            risk=told.risk(row.cell.variation),
            says=f"{row.cell.told}: {against(told, row)}; {RISKS[told.risk(row.cell.variation)]}",
        )
        for number, (row, (low, mean, high)) in enumerate(zip(known, spans, strict=True))
    ]
    ticks: list[tuple[float, str]] = [(at(1.0), "1 x")]
    for value in _TICKS:  # those that have room
        if least <= math.log(value) <= most and all(abs(at(value) - there) >= TICK_APART for there, _ in ticks):
            ticks.append((at(value), f"{value:g} x"))
    return Chart(marks, ticks, at(1.0), left, TOP + STEP * len(marks))


def _label(row: Row) -> str:
    return f"{row.cell.variation}, {row.cell.sessions}"


_TICKS = (0.1, 10.0, 100.0, 0.01, 2.0, 0.5, 5.0, 0.2, 20.0, 0.05, 50.0, 0.02, 3.0, 1.5, 1.2, 0.8, 1.1, 0.9)
"""The rounder ones first."""


def _ratio(told: Tradeoff, row: Row) -> tuple[float, float, float] | None:
    if row.cell.variation == told.asked.plan.baseline:
        return 1.0, 1.0, 1.0
    ratio = row.figures["per_second"].ratio
    return None if ratio is None else (ratio.low, ratio.mean, ratio.high)


def page(told: Tradeoff) -> bytes:
    """Return the HTML page: it needs no network and no script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    import crashlab

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(TEMPLATE).render(
        told=told,
        version=crashlab.__version__,
        heading=list(heading(told)),
        heads=_HEADS,
        rows=[(told.risk(row.cell.variation), cells(told, row)) for row in told.rows],
        risks=RISKS,
        chart=chart(told),
        width=WIDTH,
        waits=list(waits_lines(told)),
        notes=list(notes(told)),
        verdict=verdict(told),
    )
    return text.encode()


def verdict(told: Tradeoff) -> str:
    """Say in one sentence what it comes to: the fastest variation of each risk, of what was measured by then."""
    plan = told.asked.plan
    asked = plan.blocks * len([*plan.cells()])
    unfinished = f"Not finished, {len(told.runs)} of {asked} runs" if len(told.runs) < asked else ""
    best: dict[Risk, tuple[float, Row]] = {}
    for row in told.rows:
        ratio = row.figures["per_second"].ratio
        if ratio is None or not row.figures["per_second"].differs or ratio.mean <= 1:
            continue
        risk = told.risk(row.cell.variation)
        if risk not in best or ratio.mean > best[risk][0]:
            best[risk] = ratio.mean, row
    if not best:
        return f"{unfinished}." if unfinished else f"Nothing was seen to be faster than {plan.baseline}."
    parts = [
        f"{best[risk][1].cell.variation} ({best[risk][0]:.3g} times, {best[risk][1].cell.load}): {says}"
        for risk, says in RISKS.items()
        if risk in best
    ]
    return f"{unfinished}{': faster' if unfinished else 'Faster'} than {plan.baseline}: {'; '.join(parts)}."
