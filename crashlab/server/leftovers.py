"""What have dead runs of this user left on this machine, and how does it go?

A run's list says where to look. What is found there is removed only if it shows itself whose it is:

    container     its label names the dead process
    process       it works in such a folder, as the server's user or as this one, started later than the dead process,
                  and has no terminal: somebody may have gone there to look
    segment       nobody has it, and it belongs to this user or the server's; a POSIX one is the file that was noted,
                  a SysV one begins as PostgreSQL's do
    folder        it holds a file that names the dead process and that only this user could have written;
                  nothing is mounted in it, and no living run has a folder in it

Removed in this order: a container or process could still write into a folder.
"""

import contextlib
import os
import signal as signals
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crashlab.errors import CrashlabError, ServerError
from crashlab.server import owned, processes, sharedmemory
from crashlab.server.deadruns import Run, dead_runs, living_runs, taken
from crashlab.server.privileges import server_user
from crashlab.server.processes import PROC

KILL_TIMEOUT_S = 10.0
OTHERS_TIMEOUT_S = 60.0
"""For another process that cleans up after the same run, such as one that has just been started."""
TITLE_CHARACTERS_MAX = 100
STANDSTILL_ROUNDS = 20
BLOCK_BYTES = 512  # of stat(2), whatever the file system's are
PROGRAMS = ("cp", "initdb", "pg_checksums", "postgres")  # that crashlab starts with a path of its own as an argument


class Leftover(ABC):
    """One thing that a dead run left."""

    kind: str

    @abstractmethod
    def text(self) -> str:
        """Name it."""

    @abstractmethod
    def size_bytes(self) -> int | None:
        """Return how much room it takes; None: that is not known, or none."""

    @abstractmethod
    def remove(self) -> None:
        """Remove it. Raises ServerError or OSError: it could not be removed."""


@dataclass(frozen=True)
class LeftProcess(Leftover):
    """A server's process, or a program that works for one."""

    pid: int
    start: int
    title: str
    kind = "process"

    def text(self) -> str:
        """See Leftover."""
        return f"{self.pid} {self.title[:TITLE_CHARACTERS_MAX]}"

    def size_bytes(self) -> None:
        """See Leftover."""

    def send(self, sig: signals.Signals) -> None:
        """Signal it, and never another process that got its number."""
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(self.pid)
            try:
                now = processes.stat(self.pid)
                if now is not None and now.start == self.start:
                    signals.pidfd_send_signal(fd, sig)
            finally:
                os.close(fd)

    def remove(self) -> None:
        """See Leftover."""
        self.send(signals.SIGKILL)
        if processes.wait_ended([self.pid], KILL_TIMEOUT_S):
            raise ServerError(f"could not kill process {self.pid} within {KILL_TIMEOUT_S:g} s")


@dataclass(frozen=True)
class LeftPosixSegment(Leftover):
    """A POSIX segment: a file in memory."""

    path: Path
    inode: int
    kind = "shared memory"

    def text(self) -> str:
        """See Leftover."""
        return str(self.path)

    def size_bytes(self) -> int | None:
        """See Leftover."""
        with contextlib.suppress(OSError):
            return self.path.stat().st_size
        return None

    def remove(self) -> None:
        """See Leftover."""
        status = self.path.lstat() if os.path.lexists(self.path) else None
        if status is not None and status.st_ino == self.inode:
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class LeftSysvSegment(Leftover):
    """A SysV segment, as ipcs shows it."""

    key: int
    segment: int
    size: int
    kind = "shared memory"

    def text(self) -> str:
        """See Leftover."""
        return f"SysV segment {self.segment}, key {self.key:#010x}"

    def size_bytes(self) -> int:
        """See Leftover."""
        return self.size

    def remove(self) -> None:
        """See Leftover."""
        sharedmemory.remove_sysv_segments({(self.key, self.segment)})


@dataclass(frozen=True)
class LeftFolder(Leftover):
    """A folder with all that is in it."""

    path: Path
    run: Run
    kind = "folder"

    def text(self) -> str:
        """See Leftover."""
        return str(self.path)

    def size_bytes(self) -> int:
        """See Leftover."""
        return folder_bytes(self.path)

    def remove(self) -> None:
        """See Leftover."""
        mounts = [mount for mount in _mount_points() if mount.is_relative_to(self.path)]
        if mounts:
            raise ServerError(f'could not remove "{self.path}": something is mounted at "{mounts[0]}"')
        owned.clear_folder(self.path, made_by=self.run.owner)
        if os.path.lexists(self.path):
            raise ServerError(f'could not remove "{self.path}": not all of its content could be removed')


def folder_bytes(path: Path) -> int:
    """Return how many bytes of the disk a folder takes."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{folder}/{name}").st_blocks * BLOCK_BYTES  # not by a Path: there may be 200,000
    return total


def _mount_points() -> list[Path]:
    # Source: proc_pid_mountinfo(5); a space in a path is written as \040.
    lines = (PROC / "self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [Path(line.split(" ")[4].replace("\\040", " ")) for line in lines]


def find(run: Run) -> list[Leftover]:
    """Return what a dead run left on this machine, its containers excepted, in the order of removal."""
    others = _of_living_runs()
    folders = [Path(what) for what in run.listed("folder")]
    found = [path for path in folders if _is_of(path, run) and not _holds(path, others)]
    left: list[Leftover] = list(_processes(found, run))
    left += _segments(found, run, [one.pid for one in left if isinstance(one, LeftProcess)])
    # A folder inside another one of the run goes with that.
    left += [LeftFolder(path, run) for path in found if not any(outer in path.parents for outer in found)]
    return left


def _of_living_runs() -> list[Path]:
    return [Path(what) for other in living_runs() for what in other.listed("folder")]


def _holds(folder: Path, others: Sequence[Path]) -> bool:
    """Say whether somebody else's folder lies in one: a process may work in a folder of the one that began it."""
    return any(folder in other.parents for other in others)


def _is_of(path: Path, run: Run) -> bool:
    if not path.name.startswith(owned.PREFIX) or not path.is_absolute() or ".." in path.parts:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return owned.is_of(fd, run.owner)
    finally:
        os.close(fd)


def _server_uids() -> set[int]:
    return {os.geteuid(), server_user().uid}


def _processes(folders: Sequence[Path], run: Run) -> Iterator[LeftProcess]:
    if not folders or run.owner.boot != _boot():
        return
    uids = _server_uids()
    for entry in PROC.iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit() or entry.stat().st_uid not in uids:
                continue
            pid = int(entry.name)
            now = processes.stat(pid)
            if now is None or now.state in ("Z", "X") or now.start < run.owner.start:
                continue
            at = Path(str((entry / "cwd").readlink()).removesuffix(" (deleted)"))
            here = now.terminal == 0 and any(at.is_relative_to(folder) for folder in folders)
            if here or _works_on(pid, folders):
                yield LeftProcess(pid, now.start, processes.title(pid).strip())


def _works_on(pid: int, folders: Sequence[Path]) -> bool:
    """Say whether a process is one of the programs that crashlab starts, with a path in one of the folders."""
    words = (PROC / f"{pid}/cmdline").read_bytes().split(b"\0")
    if Path(os.fsdecode(words[0])).name not in PROGRAMS:
        return False
    paths = [Path(os.fsdecode(word)) for word in words[1:] if word.startswith(b"/")]
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def _boot() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def _segments(folders: Sequence[Path], run: Run, pids: Sequence[int]) -> Iterator[Leftover]:
    if run.owner.boot != _boot():  # they ended with the machine
        return
    uids = _server_uids()
    posix = {path: path.stat().st_ino for path in sharedmemory.posix_segments(pids) if path.exists()}
    for what in run.listed("posix segment"):
        name, _, inode = what.partition(" ")
        if sharedmemory.POSIX_SEGMENT.fullmatch(os.fsencode(name)) and inode.isdigit():
            posix.setdefault(Path(name), int(inode))
    # Of a process that is about to be killed they are left, too.
    used = sharedmemory.posix_segments(set(_all_pids()) - set(pids)) if posix else set()
    for path, number in sorted(posix.items()):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if status.st_ino == number and status.st_uid in uids and stat.S_ISREG(status.st_mode) and path not in used:
                yield LeftPosixSegment(path, number)
    yield from _sysv_segments(folders, run, pids)


def _sysv_segments(folders: Sequence[Path], run: Run, pids: Sequence[int]) -> Iterator[LeftSysvSegment]:
    attached = sharedmemory.attached_sysv_segments(pids)
    sysv = set(attached)
    for folder in folders:
        for pattern in ("postmaster.pid", "*/postmaster.pid", "*/*/postmaster.pid"):
            for file in folder.glob(pattern):
                sysv |= sharedmemory.sysv_segments(file.parent)
    for what in run.listed("sysv segment"):
        with contextlib.suppress(ValueError):
            key, number = (int(word) for word in what.split(" "))
            sysv.add((key, number))
    there = sharedmemory.existing() if sysv else {}
    for key, number in sorted(sysv & there.keys()):
        row = there[key, number]
        idle = row.attached == 0 or (key, number) in attached
        if row.uid in _server_uids() and idle and sharedmemory.is_postgres(number):
            yield LeftSysvSegment(key, number, row.size_bytes)


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def stand_still(run: Run) -> list[Leftover]:
    """Stop a dead run's processes, so that none makes another process or segment, and return what there is then."""
    known: set[int] = set()
    for _ in range(STANDSTILL_ROUNDS):
        left = find(run)
        new = [one for one in left if isinstance(one, LeftProcess) and one.pid not in known]
        if not new:
            return left
        for one in new:
            one.send(signals.SIGSTOP)
            processes.wait_stopped(one.pid, KILL_TIMEOUT_S / STANDSTILL_ROUNDS)
            known.add(one.pid)
    return find(run)


Problems = list[tuple[str, str]]
"""What could not be removed, and why."""


def remove(run: Run, *, patient: bool) -> Problems:
    """Remove what a dead run left, its list last; nothing if another process does so right now.

    Args:
        patient: wait for a container that the engine may still be making, and for others who clean up; else these,
            and the list, are left for later.
    """
    with taken(run, timeout_s=OTHERS_TIMEOUT_S if patient else 0.0) as ours:
        if not ours:
            return []
        problems: Problems = []
        if run.listed("container"):
            # Not above: Docker's modules are slow to import.
            from crashlab.server.leftcontainers import remove_containers

            problems += remove_containers(run, patient=patient)
        # Twice: a program that was being started is there the second time.
        for _ in range(2):
            problems += [problem for one in stand_still(run) for problem in try_to_remove(one)]
            if problems:
                return problems
        others = _of_living_runs()
        if any(_holds(Path(what), others) for what in run.listed("folder")):
            return []
        if run.file is not None:
            run.file.with_suffix(owned.PARTIAL_SUFFIX).unlink(missing_ok=True)
            run.file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                run.file.parent.rmdir()
        return []


def try_to_remove(one: Leftover) -> Problems:
    """Remove one thing; return it with the reason if it cannot be."""
    try:
        one.remove()
    except CrashlabError as error:
        return [(one.text(), error.primary)]
    except OSError as error:
        return [(one.text(), error.strerror or str(error))]
    return []


def sweep() -> None:
    """Remove quietly what dead runs of this user left; what cannot be removed now is left for the next time."""
    with contextlib.suppress(OSError, CrashlabError):
        for run in dead_runs():
            with contextlib.suppress(OSError, CrashlabError):
                remove(run, patient=False)
