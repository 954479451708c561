"""What if a trial does not come to its end?

When its time is up the server is killed, so that whatever waits for it stops waiting: a client, a query, a start, a
recovery. The trial goes on to say that, and nothing else (INCONCLUSIVE-TRIAL-TIMEOUT).

Choices: the server is killed again and again until the trial has noticed, as it may be about to start it once more.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from crashlab.errors import CrashlabError

AGAIN_S = 0.2


class TimeUp(Exception):
    """The trial's time is up. Never leaves the trial."""


class TrialLimit:
    """Watches over one trial. Use it as a context manager around everything that the server takes part in.

        with TrialLimit(timeout_s, server.kill_all) as limit:
            limit.phase = "while the server recovered"
            ...
        limit.reached

    `reached` tells the phase in which the time was up, and stays None if the trial was in time.
    """

    def __init__(self, timeout_s: float | None, kill: Callable[[], object]) -> None:
        """Prepare to watch; None: without a limit.

        Args:
            kill: kills the server at once, running or not; called by another thread.
        """
        self.phase = "before it began"
        self.reached: str | None = None
        self._timeout_s = timeout_s
        self._kill = kill
        self._deadline = math.inf
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._timeout_s is not None:
            self._deadline = time.monotonic() + self._timeout_s
            self._thread = threading.Thread(target=self._watch, args=(self._timeout_s,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def left_s(self) -> float:
        """Return the time that is left: what does not wait for the server must not wait longer. Without limit: inf."""
        return max(0.0, self._deadline - time.monotonic())

    def enter(self, phase: str) -> None:
        """Begin another phase. Raises TimeUp: the time is up."""
        self.check()
        self.phase = phase

    def check(self) -> None:
        """Raise TimeUp if the time is up."""
        if self.reached is not None:
            raise TimeUp(self.reached)

    def _watch(self, timeout_s: float) -> None:
        if self._over.wait(timeout_s):
            return
        self.reached = f"after {timeout_s:g} s, {self.phase}"
        while True:
            with contextlib.suppress(CrashlabError, OSError):  # the trial's own clean-up will meet it again
                self._kill()
            if self._over.wait(AGAIN_S):
                return
