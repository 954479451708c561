"""What happens when one process, or all of them, get SIGKILL?

A child's death makes the postmaster restart everything (crash-restart); the logger and 14's stats collector are
only respawned. The postmaster's own death leaves its children, which may acknowledge more until they notice: the
fault ends when the last of them is gone.

Source: postgres-contract.md section 3.
"""

import signal
import time
from random import Random

from crashlab.errors import FaultError
from crashlab.fault.kind import Asked, Effect, FaultKind
from crashlab.fault.targets import ALL, TARGETS, find_target, titled_processes
from crashlab.server import Server
from crashlab.server.roles import POSTMASTER

GONE_TIMEOUT_S = 15.0  # the postmaster itself sends SIGKILL to stragglers after 5 s
LOG_TIMEOUT_S = 15.0
POLL_S = 0.002


class Kill(FaultKind):
    """Send SIGKILL and wait until its consequences are complete."""

    name = "kill"
    summary = "SIGKILL for one process, or for all at one moment"
    targets = tuple(TARGETS)

    def crashes_server(self, target: str | None) -> bool:
        """See FaultKind.crashes_server."""
        return not TARGETS[target or ALL].respawned_only

    def bounds_window(self, target: str | None, server_kind: str) -> bool:
        """See FaultKind.bounds_window; a dead postmaster's children go on, unless it was process 1 of a container."""
        return target != POSTMASTER or server_kind == "container"

    def inject(self, server: Server, asked: Asked, rng: Random) -> Effect:
        """See FaultKind.inject."""
        target = asked.target
        assert target is not None
        if target == ALL:
            return _kill_all(server)
        processes = titled_processes(server)
        victim = find_target(server, TARGETS[target], processes, rng)
        if target == POSTMASTER:
            return _kill_postmaster(server, [process.pid for process in processes], victim.pid)
        if TARGETS[target].respawned_only:
            return _kill_respawned(server, victim.role, victim.pid)
        others = [process.pid for process in processes if process.role != POSTMASTER]
        return _kill_child(server, others, victim.pid)


FAULT = Kill()


def _kill_all(server: Server) -> Effect:
    pids = server.kill_all()
    exit_status = server.postmaster_exit()
    return Effect(
        pid=None,
        pids=pids,
        confirmed=bool(pids) and exit_status is not None and "signal 9" in exit_status,
        proof=[f"postmaster {exit_status}", f"all {len(pids)} processes are gone"],
    )


def _kill_postmaster(server: Server, pids: list[int], postmaster: int) -> Effect:
    if server.kind == "container":
        # Process 1 of a container ignores a SIGKILL from inside; from outside, the kernel ends all others with it
        effect = _kill_all(server)
        effect.pid = postmaster
        effect.proof.append("the postmaster is process 1 of its container: all others ended with it")
        return effect
    server.signal(postmaster, signal.SIGKILL)
    left = server.wait_gone(pids, GONE_TIMEOUT_S)
    exit_status = server.postmaster_exit()
    proof = [f"postmaster {exit_status}", f"{len(pids) - len(left)} of {len(pids)} processes ended"]
    if left:
        server.kill_all()
        proof.append(f"{len(left)} did not notice within {GONE_TIMEOUT_S:g} s and were killed too")
    return Effect(
        pid=postmaster,
        pids=pids,
        confirmed=exit_status is not None and "signal 9" in exit_status,
        proof=proof,
    )


def _kill_child(server: Server, others: list[int], victim: int) -> Effect:
    position = server.log_position()
    server.signal(victim, signal.SIGKILL)
    left = server.wait_gone(others, GONE_TIMEOUT_S)
    line = _wait_for_log_line(server, position, f"(PID {victim}) was terminated by signal 9")
    if line is None:
        raise FaultError(
            f"could not confirm that process {victim} was killed: the server's log does not say so",
            detail=f"Waited {LOG_TIMEOUT_S:g} s. Processes that are still there: {left or 'none'}.",
        )
    return Effect(
        pid=victim,
        pids=others,
        confirmed=not left,
        proof=[f"server log: {line}", f"{len(others) - len(left)} of {len(others)} processes ended"],
    )


def _kill_respawned(server: Server, role: str, victim: int) -> Effect:
    server.signal(victim, signal.SIGKILL)
    left = server.wait_gone([victim], GONE_TIMEOUT_S)
    deadline = time.monotonic() + GONE_TIMEOUT_S
    successor = None
    while successor is None and time.monotonic() < deadline:
        successor = next((p.pid for p in server.processes() if p.role == role and p.pid != victim), None)
        if successor is None:
            time.sleep(POLL_S)
    return Effect(
        pid=victim,
        pids=[victim],
        confirmed=not left and successor is not None,
        proof=[f"process {victim} is gone", f"the postmaster started a new {role}, process {successor}"],
    )


def _wait_for_log_line(server: Server, position: int, text: str) -> str | None:
    deadline = time.monotonic() + LOG_TIMEOUT_S
    while True:
        for line in server.log_since(position).splitlines():
            if text in line:
                return line.strip()
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_S)
