"""How old were the lost asynchronous commits of many trials, against what the manual says?

One figure a trial: how long before the fault the oldest of them had been acknowledged.
Choices: `over` counts against the bound itself. The finding LOSS-ASYNC-WINDOW-EXCEEDED gives some slack on top, for
    the manual's bound leaves out the time of the flush.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from crashlab.model import AsyncWindow
from crashlab.report.summary import counted
from crashlab.results import ProfileResult

BINS = 12
_WHOLE_MS = 10.0


@dataclass(frozen=True, kw_only=True)
class WindowSummary:
    """The distribution of the oldest lost commit's age."""

    n: int  # trials that lost asynchronous commits
    min_ms: float
    median_ms: float
    p90_ms: float  # nine of ten trials are no older
    max_ms: float
    bound_ms: float | None  # the manual's bound; None: these trials have none
    over: int  # trials beyond their own bound


def windows(result: ProfileResult) -> list[AsyncWindow]:
    """Return the window of each trial that lost asynchronous commits."""
    return [trial.verdict.window for trial in result.trials if trial.verdict.window is not None]


def summarise(found: Sequence[AsyncWindow]) -> WindowSummary | None:
    """Return the distribution; None: no trial lost any."""
    if not found:
        return None
    ages = sorted(one.oldest_ms for one in found)
    return WindowSummary(
        n=len(ages),
        min_ms=round(ages[0], 1),
        median_ms=round(statistics.median(ages), 1),
        p90_ms=round(ages[math.ceil(0.9 * len(ages)) - 1], 1),
        max_ms=round(ages[-1], 1),
        bound_ms=max((one.bound_ms for one in found if one.bound_ms is not None), default=None),
        over=sum(one.bound_ms is not None and one.oldest_ms > one.bound_ms for one in found),
    )


def window_line(result: ProfileResult) -> str | None:
    """Say a profile's distribution in one line."""
    summary = summarise(windows(result))
    if summary is None:
        return None
    least, most = _shown(summary.min_ms), _shown(summary.max_ms)
    ages = f"{most} ms" if most != "0.0" else "right"
    middle = ""
    if least != most:
        ages = f"{least} to {most} ms"
        middle = f", median {_shown(summary.median_ms)}"
    bound = "no bound" if summary.bound_ms is None else f"bound {summary.bound_ms:.0f} ms"
    over = f", exceeded in {summary.over}" if summary.over else ""
    trials = counted(len(result.trials))
    return f"async window: oldest lost commit {ages} before the fault in {summary.n} of {trials}{middle}, {bound}{over}"


def _shown(ms: float) -> str:
    """Return milliseconds with as many digits as tell two of them apart."""
    return f"{ms:.0f}" if ms >= _WHOLE_MS else f"{ms:.1f}"


def histogram(found: Sequence[AsyncWindow]) -> tuple[float, list[int]]:
    """Return the width of a bin in ms, and how many trials fall into each; the bound lies inside, too."""
    top = max([one.oldest_ms for one in found] + [one.bound_ms or 0.0 for one in found])
    width_ms = _round_up(top / BINS)
    counts = [0] * (int(top // width_ms) + 1)
    for one in found:
        counts[int(one.oldest_ms // width_ms)] += 1
    return width_ms, counts


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten, at least 1."""
    power = 10.0 ** math.floor(math.log10(max(value, 1.0)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value or step == 10)
