"""What if the server dies again while it starts? Kills so many milliseconds into a start, before the one that counts.

Live trials only; of a recorded run the recovery itself is recorded and cut (`power_loss.recovery_depth`).
Assumes: the server is down.
Choices: the kill comes whether the start has got to an end by then or not; how far it had got is read from its log and
    stands in the receipt. No client was served between the first crash and the last start, so the receipt moves neither
    the fault's time nor the bound on asynchronous commits: `crashes_server` is False, for it had crashed already.
"""

import threading
import time
from collections.abc import Sequence
from random import Random

from crashlab.errors import ServerError
from crashlab.ledger import LedgerWriter
from crashlab.model import Injection
from crashlab.recovery.restart import safe_settings
from crashlab.server import Server

_SIGNS = (
    ("ready to accept connections", "it was ready"),
    ("checkpoint complete: end-of-recovery", "the checkpoint at the end of recovery was done"),
    ("checkpoint starting: end-of-recovery", "in the checkpoint at the end of recovery"),
    ("redo done at", "redo was done"),
    ("redo starts at", "in redo"),
    ("not properly shut down", "before redo"),
)
"""Line of the log -> how far the start had come, the furthest first."""
BEFORE_THE_LOG = "before it said anything"


def kill_in_start(
    server: Server, between_ms: Sequence[float], rng: Random, ledger: LedgerWriter, *, timeout_s: float
) -> Injection:
    """Start a server that is down, kill all of it after a drawn time, and return the receipt.

    Args:
        between_ms: the shortest and the longest time.
        timeout_s: for the start, should it never be killed.
    """
    delay_ms = rng.uniform(between_ms[0], between_ms[1])
    position, at_ns = server.log_position(), time.monotonic_ns()
    killed: list[int] = []
    timer = threading.Timer(delay_ms / 1000, lambda: killed.extend(server.kill_all()))
    timer.start()
    try:
        server.start(timeout_s=timeout_s, overrides=safe_settings(server.version.major))
    except ServerError:  # that is what the kill is for
        pass
    finally:
        timer.join()
    killed += server.kill_all()
    said = server.log_since(position)
    reached = next((words for sign, words in _SIGNS if sign in said), BEFORE_THE_LOG)
    return Injection(
        kind="kill",
        target="all",
        pid=killed[0] if killed else None,
        pids=killed,
        confirmed=bool(killed) and not server.running(),
        proof=[f"{delay_ms:.1f} ms into a start", f"how far it had come: {reached}"],
        crashes_server=False,
        bounds_window=True,
        acked_before=ledger.acked,
        ledger_position=ledger.lines,
        at_ns=at_ns,
    )
