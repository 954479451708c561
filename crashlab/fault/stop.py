"""What happens when a process is frozen with SIGSTOP? A stopped walwriter opens the asynchronous-commit window."""

import signal
from random import Random

from crashlab.errors import FaultError
from crashlab.fault.effect import Effect
from crashlab.fault.roles import find_target, titled_processes
from crashlab.server import Server

TIMEOUT_S = 10.0


def inject(server: Server, target: str | None, rng: Random) -> Effect:
    """Freeze one process; the server goes on without it."""
    if target in ("all", "postmaster"):
        raise FaultError(f"cannot stop {target}: the workload could not go on", hint="Stop one child, or kill instead.")
    victim = find_target(server, target or "", titled_processes(server), rng)
    server.signal(victim.pid, signal.SIGSTOP)
    stopped = server.wait_stopped(victim.pid, TIMEOUT_S)
    return Effect(
        pid=victim.pid,
        pids=[victim.pid],
        confirmed=stopped,
        proof=[f"process {victim.pid} ({victim.role}) is in state T (stopped)"] if stopped else [],
        crashes_server=False,
        bounds_window=victim.role != "walwriter",
    )
