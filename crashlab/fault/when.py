"""When is a fault due? After so many acknowledgements, after a time, or at a seeded moment.

Choices: a time says nothing about how far a slow machine has come by then. So a time begins to run once there is enough
    to judge by, however long that takes.
"""

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from crashlab.errors import FaultError
from crashlab.ledger import LedgerWriter

POLL_S = 0.0005


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
) -> None:
    """Wait until the fault is due: acknowledgements count from now, a time from when there were enough writes.

    Args:
        writes_min: so many writes of the workload must have been acknowledged first, in all.

    Raises:
        FaultError: the sessions ended, or the time ran out, before enough transactions were acknowledged.
    """
    deadline = time.monotonic() + timeout_s
    goal = ledger.acked + (when.acks or 0)
    _wait_for(lambda: ledger.acked_writes, writes_min, running, deadline, "Lower the profile's `workload.acked_min`")
    if when.acks is not None:
        _wait_for(lambda: ledger.acked, goal, running, deadline, "Lower the profile's `acks`")
        return
    if when.after_ms is not None:
        delay_ms = float(when.after_ms)
    else:
        assert when.between_ms is not None
        delay_ms = rng.uniform(when.between_ms[0], when.between_ms[1])
    time.sleep(min(delay_ms / 1000, timeout_s))


def _wait_for(acked: Callable[[], int], goal: int, running: Callable[[], bool], deadline: float, remedy: str) -> None:
    while acked() < goal:
        if not running():
            raise FaultError(f"could not inject the fault: the workload ended at {acked()} of {goal} acknowledgements")
        if time.monotonic() > deadline:
            raise FaultError(
                f"could not inject the fault: {acked()} of {goal} acknowledgements arrived in time",
                hint=f"{remedy}, or look for what holds the server up in server.log.",
            )
        time.sleep(POLL_S)
