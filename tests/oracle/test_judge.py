"""Does a verdict say no more and no less than was looked at?"""

from typing import Any

import pytest
from msgspec.structs import replace

from crashlab.contract import contract_for
from crashlab.history import fold
from crashlab.model import (
    REQUIRED_CHECKS,
    Broken,
    CheckRun,
    Complaint,
    CrashClass,
    Invariant,
    MarkerRead,
    Observation,
    Outcome,
    PromiseStatus,
    Recovery,
    Row,
    Verdict,
)
from crashlab.oracle import judge
from crashlab.oracle.codes import CODES, SEVERITIES
from crashlab.oracle.physical import files_in, status_file
from tests.oracle.mutations import MUTATIONS
from tests.oracle.story import KILL, KILL_LOGGER, Story, codes

SOLD = Invariant(name="sold is ordered", expected="no rows", observed='1 row: {"id": 3}')


def story_of_one() -> tuple[Story, int]:
    story = Story()
    return story, story.commit(1, "a", 1)


def no_crash(story, a):
    up = Recovery(started=True, ran=False, seconds=0.0)
    return story.judge(story.left(a, recovery=up))


def tool_fault(story, a):
    down = Recovery(started=False, ran=False, seconds=1.0, tool_fault='lock file "postmaster.pid" already exists')
    return story.judge(story.left(a, recovery=down))


def check_skipped(story, a):
    observation = story.left(a)
    skipped = CheckRun(status="skipped", count=0, seconds=0.0, detail="no amcheck in this build")
    return story.judge(replace(observation, checks=observation.checks | {"amcheck_heap": skipped}))


LACKS = Complaint(
    check="amcheck_index",
    object="public.register_pkey",
    file="base/5/201",
    sqlstate="XX002",
    message='heap tuple (0,1) from table "register" lacks matching index tuple within index "register_pkey"',
)


def broken(left: Observation, *, before: bool, name: str = "register_pkey") -> Observation:
    """An index that leads to nothing, says a reading; amcheck had said so on the running server, or says so now."""
    leads = replace(left.indexes[0], index=name, index_rows=0, only_in_heap=["setup"])
    if before:
        return replace(left, indexes=[leads], broken_before=Broken(complaints=[LACKS]))
    return replace(left, indexes=[leads], complaints=[LACKS])


def computed(left: Observation) -> Observation:
    """The same, of an index that computes with a function of its owner's."""
    assert LACKS.file is not None
    return replace(broken(left, before=False), own_functions={LACKS.file: ["function scaled(integer)"]})


INCONCLUSIVE = {
    "INCONCLUSIVE-NO-INJECTION": lambda story, a: story.judge(story.left(a), injections=()),
    "INCONCLUSIVE-INJECTION-UNCONFIRMED": lambda story, a: story.judge(
        story.left(a), injections=(replace(KILL, confirmed=False, proof=[]),)
    ),
    "INCONCLUSIVE-NO-CRASH": no_crash,
    "INCONCLUSIVE-TOO-FEW-ACKS": lambda story, a: story.judge(story.left(a), acked_min=2),
    "INCONCLUSIVE-CHECK-NOT-RUN": check_skipped,
    "INCONCLUSIVE-TOOL-FAULT": tool_fault,
    "INCONCLUSIVE-TRIAL-TIMEOUT": lambda story, a: story.judge(story.left(a), timed_out="after 5 s, at work"),
    "INCONCLUSIVE-DISK-FULL": lambda story, a: story.judge(story.left(a, disk_full="the server's disk was full: x")),
    "INCONCLUSIVE-WORKLOAD-ERROR": lambda story, a: story.judge(story.left(a), workload_errors=["deadlock"]),
    "INCONCLUSIVE-INVARIANT-BEFORE": lambda story, a: story.judge(
        story.left(a, invariants=[SOLD], invariants_before=[SOLD])
    ),
    "INCONCLUSIVE-BROKEN-BEFORE": lambda story, a: story.judge(broken(story.left(a), before=True)),
    "INCONCLUSIVE-OWN-FUNCTION": lambda story, a: story.judge(computed(story.left(a))),
    "INCONCLUSIVE-INVARIANT-EMPTIED": lambda story, a: story.judge(
        story.left(a, invariants=[replace(SOLD, reads_volatile=["unlogged table cache"])])
    ),
}


@pytest.mark.parametrize("code", INCONCLUSIVE)
def test_what_was_not_tested_is_inconclusive(code):
    """A trial without a fault, a receipt, a crash, acknowledgements or a look is neither kept nor broken."""
    story, a = story_of_one()
    verdict = INCONCLUSIVE[code](story, a)
    assert codes(verdict) == [code]
    assert (verdict.outcome, verdict.promise) == (Outcome.INCONCLUSIVE, None)
    assert story.judge(story.left(a), acked_min=1).outcome is Outcome.INTACT


def test_a_trial_that_was_cut_short_accuses_nobody():
    """Whatever is missing or wrong then: the tool itself killed the server, and that is all that the verdict says."""
    story, a = story_of_one()
    empty = replace(story.left().relations[0], rows=[])
    for left in (story.left(), story.left(a, relations=[empty]), story.left(a, died="server closed the connection")):
        assert story.judge(left, injections=()).promise is not PromiseStatus.KEPT
        verdict = story.judge(left, injections=(), acked_min=9, timed_out="after 5 s, while the server was read")
        assert codes(verdict) == ["INCONCLUSIVE-TRIAL-TIMEOUT"]
        assert (verdict.outcome, verdict.promise, verdict.counts.lost) == (Outcome.INCONCLUSIVE, None, 0)
        assert "after 5 s, while the server was read" in verdict.findings[0].explanation


def test_a_full_disk_accuses_nobody_and_hides_behind_nothing():
    """Refused, gone, not started, no crash in its log: the verdict is the full disk, and where."""
    story, _ = story_of_one()
    empty = replace(story.left().relations[0], rows=[])
    down = Recovery(started=False, ran=False, seconds=1.0, fatal=["PANIC: could not write to file"])
    for changes in ({}, {"relations": [empty]}, {"recovery": down}, {"died": "server closed the connection"}):
        left = story.left(**changes)
        assert story.judge(left, injections=()).promise is not PromiseStatus.KEPT
        verdict = story.judge(replace(left, disk_full='the file system of "/x" was full: y'), workload_errors=["z"])
        assert codes(verdict) == ["INCONCLUSIVE-DISK-FULL"]
        assert (verdict.outcome, verdict.promise) == (Outcome.INCONCLUSIVE, None)
        assert 'The file system of "/x" was full: y.' in verdict.findings[0].explanation


def test_an_invariant_is_corruption_only_if_it_held_before():
    """The rows that it returned are in the explanation; another one's failure before the crash does not excuse it."""
    story, a = story_of_one()
    other = replace(SOLD, name="another")
    for before in ([], [other]):
        verdict = story.judge(story.left(a, invariants=[SOLD], invariants_before=before))
        assert verdict.outcome is Outcome.CORRUPTION
        assert codes(verdict)[0] == "CORRUPT-INVARIANT"
        assert '{"id": 3}' in verdict.findings[0].explanation
    held = replace(SOLD, observed="no rows")
    assert codes(story.judge(story.left(a, invariants=[held]))) == []


def test_an_invariant_over_what_is_emptied_is_judged_where_nothing_was():
    """An unlogged table outlives a clean stop; the statistics may not, if the power fails soon after it."""
    story, a = story_of_one()
    up = Recovery(started=True, ran=False, seconds=0.0)
    for reads, code in (("unlogged table cache", "CORRUPT-INVARIANT"), ("the cumulative statistics", "INCONCLUSIVE")):
        left = story.left(a, invariants=[replace(SOLD, reads_volatile=[reads])], recovery=up)
        verdict = story.judge(left, injections=(replace(KILL, crashes_server=False),))
        assert codes(verdict)[0].startswith(code)


def test_what_was_broken_before_the_fault_is_no_crashs_doing():
    """By its name, or by its file if it was renamed; another index, and what nobody had found before, is accused."""
    story, a = story_of_one()
    left = story.left(a)
    for name in ("register_pkey", "renamed"):
        verdict = story.judge(broken(left, before=True, name=name))
        assert codes(verdict) == ["INCONCLUSIVE-BROKEN-BEFORE"]
        assert "lacks matching index tuple" in verdict.findings[0].explanation
    assert set(codes(story.judge(broken(left, before=False)))) == {"CORRUPT-INDEX-MISMATCH", "CORRUPT-INDEX-AMCHECK"}
    other = broken(left, before=True, name="other")
    other = replace(other, indexes=[replace(other.indexes[0], file="base/5/999")])
    assert set(codes(story.judge(other))) == {"CORRUPT-INDEX-MISMATCH", "INCONCLUSIVE-BROKEN-BEFORE"}
    slow = replace(LACKS, sqlstate="57014", message="canceling statement due to statement timeout")
    never = replace(broken(left, before=False), broken_before=Broken(complaints=[slow]))
    assert story.judge(never).promise is PromiseStatus.BROKEN


def test_damage_of_an_index_is_accused_whatever_it_computes_with():
    """Only what is computed anew is excused; and only of that index."""
    story, a = story_of_one()
    excused = computed(story.left(a))
    assert codes(story.judge(excused)) == ["INCONCLUSIVE-OWN-FUNCTION"]
    disorder = replace(LACKS, message='item order invariant violated for index "register_pkey"')
    disordered = replace(excused, indexes=[], complaints=[disorder])
    assert "CORRUPT-INDEX-AMCHECK" in codes(story.judge(disordered))
    of_another = replace(excused, own_functions={"base/5/999": ["function scaled(integer)"]})
    assert set(codes(story.judge(of_another))) == {"CORRUPT-INDEX-MISMATCH", "CORRUPT-INDEX-AMCHECK"}


LOWER_BOUND = replace(SOLD, name="at least two orders")


def lost_and_broken(invariant: Invariant, **more: Any) -> Verdict:
    """The last of two asynchronous commits is lost, and an invariant does not hold for what is left."""
    story, a = story_of_one()
    story.commit(1, "b", 1, sync="off")
    return story.judge(story.left(a, invariants=[invariant], **more))


def test_an_invariant_that_fails_for_what_a_loss_left_accuses_nobody():
    """It may ask for more than a prefix has. The loss stays told as it is; an invariant that holds is judged."""
    verdict = lost_and_broken(LOWER_BOUND)
    assert sorted(codes(verdict)) == ["INCONCLUSIVE-INVARIANT-PREFIX", "LOSS-ASYNC-WINDOW"]
    assert (verdict.outcome, verdict.promise) == (Outcome.INCONCLUSIVE, None)
    assert '{"id": 3}' in next(one.explanation for one in verdict.findings if "INVARIANT" in one.code)
    held = lost_and_broken(replace(LOWER_BOUND, observed="no rows"))
    assert (codes(held), held.promise) == (["LOSS-ASYNC-WINDOW"], PromiseStatus.KEPT)


def test_a_loss_excuses_no_invariant_where_what_is_left_is_no_prefix():
    """Another damage, or one of crashlab's own statements, which hold for every prefix."""
    own = replace(SOLD, name="sum of balances", expected="1000", observed="990")
    assert codes(lost_and_broken(own)) == ["CORRUPT-INVARIANT", "LOSS-ASYNC-WINDOW"]
    empty = Story().left().relations[0]
    verdict = lost_and_broken(LOWER_BOUND, relations=[replace(empty, rows=[])])
    assert "CORRUPT-INVARIANT" in codes(verdict)
    assert verdict.promise is PromiseStatus.BROKEN


@pytest.mark.parametrize("name", REQUIRED_CHECKS)
@pytest.mark.parametrize("how", ["missing", "failed", "skipped"])
def test_every_required_check_must_have_looked(name, how):
    """Left out, failed or skipped, each of them makes the trial inconclusive."""
    story, a = story_of_one()
    observation = story.left(a)
    checks = {known: run for known, run in observation.checks.items() if known != name}
    if how != "missing":
        checks[name] = CheckRun(status=how, count=0, seconds=0.0, detail="reason")
    verdict = story.judge(replace(observation, checks=checks))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert name in verdict.findings[0].explanation


def test_a_check_that_looked_at_nothing_has_not_looked():
    """Zero tables read is no clean bill; zero prepared transactions are usual."""
    story, a = story_of_one()
    observation = story.left(a)
    nothing = CheckRun(status="ran", count=0, seconds=0.0)
    assert story.judge(replace(observation, checks=observation.checks | {"full_read": nothing})).promise is None
    fine = replace(observation, checks=observation.checks | {"prepared": nothing, "sequences": nothing})
    assert story.judge(fine).outcome is Outcome.INTACT


def test_unread_tables_are_not_clean():
    """No markers, or a table that survivors wrote and nobody read: inconclusive."""
    story, a = story_of_one()
    assert story.judge(story.left(a, marker=None)).outcome is Outcome.INCONCLUSIVE
    assert story.judge(story.left(a, relations=[])).outcome is Outcome.INCONCLUSIVE


def test_the_setup_does_not_count_as_workload():
    """A workload that acknowledged nothing is found out although the setup was acknowledged."""
    story = Story()
    assert codes(story.judge(story.left(), acked_min=1)) == ["INCONCLUSIVE-TOO-FEW-ACKS"]


def test_witnessed_damage_outranks_what_was_not_looked_at():
    """Corruption and forbidden loss stay what they are; a permitted loss needs a complete look."""
    story, a = story_of_one()
    unconfirmed = (replace(KILL, confirmed=False),)
    wrong = replace(story.left(a).relations[0], rows=[*story.left().relations[0].rows, Row("a", 1, a, "another")])
    corrupt = story.judge(story.left(a, relations=[wrong]), injections=unconfirmed)
    assert (corrupt.outcome, corrupt.promise) == (Outcome.CORRUPTION, PromiseStatus.BROKEN)
    assert story.judge(story.left(), injections=unconfirmed).outcome is Outcome.LOSS
    story = Story()
    story.commit(1, "a", 1, sync="off")
    permitted = story.judge(story.left(), injections=unconfirmed)
    assert (permitted.outcome, permitted.promise) == (Outcome.INCONCLUSIVE, None)


@pytest.mark.parametrize("sqlstate", ["57014", "42501", "53100", "53200", "08006", "55P03", "XX000", None])
def test_an_error_of_operator_or_resources_is_no_damage(sqlstate):
    """The check has not looked; nobody is accused."""
    story, a = story_of_one()
    complaint = Complaint(check="full_read", object="t", file=None, sqlstate=sqlstate, message="canceling statement")
    verdict = story.judge(story.left(a, complaints=[complaint]))
    assert codes(verdict) == ["INCONCLUSIVE-CHECK-NOT-RUN"]


def test_a_check_that_damage_stopped_is_one_finding():
    """The unreadable page is the finding, not the check that met it."""
    story, a = story_of_one()
    observation = story.left(a, marker=None)
    message = 'invalid page in block 3 of relation "base/5/100"'
    complaint = Complaint(check="heap_read", object="marker", file=None, sqlstate="XX001", message=message)
    failed = CheckRun(status="failed", count=0, seconds=0.0, detail=message)
    checks = observation.checks | {"heap_read": failed}
    verdict = story.judge(replace(observation, complaints=[complaint], checks=checks))
    assert codes(verdict) == ["CORRUPT-UNREADABLE"]
    assert verdict.findings[0].evidence["files"] == ["base/5/100"]


def test_torn_pages_are_within_what_the_manual_allows_without_full_page_writes():
    """Corruption is void then, even after a process crash; a lost flushed commit still breaks the promise."""
    story, a = story_of_one()
    settings = {"full_page_writes": "off"}
    empty = replace(story.left(a).relations[0], rows=story.left().relations[0].rows)
    torn = story.judge(story.left(a, relations=[empty]), settings=settings)
    assert (torn.outcome, torn.promise) == (Outcome.CORRUPTION, PromiseStatus.VOID)
    assert story.judge(story.left(), settings=settings).promise is PromiseStatus.BROKEN


def test_notes_change_nothing():
    """A cut ledger line and an unexpected recovery are told, and the outcome is what it was."""
    story, a = story_of_one()
    history = fold(story.events)
    history.truncated = '{"event":"beg'
    verdict = judge(history, contract_for({}, CrashClass.PROCESS_CRASH), [KILL_LOGGER], story.left(a), acked_min=1)
    assert set(codes(verdict)) == {"NOTE-LEDGER-TRUNCATED", "NOTE-UNEXPECTED-RECOVERY"}
    assert (verdict.outcome, verdict.promise) == (Outcome.INTACT, PromiseStatus.KEPT)


def test_many_witnesses_are_one_finding():
    """All are counted, the first ten are kept."""
    story = Story()
    many = [story.commit(1, f"k{n}", 1) for n in range(25)]
    observation = story.left(*many)
    empty = replace(observation.relations[0], rows=story.left().relations[0].rows)
    verdict = story.judge(replace(observation, relations=[empty]))
    assert codes(verdict) == ["CORRUPT-MISSING-ROW"]
    finding = verdict.findings[0]
    assert finding.count == 25
    assert len(finding.evidence["witnesses"]) == 10
    assert finding.evidence["files"] == ["base/5/200"]
    assert "base/5/200" in finding.explanation


def test_findings_come_worst_first():
    """Silent corruption before loud, before loss."""
    story = Story()
    a = story.commit(1, "a", 1)
    story.commit(1, "b", 1)
    observation = story.left(a)
    wrong = replace(observation.relations[0], rows=[observation.relations[0].rows[0], Row("a", 1, a, "x")])
    loud = Complaint(check="amcheck_heap", object="t", file=None, sqlstate=None, message="bad tuple")
    verdict = story.judge(replace(observation, relations=[wrong], complaints=[loud]))
    assert codes(verdict) == ["CORRUPT-WRONG-VALUE", "CORRUPT-HEAP-AMCHECK", "LOSS-SYNC-COMMIT"]


def test_an_empty_marker_table_is_told_from_an_unread_one():
    """Everything was lost but the table: rows without any marker are partial transactions."""
    story, a = story_of_one()
    verdict = story.judge(story.left(a, marker=MarkerRead(file="base/5/100", rows=[])))
    assert codes(verdict) == ["CORRUPT-PARTIAL-TRANSACTION"]
    assert verdict.findings[0].count == 2


def test_an_applications_own_prepared_transaction_is_nobodys_business():
    """Only names of the workload's own kind must be known to the ledger."""
    story, a = story_of_one()
    assert codes(story.judge(story.left(a, prepared=["my-app-1"]))) == []
    assert codes(story.judge(story.left(a, prepared=["crashlab-77"]))) == ["CORRUPT-PREPARED-UNKNOWN"]


def test_files_are_named():
    """From a transaction's number, and from a server's message."""
    assert status_file(3) == "pg_xact/0000"
    assert status_file(1048576) == "pg_xact/0001"
    assert status_file((1 << 32) + 5) == "pg_xact/0000"
    assert files_in('could not read block 0 in file "base/5/16390.1": read only 0 of 8192') == ["base/5/16390.1"]
    assert files_in('Could not open file "pg_xact/0000": No such file') == ["pg_xact/0000"]


LOSSES_AND_NOTES = {
    "CORRUPT-VERSION-FORK",
    "LOSS-SYNC-COMMIT",
    "LOSS-PROTECTED-ASYNC",
    "LOSS-ASYNC-WINDOW",
    "LOSS-ASYNC-WINDOW-EXCEEDED",
    "LOSS-NOTHING-PROMISED",
    "INCONCLUSIVE-CHANGED-OUTSIDE",
    "NOTE-ENDED-INSIDE",
    "NOTE-LEDGER-TRUNCATED",
    "INCONCLUSIVE-INVARIANT-PREFIX",
    "CORRUPT-SURVIVORS-CHANGED",
    "NOTE-STATISTICS-LOST",
    "NOTE-UNEXPECTED-RECOVERY",
    "NOTE-FILES-LEFT",
    "NOTE-INVALID-INDEX",
    "NOTE-SERVER-WARNING",
    "TOLD-BEFORE-COMMIT",
    "TOLD-AFTER-FAILURE",
    "TOLD-ASYNC-COMMIT",
    "TOLD-NOTHING-PROMISED",
    "TOLD-LOST",
    "APPLICATION-INVARIANT",
    "APPLICATION-DONE-TWICE",
    "APPLICATION-AFTERWARDS",
    "INIT-NO-START",
    "INIT-SCRIPTS-SKIPPED",
}
"""Produced by name in test_firststart, test_order, test_clean_stop, test_leftovers, test_outside,
test_told, test_twice and above."""


def test_every_code_is_produced_by_a_test():
    """No code without a test, and none outside the table."""
    assert {code for _, code in MUTATIONS.values()} | set(INCONCLUSIVE) | LOSSES_AND_NOTES == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_every_code_explains_itself(code):
    """A title, a paragraph, a manual page, a severity."""
    entry = CODES[code]
    assert entry.code == code
    assert entry.title[0].islower()
    assert entry.explanation.endswith(".")
    assert "\n" not in entry.explanation
    assert ".html" in entry.manual
    assert SEVERITIES[entry.rank]
