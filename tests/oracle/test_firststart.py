"""Is what a killed initialisation left told as such, and never held against PostgreSQL?"""

import pytest
from msgspec.structs import replace

from crashlab.model import FirstStart, Observation, Outcome, PromiseStatus, Recovery
from crashlab.oracle.codes import CODES
from tests.oracle.story import Story, codes

SCRIPTS = ["10-schema.sql", "crashlab-1.sql", "crashlab-2.sql"]
WHOLE = FirstStart(
    during="init-scripts", reached="in the init script crashlab-1.sql", whole=False, scripts=SCRIPTS, started=True
)
HALF = replace(WHOLE, skipped=True, unfinished=SCRIPTS[1:], missing={"public.crashlab_init_1": "crashlab-1.sql"})
DOWN = replace(WHOLE, started=False, last_words=["FATAL:  could not open file"])


@pytest.fixture
def story():
    """One acknowledged transaction."""
    made = Story()
    made.commit(1, "a", 1)
    return made


def test_nothing_missing_is_nothing_to_tell(story):
    """The innocent twin: killed, started again, and whole."""
    verdict = story.judge(story.left(2, first_start=WHOLE))
    assert codes(verdict) == []
    assert verdict.outcome is Outcome.INTACT


def test_scripts_that_were_skipped_are_the_entry_points_doing(story):
    """What it says, which scripts, what is missing; no promise of PostgreSQL's is broken."""
    verdict = story.judge(story.left(2, first_start=HALF))
    assert codes(verdict) == ["INIT-SCRIPTS-SKIPPED"]
    assert (verdict.outcome, verdict.promise) == (Outcome.LOSS, PromiseStatus.KEPT)
    (finding,) = verdict.findings
    assert finding.permitted
    assert "2 of 3 init scripts were never run to the end (crashlab-1.sql, crashlab-2.sql)" in finding.explanation
    assert "public.crashlab_init_1" in finding.explanation
    assert 'which says "Skipping initialization"' in finding.explanation
    assert "the image's entry point's" in CODES["INIT-SCRIPTS-SKIPPED"].permitted


def test_what_a_finished_script_made_has_to_be_there(story):
    """Its commits were answered, so that its table is gone is no matter of the entry point."""
    gone = {"public.crashlab_init_1": "crashlab-1.sql"}
    verdict = story.judge(story.left(2, first_start=replace(HALF, unfinished=["crashlab-2.sql"], missing=gone)))
    assert codes(verdict) == ["LOSS-SYNC-COMMIT"]
    assert (verdict.outcome, verdict.promise) == (Outcome.LOSS, PromiseStatus.BROKEN)
    assert "crashlab-1.sql had run to its end" in verdict.findings[0].explanation


def test_a_whole_server_that_does_not_start_again_is_no_matter_of_the_first_start(story):
    """The kill came when all was done: a crash like any other."""
    down = Recovery(started=False, ran=False, seconds=0.0, fatal=DOWN.last_words)
    verdict = story.judge(Observation(recovery=down, first_start=replace(DOWN, whole=True)))
    assert codes(verdict) == ["NO-START"]
    assert verdict.promise is PromiseStatus.BROKEN


def test_it_hides_no_damage(story):
    """A transaction that is gone on such a server is PostgreSQL's fault as ever."""
    verdict = story.judge(story.left(first_start=HALF))
    assert codes(verdict)[0] == "LOSS-SYNC-COMMIT"
    assert verdict.promise is PromiseStatus.BROKEN


@pytest.mark.parametrize(("refuses", "became"), [(False, "it ended"), (True, "it runs, and lets nobody in")])
def test_no_server_at_all_is_told_and_nothing_else(story, refuses, became):
    """Nothing was asked of it, so nothing is said of clients, acknowledgements or a crash."""
    left = Observation(
        recovery=Recovery(started=False, ran=False, seconds=0.0), first_start=replace(DOWN, refuses=refuses)
    )
    verdict = story.judge(left, acked_min=20)
    assert codes(verdict) == ["INIT-NO-START"]
    assert (verdict.outcome, verdict.promise) == (Outcome.NO_START, PromiseStatus.KEPT)
    assert f"{became}: FATAL:  could not open file" in verdict.findings[0].explanation


def test_a_server_that_does_not_start_later_is_no_matter_of_the_first_start(story):
    """It had started, clients were served, and then it was gone: broken."""
    down = Recovery(started=False, ran=False, seconds=1.0, fatal=["PANIC:  could not locate a valid checkpoint record"])
    verdict = story.judge(story.left(2, first_start=HALF, recovery=down))
    assert codes(verdict) == ["NO-START", "INIT-SCRIPTS-SKIPPED"]
    assert verdict.promise is PromiseStatus.BROKEN
