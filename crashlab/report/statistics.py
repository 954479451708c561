"""What do the trials of a profile say about the next one, and how fast were they?

Choices:
    Only trials count that were judged and for which something was promised: of a promise that nobody made or held
    against anything, no share can be broken. Nor does one count whose server had shut down before it could crash,
    unless its promise was broken all the same.
    Two bounds of 95 % each, one below and one above; see `confidence` for what they mean and what they do not.
    The rate counts everything: recording, set-up, and the profiles that ran at the same time.
"""

from dataclasses import dataclass

from crashlab.confidence import USUAL, lower_bound, upper_bound
from crashlab.model import PromiseStatus
from crashlab.results import ProfileResult


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """The numbers behind the sentence."""

    judged: int  # trials with a promise that was kept or broken, but for `nothing_due`
    nothing_due: int  # trials that kept it, but had shut down before they could crash
    broken: int
    confidence: float
    share_at_least: float
    share_at_most: float  # 1.0 without any judged trial
    distinct_states: int | None  # different crash states; None: live trials, whose states nobody compares
    seconds: float | None  # from the first task to the last; None: not known, as nobody noted it
    per_second: float | None


def statistics(result: ProfileResult) -> Statistics:
    """Return a profile's numbers; they depend on nothing but what its evidence and campaign.json hold."""
    promises = [trial.verdict.promise for trial in result.trials]
    broken = promises.count(PromiseStatus.BROKEN)
    nothing_due = sum(trial.proves_nothing for trial in result.trials)
    judged = broken + promises.count(PromiseStatus.KEPT) - nothing_due
    images = [trial.state.fingerprint for trial in result.trials if trial.state is not None]
    known = bool(result.trials) and result.seconds > 0
    return Statistics(
        judged=judged,
        nothing_due=nothing_due,
        broken=broken,
        confidence=USUAL,
        share_at_least=round(lower_bound(broken, judged), 6),
        share_at_most=round(upper_bound(broken, judged), 6),
        distinct_states=len(set(images)) if images else None,
        seconds=result.seconds if known else None,
        per_second=round(len(result.trials) / result.seconds, 3) if known else None,
    )


def statistics_line(result: ProfileResult) -> str | None:
    """Say it in one line; None: there is nothing to say."""
    found = statistics(result)
    parts = [share(found.broken, found.judged)] if found.judged else []
    if found.distinct_states is not None:
        parts.append(f"{found.distinct_states} distinct crash state{'s' if found.distinct_states != 1 else ''}")
    if found.per_second is not None:
        what = "trials" if found.distinct_states is None else "states"
        parts.append(f"{found.per_second:.3g} {what} a second")
    return "; ".join(parts) or None


def share(broken: int, judged: int) -> str:
    """Say which shares are compatible with what was seen, as in "0 broken in 300: at most 0.994 % at 95 %".

    Raises:
        ValueError: nothing was judged, or more broken than judged.
    """
    if not judged:
        raise ValueError("no share of nothing")
    at_most = f"at most {percent(upper_bound(broken, judged))}"
    if not broken:
        return f"0 broken in {judged}: {at_most} at {percent(USUAL)}"
    at_least = f"at least {percent(lower_bound(broken, judged))}"
    return f"{broken} broken in {judged}: {at_least} and {at_most}, each at {percent(USUAL)}"


def percent(value: float) -> str:
    """Return 0.0582 as "5.82 %"."""
    return f"{100 * value:.3g} %"
