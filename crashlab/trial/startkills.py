"""What if the server dies again while it starts? Kills so many milliseconds into a start, or at a moment of it.

Live trials only; of a recorded run the recovery itself is recorded and cut (`power_loss.recovery_depth`).
Assumes: the server is down.
Choices: the kill comes whether the start has got to an end by then or not; how far it had got is read from its log and
    stands in the receipt. One that was aimed at a moment and came later is a receipt without a proof. No client was
    served between the first crash and the last start, so the receipt moves neither the fault's time nor the bound on
    asynchronous commits: `crashes_server` is False, for it had crashed already.
"""

import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from crashlab.errors import ServerError
from crashlab.fault.progress import END_OF_RECOVERY, NEEDED_SETTINGS, OF_A_START, how_far, wait_said
from crashlab.ledger import LedgerWriter
from crashlab.model import Injection
from crashlab.recovery.restart import safe_settings
from crashlab.server import Server

AIMED_SETTINGS = {"fsync": "on"}
"""As a user's start has it: the flushes before redo give time to find who is to be met, those of the checkpoint to meet
him where he cannot be stepped."""


class Asked(Protocol):
    """What a profile says about such kills: one of the two is set."""

    @property
    def between_ms(self) -> Sequence[int] | None:
        """After a time drawn from between these two."""

    @property
    def at(self) -> str | None:
        """In the checkpoint at the end of recovery."""


def kill_in_start(server: Server, asked: Asked, rng: Random, ledger: LedgerWriter, *, timeout_s: float) -> Injection:
    """Start a server that is down, kill all of it at its moment, and return the receipt.

    Args:
        timeout_s: for the start, should it never be killed.
    """
    between_ms = asked.between_ms
    delay_ms = None if between_ms is None else rng.uniform(between_ms[0], between_ms[1])
    position, at_ns = server.log_position(), time.monotonic_ns()

    def wait(ended: threading.Event) -> None:
        if delay_ms is not None:
            time.sleep(delay_ms / 1000)
        else:
            wait_said(server, position, END_OF_RECOVERY, until=ended.is_set, timeout_s=timeout_s)

    overrides = safe_settings(server.version.major) | NEEDED_SETTINGS
    if delay_ms is None:
        overrides |= AIMED_SETTINGS
    killed = start_and_kill(server, wait, timeout_s=timeout_s, overrides=overrides)
    reached = how_far(OF_A_START, server.log_since(position))
    aimed = delay_ms is None
    return Injection(
        kind="kill",
        target="all",
        pid=killed[0] if killed else None,
        pids=killed,
        confirmed=bool(killed) and not server.running() and (not aimed or reached == dict(OF_A_START)[END_OF_RECOVERY]),
        proof=[
            "aimed at the checkpoint at the end of recovery" if aimed else f"{delay_ms:.1f} ms into a start",
            f"how far it had come: {reached}",
        ],
        crashes_server=False,
        bounds_window=True,
        acked_before=ledger.acked,
        ledger_position=ledger.lines,
        at_ns=at_ns,
    )


def start_and_kill(
    server: Server,
    wait: Callable[[threading.Event], None],
    *,
    timeout_s: float,
    overrides: dict[str, str] | None = None,
) -> list[int]:
    """Start a server that is down, kill all of it once `wait` returns, and return who was killed.

    Args:
        wait: runs beside the start; its event is set when the start has ended, one way or the other.
    """
    ended = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        wait(ended)
        killed.extend(server.kill_all())

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        server.start(timeout_s=timeout_s, overrides=overrides)
    except ServerError:  # that is what the kill is for
        pass
    finally:
        ended.set()
        killer.join()
    return killed + server.kill_all()
