"""Is a correct database ever accused?"""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from crashlab.model import CrashClass, Family, Outcome, PromiseStatus
from tests.examples import examples
from tests.oracle.reference import crashed_world

WORLDS = st.builds(
    crashed_world,
    st.integers(0, 2**32),
    steps=st.integers(0, 220),
    clients=st.integers(1, 5),
    async_share=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    two_phase_share=st.sampled_from([0.0, 0.15, 0.5]),
    crash_class=st.sampled_from(CrashClass),
)


@given(WORLDS)
@settings(max_examples=examples(120), deadline=None)
def test_no_legal_history_is_accused(world):
    """Whatever the schedule and wherever the log ends within the rules: nothing but permitted loss is found."""
    verdict = world.judge()
    assert [finding for finding in verdict.findings if not finding.permitted] == []
    assert all(finding.family is Family.LOSS for finding in verdict.findings)
    assert verdict.promise is PromiseStatus.KEPT
    assert verdict.outcome is (Outcome.LOSS if world.lost else Outcome.INTACT)
    assert all(tx.sync == "off" and tx.style != "two-phase" for tx in world.lost)


@given(WORLDS, st.floats(0, 1))
@settings(max_examples=examples(120), deadline=None)
def test_the_log_accuses_nobody_whom_the_clients_do_not(world, share):
    """With the log of the image, from any redo point on, the verdict on a correct database is the same."""
    wal = world.wal(round(share * len(world.log)))
    with_log = world.judge(world.with_wal(world.observation(), wal))
    without = world.judge()
    assert [finding.code for finding in with_log.findings] == [finding.code for finding in without.findings]
    assert (with_log.outcome, with_log.promise, with_log.counts) == (without.outcome, without.promise, without.counts)


@given(WORLDS)
@settings(max_examples=examples(60), deadline=None)
def test_counts_are_those_of_the_world(world):
    """What the verdict counts is what the reference database knows."""
    counts = world.judge().counts
    txs = world.database.txs.values()
    acked = [tx for tx in txs if tx.acked and tx.xid]
    assert counts.begun == len(txs)
    assert counts.acked == len(acked)
    assert counts.acked_sync == sum(tx.flushes for tx in acked)
    assert counts.acked_async == sum(not tx.flushes for tx in acked)
    assert counts.read_only == sum(tx.acked and not tx.xid for tx in txs)
    assert counts.lost == len(world.lost)
    assert counts.lost_forbidden == 0


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=examples(50), deadline=None)
def test_any_prefix_is_loss_and_never_corruption(seed, draw, async_share):
    """Cutting more of the log's tail than the rules allow is loss, forbidden or not, but no corruption."""
    world = crashed_world(seed, async_share=async_share, two_phase_share=0.0)
    shorter = replace(world, log=world.log[: 1 + draw % len(world.log)])
    verdict = shorter.judge()
    assert {finding.family for finding in verdict.findings} <= {Family.LOSS}
    flushed = {tx.tx for tx in shorter.lost if tx.flushes}
    assert not flushed or verdict.promise is PromiseStatus.BROKEN
    assert verdict.counts.lost == len(shorter.lost)
    assert verdict.counts.lost_forbidden >= len(flushed)
