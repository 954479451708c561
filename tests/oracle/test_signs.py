"""Do the words of a finding fit what was met: the fault that it looks like, the promise that excludes it, the advice?

Each message that PostgreSQL has for damage beside another one that it must not be taken for.
"""

import pytest
from msgspec.structs import replace

from crashlab.model import (
    CheckRun,
    Complaint,
    CrashClass,
    Finding,
    Recovery,
    WalAtCut,
    WalFacts,
    WalFlush,
)
from crashlab.oracle.wal import flushed_when
from tests.oracle.story import KILL, Story

CUT = replace(KILL, kind="power cut", disk="linux", ledger_position=1000, bounds_window=False)
PAGES = "GUC-FULL-PAGE-WRITES"
FACTS = WalFacts(redo=0x1000, end=0x2000, last=0xABC, records=[])


def met(message: str, *, sqlstate: str | None = "XX001", check: str = "full_read", **how) -> Finding:
    """What is told of a message that a check met."""
    story = Story()
    complaint = Complaint(check=check, object="public.t", file="base/5/200", sqlstate=sqlstate, message=message)
    (finding,) = story.judge(story.left(story.commit(1, "a", 1), complaints=[complaint]), **how).findings
    return finding


def not_started(*fatal: str, **left) -> str:
    """What is told of a server that ended with these words."""
    story = Story()
    down = Recovery(started=False, ran=False, seconds=0.1, fatal=list(fatal))
    (finding,) = story.judge(story.left(recovery=down, **left), injections=(CUT,)).findings
    assert finding.code == "NO-START"
    return finding.explanation


LACKS = 'heap tuple (0,3) from table "t" lacks matching index tuple within index "t_pkey"'
HEAP_ONLY = 'failed to find parent tuple for heap-only tuple at (0,4) in table "t"'


@pytest.mark.parametrize(
    ("check", "message", "code", "says"),
    [
        ("amcheck_index", LACKS, "CORRUPT-INDEX-AMCHECK", "so lacks an entry"),
        ("amcheck_index", HEAP_ONLY, "CORRUPT-HEAP-AMCHECK", "a chain of updates"),
        ("amcheck_index", "invalid page in block 3 of relation base/5/200", "CORRUPT-UNREADABLE", "a torn page"),
        ("full_read", "invalid page in block 3 of relation base/5/200", "CORRUPT-UNREADABLE", "a torn page"),
    ],
)
def test_what_amcheck_found_is_no_page_that_cannot_be_read(check, message, code, says):
    """amcheck raises XX001 for a missing entry, too, though each page could be read; one that cannot is told so."""
    finding = met(message, check=check)
    assert finding.code == code
    assert says in finding.explanation
    assert ("short" in finding.explanation, "gone" in finding.explanation) == (False, False)


@pytest.mark.parametrize(
    ("message", "says", "clause"),
    [
        ("invalid page in block 3 of relation base/5/200", "a torn page", PAGES),
        ("could not read block 3 in file base/5/200: read only 0 of 8192 bytes", "shorter than it was", "GUC-FSYNC"),
        ('could not open file "base/5/200": No such file or directory', "a file is gone", "GUC-FSYNC"),
        ("missing chunk number 0 for toast value 5 in pg_toast_5", "TOAST", "wal-intro.html"),
        (
            '"base/16384" is not a valid data directory DETAIL:  File "base/16384/PG_VERSION" is missing.',
            "PG_VERSION of a database",
            "GUC-FSYNC",
        ),
        ('could not open file "pg_xact/0000": No such file or directory', "a file is gone", "wal-reliability.html"),
        (LACKS, "a page of the index", "wal-intro.html"),
    ],
)
def test_each_kind_of_file_has_its_own_promise(message, says, clause):
    """Page images mend torn pages of tables and indexes, and nothing else; without them they are what decides."""
    check = "amcheck_index" if message is LACKS else "full_read"
    for crash_class in CrashClass:
        told = met(message, check=check, crash_class=crash_class).explanation
        assert says in told
        assert clause in told
        assert (PAGES in told) == (clause == PAGES), told
    told = met(message, check=check, settings={"full_page_writes": "off"}).explanation
    assert PAGES in told


def test_a_damaged_two_phase_file_is_told_as_one():
    """Its CRC is no page's checksum."""
    told = not_started('FATAL:  incorrect size of file "pg_twophase/00000000000002E1": 0 bytes')
    assert "a file in pg_twophase is damaged" in told
    assert "sql-prepare-transaction.html" in told
    told = not_started('FATAL:  calculated CRC checksum does not match value stored in file "pg_twophase/000002E1"')
    assert "a file in pg_twophase is damaged" in told
    assert "torn page" not in told


def test_the_hint_about_unlogged_tables_is_given_where_it_holds():
    """A file that is there already; no other message."""
    hint = "an unlogged table whose transaction did not end can do that"
    exists = 'FATAL:  could not create file "base/5/16400": File exists'
    assert hint in not_started(exists)
    assert hint in not_started("FATAL:  the startup process has ended", exists)
    for other in ("PANIC:  could not locate a valid checkpoint record at 0/1000", "FATAL:  something else"):
        assert hint not in not_started(other)
    assert hint not in not_started()


def test_a_server_that_does_not_start_tells_how_far_its_log_was():
    """Of a recorded state also what was written and durable at the cut; nothing where nobody looked."""
    panic = "PANIC:  could not locate a valid checkpoint record at 0/1000"
    at_cut = WalAtCut(written=0x5000, durable=0x3000, flushing=False, lost=[])
    assert "the WAL was valid" not in not_started(panic)
    assert "the WAL was valid from 0/1000 to 0/2000." in not_started(panic, wal=FACTS)
    told = not_started(panic, wal=FACTS, wal_at_cut=at_cut)
    assert "from 0/1000 to 0/2000; when the fault came, it was written up to 0/5000 and durable up to 0/3000." in told


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (0, "cut to nothing, or replaced by a new one"),
        (81920, "Its file is there, with 81920 bytes"),
        (None, "cut to nothing or replaced, or none of whose rows is seen"),
    ],
)
def test_a_whole_file_is_not_said_to_be_cut(size, says):
    """An empty table in a file of full length is another fault; nobody guesses where the size was not asked."""
    story = Story()
    left = story.left(story.commit(1, "a", 1))
    read = replace(left.relations[0], rows=[], size_bytes=size)
    (finding,) = story.judge(replace(left, relations=[read])).findings
    assert finding.code == "CORRUPT-MISSING-ROW"
    assert says in finding.explanation
    assert ("cut to nothing" in finding.explanation) == (size != 81920)


def test_after_a_process_crash_the_disk_comes_last():
    """The page cache survives kill -9; a recorded power cut has a disk that is crashlab's own; else it is a suspect."""
    message = "invalid page in block 3 of relation base/5/200"
    last = "file system and disk come last"
    assert last in met(message).explanation
    recorded = met(message, crash_class=CrashClass.POWER_LOSS, injections=(CUT,)).explanation
    assert "look for a fault of PostgreSQL first; the disk was crashlab's model" in recorded
    real = met(message, crash_class=CrashClass.POWER_LOSS).explanation
    assert "look for a fault of the disk" in real
    assert last not in recorded + real
    story = Story()
    story.commit(1, "a", 1)
    (lost,) = story.judge(story.left()).findings
    assert lost.code == "LOSS-SYNC-COMMIT"
    assert last in lost.explanation
    assert "a flush that did not reach the disk" not in lost.explanation


def test_what_the_ledger_has_before_the_fault_is_not_told_as_after_it():
    """Two threads read the clock in another order than they wrote; an answer behind the fault's line is one."""
    story = Story()
    story.commit(1, "a", 1, age_ms=-0.4)
    position = len(story.events)
    for line, says in ((position, "right before the fault"), (position - 1, "0.4 ms after the fault was sent")):
        (finding,) = story.judge(story.left(), injections=(replace(KILL, ledger_position=line),)).findings
        assert f"On line {position} of the ledger, {says}, client 1 was told" in finding.explanation
        assert (f"ledger line {position}, 0.0 ms: acknowledged" in finding.timeline) == (line == position)
    story = Story()
    story.commit(1, "a", 1, age_ms=0.01)
    (finding,) = story.judge(story.left()).findings
    assert "right before the fault, client 1 was told" in finding.explanation


@pytest.mark.parametrize(
    ("least_ms", "most_ms", "says"),
    [
        (0.0, 0.02, "right before the fault, after the last answer"),
        (0.02, 0.09, "0.1 ms before the fault"),
        (35.9, 37.7, "between 37.7 and 35.9 ms before the fault"),
    ],
)
def test_a_flush_is_dated_by_figures_that_differ(least_ms, most_ms, says):
    """Never "between 0.0 and 0.0"."""
    flush = WalFlush(operation=1, pid=2, kept=True, least_ms=least_ms, most_ms=most_ms)
    assert flushed_when(flush) == says


def advice(**checks: CheckRun | None) -> str:
    """The last words about a check that did not look."""
    story = Story()
    left = story.left(story.commit(1, "a", 1))
    runs = {name: run for name, run in (left.checks | checks).items() if run is not None}
    (finding,) = story.judge(replace(left, checks=runs)).findings
    assert finding.code == "INCONCLUSIVE-CHECK-NOT-RUN"
    return finding.explanation


def test_a_reason_is_to_be_removed_only_where_one_is_named():
    """Otherwise it is said what to do instead."""
    remove = "Remove the reason that is named"
    run = CheckRun(status="ran", count=0, seconds=0.0)
    assert "never run" in advice(amcheck_heap=None)
    for none in (None, run, replace(run, status="failed"), replace(run, status="skipped")):
        assert remove not in advice(amcheck_heap=none)
    for status in ("failed", "skipped"):
        named = advice(amcheck_heap=replace(run, status=status, detail="no amcheck in this build"))
        assert f"{remove}, then run the trial again." in named
    story = Story()
    down = Recovery(started=False, ran=False, seconds=0.1, tool_fault="the server was not ready within 60 s")
    (finding,) = story.judge(story.left(recovery=down)).findings
    assert "Find the cause in server.log" in finding.explanation
    assert remove not in finding.explanation


def test_advice_names_the_key():
    """What to change in a profile is named as it is written there."""
    story = Story()
    a = story.commit(1, "a", 1)
    few = story.judge(story.left(a), acked_min=9).findings[0].explanation
    assert "workload.acked_min" in few
    assert "[[faults]]" in story.judge(story.left(a), injections=()).findings[0].explanation
