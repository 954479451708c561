"""Which crash states of a recording are tried, in which order, and how is one of them found again?

An address is a crash point and a number. State k of point p is the k-th different one that the stream of (seed, p)
gives: the same one whoever asks for it, and whatever was asked for before.

Choices:
    Points are taken in rounds that each span the whole recording, each round finer than the one before, so that a run
    that is cut off at any moment has looked at its end as well as at its beginning.
    A point gives so many states a lap. Once all points had their turn, another lap takes the next numbers of each.
    States of one point that are equal in content are one state. Equal images at two points are two: the later one has
    to hold what was acknowledged between them.

Source: crash points and crash states in design.md "Words".
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain, count, islice
from random import Random

import msgspec

from crashlab.disk.fileclass import FileClass
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.states import draw_state, enumerate_states, everything
from crashlab.seeds import stream

FIRST_ROUND = 2
LARGEST_ROUND = 32
DRAWS_MAX = 40
"""So many draws in a row that give nothing new, and a point has no more states to offer."""


class Address(msgspec.Struct, frozen=True, array_like=True):
    """One crash state of a recording, under one seed and one disk contract."""

    position: int  # the crash point
    number: int  # of the state, at this point

    def __str__(self) -> str:
        return f"{self.position}.{self.number}"


def rounds(points: Sequence[int], rng: Random) -> Iterator[list[int]]:
    """Yield every point once, in rounds that each span all of them, ascending within a round."""
    used: set[int] = set()  # indexes
    size = FIRST_ROUND
    while len(used) < len(points):
        chosen = []
        for part in range(size):
            stratum = range(part * len(points) // size, (part + 1) * len(points) // size)
            free = [index for index in stratum if index not in used]
            if free:
                chosen.append(rng.choice(free))
        used.update(chosen)
        yield [points[index] for index in chosen]
        size = min(LARGEST_ROUND, len(used))


def laps(points: Sequence[int], seed: int, per_point: int) -> Iterator[Iterator[Address]]:
    """Yield lap after lap, each with `per_point` addresses of every point; without end, unless there is no point."""
    return (_lap(points, seed, per_point, number) for number in (count() if points else ()))


def _lap(points: Sequence[int], seed: int, per_point: int, lap: int) -> Iterator[Address]:
    for chosen in rounds(points, stream(seed, "points", lap)):
        for position in chosen:
            for number in range(lap * per_point, (lap + 1) * per_point):
                yield Address(position, number)


class PointStates:
    """The different crash states of the point at which a disk model stands; it must not move meanwhile.

    The first one is that in which nothing extra survived, the others are drawn.
    """

    def __init__(self, model: DiskModel, seed: int, aim: Collection[FileClass] | None) -> None:
        self.position = model.position
        self._found: list[CrashState] = []
        self._new = _different(_states(model, stream(seed, "states", model.position), aim))

    def get(self, number: int) -> CrashState | None:
        """Return a state by its number; None: the point has no more than those before."""
        self._found += islice(self._new, max(0, number + 1 - len(self._found)))
        return self._found[number] if number < len(self._found) else None


def _states(model: DiskModel, rng: Random, aim: Collection[FileClass] | None) -> Iterator[CrashState]:
    if model.contract.everything_survives:
        return iter([everything(model)])
    return chain(enumerate_states(model, 1, aim), (draw_state(model, rng, aim) for _ in count()))


def _different(states: Iterator[CrashState]) -> Iterator[CrashState]:
    seen: set[int] = set()
    in_vain = 0
    for state in states:
        if state.fingerprint not in seen:
            seen.add(state.fingerprint)
            in_vain = 0
            yield state
        else:
            in_vain += 1
            if in_vain == DRAWS_MAX:
                return
