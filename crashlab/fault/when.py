"""When is a fault due? After so many acknowledgements, after a time, or at a seeded moment."""

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
    when: Moment, ledger: LedgerWriter, rng: Random, *, running: Callable[[], bool], timeout_s: float
) -> None:
    """Wait until the fault is due, counted from now.

    Raises:
        FaultError: the sessions ended, or the time ran out, before enough transactions were acknowledged.
    """
    start = time.monotonic()
    if when.acks is not None:
        _wait_for_acks(ledger, ledger.acked + when.acks, running, start + timeout_s)
        return
    if when.after_ms is not None:
        delay_ms = float(when.after_ms)
    else:
        assert when.between_ms is not None
        delay_ms = rng.uniform(when.between_ms[0], when.between_ms[1])
    time.sleep(min(delay_ms / 1000, timeout_s))


def _wait_for_acks(ledger: LedgerWriter, goal: int, running: Callable[[], bool], deadline: float) -> None:
    while ledger.acked < goal:
        if not running():
            raise FaultError(
                f"could not inject the fault: the workload ended at {ledger.acked} of {goal} acknowledgements"
            )
        if time.monotonic() > deadline:
            raise FaultError(
                f"could not inject the fault: {ledger.acked} of {goal} acknowledgements arrived in time",
                hint="Lower the profile's `acks`, or look for what holds the server up in server.log.",
            )
        time.sleep(POLL_S)
