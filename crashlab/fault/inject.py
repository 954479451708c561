"""Which fault does a profile ask for, and what does its receipt say?"""

import time
from random import Random

from crashlab.errors import FaultError
from crashlab.fault import container, kill, shutdown, stop
from crashlab.ledger import LedgerWriter
from crashlab.model import Injection
from crashlab.profile import Fault
from crashlab.server import Server


def inject(server: Server, fault: Fault, ledger: LedgerWriter, rng: Random) -> Injection:
    """Inject one fault now and return its receipt.

    Raises:
        FaultError: there is nothing to inject it into, such as a role that this version lacks.
        ServerError: the server could not be reached.
    """
    acked, position, at_ns = ledger.acked, ledger.lines, time.monotonic_ns()
    match fault.kind:
        case "kill":
            effect = kill.inject(server, fault.target, rng)
        case "stop":
            effect = stop.inject(server, fault.target, rng)
        case "shutdown":
            effect = shutdown.inject(server)
        case "container_kill":
            effect = container.inject(server)
        case _:
            raise FaultError(f'unrecognized fault kind "{fault.kind}"')
    return Injection(
        kind=fault.kind,
        target=fault.target or server.kind,
        acked_before=acked,
        ledger_position=position,
        at_ns=at_ns,
        **vars(effect),
    )
