"""With which words does a report open: when, for how long, on what, with which seed, by which command?

And what is different from what was expected? The same words for the page and for Markdown.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from crashlab.report.places import duration, plural
from crashlab.report.story import printable
from crashlab.report.summary import promise, sentence, tally, unexpected
from crashlab.results import ProfileResult, RunResult


@dataclass(frozen=True)
class Surprise:
    """One profile that showed something other than it expects, or whose promise was not seen to be kept."""

    profile: str
    promise: str
    says: str


def opening(run: RunResult) -> str:
    """Say in one sentence what was run; what nobody noted is left out."""
    crashes = sum(not trial.nothing_due for result in run.profiles for trial in result.trials)
    seconds = sum(result.seconds for result in run.profiles)
    versions = dict.fromkeys(
        f"PostgreSQL {result.server.version} ({result.server.kind}{_recovered(result, where=False)})"
        for result in run.profiles
        if result.server
    )
    seeds = dict.fromkeys(str(result.seed) for result in run.profiles)
    parts = [f"{plural(crashes, 'crash')} of {' and '.join(versions) or 'no server'}"]
    if (begun := moment(run.begun)) is not None:
        parts.insert(0, f"On {begun}")
    if seconds > 0:
        parts.append(f"in {duration(seconds)}")
    if run.machine:
        parts.append(f"on {run.machine}")
    parts.append(f"with seed {' and '.join(seeds)}" if seeds else "with no seed")
    said = ", ".join(parts)
    return f"{said}."


def servers(run: RunResult) -> list[str]:
    """Name each server that crashed in a line, and with it those others that recovered what it left."""
    lines = (
        f"PostgreSQL {server.version}, {server.kind}, {server.source}{_recovered(result, where=True)}"
        for result in run.profiles
        if (server := result.server)
    )
    return list(dict.fromkeys(map(printable, lines)))


def _recovered(result: ProfileResult, *, where: bool) -> str:
    """Say by which others its crashes were recovered, to stand behind the server; nothing where it did so itself."""
    others = [f"by {one.version}{f', {one.source}' if where else ''}" for one in result.recovered_with]
    return f", recovered {' and '.join(dict.fromkeys(others))}" if others else ""


def moment(begun: str | None) -> str | None:
    """Return an ISO 8601 moment as people write it, in UTC; None: there is none, or it is not one."""
    try:
        at = datetime.fromisoformat(begun or "").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def surprises(run: RunResult) -> list[Surprise]:
    """Return what is different from expectation, broken promises first."""
    found = [
        Surprise(result.profile.name, promise(result), sentence(result)) for result in run.profiles if _odd(result)
    ]
    return sorted(found, key=lambda one: ("broken", "inconclusive", "void", "kept").index(one.promise))


def _odd(result: ProfileResult) -> bool:
    counts = tally(result)
    expected = promise(result) in result.profile.expect.promise
    return bool(counts.broken or counts.inconclusive or not counts.trials or unexpected(result) or not expected)
