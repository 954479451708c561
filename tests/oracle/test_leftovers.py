"""Is what a crash may leave only named, and what the server warned of told?"""

from typing import Any

import pytest
from msgspec.structs import replace

from crashlab.ledger import Prepared
from crashlab.model import Complaint, Finding, Leftover, Outcome, PromiseStatus, Recovery, Verdict
from tests.oracle.story import KILL, Story, codes

INVALID = Leftover(kind="invalid index", name="public.a_ccnew", file="base/5/70", size_bytes=16384)
UNKNOWN = Leftover(kind="unknown file", name="base/5/80_init", file="base/5/80_init", size_bytes=8192)
BEGINS = "LOG:  database system was not properly shut down; automatic recovery in progress"
READY = "LOG:  database system is ready to accept connections"
STALE = "removing stale two-phase state file for transaction 702"
FUTURE = "removing future two-phase state file for transaction 702 of epoch 0"


def verdict_on(**left: Any) -> Verdict:
    """Judge a database that is sound but for this."""
    story = Story()
    return story.judge(story.left(story.commit(1, "a", 1), **left))


def after(*lines: str) -> Recovery:
    """A recovery with these lines in its log."""
    return Recovery(started=True, ran=True, seconds=0.1, redo_end="0/ABC", log_lines=list(lines))


def test_invalid_indexes_and_unknown_files_are_named_and_nothing_is_held_against_them() -> None:
    """What pg_checksums says of their pages is none of a finding; of another file it is."""
    told = [
        Complaint(check="checksums", object=file, file=file, sqlstate=None, message=f"{file}, block 3: wrong")
        for file in ("base/5/70.1", "base/5/80", "base/5/80_init")
    ]
    verdict = verdict_on(leftovers=[INVALID, UNKNOWN], complaints=told, prepared=["another's"])
    assert (verdict.outcome, verdict.promise) == (Outcome.INTACT, PromiseStatus.KEPT)
    assert sorted(codes(verdict)) == ["NOTE-FILES-LEFT", "NOTE-INVALID-INDEX"]
    text = " ".join(one.explanation for one in verdict.findings)
    assert "public.a_ccnew (base/5/70, 16384 bytes) is not valid" in text
    assert "base/5/80_init: 8192 bytes in all" in text
    assert "prepared may have made" in text
    assert codes(verdict_on(complaints=told)) == ["CORRUPT-UNREADABLE"] * 3


def test_unlogged_tables_are_held_only_against_a_recovery() -> None:
    """A clean stop keeps their rows."""
    index = replace(INVALID, kind="unlogged index", detail="it is empty")
    rows: dict[str, Any] = {"unlogged_rows": {"public.a": 3}, "leftovers": [index]}
    assert codes(verdict_on(**rows)) == ["CORRUPT-UNLOGGED"] * 2
    stopped = Recovery(started=True, ran=False, seconds=0.1)
    assert "CORRUPT-UNLOGGED" not in codes(verdict_on(recovery=stopped, **rows))


def test_a_warning_is_told_only_if_the_recovery_gave_it() -> None:
    """Not what sessions were warned of before the crash, and when the server sent them away."""
    quiet = ["WARNING:  there is no transaction in progress", BEGINS]
    quiet += ["WARNING:  terminating connection because of crash of another server process", READY]
    assert codes(verdict_on(recovery=after(*quiet, f"WARNING:  {STALE}"))) == []
    verdict = verdict_on(recovery=after(BEGINS, f"[7] WARNING:  {STALE}", f"[7] WARNING:  {STALE}", READY))
    assert (codes(verdict), verdict.outcome) == (["NOTE-SERVER-WARNING"], Outcome.INTACT)
    assert STALE in verdict.findings[0].explanation
    disabled = "MultiXact member wraparound protections are disabled because oldest checkpointed MultiXact 1 does not"
    assert codes(verdict_on(recovery=after(BEGINS, f"LOG:  {disabled} exist", READY))) == ["NOTE-SERVER-WARNING"]


@pytest.mark.parametrize(("fork", "code"), [("_vm", "CORRUPT-UNREADABLE"), ("_fsm", "NOTE-SERVER-WARNING")])
def test_a_page_that_was_taken_for_zeros_is_damage_but_in_a_hint(fork: str, code: str) -> None:
    """Said while it recovered, and while it was read."""
    message = f'invalid page in block 0 of relation "base/5/70{fork}"; zeroing out page'
    assert codes(verdict_on(recovery=after(BEGINS, f"WARNING:  {message}", READY))) == [code]
    file = f"base/5/70{fork}"
    complaint = Complaint(check="zeroed_pages", object=file, file=file, sqlstate="XX001", message=message)
    verdict = verdict_on(complaints=[complaint])
    assert codes(verdict) == [code]
    assert file in verdict.findings[0].explanation


def unreadable(message: str) -> Finding:
    """Judge one error of a read."""
    complaint = Complaint(check="heap_read", object="t", file="base/5/9", sqlstate="XX000", message=message)
    (finding,) = verdict_on(complaints=[complaint]).findings
    return finding


def test_the_log_of_transactions_that_is_damaged_is_the_one_that_is_named() -> None:
    """The same words are said of all of them: the detail has the file."""
    says = 'could not access status of transaction 7\nDETAIL:  Could not open file "{}/0000": No such file.'
    for name, code in (
        ("pg_multixact/offsets", "CORRUPT-MULTIXACT"),
        ("pg_multixact/members", "CORRUPT-MULTIXACT"),
        ("pg_subtrans", "CORRUPT-UNREADABLE"),
        ("pg_xact", "CORRUPT-COMMIT-STATUS"),
    ):
        finding = unreadable(says.format(name))
        assert finding.code == code
        assert f"{name}/0000" in finding.evidence["files"]
        assert name == "pg_xact" or "pg_xact/" not in str(finding.evidence["files"])
    for text in ("MultiXactId 7 has not been created yet -- apparent wraparound", "MultiXact 7 has invalid offset"):
        finding = unreadable(text)
        assert (finding.code, "pg_multixact" in finding.evidence["files"]) == ("CORRUPT-MULTIXACT", True)


def test_a_lost_prepare_carries_what_the_server_warned_of_it() -> None:
    """PostgreSQL 17 and 18 say that they remove its file, and that is all that they say."""
    story = Story()
    tx = story.intend(story.begin(1), "a", 1, action="prepare", gid="crashlab-2")
    story.events.append(Prepared(tx, 1, KILL.at_ns - 1_000_000))
    verdict = story.judge(story.left(recovery=after(BEGINS, f"WARNING:  {FUTURE}", READY)))
    assert set(codes(verdict)) == {"LOSS-PREPARED", "NOTE-SERVER-WARNING"}
    assert FUTURE in verdict.findings[0].explanation


def test_a_server_that_does_not_start_names_the_record() -> None:
    """From the context of its last words; or how far it had come."""
    says = "FATAL:  invalid lp CONTEXT:  WAL redo at 0/16EF490 for Heap/INSERT: off: 3, flags: 0x00; blkref #0"
    down = Recovery(started=False, ran=True, seconds=0.1, fatal=[says])
    verdict = verdict_on(recovery=down)
    assert codes(verdict) == ["NO-START"]
    assert "replaying the record at 0/16EF490 for Heap/INSERT." in verdict.findings[0].explanation
    assert verdict.findings[0].evidence["witnesses"][0]["record"] == "0/16EF490 for Heap/INSERT"
    line = "LOG:  redo in progress, elapsed time: 10.00 s, current LSN: 0/5000028"
    died = "startup process (PID 7) was terminated by signal 11: Segmentation fault"
    verdict = verdict_on(recovery=replace(down, fatal=[died], log_lines=[line]))
    assert "Its redo had come to 0/5000028" in verdict.findings[0].explanation
