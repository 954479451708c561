"""Is a startup process that does not end in time at work, or does it hang?

Looked at over a few seconds: what it calls itself, which says the WAL file that it replays; its CPU time; its reads and
writes; where in the kernel it waits. One that is at work is slow, and nothing is said of it. One that hangs either
sleeps all the time and moves nothing, or uses the CPU all the time and moves nothing.

Choices: a process that waits for the disk (state D), that somebody has stopped (T), or that gets no CPU although it
    could run (R, and no time) is not called hung: machine, disk and people do that. Nor one that waits for a file
    system of the network or in user space, where that is a sleep.

Source: proc_pid_stat(5) (fields 14 and 15), proc_pid_io(5), proc_pid_wchan(5); PostgreSQL's ps_status.c.
"""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from crashlab.server.processes import PROC, title

LOOKS = 5
EVERY_S = 0.5
_FILE_SYSTEMS = ("request_wait_answer", "fuse_", "rpc_", "nfs", "p9_", "cifs", "ceph")
"""What functions of the kernel are called in which a process waits for such a file system."""
IDLE_SHARE = 0.02
"""Of the time: so little CPU is that of a process that wakes up, looks around and sleeps on."""
BUSY_SHARE = 0.5
"""Of the time: with so much CPU and nothing moved it goes round in a circle."""


class Glance(NamedTuple):
    """What one look at a process shows."""

    state: str
    title: str
    cpu_s: float
    moved_bytes: int  # read and written
    waits_in: str  # function of the kernel; empty: unknown or none


def glance(pid: int) -> Glance | None:
    """Look at a process; None: it is gone."""
    try:
        fields = (PROC / f"{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return Glance(fields[0], title(pid).strip(), (int(fields[11]) + int(fields[12])) / ticks, _moved(pid), _waits(pid))


def _moved(pid: int) -> int:
    try:
        lines = (PROC / f"{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar")))


def _waits(pid: int) -> str:
    try:
        name = (PROC / f"{pid}/wchan").read_text().strip()
    except OSError:
        return ""
    return "" if name == "0" else name


def what_hangs(pid: int, *, sleep: Callable[[float], None] = time.sleep) -> str | None:
    """Say what a process that hangs does; None: it is at work, or nothing can be said."""
    looks = []
    for number in range(LOOKS):
        if number:
            sleep(EVERY_S)
        seen = glance(pid)
        if seen is None:
            return None
        looks.append(seen)
    return judged(looks, (LOOKS - 1) * EVERY_S)


def judged(looks: list[Glance], seconds: float) -> str | None:
    """Say from some looks what a process that hangs does; None: it is at work, or nothing can be said."""
    first, last = looks[0], looks[-1]
    if last.moved_bytes != first.moved_bytes or last.title != first.title:
        return None
    cpu_s = last.cpu_s - first.cpu_s
    where = f' as "{last.title}"' if last.title else ""
    if any(name in look.waits_in for look in looks for name in _FILE_SYSTEMS):
        return None
    if all(look.state == "S" for look in looks[1:]) and cpu_s <= IDLE_SHARE * seconds:
        waits = f", in the kernel's {last.waits_in}" if last.waits_in else ""
        return f"the startup process sleeps{where}{waits}; for {seconds:g} s it used no CPU, and read and wrote nothing"
    if cpu_s >= BUSY_SHARE * seconds:
        did = f"used {cpu_s:.1f} s of CPU, and read and wrote nothing"
        return f"the startup process runs{where}; for {seconds:g} s it {did}"
    return None
