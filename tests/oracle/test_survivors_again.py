"""Does a second crash during recovery that changes who survived come to light, and only such a one?"""

from msgspec.structs import replace

from crashlab.model import CrashClass, Outcome, PromiseStatus, Recovery, Survivors
from tests.oracle.story import KILL, Story, codes

POWER = CrashClass.POWER_LOSS
CODE = "CORRUPT-SURVIVORS-CHANGED"


def first(*transactions: int, prepared: tuple[str, ...] = ()) -> Survivors:
    return Survivors(transactions=[1, *transactions], prepared=list(prepared))


def three() -> tuple[Story, int, int, int]:
    """An asynchronous commit each; the last one has no answer."""
    story = Story()
    a = story.commit(1, "a", 1, sync="off")
    b = story.commit(2, "b", 1, sync="off")
    return story, a, b, story.lose_answer(story.intend(story.begin(3), "c", 1, sync="off"))


def test_a_transaction_that_went_is_named():
    """Its loss alone would be within the promise: only the first recovery shows that it had survived."""
    story, a, b, c = three()
    assert codes(story.judge(story.left(a), crash_class=POWER)) == ["LOSS-ASYNC-WINDOW"]
    verdict = story.judge(story.left(a, first_survivors=first(a, b)), crash_class=POWER)
    assert (verdict.outcome, verdict.promise) == (Outcome.CORRUPTION, PromiseStatus.BROKEN)
    assert codes(verdict) == [CODE]
    (witness,) = verdict.findings[0].evidence["witnesses"]
    assert (witness["tx"], witness["change"]) == (b, "gone")
    verdict = story.judge(story.left(a, b, first_survivors=first(a, b, c)), crash_class=POWER)
    assert [witness["tx"] for witness in verdict.findings[0].evidence["witnesses"]] == [c]


def test_a_transaction_that_came_back_is_named():
    """Nothing else is wrong with it: it was acknowledged, and is there."""
    story, a, b, c = three()
    verdict = story.judge(story.left(a, b, c, first_survivors=first(a)), crash_class=POWER)
    assert codes(verdict) == [CODE]
    assert verdict.findings[0].count == 2
    assert [(one["tx"], one["change"]) for one in verdict.findings[0].evidence["witnesses"]] == [
        (b, "back"),
        (c, "back"),
    ]


def test_a_prepared_transaction_that_went_or_came_is_named():
    """Both ways; whoever is prepared after both recoveries is fine."""
    story = Story()
    tx = story.intend(story.begin(1), "a", 1, action="prepare", gid="crashlab-2")
    for now, before in (((), ("crashlab-2",)), (("crashlab-2",), ())):
        left = story.left(prepared=list(now), first_survivors=first(prepared=before))
        verdict = story.judge(left, crash_class=POWER)
        assert codes(verdict) == [CODE]
        assert verdict.findings[0].evidence["witnesses"][0]["tx"] == tx
    left = story.left(prepared=["crashlab-2"], first_survivors=first(prepared=("crashlab-2",)))
    assert codes(story.judge(left, crash_class=POWER)) == []


def test_the_same_survivors_accuse_nobody():
    """Whoever survived, and with old evidence, which does not tell."""
    story, a, b, c = three()
    for survivors in ((a, b, c), (a, b)):
        left = story.left(*survivors, first_survivors=first(*survivors))
        assert story.judge(left, crash_class=POWER).outcome is Outcome.INTACT
    kept = story.judge(story.left(a, first_survivors=first(a)), crash_class=POWER)
    assert (codes(kept), kept.promise) == (["LOSS-ASYNC-WINDOW"], PromiseStatus.KEPT)
    assert codes(story.judge(story.left(a), crash_class=POWER)) == ["LOSS-ASYNC-WINDOW"]


def test_where_nothing_is_promised_no_promise_is_broken():
    """With fsync off the second cut may take what the first recovery had."""
    story, a, b, _ = three()
    left = story.left(a, first_survivors=first(a, b))
    verdict = story.judge(left, crash_class=POWER, settings={"fsync": "off"})
    assert codes(verdict) == [CODE]
    assert verdict.promise is PromiseStatus.VOID


def test_an_asynchronous_loss_of_the_first_crash_stays_permitted_after_the_second():
    """A second cut that finds "shut down" in the control file needs no recovery, yet there was a crash before."""
    story, a, *_ = three()
    start = Recovery(started=True, ran=False, seconds=0.1)
    stopped = (replace(KILL, crashes_server=False),)
    left = story.left(a, recovery=start, first_survivors=first(a))
    verdict = story.judge(left, crash_class=POWER, injections=stopped)
    assert (codes(verdict), verdict.promise) == (["LOSS-ASYNC-WINDOW"], PromiseStatus.KEPT)
    verdict = story.judge(story.left(a, recovery=start), crash_class=POWER, injections=stopped)
    assert (codes(verdict), verdict.promise) == (["LOSS-PROTECTED-ASYNC"], PromiseStatus.BROKEN)
