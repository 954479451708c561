"""What happens on an immediate shutdown? No checkpoint, no WAL is written: the manual calls it a crash."""

from random import Random

from crashlab.fault.kind import Asked, Effect, FaultKind
from crashlab.server import Server

LOG_LINE = "received immediate shutdown request"
TIMEOUT_S = 30.0


class Shutdown(FaultKind):
    """Send SIGQUIT to the postmaster and wait until everything is gone."""

    name = "shutdown"
    summary = "an immediate shutdown, as by `pg_ctl stop -m immediate`"

    def inject(self, server: Server, asked: Asked, rng: Random) -> Effect:
        """See FaultKind.inject."""
        pids = [process.pid for process in server.processes()]
        position = server.log_position()
        server.stop("immediate", timeout_s=TIMEOUT_S)
        line = next((line.strip() for line in server.log_since(position).splitlines() if LOG_LINE in line), None)
        return Effect(
            pid=None,
            pids=pids,
            confirmed=line is not None and not server.running(),
            proof=[f"server log: {line}", f"postmaster {server.postmaster_exit()}"] if line else [],
        )


FAULT = Shutdown()
