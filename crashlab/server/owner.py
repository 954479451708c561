"""Which process made a thing, and is that process dead for certain?

A process id alone says nothing: it is given again. With the time at which the process started, counted by the kernel
since the machine's start, it is unique. Both mean something only within one boot and one namespace of process ids,
so these belong to the answer: of a process elsewhere nothing can be said, and what it made is left alone.
"""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from crashlab.server import processes
from crashlab.server.processes import PROC

COMMAND_CHARACTERS_MAX = 200
MACHINE_ID = Path("/etc/machine-id")

Life = Literal["alive", "dead", "unknown"]

_serves = 0


def serve(pid: int) -> None:
    """Say for which process this one works; before it makes anything."""
    global _serves
    _serves = pid


@dataclass(frozen=True)
class Owner:
    """A process for all time."""

    pid: int
    start: int  # clock ticks from the machine's start to the process's
    boot: str  # the machine's start, as a random id
    pid_space: str  # the namespace that the process id belongs to
    host: str
    uid: int
    started_s: float  # since 1970; like the command, to be told only
    command: str
    serves: int = 0  # the process that it works for, and ends with; 0: none

    def same(self, other: "Owner") -> bool:
        """Say whether it is the same process, however it is described."""
        return self._identity() == other._identity()

    def _identity(self) -> tuple[object, ...]:
        return self.pid, self.start, self.boot, self.pid_space, self.host, self.uid

    def life(self) -> Life:
        """Say whether the process still runs; "unknown" where that cannot be seen from here."""
        here = place()
        if self.boot != here.boot:
            # This machine has been started again since; of another machine nothing is known.
            return "dead" if self.host == here.host else "unknown"
        if self.pid_space != here.pid_space:
            return "unknown"
        return "alive" if runs(self.pid, self.start) else "dead"

    def orphaned(self) -> bool:
        """Say whether the process it works for has died: it is about to end, and to tidy up after itself."""
        stat = processes.stat(self.pid)
        return bool(self.serves) and stat is not None and stat.parent != self.serves and self.life() == "alive"

    def text(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """Return what `text` wrote; None: it did not."""
        try:
            found = cls(**json.loads(text))
        except (ValueError, TypeError):
            return None
        numbers = (found.pid, found.start, found.uid, found.serves)
        texts = (found.boot, found.pid_space, found.host, found.command)
        sound = all(type(number) is int for number in numbers) and all(isinstance(one, str) for one in texts)
        return found if sound and isinstance(found.started_s, int | float) else None


@dataclass(frozen=True)
class Place:
    """Where a process id means something."""

    boot: str
    pid_space: str
    host: str


def place() -> Place:
    """Return where this process runs."""
    machine = ""
    if MACHINE_ID.is_file():
        machine = MACHINE_ID.read_text(encoding="ascii", errors="replace").strip()
    boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    return Place(boot, str((PROC / "self/ns/pid").readlink()), f"{socket.gethostname()} {machine}".strip())


def runs(pid: int, start: int) -> bool:
    """Say whether the process that started then still runs; one that only waits for its parent's look does not."""
    stat = processes.stat(pid)
    if stat is None or stat.start != start:
        return False
    # A process whose first thread has ended is shown as a zombie while the others run.
    return stat.state not in ("Z", "X") or stat.threads > 1


def this_process() -> Owner:
    """Return the calling process."""
    stat = processes.stat(os.getpid())
    assert stat is not None
    here = place()
    return Owner(
        pid=os.getpid(),
        start=stat.start,
        boot=here.boot,
        pid_space=here.pid_space,
        host=here.host,
        uid=os.geteuid(),
        started_s=round(_started_s(stat.start), 3),
        command=" ".join(processes.title(os.getpid()).split())[:COMMAND_CHARACTERS_MAX],
        serves=_serves,
    )


def _started_s(start: int) -> float:
    up_s = float((PROC / "uptime").read_text().split()[0])
    return time.time() - up_s + start / os.sysconf("SC_CLK_TCK")
