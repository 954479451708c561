"""What did the ledger say at this crash point, given what it said at another one?

The crash points of a recording differ in how much of one ledger counts. Its file is read and decoded once; what two
points have in common is folded once.

Choices:
    Clients note the length of the I/O log and append their line in two steps, so the lengths do not ascend from line
    to line. Lines before the first one that is too late are folded for good, those among them for each point anew,
    and those after the last one that is not too late only counted.
    A history that was given out never changes.
"""

import gc
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from crashlab import files
from crashlab.errors import LedgerError
from crashlab.history import History, events_until, fold_on, read_ledger
from crashlab.ledger import Event
from crashlab.ledgerfile import read_blocks


class LedgerCursor:
    """A ledger that is no longer written to, read at one crash point after the other: forward is cheap."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self.path = path
        self._events: list[Event | None] | None = None
        self._truncated: str | None = None
        self._latest: list[int] = []  # the latest `io` of all lines up to this one
        self._earliest: list[int] = []  # and the earliest of all lines from this one on
        self._common = History()
        self._last: tuple[int, History] | None = None

    def history(self, until_io: int) -> History:
        """Return what `read_ledger(path, until_io=until_io)` does; not to be changed, since the next call may share it.

        Raises:
            LedgerError: as `read_ledger`.
        """
        if self._last is None or self._last[0] != until_io:
            try:
                self._last = until_io, self._fold(until_io)
            except (LedgerError, OSError):
                self._common = History()
                return read_ledger(self.path, until_io=until_io)  # to name the first line that is damaged
        return self._last[1]

    def _fold(self, until_io: int) -> History:
        events = self._read()
        if not events:
            raise LedgerError(f"{self.path}:1: damaged ledger: the header line is missing")
        begin, end = bisect_right(self._latest, until_io), bisect_right(self._earliest, until_io)
        if begin < self._common.lines:
            self._common = History()
        fold_on(self.path, self._common, events[self._common.lines : begin])
        history = self._common.copy()
        fold_on(self.path, history, events_until(events[begin:end], until_io))
        history.lines = len(events)
        history.truncated = self._truncated
        history.reserve(0)
        return history

    def _read(self) -> list[Event | None]:
        if self._events is None:
            events: list[Event | None] = []
            collecting = gc.isenabled()
            gc.disable()
            try:
                with files.opened(self.path) as file:
                    for block in read_blocks(self.path, file):
                        if isinstance(block, str):
                            self._truncated = block
                        else:
                            events += block
            finally:
                if collecting:
                    gc.enable()
            ios = [getattr(event, "io", 0) for event in events]
            self._latest = list(accumulate(ios, max))
            self._earliest = list(accumulate(reversed(ios), min))[::-1]
            self._events = events
        return self._events
