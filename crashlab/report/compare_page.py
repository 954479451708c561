"""How are two runs shown side by side, on a page?

The words and figures are those of `compare`; a bar a share, the first run above the second.
"""

from dataclasses import dataclass

from crashlab.report.compare import LEVEL, NO_DIFFERENCE, Comparison, ProfileChange
from crashlab.report.page import render


@dataclass(frozen=True)
class Pair:
    """How many trials of both runs showed one thing."""

    name: str
    numbers: tuple[int, int]
    percents: tuple[float, float]


@dataclass(frozen=True)
class Side:
    """One profile of both runs."""

    change: ProfileChange
    outcomes: list[Pair]
    promises: list[Pair]
    more_than_chance: bool


def page_bytes(found: Comparison, before: str, after: str) -> bytes:
    """Return the page, UTF-8.

    Args:
        before: the folder of the first run, as the user named it.
        after: ... of the second.
    """
    count = len(found.profiles)
    verdict = "Something differs by more than chance." if found.more_than_chance else f"Outcomes: {NO_DIFFERENCE}."
    return render(
        "comparison.html.jinja",
        title="two runs side by side",
        verdict=verdict if count else "The runs have no profile in common.",
        tone="unsure" if found.more_than_chance or not count else "good",
        runs=(before, after),
        only=[("the first run", found.only_before), ("the second run", found.only_after)],
        level=f"p < {LEVEL / count:.2g}" if count else "",
        profiles=[_side(one) for one in found.profiles],
    )


def _side(change: ProfileChange) -> Side:
    return Side(
        change=change,
        outcomes=_pairs(change.outcomes),
        promises=_pairs(change.promises),
        more_than_chance=any(one.more_than_chance for one in change.shares),
    )


def _pairs(counts: dict[str, tuple[int, int]]) -> list[Pair]:
    first, second = (sum(pair[run] for pair in counts.values()) for run in (0, 1))
    return [Pair(name, pair, (_percent(pair[0], first), _percent(pair[1], second))) for name, pair in counts.items()]


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0
