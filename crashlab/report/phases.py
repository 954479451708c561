"""Where does the time of a trial go? The median of each phase, profile by profile; pure."""

import math
import statistics
from dataclasses import dataclass

from crashlab.results import ProfileResult

TOTAL = "total"
PATTERNS = 10
"""Colours of the page's style; the names stand beside them."""


@dataclass(frozen=True, kw_only=True)
class PhaseBar:
    """One phase of one profile's trials."""

    name: str
    seconds: float  # median of the trials that have this phase
    x: float  # percent of the longest profile
    width: float
    number: int  # which phase of the run: decides its pattern


@dataclass(frozen=True, kw_only=True)
class PhaseRow:
    """One profile."""

    profile: str
    bars: list[PhaseBar]
    total: float | None  # median of the whole trials, which have more than phases


def phase_rows(results: "list[ProfileResult]") -> list[PhaseRow]:
    """Return a row for each profile whose trials were timed."""
    medians = {number: _medians(result) for number, result in enumerate(results)}
    names = list(dict.fromkeys(name for found in medians.values() for name in found if name != TOTAL))
    longest = max((sum(v for name, v in found.items() if name != TOTAL) for found in medians.values()), default=0.0)
    rows = []
    for number, result in enumerate(results):
        found = medians[number]
        bars, x = [], 0.0
        for name, seconds in found.items():
            if name == TOTAL or not longest:
                continue
            width = 100 * seconds / longest
            bars.append(
                PhaseBar(
                    name=name,
                    seconds=seconds,
                    x=round(x, 2),
                    width=round(width, 2),
                    number=names.index(name) % PATTERNS,
                )
            )
            x += width
        if bars:
            rows.append(PhaseRow(profile=result.profile.name, bars=bars, total=found.get(TOTAL)))
    return rows


def _medians(result: ProfileResult) -> dict[str, float]:
    times: dict[str, list[float]] = {}
    for trial in result.trials:
        for name, seconds in trial.seconds.items():
            if not math.isfinite(seconds):  # nobody's clock says so: the evidence is a stranger's
                continue
            times.setdefault(name, []).append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}
