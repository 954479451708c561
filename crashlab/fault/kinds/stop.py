"""What happens when a process is frozen with SIGSTOP? A stopped walwriter opens the asynchronous-commit window."""

import signal
from random import Random

from crashlab.errors import FaultError
from crashlab.fault.kind import Effect, FaultKind
from crashlab.fault.targets import ALL, TARGETS, find_target, titled_processes
from crashlab.server import Server
from crashlab.server.roles import POSTMASTER

TIMEOUT_S = 10.0


class Stop(FaultKind):
    """Freeze one process; the server goes on without it."""

    name = "stop"
    summary = "SIGSTOP for one process, which stands still from then on"
    targets = tuple(TARGETS)
    ends_sessions = False

    def crashes_server(self, target: str | None) -> bool:
        """See FaultKind.crashes_server."""
        return False

    def bounds_window(self, target: str | None, server_kind: str) -> bool:
        """See FaultKind.bounds_window."""
        return target != "walwriter"

    def let_go(self, server: Server, target: str | None, pid: int | None) -> bool:
        """See FaultKind.let_go; not a backend: that its session stands still is what was asked for."""
        if pid is None or target == "backend":
            return False
        server.signal(pid, signal.SIGCONT)
        return True

    def inject(self, server: Server, target: str | None, rng: Random) -> Effect:
        """See FaultKind.inject."""
        assert target is not None
        if target in (ALL, POSTMASTER):
            raise FaultError(
                f"cannot stop {target}: the workload could not go on", hint="Stop one child, or kill instead."
            )
        victim = find_target(server, TARGETS[target], titled_processes(server), rng)
        server.signal(victim.pid, signal.SIGSTOP)
        stopped = server.wait_stopped(victim.pid, TIMEOUT_S)
        return Effect(
            pid=victim.pid,
            pids=[victim.pid],
            confirmed=stopped,
            proof=[f"process {victim.pid} ({victim.role}) is in state T (stopped)"] if stopped else [],
        )


FAULT = Stop()
