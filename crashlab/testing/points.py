"""At which moments does a sweep have the server die, and how is one of them written?

A point is a moment of the conversation in one block of the test: "1:commit:3:unheard" in the first `with crash:`,
"2/1:commit:3:unheard" in the second one.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from crashlab.errors import UsageProblem, did_you_mean
from crashlab.observer import Conversation, Moment
from crashlab.observer.account import Asked
from crashlab.observer.conversation import moments_with_steps
from crashlab.seeds import stream

Points = Literal["commits", "statements", "all", "random"]
POINTS: tuple[Points, ...] = get_args(Points)
SQL_SHOWN = 60


@dataclass(frozen=True)
class Point:
    """One moment of one block."""

    block: int
    moment: Moment
    words: str = ""  # what it is about, from the conversation that was counted

    def __str__(self) -> str:
        return f"{self.block}/{self.moment}" if self.block > 1 else str(self.moment)

    @property
    def told(self) -> str:
        """In words."""
        where = f"block {self.block}, " if self.block > 1 else ""
        return f"{where}{self.moment.words(self.words)}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        """Read what `str` wrote. Raises UsageProblem."""
        match = re.fullmatch(r"(?:([1-9]\d*)/)?(.*)", text.strip())
        assert match is not None
        return cls(int(match[1] or 1), Moment.parse(match[2]))


def check_arguments(points: object, limit: object, states: object = 1) -> None:
    """Refuse what a marker cannot say. Raises UsageProblem."""
    if points not in POINTS:
        hint = did_you_mean(str(points), POINTS) or f"One of: {', '.join(POINTS)}."
        raise UsageProblem(f'cannot crash at the points "{points}"', hint=hint)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UsageProblem(f"cannot sweep {limit!r} moments", hint="`limit` is a whole number above 0.")
    if not isinstance(states, int) or isinstance(states, bool) or states < 1:
        raise UsageProblem(f"cannot look at {states!r} crash states", hint="`states` is a whole number above 0.")


def points_of(
    conversation: Conversation, kind: Literal["commits", "statements", "all"], epochs: Sequence[int]
) -> list[Point]:
    """Return every point of a test's blocks.

    Args:
        epochs: the conversation's epoch of each block, in their order.
    """
    return [
        with_words(step, Point(block, moment))
        for block, epoch in enumerate(epochs, 1)
        for moment, step in moments_with_steps(conversation, kind, epoch)
    ]


def with_words(step: Asked, point: Point) -> Point:
    """Return a point with what the message of its moment asks."""
    what = f"{point.moment.unit} {point.moment.nth} ({_shown(step.sql) or step.message})"
    return Point(point.block, point.moment, what)


def _shown(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= SQL_SHOWN else f"{text[:SQL_SHOWN]}..."


def spread(points: Sequence[Point], limit: int | None, seed: int) -> list[Point]:
    """Return as many as asked for, one drawn from each of as many equal parts of all."""
    if limit is None or limit >= len(points):
        return list(points)
    rng = stream(seed, "points")
    edges = [len(points) * part // limit for part in range(limit + 1)]
    return [points[rng.randrange(low, high)] for low, high in itertools.pairwise(edges)]
