"""Who is blamed for an invariant that a test finds broken, and that the recovery had left whole?"""

from crashlab.model import Invariant, Verdict
from tests.oracle.talk import Talk

BROKEN = [Invariant(name="sum", expected="no rows", observed="1 row: {}")]
AGAIN = {"1": "transaction 702 on connection 2"}


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]


def test_done_once_more_after_an_answer_that_was_lost():
    """It is there, it was never answered, and somebody asked for the same later; no promise is broken."""
    verdict = Talk().begin().commit().judged(broken_since=BROKEN, repeats=AGAIN)
    assert codes(verdict) == ["APPLICATION-DONE-TWICE"]
    assert verdict.promise == "kept"
    (finding,) = verdict.findings
    assert "transaction 702 on connection 2 asked for the same later, its values aside" in finding.explanation
    assert "no answer arrived" in finding.timeline


def test_what_is_gone_was_not_done_twice():
    """The crash took it, so to do it again was right; who broke the invariant is not known then."""
    verdict = Talk().begin().commit(there=False).judged(broken_since=BROKEN, repeats=AGAIN)
    assert codes(verdict) == ["APPLICATION-AFTERWARDS"]
    assert codes(Talk().begin().commit().ack().judged(broken_since=BROKEN)) == ["APPLICATION-AFTERWARDS"]


def test_a_repetition_that_harms_nothing_accuses_nobody():
    """The innocent twin: the invariant holds."""
    assert Talk().begin().commit().judged(repeats=AGAIN).outcome == "intact"


def test_what_the_crash_had_left_broken_is_not_blamed_on_what_came_later():
    """It was between two transactions then, and has another finding."""
    verdict = Talk().begin().commit().judged(broken="1 row: {}", broken_since=BROKEN, repeats=AGAIN)
    assert codes(verdict) == ["APPLICATION-INVARIANT"]
