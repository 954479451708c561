"""Where did a trial's time go? Seconds by phase, which come to its total.

Choices: what no phase claims is told as one, `other`: figures that leave out a part would be taken for all of it.
"""

import contextlib
import time
from collections.abc import Iterator

OTHER, TOTAL = "other", "total"
_DIGITS = 4


class Clock:
    """Seconds spent in each phase, and since the trial began."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._begun = time.monotonic()

    def note(self, name: str, seconds: float) -> None:
        """Add the seconds of a phase that was timed elsewhere."""
        self._spent[name] = self._spent.get(name, 0.0) + seconds

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what is done inside; a phase may come several times."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.note(name, time.monotonic() - begun)

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase, of all else, and in total, which is their sum."""
        spent = {name: round(seconds, _DIGITS) for name, seconds in self._spent.items()}
        spent[OTHER] = round(max(0.0, time.monotonic() - self._begun - sum(spent.values())), _DIGITS)
        return {**spent, TOTAL: round(sum(spent.values()), _DIGITS)}
