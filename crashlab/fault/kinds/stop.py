"""What happens when a process is frozen with SIGSTOP? A stopped walwriter opens the asynchronous-commit window.

Choices: a process of the server's own is stopped while it waits for its next turn, so that it holds no lock. A
    walwriter that is stopped while it flushes has WALWriteLock, and then no commit of anybody ever returns. One that is
    busy all the time is stopped where it is.

Source: PostgreSQL's walwriter.c (its wait between two turns, which stands in pg_stat_activity), xlog.c (XLogWrite).
"""

import contextlib
import signal
import time
from random import Random
from typing import Any

import psycopg

from crashlab.errors import FaultError
from crashlab.fault.kind import Asked, Effect, FaultKind
from crashlab.fault.targets import ALL, TARGETS, find_target, titled_processes
from crashlab.server import Server
from crashlab.server.roles import POSTMASTER

TIMEOUT_S = 10.0
POLL_S = 0.001
_IS_BUSY = """
    SELECT wait_event_type IS DISTINCT FROM 'Activity' FROM pg_stat_activity
    WHERE pid = %s AND backend_type <> 'client backend'
"""


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

    def inject(self, server: Server, asked: Asked, rng: Random) -> Effect:
        """See FaultKind.inject."""
        target = asked.target
        assert target is not None
        if target in (ALL, POSTMASTER):
            raise FaultError(
                f"cannot stop {target}: the workload could not go on", hint="Stop one child, or kill instead."
            )
        victim = find_target(server, TARGETS[target], titled_processes(server), rng)
        stopped = stop_between_turns(server, victim.pid)
        if not stopped:
            server.signal(victim.pid, signal.SIGSTOP)
            stopped = server.wait_stopped(victim.pid, TIMEOUT_S)
        return Effect(
            pid=victim.pid,
            pids=[victim.pid],
            confirmed=stopped,
            proof=[f"process {victim.pid} ({victim.role}) is in state T (stopped)"] if stopped else [],
        )


def stop_between_turns(server: Server, pid: int) -> bool:
    """Stop a process of the server's own at a moment at which it waits; False: it does not, or a client has it."""
    with contextlib.closing(server.connect(autocommit=True)) as connection:
        ours = connection.info.backend_pid
        stopped = _stop_while_it_waits(server, pid, connection)
    server.wait_gone([ours], TIMEOUT_S)  # or the next fault could be aimed at it
    return stopped


def _stop_while_it_waits(server: Server, pid: int, connection: "psycopg.Connection[Any]") -> bool:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        row = connection.execute(_IS_BUSY, (pid,)).fetchone()
        if row is None:
            return False
        if row == (False,):
            server.signal(pid, signal.SIGSTOP)
            stopped = server.wait_stopped(pid, TIMEOUT_S)
            if stopped and connection.execute(_IS_BUSY, (pid,)).fetchone() == (False,):
                return True
            server.signal(pid, signal.SIGCONT)
        time.sleep(POLL_S)
    return False


FAULT = Stop()
