"""Is a power cut after a clean stop judged as what it is: no recovery is due, and nothing may be missing?"""

from msgspec.structs import replace

from crashlab.model import Observation, Outcome, PromiseStatus, Recovery
from tests.oracle.story import KILL, Story, codes

STOPPED = replace(KILL, kind="power cut", target="linux disk", disk="linux", crashes_server=False)


def after_stop(story: Story, *present: int, rows_counted: int | None) -> Observation:
    """What is there if the server started without a recovery."""
    recovery = Recovery(started=True, ran=False, seconds=0.1)
    return story.left(*present, recovery=recovery, rows_counted=rows_counted)


def test_no_recovery_is_no_reason_for_doubt() -> None:
    """The receipt says that no recovery was due; if one was, a start without it is inconclusive."""
    story = Story()
    tx = story.commit(1, "a", 1)
    observation = after_stop(story, tx, rows_counted=2)
    assert story.judge(observation, injections=(STOPPED,)).outcome is Outcome.INTACT
    assert codes(story.judge(observation, injections=(KILL,))) == ["INCONCLUSIVE-NO-CRASH"]


def test_a_clean_stop_keeps_asynchronous_commits() -> None:
    """What a crash may lose, a clean stop may not."""
    story = Story()
    story.commit(1, "a", 1, sync="off")
    assert story.judge(story.left(), injections=(KILL,)).promise is PromiseStatus.KEPT
    verdict = story.judge(after_stop(story, rows_counted=1), injections=(STOPPED,))
    assert (verdict.outcome, verdict.promise) == (Outcome.LOSS, PromiseStatus.BROKEN)


def test_lost_statistics_are_noted_and_nothing_else() -> None:
    """Only after a clean stop: a crash recovery throws them away, as documented."""
    story = Story()
    tx = story.commit(1, "a", 1)
    verdict = story.judge(after_stop(story, tx, rows_counted=0), injections=(STOPPED,))
    assert (verdict.outcome, verdict.promise, codes(verdict)) == (
        Outcome.INTACT,
        PromiseStatus.KEPT,
        ["NOTE-STATISTICS-LOST"],
    )
    assert codes(story.judge(story.left(tx, rows_counted=0))) == []
