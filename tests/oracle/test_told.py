"""What was told and is gone: is the right one blamed, by evidence that is written by hand?"""

from msgspec.structs import replace

from crashlab.contract import contract_for
from crashlab.history import fold
from crashlab.ledger import SCHEMA, Ack, Begin, Event, Header, Intent, Refused
from crashlab.model import (
    REQUIRED_CHECKS,
    CheckRun,
    CrashClass,
    Invariant,
    Observation,
    Recovery,
    Told,
    ToldKey,
    Verdict,
)
from crashlab.oracle import judge
from tests.oracle.story import KILL, ago

RAN = {name: CheckRun(status="ran", count=1, seconds=0.0) for name in REQUIRED_CHECKS}
CAME_BACK = Recovery(started=True, ran=True, seconds=0.1)


class Talk:
    """A conversation of one connection, line by line, and what the user was told in between."""

    def __init__(self) -> None:
        self.events: list[Event] = [Header(schema=SCHEMA, seed=1)]
        self.statuses: dict[str, str] = {}
        self.told: list[ToldKey] = []
        self.count = 0

    def begin(self) -> "Talk":
        self.count += 1
        self.events.append(Begin(self.count, 1, ago(5)))
        return self

    def commit(self, *, sync: str = "on", there: bool = True) -> "Talk":
        xid = 700 + self.count
        self.statuses[str(xid)] = "committed" if there else "future"
        self.events.append(Intent(self.count, 1, ago(4), xid=xid, sync=sync))
        return self

    def ack(self) -> "Talk":
        self.events.append(Ack(self.count, 1, ago(3)))
        return self

    def refuse(self) -> "Talk":
        self.events.append(Refused(self.count, 1, ago(3), "no"))
        return self

    def tell(self, key: str) -> "Talk":
        self.told.append(ToldKey(text=key, at_ns=ago(2), line=len(self.events), by="test"))
        return self

    def judged(self, *found: str, broken: str = "", **more) -> Verdict:
        told = Told(observed=True, keys=self.told, query="SELECT id", found=list(found), **more)
        invariants = [Invariant(name="sum", expected="no rows", observed=broken or "no rows")]
        observation = Observation(recovery=CAME_BACK, checks=RAN, xact_status=self.statuses, invariants=invariants)
        contract = contract_for({"synchronous_commit": "on"}, CrashClass.PROCESS_CRASH, bounded_window=True)
        receipt = replace(KILL, ledger_position=len(self.events))
        return judge(fold(self.events), contract, [receipt], observation, acked_min=0, told=told)


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]


def test_told_while_the_transaction_was_open():
    """Before its COMMIT was sent, or before it was answered; and the promise of PostgreSQL's is kept."""
    for talk in (Talk().begin().tell("a"), Talk().tell("a").begin(), Talk().begin().commit(there=False).tell("a")):
        verdict = talk.judged()
        assert codes(verdict) == ["TOLD-BEFORE-COMMIT"]
        assert (verdict.outcome, verdict.promise) == ("loss", "kept")
        assert any(line.endswith("key a was told") for line in verdict.findings[0].timeline)


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
