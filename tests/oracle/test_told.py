"""What was told and is gone: is the right one blamed, by evidence that is written by hand?"""

from crashlab.model import Verdict
from tests.oracle.talk import Talk


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]


def test_told_while_the_transaction_was_open():
    """Before its COMMIT was sent, or before it was answered; and the promise of PostgreSQL's is kept."""
    for talk in (Talk().begin().tell("a"), Talk().tell("a").begin(), Talk().begin().commit(there=False).tell("a")):
        verdict = talk.judged()
        assert codes(verdict) == ["TOLD-BEFORE-COMMIT"]
        assert (verdict.outcome, verdict.promise) == ("loss", "kept")
        assert any(line.endswith("key a was told") for line in verdict.findings[0].timeline)


def test_a_line_in_a_file_was_told_between_two_looks():
    """It was seen when the next transaction was under way, so the one before it is meant, whose answer had come."""
    asynchronous = Talk().begin().commit(sync="off", there=False).ack()
    late = asynchronous.begin().commit(sync="off", there=False)
    assert "TOLD-BEFORE-COMMIT" in codes(late.tell("a").judged())
    for since in (1, 3, 4):  # before the first began, in it, and right behind its answer
        late.told.clear()
        assert sorted(codes(late.tell("a", since=since).judged())) == ["LOSS-ASYNC-WINDOW", "TOLD-ASYNC-COMMIT"]


def test_a_line_in_a_file_that_was_told_too_early():
    """The guilty twin: at both looks the transaction was open, or it began in between and was never answered."""
    for since in (2, 1):
        verdict = Talk().begin().commit(there=False).tell("a", since=since).judged()
        assert codes(verdict) == ["TOLD-BEFORE-COMMIT"]


def test_the_next_to_begin_is_meant_if_nothing_else_can_have_removed_the_key():
    """Told from memory, before the transaction that was to write it; also where the one before had been answered."""
    talk = Talk().begin().commit().ack().tell("a").begin().commit(there=False)
    (finding,) = talk.judged().findings
    assert finding.code == "TOLD-BEFORE-COMMIT"
    assert "Its transaction (number 2 of the ledger, xid 702) on connection 1 began only after" in finding.explanation
    assert "or else nobody ever wrote it" in finding.explanation


def test_a_key_that_may_have_been_deleted_accuses_no_later_transaction():
    """The innocent twin: told behind its answer, deleted by the next one; and a third was never answered."""
    for since in (0, 4):
        talk = Talk().begin().commit().ack().tell("a", since=since)
        verdict = talk.begin().commit().ack().begin().commit(there=False).judged()
        (finding,) = verdict.findings
        assert (finding.code, verdict.promise) == ("TOLD-LOST", "kept")
        assert "Whether the key was ever written is not known" in finding.explanation
        assert "transaction (number" not in finding.explanation
        assert ["tx" in one for one in finding.evidence["witnesses"]] == [False]


def test_the_one_that_deleted_a_key_need_not_have_been_answered():
    """It was done, and the crash took the answer."""
    talk = Talk().begin().commit().ack().tell("a").begin().commit().begin().commit(there=False)
    assert codes(talk.judged()) == ["TOLD-LOST"]


def test_a_line_in_a_file_that_was_told_of_a_key_that_was_deleted():
    """When it was seen a third transaction was under way already: both may be; its twin was open at both looks."""
    talk = Talk().begin().commit().ack().begin().commit().ack().begin()
    (finding,) = talk.tell("a", since=4).judged().findings
    assert finding.code == "TOLD-BEFORE-COMMIT"
    assert "may also have been there before" in finding.explanation
    talk.told.clear()
    (finding,) = talk.commit(there=False).tell("a", since=8).judged().findings
    assert finding.code == "TOLD-BEFORE-COMMIT"
    assert "been deleted" not in finding.explanation


def test_told_after_the_fault():
    """Whoever has no answer then was ended by the fault: none of them is called the key's own."""
    lost = Talk().begin().commit().ack().begin().commit(there=False)
    (finding,) = lost.tell("a", age_ms=-1300).judged().findings
    assert finding.code == "TOLD-LOST"
    assert "Key a was told 1300.0 ms after the fault was sent" in finding.explanation
    assert "to be written by the one transaction without an answer" in finding.explanation
    assert "transaction (number" not in finding.explanation
    fault = next(number for number, line in enumerate(finding.timeline) if line.startswith("fault"))
    assert finding.timeline[fault + 1] == "after ledger line 6, +1300.0 ms: key a was told"
    asynchronous = Talk().begin().commit(sync="off", there=False).ack().tell("a", age_ms=-1)
    assert sorted(codes(asynchronous.judged())) == ["LOSS-ASYNC-WINDOW", "TOLD-ASYNC-COMMIT"]


def test_told_right_before_the_fault_while_its_transaction_had_no_answer():
    """The guilty twin; of a line in a file, what counts is when it was not there yet."""
    lost = Talk().begin().commit().ack().begin().commit(there=False)
    assert codes(lost.tell("a", age_ms=0.01).judged()) == ["TOLD-BEFORE-COMMIT"]
    lost.told.clear()
    assert codes(lost.tell("a", since=6, age_ms=-2, since_ms=0.5).judged()) == ["TOLD-BEFORE-COMMIT"]
    lost.told.clear()
    assert codes(lost.tell("a", since=6, age_ms=-2, since_ms=-0.5).judged()) == ["TOLD-LOST"]


def test_told_while_the_transaction_was_open_and_it_was_rolled_back_later():
    """No crash was needed; the guilty twin was committed, and its answer came before the crash took it."""
    talk = Talk().begin().tell("a").refuse()
    (finding,) = talk.judged(reasons={"1": "it was rolled back after an error"}).findings
    assert finding.code == "TOLD-BEFORE-COMMIT"
    assert "was open then and never committed: it was rolled back after an error. No crash" in finding.explanation
    assert "answer came later" not in finding.explanation
    asynchronous = Talk().begin().tell("a").commit(sync="off", there=False).ack().judged()
    (finding,) = [one for one in asynchronous.findings if one.code == "TOLD-BEFORE-COMMIT"]
    assert "the answer came later" in finding.explanation


def test_an_answer_to_a_transaction_that_wrote_nothing_is_no_loss():
    """It has no id, so no status calls it committed; the twin beside it has one, and is gone."""
    (finding,) = Talk().begin().commit(wrote=False).ack().tell("a").judged().findings
    assert finding.code == "TOLD-LOST"
    assert "Every commit that was answered and has an id is there" in finding.explanation
    found = Talk().begin().commit(there=False).ack().tell("a").judged().findings
    assert "is gone: see what is said of it" in next(one for one in found if one.code == "TOLD-LOST").explanation


def test_what_is_there_accuses_nobody():
    """The innocent twins: answered first, or told too early and yet there."""
    assert Talk().begin().commit().ack().tell("a").judged("a").outcome == "intact"
    assert Talk().begin().tell("a").commit().ack().judged("a").outcome == "intact"
    assert Talk().begin().commit().ack().tell("a").begin().judged("a").outcome == "intact"


def test_told_although_it_was_refused():
    """The one that was refused last is meant, also if a later one is open."""
    (finding,) = Talk().begin().refuse().tell("a").judged(reasons={"1": "its COMMIT failed: duplicate key"}).findings
    assert finding.code == "TOLD-AFTER-FAILURE"
    assert "its COMMIT failed: duplicate key" in finding.explanation


def test_an_asynchronous_commit_is_blamed_on_who_set_it():
    """A permitted loss, and one that the user was told of; with the statement that made it asynchronous."""
    verdict = Talk().begin().commit(sync="off", there=False).ack().tell("a").judged(set_by={"1": "'SET x'"})
    assert sorted(codes(verdict)) == ["LOSS-ASYNC-WINDOW", "TOLD-ASYNC-COMMIT"]
    assert verdict.promise == "kept"
    (finding,) = [one for one in verdict.findings if one.code == "TOLD-ASYNC-COMMIT"]
    assert "set by connection 1 itself: 'SET x'" in finding.explanation


def test_the_database_comes_last_and_is_accused_by_its_answer():
    """A synchronous commit that was answered and is gone; told or not."""
    verdict = Talk().begin().commit(there=False).ack().tell("a").judged()
    assert sorted(codes(verdict)) == ["LOSS-SYNC-COMMIT", "TOLD-LOST"]
    assert verdict.promise == "broken"


def test_a_setting_with_which_nothing_is_promised_comes_before_the_database():
    """The power fails without fsync: the setting is named, and no promise was broken. With fsync it is the database."""
    verdict = Talk().begin().commit(there=False).ack().tell("a").judged(fsync="off")
    assert sorted(codes(verdict)) == ["LOSS-NOTHING-PROMISED", "TOLD-NOTHING-PROMISED"]
    assert verdict.promise == "void"
    (finding,) = [one for one in verdict.findings if one.code == "TOLD-NOTHING-PROMISED"]
    assert "had been answered, under fsync = off" in finding.explanation
    verdict = Talk().begin().commit(there=False).ack().tell("a").judged(fsync="on")
    assert sorted(codes(verdict)) == ["LOSS-SYNC-COMMIT", "TOLD-LOST"]


def test_a_query_that_could_not_be_run_says_why():
    """It has found nothing, so every key is missing."""
    verdict = Talk().begin().commit().ack().tell("a").judged(failed='relation "orders" does not exist')
    assert 'could not be run: relation "orders" does not exist.' in verdict.findings[0].explanation


def test_if_all_that_was_answered_is_there_it_was_not_the_database():
    """The key was never written, or was removed."""
    verdict = Talk().begin().commit().ack().tell("a").judged()
    assert codes(verdict) == ["TOLD-LOST"]
    assert verdict.promise == "kept"
    assert "the database has kept its word" in verdict.findings[0].explanation


def test_a_refused_transaction_that_is_there_is_a_phantom():
    """By its status alone: nobody writes markers."""
    talk = Talk().begin().commit().refuse()
    assert codes(talk.judged()) == ["CORRUPT-PHANTOM"]


def test_an_invariant_between_two_transactions_is_the_applications():
    """Nothing is damaged or lost, so it accuses no database."""
    verdict = Talk().begin().commit().ack().judged(broken="1 row")
    assert codes(verdict) == ["APPLICATION-INVARIANT"]
    assert verdict.promise == "kept"
