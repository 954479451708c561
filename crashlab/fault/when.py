"""When is a fault due? After so many acknowledgements, after a time, or at a seeded moment.

Choices: a time says nothing about how far a slow machine has come by then. So a time begins to run once there is enough
    to judge by, however long that takes.
    A process that is stopped may hold a lock: then every session soon waits for it, and no acknowledgement ever comes.
    Whoever has stopped one asks to be told (`standstill_s`), and can choose another moment.
"""

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from crashlab.errors import FaultError
from crashlab.ledger import LedgerWriter

POLL_S = 0.0005


class StoodStill(FaultError):
    """No session was told anything for so long that none of them seems to go on."""


class Moment(Protocol):
    """When a fault is due, as a profile says it: exactly one is set."""

    @property
    def acks(self) -> int | None:
        """After that many more acknowledged writes."""

    @property
    def after_ms(self) -> int | None:
        """After that time."""

    @property
    def between_ms(self) -> Sequence[int] | None:
        """At a moment drawn from between these two."""


def wait_until_due(
    when: Moment,
    ledger: LedgerWriter,
    rng: Random,
    *,
    running: Callable[[], bool],
    timeout_s: float,
    writes_min: int = 0,
    standstill_s: float | None = None,
) -> None:
    """Wait until the fault is due: acknowledgements count from now, a time from when there were enough writes.

    Args:
        writes_min: so many writes of the workload must have been acknowledged first, in all.
        standstill_s: so long without any acknowledgement is an error; None: only the time that runs out is.

    Raises:
        StoodStill: no acknowledgement came for `standstill_s`.
        FaultError: the sessions ended, or the time ran out, before enough transactions were acknowledged.
    """
    deadline = time.monotonic() + timeout_s
    goal = ledger.acked + (when.acks or 0)
    clock = _Clock(running, deadline, ledger, standstill_s)
    _wait_for(lambda: ledger.acked_writes, writes_min, clock, "Lower the profile's `workload.acked_min`")
    if when.acks is not None:
        _wait_for(lambda: ledger.acked, goal, clock, "Lower the profile's `acks`")
        return
    if when.after_ms is not None:
        delay_ms = float(when.after_ms)
    else:
        assert when.between_ms is not None
        delay_ms = rng.uniform(when.between_ms[0], when.between_ms[1])
    time.sleep(min(delay_ms / 1000, timeout_s))


class _Clock:
    """Says when it is no use to wait any longer."""

    def __init__(
        self, running: Callable[[], bool], deadline: float, ledger: LedgerWriter, standstill_s: float | None
    ) -> None:
        self._running, self._deadline, self._ledger, self._standstill_s = running, deadline, ledger, standstill_s
        self._acked, self._since = ledger.acked, time.monotonic()

    def check(self, acked: int, goal: int, remedy: str) -> None:
        """Raise FaultError: the sessions have ended, stand still, or take too long."""
        so_far, now = f"{acked} of {goal} acknowledgements", time.monotonic()
        if not self._running():
            raise FaultError(f"could not inject the fault: the workload ended at {so_far}")
        if now > self._deadline:
            raise FaultError(
                f"could not inject the fault: {so_far} arrived in time",
                hint=f"{remedy}, or look for what holds the server up in server.log.",
            )
        if self._ledger.acked != self._acked:
            self._acked, self._since = self._ledger.acked, now
        elif self._standstill_s is not None and now - self._since > self._standstill_s:
            raise StoodStill(f"could not inject the fault: {so_far} arrived, then none for {self._standstill_s:g} s")


def _wait_for(acked: Callable[[], int], goal: int, clock: _Clock, remedy: str) -> None:
    while (so_far := acked()) < goal:
        clock.check(so_far, goal, remedy)
        time.sleep(POLL_S)
