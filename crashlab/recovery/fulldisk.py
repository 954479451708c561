"""Was there no room left under the server, and where?

A server that meets a full disk may refuse, panic, or fail to write its own log and statistics. What is missing
afterwards says nothing about its promises, so the fact is taken down with every trial.

Checks: what the server, its clients and the recorder said about it.
Does not check: how much room there is now: files that were in the way may be gone.
Source: errno 28, ENOSPC, whose text is that of the C locale; SQLSTATE 53100, disk_full.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

_SAID = re.compile(r"\b(?:WARNING|LOG|ERROR|FATAL|PANIC):\s+(could not .*: No space left on device)")
_RECORDER = re.compile(r"crashlab recorder: (.*): errno 28$", re.MULTILINE)
_CLIENT = re.compile(r"\bDiskFull: ([^\n]*)")
_SHARED_MEMORY = Path("/dev/shm")


def full_disk(server_log: str, client_errors: Iterable[str], place: Path | None) -> str | None:
    """Return who met a full disk first and which, in a sentence without its full stop; None: nobody did.

    Args:
        client_errors: what the clients met, each with the name of its class.
        place: where the server's files are; None: not on this machine.
    """
    found = _SAID.search(server_log) or next(filter(None, map(_CLIENT.search, client_errors)), None)
    if found is not None:
        said = f"the server said: {found[1].strip()}"
    elif found := _RECORDER.search(server_log):
        said = f"the recorder said: {found[1]}"
    else:
        return None
    return f"{_told(_SHARED_MEMORY if 'shared memory' in said else place)} was full: {said}"


def _told(place: Path | None) -> str:
    if place is None:
        return "the server's disk"
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return f'the file system of "{place}"'
    return f'the file system of "{place}" ({usage.total / 1e6:.0f} MB, {usage.free / 1e6:.0f} MB free now)'
