"""When has a profile been tried enough?"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from crashlab.confidence import Until
from crashlab.model import PromiseStatus
from crashlab.results import TrialResult

IN_VAIN_MAX = 50
"""So many trials without one that a rule could count, and it will never be sure."""


class Stop(Enum):
    """Why no more trials of a profile are begun, in words; the number of trials that were asked for needs none."""

    TIME_LIMIT = "time limit"
    BROKEN = "first broken promise"
    FOUND = "what was looked for"
    DECIDED = "the rule {until}"
    UNDECIDABLE = (
        "the rule {until}, which needs trials that crash, for which something was promised and that can be judged"
    )
    EXHAUSTED = "a recording with only {done} such crash states"
    INTERRUPT = "interrupt"
    ERROR = "an error: {why}"


ENDINGS = (Stop.TIME_LIMIT, Stop.EXHAUSTED, Stop.INTERRUPT, Stop.ERROR)
"""Reasons that are none once as many trials are done as were asked for."""
SETTLED = (Stop.EXHAUSTED, Stop.DECIDED, Stop.UNDECIDABLE)
"""Reasons that leave nothing to do, however many trials were asked for: whoever goes on ends at once, and alike."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a run may cost. The time is that of all profiles together."""

    time_limit_s: float | None = None
    fail_fast: bool = False  # the first broken promise ends the whole run
    until: Until | None = None
    looked_for: Callable[[TrialResult], bool] | None = None  # the first such trial ends its profile


class Account:
    """What one profile has used of its budget."""

    def __init__(self, budget: Budget, trials: int | None) -> None:
        """Nothing is used yet; None: as many trials as it takes."""
        self._budget = budget
        self._trials = trials
        self._deadline: float | None = None
        self._broken = self._promised = 0
        self.begun = 0  # trials that are done or on their way
        self.done = 0
        self.stop: Stop | None = None
        self._why: str | None = None

    def start(self, share_s: float | None) -> None:
        """Let the time run."""
        self._deadline = None if share_s is None else time.monotonic() + share_s

    def note(self, trial: TrialResult) -> None:
        """Count a trial that is done."""
        self.done += 1
        promise, until = trial.verdict.promise, self._budget.until
        self._broken += promise is PromiseStatus.BROKEN
        self._promised += promise in (PromiseStatus.KEPT, PromiseStatus.BROKEN) and not trial.proves_nothing
        if self._budget.looked_for is not None and self._budget.looked_for(trial):
            self.end(Stop.FOUND)
        elif self._budget.fail_fast and promise is PromiseStatus.BROKEN:
            self.end(Stop.BROKEN)
        elif until is not None and until.decided(self._broken, self._promised):
            self.end(Stop.DECIDED)
        elif until is not None and self.done >= IN_VAIN_MAX and not self._promised:
            self.end(Stop.UNDECIDABLE)

    def allows(self) -> bool:
        """Say whether another trial may begin now."""
        if self.stop is None and self._deadline is not None and time.monotonic() > self._deadline:
            self.end(Stop.TIME_LIMIT)
        return self.stop is None and (self._trials is None or self.begun < self._trials)

    @property
    def complete(self) -> bool:
        """Whether as many trials are done as were asked for."""
        return self._trials is not None and self.done >= self._trials

    def end(self, stop: Stop, why: str | None = None) -> None:
        """Begin no more trials; the first reason counts."""
        if self.stop is None:
            self.stop, self._why = stop, why

    def reason(self) -> str | None:
        """Say why there are fewer trials than asked for, or why a rule was not enough; None: neither is so."""
        until = self._budget.until
        if self.stop is None or (self.complete and self.stop in ENDINGS):
            unsure = until is not None and self.done and not until.decided(self._broken, self._promised)
            return f"the number of trials, before the rule {until} was sure" if unsure else None
        said = self.stop.value.format(done=self.done, until=self._budget.until, why=self._why)
        counted = self.stop in (Stop.TIME_LIMIT, Stop.INTERRUPT)
        of = f" of {self._trials}" if self._trials is not None else ""
        return f"{said}, {self.done}{of} trials" if counted else said
