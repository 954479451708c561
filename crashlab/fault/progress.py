"""How far has a start or a stop come, as the server's log says, and when does it say a certain thing?

Choices: the log is looked at again and again, so a kill that is aimed at one of its lines comes a little after it. What
    was really met is read from the log once everything is dead: a checkpoint that ended meanwhile says so itself.

Source: postgres-contract.md section 4.
"""

import time
from collections.abc import Callable, Sequence

from crashlab.server import Server
from crashlab.server.roles import CHECKPOINTER, STARTUP

POLL_S = 0.0005
CONTAINER_POLL_S = 0.002
"""Each look at a container's log is a request to the Docker engine."""

Signs = Sequence[tuple[str, str]]
"""Line of the log -> how far it had come, the furthest first."""

END_OF_RECOVERY = "checkpoint starting: end-of-recovery"
SHUTDOWN_CHECKPOINT = "checkpoint starting: shutdown"
NEEDED_SETTINGS = {"log_checkpoints": "on"}
"""Without them the log does not say where a checkpoint begins: up to 14 that is the default."""

OF_A_START: Signs = (
    ("ready to accept connections", "it was ready"),
    ("checkpoint complete:", "the checkpoint at the end of recovery was done"),
    (END_OF_RECOVERY, "in the checkpoint at the end of recovery"),
    ("redo done at", "redo was done"),
    ("redo starts at", "in redo"),
    ("not properly shut down", "before redo"),
)
OF_A_STOP: Signs = (
    ("database system is shut down", "it had shut down"),
    ("checkpoint complete:", "the checkpoint of the shutdown was done"),
    (SHUTDOWN_CHECKPOINT, "in the checkpoint of the shutdown"),
    ("shutting down", "before the checkpoint of the shutdown"),
    ("received smart shutdown request", "waiting for the clients to leave"),
    ("received fast shutdown request", "ending the sessions"),
)
BEFORE_THE_LOG = "before it said anything"


def how_far(signs: Signs, said: str) -> str:
    """Say how far it had come."""
    return next((words for sign, words in signs if sign in said), BEFORE_THE_LOG)


def wait_said(
    server: Server,
    position: int,
    sign: str,
    *,
    until: Callable[[], bool],
    timeout_s: float,
    begin: Callable[[], None] = lambda: None,
) -> bool:
    """Wait until the log since a position says it; False: `until` came first, or the time was up.

    Whoever writes the checkpoint of a start or a stop stands still then, where it can be stepped: so even a short
    checkpoint does not end before the kill. Elsewhere the kill has to be quick.

    Args:
        begin: called once it is watched who will write it, and what leads to the checkpoint may begin.
    """
    deadline = time.monotonic() + timeout_s

    def is_over() -> bool:
        return until() or time.monotonic() > deadline

    to_begin = [begin]

    def is_said() -> bool:
        while to_begin:  # asked first when the writer stands still: begun before that, it might be over before that
            to_begin.pop()()
        return sign in server.log_since(position)

    writer = _writer(server, is_over)
    stepped = None if writer is None else server.step_until(writer, is_said, is_over)
    if stepped is not None and not to_begin:
        return stepped
    while not is_said():
        if is_over():
            return False
        time.sleep(POLL_S if server.kind == "local" else CONTAINER_POLL_S)
    return True


def _writer(server: Server, is_over: Callable[[], bool]) -> int | None:
    """Wait for who writes the checkpoint of a start or a stop; None: nobody who can be stepped.

    It is the checkpointer; up to 14 the checkpoint of a start is the startup process's, which makes a system call for
    each page: too many where each look at the log is a request.
    """
    while (server.kind == "local" or server.version.major > 14) and not is_over():
        pids = {process.role: process.pid for process in server.processes()}
        writer = pids.get(STARTUP if server.version.major <= 14 else CHECKPOINTER, pids.get(CHECKPOINTER))
        if writer is not None:
            return writer
        time.sleep(POLL_S)
    return None
