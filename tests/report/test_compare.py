"""What is said of two runs: every difference by name, and no difference where chance explains it."""

from dataclasses import replace

import msgspec
import pytest

from crashlab.report.compare import compare, comparison_lines
from crashlab.report.compare_page import page_bytes
from crashlab.results import ProfileFacts, ProfileResult, TrialResult
from tests.made_results import (
    FACTS,
    broken,
    inconclusive,
    intact,
    permitted_loss,
    recovered_by,
    result,
    shut_down,
    void,
)
from tests.report.test_same_words import Page


def changed(made: ProfileResult, *, seconds: dict[str, float] | None = None, **tables: object) -> ProfileResult:
    """A result of the same profile with other tables, or whose trials took other times."""
    facts = ProfileFacts.stored({**made.profile.resolved, **tables})
    trials = made.trials if seconds is None else [replace(trial, seconds=seconds) for trial in made.trials]
    return replace(made, profile=facts, trials=trials)


def by_name(*results: ProfileResult) -> dict[str, ProfileResult]:
    """Results as a stored run has them."""
    return {one.profile.name: one for one in results}


def trials(*kinds: tuple[int, object]) -> list[TrialResult]:
    """So many trials of each kind, numbered."""
    made = [kind for count, kind in kinds for _ in range(count)]
    return [kind(number) for number, kind in enumerate(made)]  # type: ignore[operator]


def test_a_run_and_itself_differ_in_nothing():
    """No change, no code, no time, and no conclusion from chance; also where nothing could be judged."""
    for made in (by_name(result("kill9-all", broken(), intact(1))), by_name(result("kill9-all", inconclusive()))):
        found = compare(made, made)
        (one,) = found.profiles
        assert (one.changes, one.codes_gone, one.codes_new, one.seconds) == ([], [], [], {})
        assert [shares.p for shares in one.shares] == [pytest.approx(1), pytest.approx(1)]
        assert not found.more_than_chance
        assert list(comparison_lines(found))[-1] == "Outcomes: no difference seen."


def test_each_kind_of_difference_is_named():
    """Profiles of one run only, keys of the profile, the server's own settings, codes, phases of a trial."""
    before = result("kill9-all", permitted_loss(), intact(1))
    after = changed(result("kill9-all", broken(), intact(1)), seconds={"total": 0.9, "recovery": 0.2}, trials=77)
    settings = {"fsync": "on", "port": "5555", "wal_level": "logical"}
    after.server = msgspec.structs.replace(FACTS, version="17.10", settings=settings)
    found = compare(by_name(before, result("quick")), by_name(after, result("async-commit")), ignored={"port"})
    assert (found.only_before, found.only_after) == (["quick"], ["async-commit"])
    (one,) = found.profiles
    assert [str(change) for change in one.changes] == [
        f"trials: {before.profile.resolved['trials']} -> 77",
        "server version: 18.6 -> 17.10",
        "fsync, as read back: off -> on",
        "wal_level, as read back: - -> logical",
    ]
    assert one.outcomes == {"intact": (1, 1), "loss": (1, 0), "corruption": (0, 1)}
    assert one.promises == {"kept": (2, 1), "broken": (0, 1)}
    assert (one.codes_gone, one.codes_new) == (["LOSS-ASYNC-WINDOW"], ["CORRUPT-HOLE"])
    assert one.seconds == {"total": (0.7, 0.9), "recovery": (None, 0.2)}
    text = "\n".join(comparison_lines(found))
    assert "kept 2 of 2 (100 %) -> 1 of 2 (50 %)" in text
    assert "0 broken in 2: at most 77.6 % at 95 % -> 1 broken in 2: at least 2.53 % and at most 97.5 %" in text


def test_another_release_that_recovered_is_a_difference():
    """And the same one is none."""
    itself, other = result("kill9-all", intact()), result("kill9-all", recovered_by(intact()))
    for before, after, says in (
        (itself, other, ["recovered by: - -> 18.9"]),
        (other, itself, ["recovered by: 18.9 -> -"]),
        (other, other, []),
    ):
        (one,) = compare(by_name(before), by_name(after)).profiles
        assert [str(change) for change in one.changes] == says


def test_only_what_chance_does_not_explain_is_called_a_difference():
    """5 of 20 against 0 of 20 is p = 0.047: a difference for one profile, none among two; void trials prove nothing."""
    guilty, innocent = (
        result("kill9-all", *trials((5, broken), (15, intact))),
        result("kill9-all", *trials((20, intact))),
    )
    alone = compare(by_name(innocent), by_name(guilty))
    assert [round(one.p, 4) for one in alone.profiles[0].shares] == [0.0471, 0.0471]
    assert alone.more_than_chance
    assert list(comparison_lines(alone))[-1] == "Something differs by more than chance."
    other = result("quick", intact())
    assert not compare(by_name(innocent, other), by_name(guilty, other)).more_than_chance
    harmed = compare(by_name(innocent), by_name(result("kill9-all", *trials((20, void)))))
    assert [one.more_than_chance for one in harmed.profiles[0].shares] == [False, True]


@pytest.mark.parametrize("crashed", [True, False])
def test_servers_that_had_shut_down_are_no_difference(crashed):
    """5 of 20 crashes against 20 that were none is no difference; against 20 crashes, and none harmed, it is."""
    before = trials((20, intact)) if crashed else [shut_down(one) for one in trials((20, intact))]
    after = trials((5, broken), (15, intact))
    found = compare(by_name(result("kill9-all", *before)), by_name(result("kill9-all", *after)))
    (one,) = found.profiles
    assert [shares.before for shares in one.shares] == [(0, 20 * crashed)] * 2
    assert found.more_than_chance == crashed
    assert one.promises["kept"] == (20 * crashed, 15)
    assert one.promises.get("not put to the test") == (None if crashed else (20, 0))


def test_the_page_says_what_the_lines_say():
    """Numbers of both runs, what is set differently, and words of evidence as text."""
    before = result("kill9-all", *trials((1, permitted_loss), (8, intact)))
    after = changed(result("kill9-all", *trials((9, broken))), trials="<script>77</script>")
    found = compare(by_name(before), by_name(after))
    page = page_bytes(found, "first<b>", "second").decode()
    text = " ".join(" ".join(Page(page.encode()).text).split())
    for expected in ("first<b>", "<script>77</script>", "CORRUPT-HOLE", "corruption 0 9", "intact 8 0", "loss 1 0"):
        assert expected in text
    assert "Something differs by more than chance." in text
    assert "<script>77" not in page
    assert "no difference seen" in page_bytes(compare(by_name(before), by_name(before)), "a", "a").decode()
