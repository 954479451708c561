"""What do n trials say about the next one, and do two lots of trials differ by more than chance?

Exact one-sided bounds of a binomial share (Clopper and Pearson, 1934): "0 broken in 300" is "at most 1 % at 95 %".
Trials of one recording are alike, and a seed is no random sample of all crashes: the bound is about crashes that are
drawn as these were, and says nothing about others.

For measured figures the mean of repeated runs, with Student's interval. It takes runs for independent of each other,
which blocks in random order make plausible and a machine that grows busier does not. scipy has the same quantiles, and
weighs 100 MB.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

USUAL = 0.95
_STEPS = 60  # bisections: more than a double holds
_RULE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*<\s*(\d+(?:\.\d+)?)\s*%\s*")


def upper_bound(broken: int, trials: int, confidence: float = USUAL) -> float:
    """Return the largest share of broken trials that is compatible with what was seen; 1.0 without any trial.

    Raises:
        ValueError: more broken than there are trials, or a confidence outside 0 .. 1.
    """
    _require(broken, trials, confidence)
    if broken == trials:
        return 1.0
    if broken == 0:
        return -math.expm1(math.log1p(-confidence) / trials)
    return _bisect(lambda share: _at_most(broken, trials, share) > 1 - confidence)


def lower_bound(broken: int, trials: int, confidence: float = USUAL) -> float:
    """Return the smallest share of broken trials that is compatible with what was seen. Raises as `upper_bound`."""
    _require(broken, trials, confidence)
    return 0.0 if broken == 0 else 1.0 - upper_bound(trials - broken, trials, confidence)


@dataclass(frozen=True)
class Until:
    """A rule that ends a run: as soon as it is sure, one way or the other, of a share."""

    confidence: float
    share: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "99%<0.5%": 99 % sure that fewer than 0.5 % are broken. Raises ValueError: it says something else."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise ValueError(f'"{text}" is not a rule such as 99%<0.5%: so sure, that fewer than this share are broken')
        confidence, share = float(match[1]) / 100, float(match[2]) / 100
        if not 0 < confidence < 1 or not 0 < share < 1:
            raise ValueError(f'both percentages of "{text}" must lie between 0 and 100')
        return cls(confidence, share)

    def __str__(self) -> str:
        return f"{self.confidence * 100:g}%<{self.share * 100:g}%"

    def decided(self, broken: int, trials: int) -> bool:
        """Say whether it is sure by now that the share is below, or that it is not."""
        below = upper_bound(broken, trials, self.confidence) < self.share
        return below or lower_bound(broken, trials, self.confidence) >= self.share


def _require(broken: int, trials: int, confidence: float) -> None:
    if not 0 <= broken <= trials or not 0 < confidence < 1:
        raise ValueError(f"no bound for {broken} of {trials} at {confidence}")


def _at_most(broken: int, trials: int, share: float) -> float:
    """Return how likely it is that at most so many of the trials are broken."""
    log_share, log_rest = math.log(share), math.log1p(-share)
    whole = math.lgamma(trials + 1)
    return math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_share + (trials - k) * log_rest)
        for k in range(broken + 1)
    )


def _bisect(too_low: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_low(middle) else (low, middle)
    return high


@functools.cache
def student(freedom: int, confidence: float = USUAL) -> float:
    """Return how many standard errors of a mean lie on either side of it, at so many degrees of freedom.

    Student's distribution function in its closed form for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and
    26.7.4), by bisection.

    Raises:
        ValueError: no degree of freedom, or a confidence outside 0 .. 1.
    """
    if freedom < 1 or not 0 < confidence < 1:
        raise ValueError(f"no quantile for {freedom} degrees of freedom at {confidence}")
    angle = _bisect(lambda part: _within(part * math.pi / 2, freedom) < confidence) * math.pi / 2
    return math.tan(angle) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """Return how likely |t| is at most tan(angle) times the root of the degrees of freedom."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, series = cosine if odd else 1.0, 0.0
    for k in range(1 + odd, freedom, 2):
        series += term
        term *= cosine * cosine * k / (k + 1)
    return 2 / math.pi * (angle + sine * series) if odd else sine * series


def mean_interval(values: Sequence[float], confidence: float = USUAL) -> tuple[float, float, float]:
    """Return the lower end, the mean and the upper end of Student's interval. Raises ValueError: fewer than two."""
    if len(values) < 2:
        raise ValueError(f"no interval from {len(values)} value{'s' if len(values) != 1 else ''}")
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    margin = student(len(values) - 1, confidence) * math.sqrt(variance / len(values))
    return mean - margin, mean, mean + margin


def fisher(broken: int, trials: int, other_broken: int, other_trials: int) -> float:
    """Return how likely chance makes two shares differ at least as much as these (Fisher's exact test, two-sided).

    As likely or less than what was seen counts as "at least as much"; 1.0 if either has no trials.

    Raises:
        ValueError: more broken than there are trials.
    """
    _require(broken, trials, USUAL)
    _require(other_broken, other_trials, USUAL)
    together = broken + other_broken
    first, last = max(0, together - other_trials), min(together, trials)
    whole = _log_ways(trials + other_trials, together)
    chances = [
        math.exp(_log_ways(trials, k) + _log_ways(other_trials, together - k) - whole) for k in range(first, last + 1)
    ]
    seen = chances[broken - first]
    return min(1.0, math.fsum(chance for chance in chances if chance <= seen * (1 + _ROUNDING)))


_ROUNDING = 1e-7  # two tables that are equally likely may differ in their last digits


def _log_ways(things: int, chosen: int) -> float:
    return math.lgamma(things + 1) - math.lgamma(chosen + 1) - math.lgamma(things - chosen + 1)
