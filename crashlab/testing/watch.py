"""Who sees to it, while a block of the test runs, that the server dies at the right moment, and comes back?

A thread of its own: it waits for the observer's word, for a time, or for the end of the block; kills the application's
processes and the server; recovers and reads; lets clients in again. So an application that tries again, inside the same
block, finds its server.

A block that does not end in its time is ended: the server dies, then its thread is interrupted, if it is the main one.
"""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from crashlab.observer import Observer, Reached
from crashlab.observer.stake import Stake

POLL_S = 0.005
GRACE_S = 5.0
"""So long may a block go on whose server was killed for good, before its thread is interrupted."""


@dataclass(frozen=True)
class Outcome:
    """What made the server die."""

    reached: Reached | None  # the armed moment
    why: str  # "moment", "time", "end", "stuck"


class Watch:
    """One block under watch."""

    def __init__(
        self,
        observer: Observer | None,
        crash: Callable[[Outcome], None],
        *,
        armed: bool,
        after_s: float | None,
        stake: Stake | None = None,
        timeout_s: float,
    ) -> None:
        """Begin to watch.

        Args:
            crash: does all of it: called at most once, in another thread.
            armed: whether the observer waits for a moment.
            after_s: since something is at stake; None: no time is waited for.
            stake: knows when that is; None: at once.
        """
        self.dying = threading.Event()  # from now on whatever the application meets may be a consequence
        self.stuck = False
        self.error: BaseException | None = None
        self._observer = observer if armed else None
        self._crash = crash
        self._after_s = after_s
        self._stake = stake
        self._timeout_s = timeout_s
        self._ended = threading.Event()
        self._cancelled = False
        self._block = threading.current_thread()
        self._thread = threading.Thread(target=self._run, name="crashlab watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            outcome = self._wait()
            if outcome is None:
                return
            self.dying.set()
            self._crash(outcome)
            if outcome.why == "stuck":
                self._interrupt()
        except BaseException as error:
            self.error = error

    def _wait(self) -> Outcome | None:
        begun = time.monotonic()
        since = begun if self._stake is None else None
        while True:
            if since is None and self._stake is not None and self._stake.look():
                since = time.monotonic()
            ended = self._ended.is_set()
            if self._observer is not None:
                if ended:
                    self._observer.settle()
                reached = self._observer.wait_reached(0.0 if ended else POLL_S)
                if reached is not None:
                    return Outcome(reached, "moment")
            else:
                self._ended.wait(POLL_S)
            now = time.monotonic()
            if self._cancelled:
                return None
            if ended:
                return Outcome(None, "end")
            if self._after_s is not None and since is not None and now - since >= self._after_s:
                return Outcome(None, "time")
            if now - begun >= self._timeout_s:
                self.stuck = True
                return Outcome(None, "stuck")

    def _interrupt(self) -> None:
        if not self._ended.wait(GRACE_S) and self._block is threading.main_thread():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def cancel(self) -> bool:
        """End the watch without a crash; False: it has begun."""
        if not self.dying.is_set():
            self._cancelled = True
            self._ended.set()
            self._thread.join()
        return not self.dying.is_set()

    def end(self, timeout_s: float) -> bool:
        """The block is over: wait until the server has died and is back; False: not in time."""
        self._ended.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
