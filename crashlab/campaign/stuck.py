"""When does a worker do nothing any more, and when is it only slow?

A trial's time limit is kept by the worker itself (`trial.limit`), which can still say what it had found. That fails if
the worker does not run: it was stopped, or waits in a system call for ever. Its parent sees that from outside.

Choices:
    A stopped worker does nothing, for certain: one that stays stopped, and is over the limit, is stuck.
    Of any other it cannot be seen. It may build a recorder, copy a base image, make a recording: nothing of that is
    part of a trial's time, but all of it has limits of its own. It is stuck once these together are over, too.
    Only time in which this process ran itself counts: after Ctrl-Z and fg nobody is late.
"""

from crashlab.server import processes

LOOK_EVERY_S = 0.5
LOOK_MAX_S = 2.0
"""Of the time between two looks no more than this counts: for the rest of it this process was stopped, or busy."""
STOPPED_GRACE_S = 10.0
"""Longer than whoever stops a process to look at it for a moment."""
SILENT_GRACE_S = 1800.0
"""More than the limits of all that a task may wait for outside of the trial's own: for a lock and initdb 240 s, the
recorder 300 s, a copy 600 s, a recorded workload 120 s, the checksums 120 s, a server's end 30 s: 1410 s."""


class TaskClock:
    """How long one worker has been at its task."""

    def __init__(self, pid: int) -> None:
        """Begin with a task now."""
        self._pid = pid
        self.restart()

    def restart(self) -> None:
        """Begin with the next task."""
        self._task_s = self._stopped_s = 0.0

    def look(self, passed_s: float) -> None:
        """See what the worker does.

        Args:
            passed_s: since the last look.
        """
        passed_s = min(passed_s, LOOK_MAX_S)
        stat = processes.stat(self._pid)
        self._task_s += passed_s
        self._stopped_s = self._stopped_s + passed_s if stat is not None and stat.state == "T" else 0.0

    def stuck(self, limit_s: float | None) -> str | None:
        """Say in words that the worker is stuck; None: it is not.

        Args:
            limit_s: for one trial; None: a worker may take as long as it likes.
        """
        if limit_s is None:
            return None
        if self._task_s >= limit_s + STOPPED_GRACE_S and self._stopped_s >= STOPPED_GRACE_S:
            return f"stopped for {self._stopped_s:.0f} s, not done after {self._task_s:.0f} s"
        if self._task_s >= limit_s + SILENT_GRACE_S:
            return f"not done after {self._task_s:.0f} s"
        return None
