"""What does a killed PostgreSQL leave outside its data directory?

A SysV segment of a few bytes, named in postmaster.pid, and POSIX segments in /dev/shm, which only the processes'
memory maps name. The next start on the same data directory removes them; a server that is never started again
does not, and they stay until the machine is restarted.

Source: PostgreSQL sysv_shmem.c (PGSharedMemoryCreate), dsm_impl.c (dsm_impl_posix); pidfile.h (line 7).
"""

import contextlib
import ctypes
import re
from collections.abc import Iterable, Set
from pathlib import Path
from typing import NamedTuple

from crashlab.server import owned
from crashlab.server.processes import PROC

IPC_RMID = 0
SHM_RDONLY = 0o10000
MAGIC = 679834894  # sysv_shmem.c, PGShmemMagic
NO_ADDRESS = ctypes.c_void_p(-1).value
SHM_KEY_LINE = 7
POSIX_SEGMENT = re.compile(rb"(/dev/shm/PostgreSQL\.\d+)")
SYSV_SEGMENT = re.compile(rb" (\d+) +/SYSV([0-9a-f]{8}) ")  # in place of an inode and a path


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


def attached_sysv_segments(pids: Iterable[int]) -> set[tuple[int, int]]:
    """Return key and id of the SysV segments that living processes are attached to."""
    found: set[tuple[int, int]] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for segment, key in SYSV_SEGMENT.findall((PROC / f"{pid}/maps").read_bytes()):
                found.add((ctypes.c_int32(int(key, 16)).value, int(segment)))
    return found


def sysv_segments(data_directory: Path) -> set[tuple[int, int]]:
    """Return key and id of the segment that a postmaster.pid names, alive or stale; empty if there is none."""
    try:
        lines = (data_directory / "postmaster.pid").read_text().splitlines()
        key, segment = (int(word) for word in lines[SHM_KEY_LINE - 1].split())
    except (OSError, IndexError, ValueError):
        return set()
    return {(key, segment)}


class Row(NamedTuple):
    """A SysV segment that exists."""

    size_bytes: int
    attached: int  # how many processes are
    uid: int


def existing() -> dict[tuple[int, int], Row]:
    """Return the SysV segments of this machine by key and id."""
    found = {}
    for line in (PROC / "sysvipc/shm").read_text().splitlines()[1:]:
        # key shmid perms size cpid lpid nattch uid gid ...
        words = [int(word) for word in line.split()[:8]]
        found[words[0], words[1]] = Row(words[3], words[6], words[7])
    return found


def is_postgres(segment: int) -> bool:
    """Say whether a SysV segment begins as PostgreSQL's do."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(segment, None, SHM_RDONLY)
    if address == NO_ADDRESS:
        return False
    try:
        return ctypes.c_int32.from_address(address).value == MAGIC
    finally:
        libc.shmdt(ctypes.c_void_p(address))


def remove_sysv_segments(segments: set[tuple[int, int]]) -> None:
    """Remove those that still exist and that nobody is attached to any more."""
    there = existing() if segments else {}
    for key, segment in segments & there.keys():
        if there[key, segment].attached == 0:
            ctypes.CDLL(None, use_errno=True).shmctl(segment, IPC_RMID, None)


def note(posix: Set[Path], sysv: Set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Put segments on this process's list of what it has made: once their processes are dead, nothing names them.

    Returns:
        those of `sysv` that exist.
    """
    there = existing() if sysv else {}
    for kind, what in owned.listed():  # a server started again has removed those of its last life
        words = what.split(" ")
        gone = kind == "posix segment" and not Path(words[0]).exists()
        gone |= kind == "sysv segment" and bool(sysv) and (int(words[0]), int(words[1])) not in there
        if gone:
            owned.forget(kind, what)
    for path in posix:
        # A file that is gone cannot be left; its number tells the segment from a later one of its name.
        with contextlib.suppress(FileNotFoundError):
            owned.note("posix segment", f"{path} {path.stat().st_ino}")
    for key, segment in sysv & there.keys():
        owned.note("sysv segment", f"{key} {segment}")
    return sysv & there.keys()


def forget(posix: Set[Path], sysv: Set[tuple[int, int]]) -> None:
    """Take segments that are gone off the list."""
    for kind, what in owned.listed():
        if kind == "posix segment" and Path(what.split(" ")[0]) in posix:
            owned.forget(kind, what)
    for key, segment in sysv:
        owned.forget("sysv segment", f"{key} {segment}")
