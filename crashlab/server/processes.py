"""Which processes belong to a local server, and are they really gone?

A postmaster killed with SIGKILL leaves orphans, and under the machine's pid 1 they may stay zombies for a second and
block a restart (environment.md "Processes", measured). So this process becomes their sub-reaper, and reaps those that
it knows by id: never any child, since a host test process has its own.
"""

import contextlib
import ctypes
import os
import select
import signal as signals
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PROC = Path("/proc")


def become_subreaper() -> None:
    """Make orphaned descendants children of this process. Not inherited by fork, so asked for at every start."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Return a process's direct children, or nothing if it is gone."""
    try:
        return [int(word) for word in (PROC / f"{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def working_in(folder: Path) -> list[int]:
    """Return the processes whose working directory is `folder`: every server process, and no zombie.

    All processes of the machine are asked, since a server's may have any parent: 2 microseconds each.
    """
    wanted = str(folder)
    found = []
    with os.scandir(PROC) as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(f"{entry.path}/cwd") == wanted:  # noqa: PTH115 - a Path costs five times as much
                        found.append(int(entry.name))
    return found


def title(pid: int) -> str:
    """Return a process's command line, NULs as spaces; empty if it is gone or a zombie."""
    try:
        return (PROC / f"{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def environment(pid: int) -> bytes:
    """Return the variables with which a process was started; empty if it is gone, or not ours to look at."""
    try:
        return (PROC / f"{pid}/environ").read_bytes()
    except OSError:
        return b""


def number_inside(pid: int) -> int | None:
    """Return the number that a process has in its own, innermost namespace; None: it is gone."""
    try:
        return int((PROC / f"{pid}/status").read_text().partition("NSpid:")[2].split("\n", 1)[0].split()[-1])
    except (OSError, IndexError):
        return None


def state(pid: int) -> str:
    """Return the state letter of /proc/PID/stat: R, S, D, T, Z ...; empty if it is gone."""
    try:
        return (PROC / f"{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


class Stat(NamedTuple):
    """What /proc/PID/stat says."""

    state: str
    parent: int
    terminal: int  # 0: none
    threads: int
    start: int  # clock ticks since the machine's start: with the process id, unique


def stat(pid: int) -> Stat | None:
    """Return a process's state and what tells it from a later one of its number; None: it is gone.

    Source: proc_pid_stat(5), fields 3, 4, 7, 20 and 22.
    """
    try:
        fields = (PROC / f"{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return None
    return Stat(fields[0], int(fields[1]), int(fields[4]), int(fields[17]), int(fields[19]))


def freeze(pid: int, timeout_s: float = 2.0) -> None:
    """Stop a process and wait until it really stands still, so that it forks no more; nothing if it is gone."""
    try:
        os.kill(pid, signals.SIGSTOP)
    except ProcessLookupError:
        return
    wait_stopped(pid, timeout_s)


def wait_stopped(pid: int, timeout_s: float) -> bool:
    """Wait until a process stands still; False when it does not in time, or is gone."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.00005
    while (now := state(pid)) not in ("T", "Z", "") and time.monotonic() < deadline:
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.001)
    return now == "T"


def send(pids: Iterable[int], sig: signals.Signals) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)


def wait_ended(pids: Iterable[int], timeout_s: float) -> list[int]:
    """Wait until the processes have ended (a zombie has ended); return those that have not."""
    deadline = time.monotonic() + timeout_s
    watched: dict[int, int] = {}
    poll = select.poll()
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                watched[fd] = pid
                poll.register(fd, select.POLLIN)
        while watched:
            left_s = deadline - time.monotonic()
            for fd, _ in poll.poll(max(0.0, left_s) * 1000):
                poll.unregister(fd)
                os.close(fd)
                del watched[fd]
            if left_s <= 0:
                break
        return sorted(watched.values())
    finally:
        for fd in watched:
            os.close(fd)


def reap(pids: Iterable[int]) -> None:
    """Take the exit status of those that are our own ended children; never waits."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
