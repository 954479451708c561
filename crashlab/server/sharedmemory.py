"""What does a killed PostgreSQL leave outside its data directory?

A SysV segment of a few bytes, named in postmaster.pid, and POSIX segments in /dev/shm, which only the processes'
memory maps name. The next start on the same data directory removes them; a server that is never started again
does not, and they stay until the machine is restarted.

Source: PostgreSQL sysv_shmem.c (PGSharedMemoryCreate), dsm_impl.c (dsm_impl_posix); pidfile.h (line 7).
"""

import ctypes
import re
from collections.abc import Iterable
from pathlib import Path

from crashlab.server.processes import PROC

IPC_RMID = 0
SHM_KEY_LINE = 7
POSIX_SEGMENT = re.compile(rb"(/dev/shm/PostgreSQL\.\d+)")


def posix_segments(pids: Iterable[int]) -> set[Path]:
    """Return the POSIX segments that living processes have mapped."""
    found: set[Path] = set()
    for pid in pids:
        try:
            maps = (PROC / f"{pid}/maps").read_bytes()
        except OSError:
            continue
        found.update(Path(match.decode()) for match in POSIX_SEGMENT.findall(maps))
    return found


def sysv_segments(data_directory: Path) -> set[tuple[int, int]]:
    """Return key and id of the segment that a postmaster.pid names, alive or stale; empty if there is none."""
    try:
        lines = (data_directory / "postmaster.pid").read_text().splitlines()
        key, segment = (int(word) for word in lines[SHM_KEY_LINE - 1].split())
    except (OSError, IndexError, ValueError):
        return set()
    return {(key, segment)}


def remove_sysv_segments(segments: set[tuple[int, int]]) -> None:
    """Remove those that still exist and that nobody is attached to any more."""
    for row in (PROC / "sysvipc/shm").read_text().splitlines()[1:] if segments else []:
        words = row.split()
        # key shmid perms size cpid lpid nattch
        if (int(words[0]), int(words[1])) in segments and words[6] == "0":
            ctypes.CDLL(None, use_errno=True).shmctl(int(words[1]), IPC_RMID, None)
