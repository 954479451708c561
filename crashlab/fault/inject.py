"""Which fault does a profile ask for, and what does its receipt say?"""

import time
from random import Random

from crashlab.fault.kind import Asked
from crashlab.fault.kinds import FAULTS
from crashlab.ledger import LedgerWriter
from crashlab.model import Injection
from crashlab.server import Server


def inject(server: Server, fault: Asked, ledger: LedgerWriter, rng: Random) -> Injection:
    """Inject one fault now and return its receipt.

    Raises:
        FaultError: there is nothing to inject it into, such as a role that this version lacks.
        ServerError: the server could not be reached.
    """
    kind = FAULTS[fault.kind]
    acked, position, at_ns = ledger.acked, ledger.lines, time.monotonic_ns()
    effect = vars(kind.inject(server, fault, rng))
    crashed, ended_ns = effect.pop("crashed"), effect.pop("at_ns")
    return Injection(
        kind=kind.name,
        target=fault.target or server.kind,
        crashes_server=kind.crashes_server(fault.target) if crashed is None else crashed,
        bounds_window=kind.bounds_window(fault.target, server.kind),
        acked_before=acked,
        ledger_position=position,
        at_ns=ended_ns or at_ns,
        **effect,
    )
