"""Which fault does a profile ask for, and what does its receipt say?"""

import time
from random import Random
from typing import Protocol

from crashlab.fault.kinds import FAULTS
from crashlab.ledger import LedgerWriter
from crashlab.model import Injection
from crashlab.server import Server


class Asked(Protocol):
    """What a profile says about a fault."""

    @property
    def kind(self) -> str:
        """A key of FAULTS."""

    @property
    def target(self) -> str | None:
        """One of that kind's targets."""


def inject(server: Server, fault: Asked, ledger: LedgerWriter, rng: Random) -> Injection:
    """Inject one fault now and return its receipt.

    Raises:
        FaultError: there is nothing to inject it into, such as a role that this version lacks.
        ServerError: the server could not be reached.
    """
    kind = FAULTS[fault.kind]
    acked, position, at_ns = ledger.acked, ledger.lines, time.monotonic_ns()
    effect = kind.inject(server, fault.target, rng)
    return Injection(
        kind=kind.name,
        target=fault.target or server.kind,
        crashes_server=kind.crashes_server(fault.target),
        bounds_window=kind.bounds_window(fault.target, server.kind),
        acked_before=acked,
        ledger_position=position,
        at_ns=at_ns,
        **vars(effect),
    )
