"""Is a missing tail told from a hole, and a permitted loss from a forbidden one?"""

from typing import Any

import pytest
from msgspec.structs import replace

from crashlab.model import AsyncWindow, CrashClass, LostRecord, Outcome, PromiseStatus, Recovery, WalAtCut, WalFacts
from tests.oracle.story import KILL, KILL_LOGGER, Story, codes


def test_a_lost_synchronous_commit_breaks_the_promise():
    """Acknowledged, flushed, gone; present, it is intact."""
    story = Story()
    a = story.commit(1, "a", 1)
    lost = story.judge(story.left())
    assert codes(lost) == ["LOSS-SYNC-COMMIT"]
    assert (lost.outcome, lost.promise) == (Outcome.LOSS, PromiseStatus.BROKEN)
    assert (lost.counts.lost, lost.counts.lost_forbidden) == (1, 1)
    text = lost.findings[0].explanation
    assert "client 1 was told that transaction 2 had committed" in text
    assert "0/ABC" in text
    assert "runtime-config-wal.html#GUC-SYNCHRONOUS-COMMIT" in text
    assert story.judge(story.left(a)).outcome is Outcome.INTACT


@pytest.mark.parametrize("crash_class", CrashClass)
def test_a_lost_asynchronous_tail_is_permitted(crash_class):
    """Loss, and the promise is kept: the newest commits, not long before the fault."""
    story = Story()
    a = story.commit(1, "a", 1, sync="off")
    story.commit(1, "a", 2, sync="off", age_ms=599)
    verdict = story.judge(story.left(a), crash_class=crash_class)
    assert codes(verdict) == ["LOSS-ASYNC-WINDOW"]
    assert (verdict.outcome, verdict.promise) == (Outcome.LOSS, PromiseStatus.KEPT)
    assert verdict.counts.lost_forbidden == 0
    assert "wal_writer_delay = 200ms" in verdict.findings[0].explanation
    assert "wal-async-commit.html" in verdict.findings[0].explanation


def test_an_old_lost_asynchronous_commit_is_noted_softly():
    """Older than three times wal_writer_delay: permitted, by another name; not if walwriter had been stopped."""
    story = Story()
    story.commit(1, "a", 1, sync="off", age_ms=5000)
    verdict = story.judge(story.left())
    assert codes(verdict) == ["LOSS-ASYNC-WINDOW-EXCEEDED"]
    assert verdict.promise is PromiseStatus.KEPT
    assert verdict.findings[0].evidence["witnesses"][0]["age_ms"] == 5000
    assert codes(story.judge(story.left(), settings={"wal_writer_delay": "2s"})) == ["LOSS-ASYNC-WINDOW"]
    stopped = (replace(KILL, kind="stop", target="walwriter", crashes_server=False, bounds_window=False), KILL)
    assert codes(story.judge(story.left(), injections=stopped)) == ["LOSS-ASYNC-WINDOW"]


def two_overlapping() -> tuple[Story, int, int]:
    """Two that are to be lost; the one that began first was acknowledged last."""
    story = Story()
    slow, quick = story.begin(1, age_ms=60), story.begin(2, age_ms=50)
    story.intend(slow, "a", 1, age_ms=40, sync="off")
    story.intend(quick, "b", 1, age_ms=39, sync="off")
    story.ack(quick, age_ms=30)
    story.ack(slow, age_ms=10)
    return story, slow, quick


@pytest.mark.parametrize(("slow_end", "quick_end", "first"), [(0, 0, "quick"), (0x3000, 0x4000, "slow")])
def test_a_finding_names_the_oldest_that_is_lost(slow_end, quick_end, first):
    """By its acknowledgement, and by the places in the WAL where those are known; with how many there are."""
    story, slow, quick = two_overlapping()
    records = [LostRecord("commit", 700 + tx, end, "not durable") for tx, end in ((slow, slow_end), (quick, quick_end))]
    at_cut = WalAtCut(written=0x5000, durable=0x2000, flushing=False, lost=records, last_flush=None)
    wal = WalFacts(redo=0x1000, end=0x2000, last=0xABC, records=[])
    (finding,) = story.judge(story.left(wal=wal, wal_at_cut=at_cut)).findings
    oldest = {"slow": slow, "quick": quick}[first]
    assert finding.summary.endswith(f"transaction {oldest} and 1 more")
    assert f"transaction {oldest} had committed" in finding.explanation
    assert f"Transaction {oldest} is the oldest of 2 such losses." in finding.explanation
    assert finding.evidence["witnesses"][0]["tx"] == oldest


def test_the_window_of_a_trial_is_the_age_of_its_oldest_lost_asynchronous_commit():
    """Against three times wal_writer_delay; none where nothing asynchronous is lost, or no window is promised."""
    story = Story()
    a = story.commit(1, "a", 1, sync="off", age_ms=150)
    story.commit(1, "b", 1, sync="off", age_ms=40)
    c = story.commit(1, "c", 1, age_ms=30)
    lost = story.judge(story.left(c, a)).window
    assert story.judge(story.left(2, 3, 4)).window is None
    assert lost is None, "a hole is no loss"
    story = Story()
    story.commit(1, "a", 1, sync="off", age_ms=150)
    story.commit(1, "b", 1, sync="off", age_ms=40)
    assert story.judge(story.left()).window == AsyncWindow(lost=2, oldest_ms=150, bound_ms=600)
    assert story.judge(story.left(2)).window == AsyncWindow(lost=1, oldest_ms=40, bound_ms=600)
    stopped = (replace(KILL, bounds_window=False),)
    assert story.judge(story.left(2), injections=stopped).window == AsyncWindow(lost=1, oldest_ms=40, bound_ms=None)
    power: Any = {"settings": {"fsync": "off"}, "crash_class": CrashClass.POWER_LOSS}
    assert story.judge(story.left(), **power).window is None
    story = Story()
    story.commit(1, "a", 1)
    assert story.judge(story.left()).window is None


def test_nothing_is_promised_without_fsync_and_with_a_power_loss():
    """The same loss is void there, and broken after a mere process crash."""
    story = Story()
    story.commit(1, "a", 1)
    void = story.judge(story.left(), settings={"fsync": "off"}, crash_class=CrashClass.POWER_LOSS)
    assert codes(void) == ["LOSS-NOTHING-PROMISED"]
    assert (void.outcome, void.promise) == (Outcome.LOSS, PromiseStatus.VOID)
    assert codes(story.judge(story.left(), settings={"fsync": "off"})) == ["LOSS-SYNC-COMMIT"]


def test_a_later_flush_protects_earlier_asynchronous_commits():
    """If the flush was sent after the answer; an overlapping one proves nothing."""
    story = Story()
    story.commit(1, "a", 1, sync="off")
    story.commit(2, "b", 1)
    assert set(codes(story.judge(story.left()))) == {"LOSS-SYNC-COMMIT", "LOSS-PROTECTED-ASYNC"}

    overlapping = Story()
    b = overlapping.intend(overlapping.begin(2), "b", 1)
    overlapping.commit(1, "a", 1, sync="off")
    overlapping.ack(b)
    assert set(codes(overlapping.judge(overlapping.left()))) == {"LOSS-SYNC-COMMIT", "LOSS-ASYNC-WINDOW"}


def test_a_flushed_overwriter_protects_what_it_overwrote():
    """B read A's version before A's answer arrived, and B's flush covers A's record (O2)."""
    story = Story()
    a = story.intend(story.begin(1), "k", 1, sync="off")
    b = story.intend(story.begin(2), "k", 2)
    story.ack(b)
    story.ack(a)
    assert set(codes(story.judge(story.left()))) == {"LOSS-SYNC-COMMIT", "LOSS-PROTECTED-ASYNC"}


@pytest.mark.parametrize(
    ("crash_class", "measured", "code"),
    [
        (CrashClass.PROCESS_CRASH, {"write_lsn": 500}, "LOSS-PROTECTED-ASYNC"),
        (CrashClass.PROCESS_CRASH, {"write_lsn": 499}, "LOSS-ASYNC-WINDOW"),
        (CrashClass.POWER_LOSS, {"write_lsn": 500}, "LOSS-ASYNC-WINDOW"),
        (CrashClass.POWER_LOSS, {"write_lsn": 500, "flush_lsn": 500}, "LOSS-PROTECTED-ASYNC"),
    ],
)
def test_a_measured_position_protects(crash_class, measured, code):
    """What was certainly written survives a process crash, what was certainly flushed a power loss."""
    story = Story()
    story.commit(1, "a", 1, sync="off")
    story.intend(story.begin(1), "b", 1, sync="off", insert_lsn=500)  # an upper bound for the commit before
    story.intend(story.begin(2), "c", 1, sync="off", insert_lsn=900, **measured)
    assert codes(story.judge(story.left(), crash_class=crash_class)) == [code]


def test_a_hole_is_corruption_even_if_all_was_asynchronous():
    """B's COMMIT was sent after A's answer, so A without B is a tail and B without A a hole."""
    story = Story()
    a = story.commit(1, "a", 1, sync="off")
    b = story.commit(2, "b", 1, sync="off")
    hole = story.judge(story.left(b))
    assert codes(hole) == ["CORRUPT-HOLE"]
    assert (hole.outcome, hole.promise) == (Outcome.CORRUPTION, PromiseStatus.BROKEN)
    assert codes(story.judge(story.left(a))) == ["LOSS-ASYNC-WINDOW"]


def test_overlapping_commits_have_no_order():
    """B's COMMIT was sent before A's answer arrived: A may have come second."""
    story = Story()
    a = story.intend(story.begin(1), "a", 1, sync="off")
    b = story.intend(story.begin(2), "b", 1, sync="off")
    story.ack(a)
    story.ack(b)
    assert codes(story.judge(story.left(b))) == ["LOSS-ASYNC-WINDOW"]
    assert codes(story.judge(story.left(a))) == ["LOSS-ASYNC-WINDOW"]


def test_an_unanswered_transaction_that_was_built_upon_must_be_there():
    """B made version 2 out of A's version 1; if another one can have made version 1, A may be absent."""
    story = Story()
    a = story.lose_answer(story.intend(story.begin(1), "k", 1))
    b = story.commit(2, "k", 2)
    assert codes(story.judge(story.left(b))) == ["CORRUPT-HOLE"]
    assert codes(story.judge(story.left(a, b))) == []

    other = Story()
    other.lose_answer(other.intend(other.begin(1), "k", 1))
    c = other.commit(2, "k", 1)
    d = other.commit(2, "k", 2)
    assert codes(other.judge(other.left(c, d))) == []


def test_two_survivors_of_one_version_are_a_fork():
    """A lost update: both counted version 1 up to 2."""
    story = Story()
    a = story.commit(1, "k", 1)
    b = story.commit(1, "k", 2)
    c = story.commit(2, "k", 2)
    assert codes(story.judge(story.left(a, b, c))) == ["CORRUPT-VERSION-FORK"]


def test_refused_and_unsent_transactions_must_be_absent():
    """Absent they are no finding; there they are phantoms."""
    story = Story()
    story.refuse(story.intend(story.begin(1), "a", 1))
    story.begin(2)
    assert codes(story.judge(story.left())) == []
    story.intents[3] = story.intents[2]
    assert codes(story.judge(story.left(2))) == ["CORRUPT-PHANTOM"]


def test_without_a_crash_nothing_may_be_missing():
    """The logger's death is no crash: even an asynchronous commit has to be there."""
    story = Story()
    a = story.commit(1, "a", 1, sync="off")
    up = Recovery(started=True, ran=False, seconds=0.0)
    lost = story.judge(story.left(recovery=up), injections=(KILL_LOGGER,))
    assert codes(lost) == ["LOSS-PROTECTED-ASYNC"]
    assert lost.promise is PromiseStatus.BROKEN
    assert story.judge(story.left(a, recovery=up), injections=(KILL_LOGGER,)).outcome is Outcome.INTACT


def test_a_missing_transaction_that_the_commit_log_calls_committed_is_corruption():
    """Its record survived, so its rows must; if its xid may have been given out again, it is only lost."""
    story = Story()
    a = story.intend(story.begin(1), "a", 1, sync="off")
    b = story.intend(story.begin(2), "b", 1, sync="off")
    story.ack(a)
    story.ack(b)
    status = {"702": "committed"}
    assert codes(story.judge(story.left(b, xact_status=status))) == ["CORRUPT-COMMIT-STATUS"]
    assert codes(story.judge(story.left(xact_status=status))) == ["LOSS-ASYNC-WINDOW"]


def test_a_hole_names_the_file_of_its_commit_bits():
    """A flipped bit in pg_xact looks like a hole."""
    story = Story()
    story.commit(1, "a", 1)
    b = story.commit(1, "b", 1)
    verdict = story.judge(story.left(b, xact_status={"702": "aborted"}))
    assert codes(verdict) == ["CORRUPT-HOLE"]
    assert "pg_xact/0000" in verdict.findings[0].evidence["files"]
    assert "pg_xact/0000" in verdict.findings[0].explanation
