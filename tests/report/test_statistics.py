"""What the trials of a profile come to in numbers, and that every report says it with the same words."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from crashlab.report.statistics import statistics, statistics_line
from crashlab.results import CrashPoint, ProfileResult, RunResult, TrialResult
from tests.made_results import broken, inconclusive, intact, permitted_loss, result, run, shut_down, void
from tests.report.test_same_words import in_junit, on_the_console, on_the_page, plain


def state(trial: TrialResult, image: int) -> TrialResult:
    """The trial as one of a recording, whose crash state has this content."""
    return replace(trial, state=CrashPoint(100 + trial.trial, "lost nothing", image))


def took(made: ProfileResult, seconds: float) -> ProfileResult:
    """The profile as one that took so long."""
    made.seconds = seconds
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (result("kill9-all", *map(intact, range(10))), "0 broken in 10: at most 25.9 % at 95 %"),
        (
            result("kill9-all", *map(intact, range(9)), broken(9)),
            "1 broken in 10: at least 0.512 % and at most 39.4 %, each at 95 %",
        ),
        (result("kill9-all", intact(), inconclusive(1), void(2)), "0 broken in 1: at most 95 % at 95 %"),
        (result("docker-stop", intact(), shut_down(intact(1)), intact(2)), "0 broken in 2: at most 77.6 % at 95 %"),
        (
            result("docker-stop", intact(), shut_down(broken(1)), shut_down(intact(2))),
            "1 broken in 2: at least 2.53 % and at most 97.5 %, each at 95 %",
        ),
        (result("docker-stop", shut_down(intact()), shut_down(intact(1))), None),
        (result("kill9-all", inconclusive(), void(1)), None),
        (result("kill9-all"), None),
        (
            took(result("kill9-all", intact(), intact(1)), 4.0),
            "0 broken in 2: at most 77.6 % at 95 %; 0.5 trials a second",
        ),
        (
            took(result("power-loss", state(void(0), 7), state(void(1), 7), state(void(2), 8)), 1.5),
            "2 distinct crash states; 2 states a second",
        ),
    ],
)
def test_one_line_says_what_is_known_and_no_more(made, expected):
    """Void and inconclusive trials prove no promise; equal images are one state; unknown time gives no rate.

    A server that had shut down before it was killed proves none either, unless it broke one all the same.
    """
    assert statistics_line(made) == expected


def test_the_numbers_behind_the_line_are_null_where_nothing_is_known():
    """Programs find the same, unrounded where it matters: 1 of 10 is Clopper and Pearson's 0.0051 to 0.3942."""
    found = statistics(result("kill9-all", *map(intact, range(9)), broken(9)))
    assert (found.judged, found.broken) == (10, 1)
    assert (found.share_at_least, found.share_at_most) == (0.005116, 0.394163)
    assert (found.distinct_states, found.seconds, found.per_second) == (None, None, None)


@pytest.mark.parametrize("tell", [on_the_console, in_junit, on_the_page])
def test_the_line_is_in_every_report(tell: Callable[[RunResult], str]) -> None:
    """JUnit has it as a property of the suite."""
    told = run(took(result("kill9-all", broken(), permitted_loss(1)), 3.0), took(result("quick", intact()), 2.0))
    text = plain(tell(told)) if tell is not in_junit else in_junit(told) + properties(told)
    for profile in told.profiles:
        line = statistics_line(profile)
        assert line is not None
        assert line in text


def properties(told: RunResult) -> str:
    """The values of all properties of a JUnit report."""
    from xml.etree import ElementTree

    from crashlab.report import junit

    root = ElementTree.fromstring(junit.report_bytes(told))
    return " ".join(element.get("value", "") for element in root.iter("property"))
