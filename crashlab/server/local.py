"""How does a PostgreSQL build of this machine run, die and start again?

The postmaster is a direct child of this process, reached by a Unix socket only. `pg_ctl` is not used: it would hand
the postmaster to pid 1 and poll for it every 0.1 s.

Source of the traps: environment.md "Processes".
"""

import contextlib
import ctypes
import errno
import os
import shutil
import signal as signals
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from crashlab.errors import ServerError, ServerTimeout, Unreachable, UsageProblem
from crashlab.server import owned, processes, registry, sharedmemory, standstill, stepping
from crashlab.server.base import (
    STOP_SIGNALS,
    Process,
    Server,
    ServerChoice,
    ServerSpec,
    StopMode,
    Version,
    describe_exit,
    require_same_major,
)
from crashlab.server.builds import Build, find_build
from crashlab.server.privileges import server_environment, server_user
from crashlab.server.roles import POSTMASTER, STARTUP, role_of
from crashlab.server.settings import collects_log
from crashlab.server.spares import SpareDirectories, untouched_relations
from crashlab.server.template import copy_template, find_template, refuse

PORT = "5432"  # part of the socket's name only
SOCKET_ROOT = Path("/tmp")  # a socket's path must stay below 108 bytes, which TMPDIR may not
KILL_TIMEOUT_S = 10.0
LOG_RESERVED_BYTES = 512 * 1024
"""Room that the server's log has on a full disk, which is told nowhere else."""
FALLOC_FL_KEEP_SIZE = 1  # linux/falloc.h
COLLECTOR_INTO_LOG = {"log_truncate_on_rotation": "off", "log_rotation_age": "0", "log_rotation_size": "0"}


class LocalServer(Server):
    """A server from a build on this machine, with its own data directory, socket folder and log file."""

    kind = "local"
    ready_poll_s = 0.001

    def __init__(
        self,
        spec: ServerSpec,
        build: Build,
        *,
        work: Path | None = None,
        spares: SpareDirectories | None = None,
        data_directory: Path | None = None,
    ) -> None:
        """Make a data directory below `work` (default: the temporary folder), not started yet.

        Args:
            spares: where used data directories come from, and go to at disposal.
            data_directory: take this one, which somebody else makes and removes.

        Raises:
            ServerError: no data directory could be made there, or the server's user cannot reach it.
        """
        refuse(spec.initdb)
        super().__init__(spec)
        self.build = build
        self.source = str(build.bindir)
        self._user = server_user()
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._known: set[int] = set()
        self._posix_segments: set[Path] = set()
        self._sysv_segments: set[tuple[int, int]] = set()
        self._spares: SpareDirectories | None = None
        self._template: Path | None = None
        self._home: Path | None = None
        self._sockets: Path | None = None
        try:
            self._home = self._make_folder(work or Path(tempfile.gettempdir()))
            self._sockets = self._make_folder(SOCKET_ROOT)
            self._home = self._home.resolve()
            self.data_directory = self._home / "data" if data_directory is None else data_directory.resolve()
            self._log = self._home / "server.log"
            self._log.touch()
            _reserve(self._log, LOG_RESERVED_BYTES)
            self._user.own(self._log)
            if data_directory is None:
                self._fill(spares, spec.setup)
        except BaseException:
            self.dispose()
            raise

    def _fill(self, spares: SpareDirectories | None, setup: str) -> None:
        assert self.data_directory is not None
        self._template = find_template(self.build, self.initdb, self._user, setup)
        if spares is None or not spares.take(self._template, self.data_directory):
            copy_template(self._template, self.data_directory)
        self._spares = spares

    def _make_folder(self, parent: Path) -> Path:
        try:
            folder = owned.make_folder(parent)
        except OSError as error:
            raise ServerError(f'could not make a folder in "{parent}": {error.strerror}') from error
        self._user.own(folder)
        if not self._user.can_reach(folder):
            owned.remove_folder(folder)
            raise Unreachable(
                f'cannot run a server in "{parent}": uid {self._user.uid} cannot reach it',
                detail="PostgreSQL refuses to run as root, so it runs as an unprivileged user.",
                hint=f'Make every folder on the way to "{parent}" searchable, or choose another one (TMPDIR).',
            )
        return folder

    @property
    def version(self) -> Version:
        """See Server.version."""
        return self.build.version

    def recover_with(self, choice: ServerChoice) -> None:
        """See Server.recover_with."""
        build = build_to_recover(choice)
        require_same_major(self.build.version, build.version, str(build.bindir))
        self.build = build
        self.source = str(build.bindir)

    def own(self, path: Path) -> None:
        """See Server.own."""
        self._user.own(path)

    # Life cycle

    def _launch(self, settings: dict[str, str], deadline: float) -> None:
        assert self.data_directory is not None
        self._wait_for_leftovers(deadline)
        # Everything of an earlier start is gone, but its process id may be another server's by now. Should this start
        # fail early, its shared memory is still there.
        self._note_segments()
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)
        processes.become_subreaper()
        command = self._command(settings)
        # A preloaded library is for the server alone.
        prefix = None if "LD_PRELOAD" in self.environment else self._user.prefix()
        try:
            with self._log.open("ab") as log:
                self._postmaster = subprocess.Popen(
                    command if prefix is None else prefix + command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # From the first moment `working_in` finds it.
                    cwd=self.data_directory,
                    env={**server_environment(), **self.environment},
                    start_new_session=True,
                    **(self._user.credentials() if prefix is None else {}),
                )
        except OSError as error:
            raise ServerError(f'could not run "{command[0]}": {error.strerror}') from error
        self._known = {self._postmaster.pid}

    def _command(self, settings: dict[str, str]) -> list[str]:
        arguments = [f"{name}={value}" for name, value in self._complete(settings).items()]
        command = [str(self.build.bindir / "postgres"), "-D", str(self.data_directory)]
        return command + [word for argument in arguments for word in ("-c", argument)]

    def _complete(self, settings: dict[str, str]) -> dict[str, str]:
        complete = dict(settings)
        if collects_log(settings):
            # A logging collector appends to the file that already takes the postmaster's stderr: one log, one order.
            complete |= {"log_directory": str(self._home), "log_filename": self._log.name, **COLLECTOR_INTO_LOG}
        return complete | {
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": str(self._sockets),
        }

    def _wait_for_leftovers(self, deadline: float) -> None:
        assert self.data_directory is not None
        left = self.wait_gone(processes.working_in(self.data_directory), deadline - time.monotonic())
        if left:
            raise ServerTimeout(
                "could not start the server: processes of its last life are still there",
                detail=", ".join(f"{pid} ({processes.title(pid).strip()})" for pid in left),
            )

    def stop(self, mode: StopMode = "fast", timeout_s: float = 30.0) -> None:
        """See Server.stop."""
        if self._postmaster is None or not self.running():
            return
        processes.send([self._postmaster.pid], STOP_SIGNALS[mode])
        if self.wait_gone([self._postmaster.pid], timeout_s):
            raise ServerTimeout(f"could not stop the server within {timeout_s:g} s (mode {mode})")

    def kill_all(self) -> list[int]:
        """See Server.kill_all."""
        if self.data_directory is None:
            return []
        postmaster = self._postmaster.pid if self._postmaster is not None and self.running() else None
        if postmaster is not None:
            processes.freeze(postmaster)
        pids = self._members()
        self._note_posix_segments(pids)
        # Whoever owns the directory may remove the file that names it.
        self._note_segments()
        processes.send(pids, signals.SIGKILL)
        left = self.wait_gone(pids, KILL_TIMEOUT_S)
        if left:
            raise ServerTimeout(f"could not kill processes {left} within {KILL_TIMEOUT_S:g} s")
        return pids

    def _members(self) -> list[int]:
        """Everything alive that works in the data directory (commands run by the archiver too), postmaster first."""
        assert self.data_directory is not None
        pids = set(processes.working_in(self.data_directory))
        if self._postmaster is not None and self._postmaster.poll() is None:
            pids |= {self._postmaster.pid, *processes.children(self._postmaster.pid)}
            return [self._postmaster.pid, *sorted(pids - {self._postmaster.pid})]
        return sorted(pids)

    def dispose(self, keep_data_to: Path | None = None) -> None:
        """See Server.dispose."""
        try:
            self.kill_all()
            self._remove_shared_memory()
            if keep_data_to is not None and self.data_directory is not None and self.data_directory.is_dir():
                _keep(self.data_directory, keep_data_to)
            if (
                self._spares is not None
                and self._template
                and self.data_directory is not None
                and self.data_directory.is_dir()
            ):
                self._spares.give(self._template, self.data_directory)
        finally:
            for folder in (self._home, self._sockets):
                if folder is not None:
                    owned.remove_folder(folder)
            processes.reap(self._known)
            registry.remove(self)

    def untouched(self) -> frozenset[str]:
        """See Server.untouched."""
        if self._template is None or self.data_directory is None:
            return frozenset()
        return untouched_relations(self._template, self.data_directory)

    def _note_segments(self) -> None:
        """Note what has come since the last time; to look costs half a millisecond."""
        assert self.data_directory is not None
        found = sharedmemory.sysv_segments(self.data_directory)
        if self._posix_segments or not found <= self._sysv_segments:
            self._sysv_segments = sharedmemory.note(self._posix_segments, self._sysv_segments | found)

    def _note_posix_segments(self, pids: Sequence[int]) -> None:
        if self._in_force.get("dynamic_shared_memory_type") != "mmap":  # whose segments are in the data directory
            self._posix_segments |= sharedmemory.posix_segments(pids)

    def _remove_shared_memory(self) -> None:
        if self.data_directory is not None:
            self._sysv_segments |= sharedmemory.sysv_segments(self.data_directory)
        sharedmemory.remove_sysv_segments(self._sysv_segments)
        for segment in self._posix_segments:
            segment.unlink(missing_ok=True)
        sharedmemory.forget(self._posix_segments, self._sysv_segments)
        self._posix_segments = set()

    def _address(self) -> dict[str, str]:
        return {"host": str(self._sockets), "port": PORT}

    # Processes

    def processes(self) -> list[Process]:
        """See Server.processes. Orphans of a dead postmaster are listed too."""
        pids = self._members()
        self._known.update(pids)
        postmaster = self._postmaster.pid if self._postmaster is not None else None
        cluster_name = self._in_force.get("cluster_name", "")
        found = []
        for pid in pids:
            title = processes.title(pid)
            if pid == postmaster:
                found.append(Process(pid, POSTMASTER))
            elif title:
                found.append(Process(pid, role_of(title, cluster_name)))
        return found

    def what_hangs(self) -> str | None:
        """See Restartable.what_hangs."""
        pid = next((process.pid for process in self.processes() if process.role == STARTUP), None)
        return None if pid is None else standstill.what_hangs(pid)

    def signal(self, pid: int, sig: signals.Signals) -> None:
        """See Server.signal."""
        members = self._members()
        if pid not in members:
            raise ServerError(f"could not signal process {pid}: it is not a process of this server, or it is gone")
        self._known.add(pid)
        if sig == signals.SIGKILL and self._postmaster is not None and pid == self._postmaster.pid:
            self._known.update(members)
            self._note_posix_segments(members)
            sharedmemory.note(self._posix_segments, set())
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            raise ServerError(f"could not signal process {pid}: it is gone") from None

    def step_until(self, pid: int, seen: Callable[[], bool], over: Callable[[], bool]) -> bool | None:
        """See Server.step_until."""
        return stepping.step_until(pid, seen, over) if pid in self._members() else False

    def wait_gone(self, pids: Sequence[int], timeout_s: float = 10.0) -> list[int]:
        """See Server.wait_gone."""
        left = processes.wait_ended(pids, timeout_s)
        if self._postmaster is not None:
            # Popen has to see the postmaster's status itself.
            self._postmaster.poll()
        processes.reap(set(pids) - set(left) - ({self._postmaster.pid} if self._postmaster else set()))
        return left

    def wait_stopped(self, pid: int, timeout_s: float = 10.0) -> bool:
        """See Server.wait_stopped."""
        return processes.wait_stopped(pid, timeout_s)

    def running(self) -> bool:
        """See Server.running."""
        return self._postmaster is not None and self._postmaster.poll() is None

    def postmaster_exit(self) -> str | None:
        """See Server.postmaster_exit."""
        if self._postmaster is None or self._postmaster.poll() is None:
            return None
        return describe_exit(self._postmaster.returncode)

    # Log

    def log_position(self) -> int:
        """See Server.log_position: a byte offset."""
        with contextlib.suppress(FileNotFoundError):
            return self._log.stat().st_size
        return 0

    def log_since(self, position: int) -> str:
        """See Server.log_since."""
        try:
            with self._log.open("rb") as log:
                log.seek(position)
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def _reserve(log: Path, size_bytes: int) -> None:
    """Have the file system set room aside behind the end of a file, where it can; the file stays as long as it is."""
    with log.open("ab") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate(file.fileno(), FALLOC_FL_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(size_bytes))


def _keep(data_directory: Path, target: Path) -> None:
    try:
        if target.exists():
            raise FileExistsError(errno.EEXIST, "it exists already")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            data_directory.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy_template(data_directory, target)  # with its owner: no server starts on files of another user
            shutil.rmtree(data_directory)
    except OSError as error:
        raise ServerError(f'could not keep the data directory as "{target}": {error.strerror}') from error


def build_to_recover(choice: ServerChoice) -> Build:
    """Return the build that is to recover what a local server left.

    Raises:
        UsageProblem: an image is to.
        ServerError: the folder holds no build.
    """
    build = None if choice.image else find_build(choice.pg_bindir)
    if build is None:
        raise UsageProblem(
            f'cannot recover a local server with "{choice.described}": give a folder of programs',
            hint="There is no such folder, so the word was taken for an image; those recover containers (--image).",
        )
    return build
