"""Made-up plans and runs."""

from random import Random

from crashlab.flush.cost import FlushCost
from crashlab.flush.place import Place, opinion
from crashlab.tradeoff.blocks import Asked, orders
from crashlab.tradeoff.measure import Run
from crashlab.tradeoff.plan import Cell, TradeoffPlan, Variation


def plan(*settings: dict[str, str], sessions: tuple[int, ...] = (4,), blocks: int = 5, states: int = 0) -> TradeoffPlan:
    """A plan whose first variation is the defaults."""
    variations = [Variation(name="defaults"), *(Variation(settings=one) for one in settings)]
    return TradeoffPlan(name="made", sessions=list(sessions), blocks=blocks, states=states, variation=variations)


def run(block: int, cell: Cell, per_second: float = 1000.0, **more) -> Run:
    """One run."""
    figures = {
        "order": 0,
        "transactions": 2000,
        "median_ms": 1.0,
        "p99_ms": 3.0,
        "wal_bytes": 400.0,
        "flushes": 0.5,
        "page_images": None,
        "recovery_s": 0.3,
        "redo_bytes": 1_000_000,
        "waits": {"IO.WalSync": 0.5, "LWLock.WALWrite": 0.25},
        "samples": 40,
    }
    return Run(block=block, cell=cell, per_second=per_second, **{**figures, **more})


def runs(
    asked: TradeoffPlan, rates: dict[str, float], rng: Random, noise: float = 0.1, drift: float = 0.5
) -> list[Run]:
    """Runs of a plan: each block is slower or faster as a whole, each cell has noise of its own."""
    found = []
    speed = {block: 1 + drift * rng.random() for block in range(asked.blocks)}
    for block, _, cell in orders(asked, 1):
        rate = rates[cell.variation] * speed[block] * rng.lognormvariate(0, noise)
        found.append(run(block, cell, rate))
    return found


def asked(of: TradeoffPlan, kind: str = "ext4", flush_ms: float = 1.0) -> Asked:
    """What was asked for, on a made-up machine."""
    where = Place(path="/data", kind=kind, source="/dev/sda1", options=("rw",), device="sda")
    cost = FlushCost(
        method="fdatasync",
        flushes=9,
        median_ms=flush_ms,
        p99_ms=flush_ms,
        quick_ms=flush_ms,
        low_ms=flush_ms,
        high_ms=2,
    )
    return Asked(
        plan=of,
        seed=7,
        work="/data",
        server="/bin",
        version="18.6",
        pgbench="/bin/pgbench",
        pg_bindir=None,
        place=where,
        flushes=[cost],
        opinion=opinion(where, flush_ms),
        machine="Linux",
        when="2026-01-01 00:00 UTC",
    )
