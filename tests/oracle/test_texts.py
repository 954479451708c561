"""Can each finding be read aloud: in one line, in one paragraph, line by line?

The texts of typical findings are stored whole in `texts.txt`, so that every change of wording is seen in review.
`pytest --update-golden` writes that file anew.
"""

import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from crashlab.contract import contract_for
from crashlab.history import fold
from crashlab.ledger import Intent, Prepared
from crashlab.model import (
    Afterlife,
    CheckRun,
    Complaint,
    CrashClass,
    Family,
    Finding,
    Invariant,
    LifeChange,
    LostRecord,
    Recovery,
    SequenceRead,
    TornPage,
    WalAtCut,
    WalFacts,
    WalFlush,
    WalRecord,
)
from crashlab.oracle import judge
from crashlab.oracle.codes import CODES
from crashlab.seeds import stream
from tests.examples import examples
from tests.oracle.mutations import MUTATIONS
from tests.oracle.reference import crashed_world
from tests.oracle.story import KILL, Story
from tests.oracle.talk import Talk

STORED = Path(__file__).parent / "texts.txt"
WIDTH = 118
CUT = replace(
    KILL,
    kind="power cut",
    target="linux disk",
    disk="linux",
    proof=["operation 246 of the recording, 1007218 bytes into its log", "state: nothing that was pending survived"],
    bounds_window=False,
)
STOP = replace(KILL, kind="stop", target="walwriter", crashes_server=False, bounds_window=False, proof=["state T"])
WAL = WalFacts(redo=0x1000, end=0x2000, last=0xABC, records=[WalRecord("commit", 702, 0x1F00, 0x2000, False)])
FLUSH = WalFlush(operation=214, pid=4711, kept=True, least_ms=35.9, most_ms=37.7)
AT_CUT = WalAtCut(
    written=0x5000,
    durable=0x2000,
    flushing=False,
    lost=[LostRecord("commit", 703, 0x3000, "not durable"), LostRecord("commit", 704, 0x4000, "not durable")],
    last_flush=FLUSH,
)


def two_lost(story: Story, **more) -> None:
    """Three commits, measured; the last two are to be lost."""
    for key, age_ms in (("a", 50), ("b", 30), ("c", 20)):
        story.commit(1, key, 1, age_ms=age_ms, insert_lsn=0x1800, write_lsn=0x1700, flush_lsn=0x1600, **more)


def asynchronous_commits_lost_by_a_power_cut() -> list[Finding]:
    story = Story()
    two_lost(story, sync="off")
    left = story.left(2, wal=WAL, wal_at_cut=AT_CUT, xact_status={"703": "aborted"})
    contract = contract_for({"synchronous_commit": "off"}, CrashClass.POWER_LOSS, bounded_window=False)
    return judge(fold(story.events), contract, [CUT], left, acked_min=0).findings


def a_user_told_before_commit() -> list[Finding]:
    return Talk().begin().commit().ack().tell("a").begin().tell("b").judged("a").findings


def a_user_told_of_a_commit_that_failed() -> list[Finding]:
    return Talk().begin().refuse().tell("a").judged(reasons={"1": "its COMMIT failed: no (SQLSTATE 23505)"}).findings


def a_user_told_of_an_asynchronous_commit() -> list[Finding]:
    talk = Talk().begin().commit(sync="off", there=False).ack().tell("a")
    return talk.judged(set_by={"1": "'SET synchronous_commit = off'"}).findings


def a_user_told_of_a_commit_without_fsync() -> list[Finding]:
    return Talk().begin().commit(there=False).ack().tell("a").judged(fsync="off").findings


def a_user_told_of_what_was_never_there() -> list[Finding]:
    return Talk().begin().commit().ack().tell("a").judged(broken="1 row: {}").findings


def an_order_done_twice() -> list[Finding]:
    again = {"1": "transaction 702 on connection 2"}
    broken = [Invariant(name="no order twice", expected="no rows", observed='1 row: {"request": "a"}')]
    talk = Talk().begin().commit()
    return talk.judged(broken_since=broken, repeats=again, holds=["no order twice"]).findings


def asynchronous_commit_lost_with_walwriter_stopped() -> list[Finding]:
    story = Story()
    story.commit(1, "a", 1, sync="off", age_ms=199)
    stop = replace(STOP, at_ns=KILL.at_ns - 51_300_000)
    contract = contract_for({}, CrashClass.PROCESS_CRASH, bounded_window=False)
    left = story.left(wal=replace(WAL, records=[]))
    return judge(fold(story.events), contract, [stop, KILL], left, acked_min=0).findings


def synchronous_commit_lost_without_fsync() -> list[Finding]:
    story = Story()
    two_lost(story)
    left = story.left(2, wal=WAL, wal_at_cut=replace(AT_CUT, last_flush=None))
    return story.judge(left, settings={"fsync": "off"}, crash_class=CrashClass.POWER_LOSS, injections=(CUT,)).findings


def synchronous_commit_lost_where_nothing_excuses_it() -> list[Finding]:
    story = Story()
    story.commit(2, "z", 1, sync="off", age_ms=60)
    story.commit(1, "a", 1)
    return story.judge(story.left()).findings


def hole() -> list[Finding]:
    story = Story()
    story.commit(1, "a", 1, age_ms=40)
    b = story.commit(2, "b", 1)
    return story.judge(story.left(b, xact_status={"702": "aborted", "703": "committed"})).findings


def row_on_an_old_page() -> list[Finding]:
    story = Story()
    txs = [story.commit(1, "a", version, age_ms=90 - 10 * version) for version in range(1, 7)]
    old = story.left(*txs[:-1]).relations
    left = story.left(*txs, torn_pages=[TornPage("base/5/200", 0), TornPage("base/5/200", 3)])
    return story.judge(
        replace(left, relations=old), settings={"full_page_writes": "off"}, crash_class=CrashClass.POWER_LOSS
    ).findings


def table_cut_to_nothing() -> list[Finding]:
    story = Story()
    a = story.commit(1, "a", 1)
    left = story.left(a)
    return story.judge(replace(left, relations=[replace(left.relations[0], rows=[])])).findings


def prepared_transaction_lost() -> list[Finding]:
    story = Story()
    tx = story.intend(story.begin(1), "a", 1, action="prepare", gid="crashlab-2")
    story.events.append(Prepared(tx, 1, KILL.at_ns - 1_000_000))
    story.events.append(Intent(tx, 1, KILL.at_ns - 500_000, action="commit prepared", gid="crashlab-2"))
    return story.judge(story.left()).findings


def page_that_cannot_be_read() -> list[Finding]:
    story = Story()
    message = 'invalid page in block 3 of relation "base/5/200"\nHINT:  Look at it.'
    complaint = Complaint(
        check="full_read", object="crashlab.register", file="base/5/200", sqlstate="XX001", message=message
    )
    return story.judge(story.left(story.commit(1, "a", 1), complaints=[complaint])).findings


def index_that_lacks_an_entry() -> list[Finding]:
    story = Story()
    message = 'heap tuple (0,3) from table "register" lacks matching index tuple within index "register_pkey"'
    complaint = Complaint(
        check="amcheck_index", object="crashlab.register_pkey", file="base/5/201", sqlstate="XX001", message=message
    )
    return story.judge(story.left(story.commit(1, "a", 1), complaints=[complaint])).findings


def no_start_from_a_recording() -> list[Finding]:
    story = Story()
    story.commit(1, "a", 1)
    fatal = ["PANIC:  could not locate a valid checkpoint record at 0/1000"]
    down = Recovery(started=False, ran=False, seconds=0.1, fatal=fatal)
    left = story.left(recovery=down, marker=None, wal=replace(WAL, records=[]), wal_at_cut=replace(AT_CUT, lost=[]))
    return story.judge(left, crash_class=CrashClass.POWER_LOSS, injections=(CUT,)).findings


def sequence_that_went_back() -> list[Finding]:
    story = Story()
    a = story.commit(1, "a", 1, ticket=34)
    read = SequenceRead(name="crashlab.ticket", file="base/5/400", last_value=33, is_called=True)
    return story.judge(story.left(a, sequences=[read])).findings


def table_that_changed_after_another_crash() -> list[Finding]:
    story = Story()
    says = "its 459 rows are not the same any more"
    change = LifeChange(step="crash", kind="content", object="crashlab.register", file="base/5/200", says=says)
    life = Afterlife(steps=[], changes=[change])
    return story.judge(story.left(story.commit(1, "a", 1), afterlife=life)).findings


def index_that_cannot_be_vacuumed() -> list[Finding]:
    story = Story()
    message = 'index "register_pkey" contains corrupted page at block 7\nHINT:  Please REINDEX it.'
    complaint = Complaint(
        check="vacuum", object="crashlab.register", file="base/5/201", sqlstate="XX002", message=message
    )
    life = Afterlife(steps=[], complaints=[complaint])
    return story.judge(story.left(story.commit(1, "a", 1), afterlife=life)).findings


def server_that_starts_no_more() -> list[Finding]:
    story = Story()
    fatal = ['FATAL:  could not open file "pg_twophase/0000000000000300": No such file or directory']
    down = Recovery(started=False, ran=False, seconds=0.1, fatal=fatal)
    life = Afterlife(steps=[], restart=down)
    return story.judge(story.left(story.commit(1, "a", 1), afterlife=life)).findings


TYPICAL = (
    asynchronous_commits_lost_by_a_power_cut,
    asynchronous_commit_lost_with_walwriter_stopped,
    a_user_told_before_commit,
    a_user_told_of_a_commit_that_failed,
    a_user_told_of_an_asynchronous_commit,
    a_user_told_of_a_commit_without_fsync,
    a_user_told_of_what_was_never_there,
    an_order_done_twice,
    synchronous_commit_lost_without_fsync,
    synchronous_commit_lost_where_nothing_excuses_it,
    hole,
    row_on_an_old_page,
    table_cut_to_nothing,
    prepared_transaction_lost,
    page_that_cannot_be_read,
    index_that_lacks_an_entry,
    no_start_from_a_recording,
    sequence_that_went_back,
    table_that_changed_after_another_crash,
    index_that_cannot_be_vacuumed,
    server_that_starts_no_more,
)


def told() -> str:
    """Return all texts of the typical findings."""
    parts = []
    for case in TYPICAL:
        parts.append(f"=== {case.__name__.replace('_', ' ')}\n")
        for finding in case():
            parts.append(f"{finding.code}: {finding.summary}\n")
            parts.append(textwrap.fill(finding.explanation, WIDTH, break_on_hyphens=False, break_long_words=False))
            parts += [
                textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
                for line in finding.timeline
            ]
            parts.append("")
    return "\n".join(parts)


def test_typical_findings_are_told_in_the_stored_words(golden):
    """Every word of all three lengths; a change of wording is a change of the stored file."""
    golden(STORED, told())


@pytest.mark.parametrize("name", MUTATIONS)
@given(seed=st.integers(0, 2**32), crash_class=st.sampled_from(CrashClass), with_log=st.booleans())
@settings(max_examples=examples(5), deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_finding_is_told_in_three_lengths(name, seed, crash_class, with_log):
    """Whatever is damaged: one line, whole sentences, a timeline, and nothing that was left open in a text."""
    mutation, _ = MUTATIONS[name]
    world = crashed_world(seed, steps=200, two_phase_share=0.3, crash_class=crash_class)
    damaged = mutation(world, world.observation(), stream(seed, name))
    assume(damaged is not None)
    assert damaged is not None
    if with_log and damaged.wal is None:
        damaged = world.with_wal(damaged, world.wal(max(1, len(world.log) // 2)))
    for finding in world.judge(damaged).findings:
        check_texts(finding, zero_is_an_lsn=damaged.wal is not None and damaged.wal.redo == 0)


def check_texts(finding: Finding, *, zero_is_an_lsn: bool) -> None:
    lengths = [finding.summary, finding.explanation, *finding.timeline]
    assert all(lengths), finding
    assert not any("\n" in text for text in lengths)
    assert finding.summary.startswith(CODES[finding.code].title)
    assert finding.explanation.endswith(".")
    assert len(finding.explanation) < 1500
    for text in lengths:
        assert "None" not in text
        assert not re.search(r"\b0(\.0)? to 0(\.0)? ms|between (\S+) and \3 ms|\b0\.0 ms (before|after)", text), text
        assert not re.search(r"[{}]|\b(True|False)\b|(?<!\.)\.\.(?!\.)| \.(?!\.\.)", text), text
        assert zero_is_an_lsn or not re.search(r"\b0/0\b", text), text
    if finding.family in (Family.LOSS, Family.CORRUPTION, Family.NO_START):
        assert any(line.startswith("fault") for line in finding.timeline)
        assert "Promised for a " in finding.explanation


@pytest.mark.parametrize("end", ["", "."])
def test_a_message_that_ends_with_a_full_stop_gets_no_second_one(end):
    """Whoever quotes a server, a driver or the operating system does not know how their message ends."""
    story = Story()
    a = story.commit(1, "a", 1)
    words = f"could not read from socket{end}"
    complaint = Complaint(check="full_read", object="t", file=None, sqlstate="XX001", message=words)
    silent = replace(complaint, sqlstate=None)
    failed = {"full_read": CheckRun(status="failed", count=0, seconds=0.0, detail=words)}
    down = Recovery(started=False, ran=False, seconds=0.1, fatal=[f"FATAL:  {words}"])
    whole = story.left(a)
    verdicts = [
        story.judge(replace(whole, complaints=[complaint])),
        story.judge(replace(whole, complaints=[silent])),
        story.judge(replace(whole, checks=whole.checks | failed)),
        story.judge(replace(whole, died=words)),
        story.judge(replace(whole, recovery=down)),
        story.judge(replace(whole, recovery=replace(down, fatal=[], tool_fault=words))),
        story.judge(whole, workload_errors=[words]),
        story.judge(whole, timed_out=f"after 5 s{end}"),
    ]
    for verdict in verdicts:
        assert verdict.findings
        for finding in verdict.findings:
            assert words.rstrip(".") in finding.explanation or "after 5 s" in finding.explanation
            assert not re.search(r"(?<!\.)\.\.(?!\.)", finding.explanation), finding.explanation


def test_three_dots_are_left_as_they_are():
    """What was shortened stays so."""
    story = Story()
    down = Recovery(started=False, ran=False, seconds=0.1, fatal=["PANIC:  could not open ... and more ..."])
    (finding,) = story.judge(story.left(recovery=down)).findings
    assert "could not open ... and more ..." in finding.explanation
