"""How is a process let run from one system call to the next, until something is seen?

A checkpoint may take less than a millisecond, which on a busy machine is over before anybody who looks at a log has
looked. So the process that is to be met there is traced (ptrace(2)) and stands still before and after each system call,
the write of its log among them.

Assumes: one thread does all of it; the kernel asks for that.
Choices: where tracing is not allowed, the caller is told so and has to be quick instead.
"""

import ctypes
import os
import signal as signals
import time
from collections.abc import Callable

# linux/ptrace.h
SYSCALL = 24
DETACH = 17
SEIZE = 0x4206
INTERRUPT = 0x4207
TRACESYSGOOD = 1  # a stop at a system call is told by bit 7
AT_SYSCALL = signals.SIGTRAP | 0x80
EVENT_STOP = 128
WALL = 0x40000000
LET_GO_TIMEOUT_S = 2.0  # then the end of this thread lets it go
POLL_S = 0.0001
POLL_MAX_S = 0.002


def step_until(pid: int, seen: Callable[[], bool], over: Callable[[], bool]) -> bool | None:
    """Step a process until something is seen, and leave it stopped there.

    Args:
        seen: asked at each system call, and before the first, while the process stands still; where it raises, the
            process is let go.
        over: asked while it does not; then it goes on alone.

    Returns:
        Whether it was seen; None: this process may not be traced, and nothing was done.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def ptrace(request: int, data: int = 0) -> bool:
        done: int = libc.ptrace(request, pid, ctypes.c_void_p(0), ctypes.c_void_p(data))
        return done == 0

    if not ptrace(SEIZE, TRACESYSGOOD):
        return None
    if not ptrace(INTERRUPT):
        return False
    interrupted = False
    while True:
        status = _wait(pid, over)
        if status is None and not interrupted and ptrace(INTERRUPT):  # it has to stand still to be let go
            interrupted, over = True, _after(LET_GO_TIMEOUT_S)
            continue
        if status is None or not os.WIFSTOPPED(status):
            return False
        try:
            is_seen = not interrupted and seen()
        except BaseException:
            ptrace(DETACH, _signal_of(status))
            raise
        if interrupted or is_seen:
            if is_seen:
                os.kill(pid, signals.SIGSTOP)
            ptrace(DETACH, _signal_of(status))
            return is_seen
        if not ptrace(SYSCALL, _signal_of(status)):
            return False


def _after(seconds: float) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def _signal_of(status: int) -> int:
    """Return the signal that a stop keeps from the process; 0: it is another kind of stop."""
    if os.WSTOPSIG(status) == AT_SYSCALL or status >> 16 == EVENT_STOP:
        return 0
    return os.WSTOPSIG(status)


def _wait(pid: int, over: Callable[[], bool]) -> int | None:
    """Wait until it stands still or is gone; None: it does not, and it is over, or gone altogether."""
    pause_s = POLL_S
    while True:
        try:
            found, status = os.waitpid(pid, os.WNOHANG | WALL)
        except ChildProcessError:
            return None
        if found:
            return status
        if over():
            return None
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, POLL_MAX_S)
