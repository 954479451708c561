"""Which is the smallest crash state that still goes wrong in the same way?

After Hypothesis's shrinkers: a state is a list of choices, here of losses (`disk.lost`); passes propose smaller lists,
and whatever still goes wrong is the new best one, until no pass finds anything. Smaller means: fewer lost writes and
names; then an earlier crash point, and with it fewer transactions; then fewer lost units.

    files     leave out the losses of whole files and names, many at first, then fewer
    units     leave out single losses in the same way
    newer     let a file lose only its last writes, not all that were pending
    earlier   the same losses at an earlier crash point

Assumes: `still_wrong` gives the same answer for the same state each time, which a recorded state does but for timing.
Choices:
    A state counts as smaller by `cost` alone, so that the search ends; a state that was tried is never tried again.
    It is a local search: that nothing smaller exists is not proven.

Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002); hypothesis,
internal/conjecture/shrinker.py (passes to a fixed point, adaptive deletion).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec

from crashlab.disk.filehistory import DURABLE
from crashlab.disk.lost import Loss, LostUnit, cost, losses_in, lost_changes, lost_writes, state_with
from crashlab.disk.model import CrashState, DiskModel

_NEWER_MAX = 8  # proposals a file in one pass


class Spent(Exception):
    """So many states were to be tried, and no more, or the time is up."""


@dataclass(frozen=True)
class Progress:
    """What the search says after each step that made the state smaller."""

    by: str  # the pass
    tried: int
    lost: int  # writes and changes
    position: int


class Shrinker:
    """A search for the smallest state like one. `best` is always a state that was seen to go wrong."""

    def __init__(
        self,
        state: CrashState,
        *,
        model_at: Callable[[int], DiskModel],
        still_wrong: Callable[[CrashState], bool],
        first: int = 0,
        may_go_on: Callable[[int], bool] = lambda tried: True,
        told: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Begin with a state that went wrong.

        Args:
            model_at: carries the disk model to a crash point.
            still_wrong: whether a state of that model's point still goes wrong in the same way.
            first: the earliest crash point.
            may_go_on: asked before each try, with the number of those before.
        """
        self.best = state
        self.tried = 0
        self.complete = False  # the search ended by itself
        self._model_at = model_at
        self._still_wrong = still_wrong
        self._first = first
        self._may_go_on = may_go_on
        self._told = told
        self._seen = {(state.position, state.fingerprint)}
        self._cost = cost(model_at(state.position), state)

    def run(self) -> CrashState:
        """Shrink until nothing is smaller, or no more may be tried."""
        try:
            before = None
            while before != self._cost:
                before = self._cost
                self._leave_out("files", by_group=True)
                self._leave_out("units", by_group=False)
                self._newer()
                self._earlier()
            self.complete = True
        except Spent:
            pass
        return self.best

    def _try(self, by: str, position: int, losses: Sequence[Loss]) -> bool:
        """Take a proposal if it is smaller and still goes wrong."""
        model = self._model_at(position)
        state = state_with(model, losses, self.best.note)
        key = position, state.fingerprint
        found = cost(model, state)
        if key in self._seen or found >= self._cost:
            return False
        if not self._may_go_on(self.tried):
            raise Spent
        self._seen.add(key)
        self.tried += 1
        if not self._still_wrong(state):
            return False
        self.best, self._cost = state, found
        self._told(Progress(by, self.tried, found[0], position))
        return True

    def _losses(self) -> list[Loss]:
        return losses_in(self._model_at(self.best.position), self.best)

    def _leave_out(self, by: str, *, by_group: bool) -> None:
        """Leave out runs of losses, long ones first."""
        size = len(self._parts(by_group))
        while size:
            at = 0
            while at < len(parts := self._parts(by_group)):
                rest = [loss for part in (*parts[:at], *parts[at + size :]) for loss in part]
                if not self._try(by, self.best.position, rest):
                    at += size
            size = min(size // 2, len(parts))

    def _parts(self, by_group: bool) -> list[list[Loss]]:
        losses = self._losses()
        if not by_group:
            return [[loss] for loss in losses]
        return [list(part) for _, part in groupby(losses, key=lambda loss: loss.group)]

    def _newer(self) -> None:
        """Let each file lose only its last writes."""
        for number in sorted({loss.file for loss in self._losses() if isinstance(loss, LostUnit)}):
            for since in self._moments(number):
                if self._try("newer", self.best.position, list(self._losing_from(number, since))):
                    break

    def _moments(self, number: int) -> Iterator[int]:
        """Yield from which lost write of a file on all are lost: the last one, the last two, four, eight ..."""
        model = self._model_at(self.best.position)
        positions = [write.position for write in lost_writes(model, self.best) if write.file == number]
        count = 1
        for _ in range(_NEWER_MAX):
            if count >= len(positions):
                return
            yield positions[-count]
            count *= 2

    def _losing_from(self, number: int, since: int) -> Iterator[Loss]:
        model = self._model_at(self.best.position)
        for loss in self._losses():
            if isinstance(loss, LostUnit) and loss.file == number:
                versions = model.files[number].versions.get(loss.unit, [])
                kept = max([at for at, _ in versions if at < since], default=DURABLE)
                if kept != versions[-1][0]:
                    yield msgspec.structs.replace(loss, kept=max(kept, loss.kept))
            else:
                yield loss

    def _earlier(self) -> None:
        """Move the crash point back, as far as the same losses still go wrong: by halves, and then by ever less."""
        losses = self._losses()
        model = self._model_at(self.best.position)
        changes = [change.position for change in lost_changes(model, self.best) if change.position is not None]
        happened = [*changes, *(write.position for write in lost_writes(model, self.best))]
        for low in (max([self._first, *(position + 1 for position in happened)]), self._first):
            if low < self.best.position and self._try("earlier", low, losses):
                return
            while low + 1 < self.best.position:
                middle = (low + self.best.position) // 2
                if not self._try("earlier", middle, losses):
                    low = middle
