"""Is each loss explained by where its commit record was, and are the clauses those of its own commit?"""

from typing import Any

import pytest
from msgspec.structs import replace

from crashlab.contract import contract_for
from crashlab.history import fold
from crashlab.model import CrashClass, LostRecord, Outcome, WalAtCut, WalFacts, WalFlush, WalRecord
from crashlab.oracle import judge
from crashlab.oracle.wal import lsn
from tests.oracle.story import KILL, Story, codes

WAL = WalFacts(redo=0x100, end=0x200, last=0xABC, records=[])
FLUSH = WalFlush(operation=9, pid=4711, kept=True, least_ms=10.0, most_ms=12.5)
POWER: Any = {"crash_class": CrashClass.POWER_LOSS}


def cut(*lost: LostRecord, flushing: bool = False) -> WalAtCut:
    return WalAtCut(written=0x500, durable=0x180, flushing=flushing, lost=list(lost))


def explanation(story: Story, settings: dict[str, str] | None = None, **facts) -> str:
    (finding,) = story.judge(story.left(**facts), settings=settings, **POWER).findings
    return finding.explanation


@pytest.mark.parametrize(
    ("fate", "says"),
    [
        ("not written", "the server had written its WAL up to 0/500, which is not that far"),
        ("not durable", "written, not durable: the WAL was written up to 0/500 and durable up to 0/180, because"),
        ("behind a hole", "still there, but out of reach behind WAL that was lost"),
        ("no file", "written, but the name of its file was lost"),
    ],
)
def test_a_loss_says_where_its_record_was(fate, says):
    """Where the record ended, where the log ended, and which of the four ways it went."""
    story = Story()
    story.commit(1, "a", 1, sync="off")
    text = explanation(story, wal=WAL, wal_at_cut=cut(LostRecord("commit", 702, 0x300, fate)))
    assert "Its commit record ends at 0/300, and recovery found valid WAL up to 0/200 only" in text
    assert says in text


def test_a_loss_says_why_the_log_was_not_durable():
    """No flush yet, a flush in progress, one that the disk ignored, or a server that never flushes."""
    story = Story()
    story.commit(1, "a", 1, sync="off")
    record = LostRecord("commit", 702, 0x300, "not durable")
    assert "nobody had flushed the rest yet" in explanation(story, wal=WAL, wal_at_cut=cut(record))
    ignored = replace(cut(record), last_flush=replace(FLUSH, kept=False))
    assert "this disk ignored a flush (the last one that ended did so between" in explanation(
        story, wal=WAL, wal_at_cut=ignored
    )
    assert "a flush was in progress" in explanation(story, wal=WAL, wal_at_cut=cut(record, flushing=True))
    assert "flushes nothing" in explanation(story, {"fsync": "off"}, wal=WAL, wal_at_cut=cut(record))


def test_without_a_recording_only_the_end_of_the_log_is_told():
    """Nobody knows what became of the record, and nobody says so."""
    story = Story()
    story.commit(1, "a", 1, sync="off")
    assert "Recovery found valid WAL up to 0/200, and no commit record of it in there." in explanation(story, wal=WAL)
    assert "valid WAL" not in explanation(story)


def test_the_clauses_are_those_of_the_lost_commits():
    """The server's default says nothing about a commit under another synchronous_commit."""
    story = Story()
    story.commit(1, "a", 1, sync="off")
    text = explanation(story)
    assert "synchronous_commit = off: the newest commits may be lost" in text
    assert "with synchronous_commit = on:" not in text
    story = Story()
    story.commit(1, "a", 1, sync="local")
    text = explanation(story, {"synchronous_commit": "off"})
    assert "synchronous_commit = local: the log is flushed before the client is told" in text
    assert "synchronous_commit = off" not in text
    story = Story()
    story.commit(1, "a", 1, sync="off", forced=True)
    assert "synchronous_commit = off: no matter here" in explanation(story)


@pytest.mark.parametrize("forced", [True, False])
def test_a_commit_that_the_log_says_was_flushed_is_required(forced):
    """A user's own DROP is flushed, although no ledger says so; so is what was acknowledged before it was sent."""
    story = Story()
    story.commit(1, "a", 1, sync="off")
    story.commit(2, "b", 1, sync="off")
    lost = LostRecord("commit", 702, 0x300, "not durable"), LostRecord("commit", 703, 0x400, "not durable", forced)
    verdict = story.judge(story.left(wal=WAL, wal_at_cut=cut(*lost)), **POWER)
    assert codes(verdict) == (["LOSS-PROTECTED-ASYNC", "LOSS-SYNC-COMMIT"] if forced else ["LOSS-ASYNC-WINDOW"])
    assert verdict.counts.lost_forbidden == (2 if forced else 0)
    assert ("flushed all the same (DROP, TRUNCATE" in verdict.findings[-1].explanation) == forced


def test_no_window_is_claimed_where_there_is_none():
    """With walwriter stopped there is no bound; while it runs there is one."""
    story = Story()
    story.commit(1, "a", 1, sync="off")
    assert "at most three times this old, 600 ms" in explanation(story)
    contract = contract_for({}, CrashClass.PROCESS_CRASH, bounded_window=False)
    (finding,) = judge(fold(story.events), contract, (KILL,), story.left(), acked_min=0).findings
    assert "no bound on the age" in finding.explanation
    assert "three times" not in finding.explanation


def test_a_record_counts_only_for_the_transaction_that_wrote_it():
    """A record from before the transaction began belongs to another one with the same xid."""
    story = Story()
    story.commit(1, "a", 1, sync="off", insert_lsn=0x150)
    own = replace(WAL, records=[WalRecord("commit", 702, 0x160, 0x180, False)])
    other = replace(WAL, records=[WalRecord("commit", 702, 0x110, 0x120, False)])
    assert codes(story.judge(story.left(wal=own))) == ["CORRUPT-WAL-STATE-MISMATCH"]
    assert codes(story.judge(story.left(wal=other))) == ["LOSS-ASYNC-WINDOW"]
    assert codes(story.judge(story.left(2, wal=own))) == []
    assert codes(story.judge(story.left(2, wal=other))) == ["CORRUPT-WAL-STATE-MISMATCH"]


def test_an_unanswered_commit_whose_record_survived_must_be_there():
    """Without the log both outcomes are legal."""
    story = Story()
    story.lose_answer(story.intend(story.begin(1), "a", 1))
    wal = replace(WAL, records=[WalRecord("commit", 702, 0x160, 0x180, False)])
    assert codes(story.judge(story.left())) == []
    assert codes(story.judge(story.left(2, wal=wal))) == []
    verdict = story.judge(story.left(wal=wal))
    assert codes(verdict) == ["CORRUPT-WAL-STATE-MISMATCH"]
    assert verdict.outcome is Outcome.CORRUPTION
    assert "its commit record ends at 0/180, and the WAL was valid up to 0/200" in verdict.findings[0].explanation


OTHER_RECOVERIES = {
    "another redo point": {"redo_start": "0/128"},
    "an archive": {"log_lines": ["LOG:  starting archive recovery"]},
    "a target": {"log_lines": ["LOG:  recovery stopping before commit of transaction 7"]},
    "a backup": {"log_lines": ["LOG:  starting backup recovery with redo LSN 0/100, checkpoint LSN 0/128"]},
}


def redo_that_ends_at(last, **recovery):
    """Judge a reading of the log whose last record is another than that of redo."""
    story = Story()
    a = story.commit(1, "a", 1)
    wal = replace(WAL, last=last, why="the record there has a wrong checksum", records=[])
    left = story.left(a, wal=wal)
    return story.judge(replace(left, recovery=replace(left.recovery, **recovery)))


@pytest.mark.parametrize("recovery", OTHER_RECOVERIES.values(), ids=OTHER_RECOVERIES)
def test_a_recovery_from_elsewhere_is_held_against_no_reading(recovery):
    """It was told where to begin or to end, so the reading is of no use, and a clean trial is inconclusive."""
    verdict = redo_that_ends_at(0x1F0, **recovery)
    assert codes(verdict) == ["INCONCLUSIVE-CHECK-NOT-RUN"]
    assert "0/ABC" in verdict.findings[0].explanation
    assert codes(redo_that_ends_at(0xABC, **recovery)) == []


def test_redo_must_end_where_the_valid_log_ends():
    """Both directions are told apart, each with what is known of the reason; the same end accuses nobody."""
    start = lsn(WAL.redo)
    for redo_start in (None, start):
        past = redo_that_ends_at(0x1F0, redo_start=redo_start).findings
        assert [one.code for one in past] == ["CORRUPT-REDO-END"]
        assert "wrong checksum. Redo went past it and replayed the record at 0/ABC" in past[0].explanation
        reason = "incorrect resource manager data checksum in record at 0/AC8"
        early = redo_that_ends_at(0xAF0, redo_start=redo_start, end_reason=reason).findings
        assert [one.code for one in early] == ["CORRUPT-REDO-END"]
        assert f"stopped before it, with the record at 0/ABC. The server says why: {reason}" in early[0].explanation
        assert codes(redo_that_ends_at(0xABC, redo_start=redo_start)) == []


def test_redo_that_is_not_required_leaves_no_valid_record_out():
    """The record of the checkpoint is the last one then."""
    log = ["LOG:  redo is not required"]
    assert codes(redo_that_ends_at(WAL.redo, redo_end=None, log_lines=log)) == []
    assert codes(redo_that_ends_at(WAL.redo + 40, redo_end=None, log_lines=log)) == ["CORRUPT-REDO-END"]


@pytest.mark.parametrize(("end", "code"), [(0x300, "LOSS-PROTECTED-ASYNC"), (0x500, "LOSS-ASYNC-WINDOW")])
def test_one_flush_covers_every_record_before_it(end, code):
    """Two commits overlap for their clients; in the log the asynchronous one lies before or behind the other."""
    story = Story()
    a, b = story.begin(1), story.begin(2)
    story.intend(a, "a", 1, sync="off")
    story.intend(b, "b", 1)
    story.ack(a)
    story.ack(b)
    lost = cut(LostRecord("commit", 702, end, "not durable"), LostRecord("commit", 703, 0x400, "not durable"))
    verdict = story.judge(story.left(wal=WAL, wal_at_cut=lost), **POWER)
    assert set(codes(verdict)) == {"LOSS-SYNC-COMMIT", code}
