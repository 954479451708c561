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
