"""What happens on `docker stop -t`, or when Kubernetes ends a pod? A polite signal, and SIGKILL once the grace is over.

The signal is the image's STOPSIGNAL, which of the official image is SIGINT, a fast shutdown; where an image names none,
SIGTERM, a smart one, which waits for the clients until SIGKILL comes. A local server gets SIGINT, as by `pg_ctl stop`.

Choices: whether the server has to recover, its control file says. One that had shut down in time did not crash: a
    receipt all the same, unless the kill was aimed at the checkpoint, which it then has missed; but it proves nothing
    about crashes, and is not counted as if it did (`nothing_due`). A backend that is late may be answered and not
    flushed for as long as the grace lasts, so the bound on asynchronous commits does not hold.

Sources: postgres-contract.md 1.1 (class S), 3; Dockerfile reference, STOPSIGNAL.
"""

import time
from random import Random

from crashlab.errors import ServerError
from crashlab.fault.kind import Asked, Effect, FaultKind
from crashlab.fault.progress import NEEDED_SETTINGS, OF_A_STOP, SHUTDOWN_CHECKPOINT, how_far, wait_said
from crashlab.server import Server
from crashlab.server.roles import POSTMASTER

AIM_TIMEOUT_S = 30.0
POLL_S = 0.05
IN_TIME = "no SIGKILL: it ended in time"
CONTROL_FILE = "global/pg_control"
STATE = slice(16, 20)  # of ControlFileData, after identifier and versions (catalog/pg_control.h)
SHUT_DOWN = (1).to_bytes(4, "little")  # DB_SHUTDOWNED


class Terminate(FaultKind):
    """Ask the server to stop, and kill it once the grace is over."""

    name = "terminate"
    summary = "the stop signal, and SIGKILL for all after a short grace, as by `docker stop -t` and Kubernetes"
    has_grace = True
    settings = NEEDED_SETTINGS

    def bounds_window(self, target: str | None, server_kind: str) -> bool:
        """See FaultKind.bounds_window."""
        return False

    def inject(self, server: Server, asked: Asked, rng: Random) -> Effect:
        """See FaultKind.inject."""
        processes = server.processes()
        postmaster = next((process.pid for process in processes if process.role == POSTMASTER), None)
        if postmaster is None:
            raise ServerError("could not ask the server to stop: it is gone")
        position, begun_ns = server.log_position(), time.monotonic_ns()

        def ask() -> None:
            server.signal(postmaster, server.stop_signal)

        def is_down() -> bool:
            return not server.running()

        if asked.grace_ms is None:
            wait_said(server, position, SHUTDOWN_CHECKPOINT, until=is_down, timeout_s=AIM_TIMEOUT_S, begin=ask)
        else:
            ask()
            over_s = time.monotonic() + rng.uniform(*asked.grace_ms) / 1000
            while (left_s := over_s - time.monotonic()) > 0 and not is_down():
                time.sleep(min(POLL_S, left_s))
        killed_ns = time.monotonic_ns()
        killed = server.kill_all()
        killed_after = f"SIGKILL {(killed_ns - begun_ns) / 1e6:.1f} ms later"
        reached = how_far(OF_A_STOP, server.log_since(position))
        shut_down = _is_shut_down(server)
        return Effect(
            pid=postmaster,
            pids=[process.pid for process in processes],
            confirmed=is_down() and (asked.at is None or reached == dict(OF_A_STOP)[SHUTDOWN_CHECKPOINT]),
            proof=[
                f"{server.stop_signal.name} to the postmaster, {killed_after if killed else IN_TIME}",
                f"how far the shutdown had come: {reached}",
                f"postmaster {server.postmaster_exit()}",
            ],
            crashed=not shut_down,
            nothing_due=shut_down,
            at_ns=killed_ns,
        )


FAULT = Terminate()


def _is_shut_down(server: Server) -> bool:
    with server.files_at_rest([CONTROL_FILE]) as files:
        return (files / CONTROL_FILE).read_bytes()[STATE] == SHUT_DOWN
