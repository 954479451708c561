"""Is a difference found where there is one, and none where there is none?"""

import pytest

from crashlab.seeds import stream
from crashlab.tradeoff.compare import NO_DIFFERENCE, rows
from tests.tradeoff import made

OTHERS = [{"commit_delay": str(number)} for number in range(6)]


def titles(of):
    return {one.title: 1000.0 for one in of.variation}


def test_noise_alone_is_seldom_a_difference():
    """Innocent: six variations that differ in nothing. In no more than one of twenty whole tables one is accused."""
    plan = made.plan(*OTHERS)
    rng = stream(3, "innocent")
    accused = 0
    for _ in range(400):
        found = rows(plan, made.runs(plan, titles(plan), rng))
        accused += any(row.figures["per_second"].differs for row in found)
    assert accused / 400 <= 0.07


def test_a_factor_of_two_is_found_through_noise_and_drift():
    """Guilty: one variation is twice as fast; whole blocks vary by half. It is found, and no other one is."""
    plan = made.plan(*OTHERS)
    fast = plan.variation[3].title
    rng = stream(4, "guilty")
    found = 0
    for _ in range(50):
        told = {
            row.cell.variation: row.figures["per_second"]
            for row in rows(plan, made.runs(plan, {**titles(plan), fast: 2000.0}, rng))
        }
        ratio = told[fast].ratio
        assert ratio is not None
        found += told[fast].differs and ratio.mean > 1.6
    assert found >= 48


def test_what_is_said_by_hand():
    """Blocks of 100 and 200, 200 and 400, 400 and 800: exactly twice, whatever the block does; the rest is equal."""
    plan = made.plan({"fsync": "off"}, blocks=3)
    base, off = plan.cells()
    found = [made.run(block, base, 100.0 * 2**block) for block in range(3)]
    found += [made.run(block, off, 200.0 * 2**block, p99_ms=1.5) for block in range(3)]
    first, second = rows(plan, found)
    rate = second.figures["per_second"]
    assert rate.ratio is not None
    assert rate.value is not None
    assert (rate.ratio.low, rate.ratio.mean, rate.ratio.high) == pytest.approx((2, 2, 2))
    assert rate.value.mean == pytest.approx(400)
    assert rate.says == "2 times as much"
    assert second.figures["p99_ms"].says == "50 % less"
    assert second.figures["wal_bytes"].says == NO_DIFFERENCE
    assert first.figures["per_second"].ratio is None
    assert second.waits == {"IO.WalSync": 0.5, "LWLock.WALWrite": 0.25}


def test_sessions_are_compared_with_as_many_sessions():
    """Ten sessions are faster than three under both variations: that is no difference between the variations."""
    plan = made.plan({"wal_buffers": "512kB"}, sessions=(3, 10), blocks=3)
    found = [made.run(block, cell, 300.0 * cell.sessions) for block in range(3) for cell in plan.cells()]
    assert [row.figures["per_second"].differs for row in rows(plan, found)] == [False] * 4


def test_one_block_says_nothing_and_a_missing_baseline_neither():
    """What an interrupted measurement has: no interval from one figure, no ratio without a partner."""
    plan = made.plan({"fsync": "off"}, blocks=3)
    base, off = plan.cells()
    (one, other) = rows(plan, [made.run(0, base), made.run(0, off)])
    assert one.figures["per_second"].value is None
    assert other.figures["per_second"].ratio is None
    (alone,) = rows(plan, [made.run(block, off) for block in range(3)])
    assert alone.figures["per_second"].value is not None
    assert alone.figures["per_second"].ratio is None
    assert rows(plan, []) == []


def test_figures_of_nothing_are_nothing():
    """With fsync=off no flush is counted: zero, and no ratio of it."""
    plan = made.plan({"fsync": "off"}, blocks=3)
    base, off = plan.cells()
    found = [made.run(block, base) for block in range(3)] + [made.run(block, off, flushes=0.0) for block in range(3)]
    flushes = rows(plan, found)[1].figures["flushes"]
    assert flushes.value is not None
    assert flushes.value.mean == 0.0
    assert flushes.ratio is None
