"""How old were the lost asynchronous commits, over all trials of a profile?"""

import json

import pytest

from crashlab.report import json_report
from crashlab.report.window import histogram, window_line, windows
from tests.made_results import intact, permitted_loss, result, run


def lost(*ages_ms: float, bound_ms: float | None = 600.0):
    """A profile with one intact trial, and one for each age."""
    return result(
        "async-commit",
        intact(),
        *(permitted_loss(number + 1, oldest_ms=age, bound_ms=bound_ms) for number, age in enumerate(ages_ms)),
    )


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (lost(), None),
        (
            lost(187.6, bound_ms=None),
            "async window: oldest lost commit 188 ms before the fault in 1 of 2 trials, no bound",
        ),
        (
            lost(0.0, 0.0, bound_ms=None),
            "async window: oldest lost commit right before the fault in 2 of 3 trials, no bound",
        ),
        (
            lost(0.0, 0.3, bound_ms=None),
            "async window: oldest lost commit 0.0 to 0.3 ms before the fault in 2 of 3 trials, median 0.1, no bound",
        ),
        (
            lost(80.0, 80.2),
            "async window: oldest lost commit 80 ms before the fault in 2 of 3 trials, bound 600 ms",
        ),
        (
            lost(12.0, 187.0, 80.0),
            "async window: oldest lost commit 12 to 187 ms before the fault in 3 of 4 trials, median 80, bound 600 ms",
        ),
        (
            lost(12.0, 700.0),
            (
                "async window: oldest lost commit 12 to 700 ms before the fault in 2 of 3 trials, median 356, "
                "bound 600 ms, exceeded in 1"
            ),
        ),
    ],
)
def test_one_line_says_how_old_the_lost_commits_were(made, line):
    """Nothing where nothing was lost; the bound only where there is one."""
    assert window_line(made) == line


def test_the_json_report_has_the_distribution():
    """Ten trials: the ninth is the 90 % point, only what is above the bound is over it."""
    report = json.loads(json_report.report_bytes(run(lost(*range(10, 101, 10), bound_ms=90.0))))
    assert report["async_window"] == {
        "n": 10,
        "min_ms": 10.0,
        "median_ms": 55.0,
        "p90_ms": 90.0,
        "max_ms": 100.0,
        "bound_ms": 90.0,
        "over": 1,
    }
    assert json.loads(json_report.report_bytes(run(lost())))["async_window"] is None


@pytest.mark.parametrize("ages_ms", [(0.0,), (0.4, 0.6), (12.0, 80.0, 187.0), (600.0, 12345.6)])
def test_the_histogram_counts_each_trial_once(ages_ms):
    """Each age lies in exactly one of a few bins, the bound inside the picture."""
    width_ms, counts = histogram(windows(lost(*ages_ms)))
    assert sum(counts) == len(ages_ms)
    assert 1 <= len(counts) <= 14
    assert width_ms * len(counts) >= 600
