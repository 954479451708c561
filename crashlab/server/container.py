"""How does a PostgreSQL image run, die and start again?

A data directory that is to be read from outside lies in a folder of this machine (`share_data`); it outlives the
container, which is made anew for other environment variables, fixed at creation as they are.

Settings stand in a file beside the data directory, not on the command line, which is fixed at creation: so
`overrides` work at a restart as they do locally. Those of the image's own command (`imagecommand`) stand there too.
`postgresql.conf` and `postgresql.auto.conf` of the data directory are still read; the former counts less than our file,
the latter (ALTER SYSTEM) more.

The postmaster is process 1 of the container: a SIGKILL from inside does not reach it, one through Docker does, and
takes every other process with it at once.

Source of the traps: environment.md "Containers".
"""

import contextlib
import os
import shlex
import signal as signals
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath

from crashlab.errors import ServerError, ServerTimeout, UsageProblem
from crashlab.server import owned, processes, registry, stepping
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
from crashlab.server.engine import API_TIMEOUT_S, HOST, docker_errors, signal_of
from crashlab.server.enginecontainer import EngineContainer
from crashlab.server.roles import POSTMASTER, role_of
from crashlab.server.settings import collects_log
from crashlab.server.sharedfolder import SharedFolder

CONFIG_FILE = "/etc/crashlab.conf"
LOG_FOLDER = "/tmp/crashlab"
LOG_FILE = "server.log"
INSIDE = "/crashlab"  # where a shared folder is mounted
DEFAULT_PGDATA = "/var/lib/postgresql/data"
POSTMASTER_PID = 1
INITDB_TIMEOUT_S = 120.0

# Shell built-ins only, so that one exec costs one process and works in any image. `read` drops the NULs.
LIST_PROCESSES = (
    'for p in /proc/[0-9]*; do t=; IFS= read -r t <"$p/cmdline"; echo "${p#/proc/} $t"; done 2>/dev/null; :'
)
WAIT_GONE = """
tries=$1; shift
while :; do
  left=
  for pid; do [ -d "/proc/$pid" ] && left="$left $pid"; done
  [ -z "$left" ] || [ "$tries" -le 0 ] && break
  tries=$((tries - 1)); sleep 0.02
done
echo $left
"""
WAIT_STOPPED = """
tries=$1
while IFS= read -r stat <"/proc/$2/stat"; do
  case ${stat##*) } in T*) echo T; break ;; Z*) break ;; esac
  [ "$tries" -le 0 ] && break
  tries=$((tries - 1)); sleep 0.02
done 2>/dev/null
:
"""


_VERSIONS: dict[str, Version] = {}
"""By the image's digest: to ask costs a container."""


class ContainerServer(Server):
    """A server in a container of its own, from any image with the official entry point's variables."""

    kind = "container"
    ready_poll_s = 0.02
    life_poll_s = 0.25  # asks the Docker engine

    def __init__(self, spec: ServerSpec, image: str) -> None:
        """Find Docker and the image (fetched only if it is not there); make nothing yet.

        Raises:
            ServerError: no Docker engine, or no such image.
        """
        super().__init__(spec)
        self.source = image
        self._password = os.urandom(16).hex()
        self._begin()
        try:
            self.container = EngineContainer(image)
        except BaseException:
            registry.remove(self)  # nothing was made
            raise
        self._image = self.container.command
        self.machine = self.container.machine
        self._pgdata = self.container.environment.get("PGDATA", DEFAULT_PGDATA)

    def _begin(self) -> None:
        """Set what is so before the first start, whoever made the container."""
        self._version: Version | None = None
        self._log_marks = [(0, 0)]
        self._log_before = b""  # of the containers before this one
        self._collected_before = b""
        self.init_files: dict[str, bytes] = {}  # path -> content, in a container that is not made yet
        self._earlier: list[EngineContainer] = []  # they hold the volume of the data directory
        self._shared: SharedFolder | None = None
        self._created_with: dict[str, str] = {}

    @property
    def stop_signal(self) -> signals.Signals:
        """See Server.stop_signal: the image's."""
        return signal_of(self.container.stop_signal)

    # Life cycle

    def _launch(self, settings: dict[str, str], deadline: float) -> None:
        with docker_errors(f'could not start a container of "{self.source}"'):
            if self.container.find() is not None and self._created_with != self.environment:
                assert self._shared is not None, "the data directory would go with the container"
                self._note_logs()
                self.container.remove()
            if self.container.find() is None:
                self._create(settings)
            else:
                self.container.put_file(CONFIG_FILE, self._config(settings))
                self.container.existing().start()

    def _create(self, settings: dict[str, str]) -> None:
        self._created_with = dict(self.environment)
        own = {"PGDATA": self._pgdata, "POSTGRES_PASSWORD": self._password}
        own["POSTGRES_INITDB_ARGS"] = shlex.join(self._initdb_options())
        self.container.create(
            folders=[self._shared] if self._shared is not None else [],
            volumes_from=[one.name for one in self._earlier],
            variables={**own, **self.environment},
            command=[*self._image.words, "-c", f"config_file={CONFIG_FILE}"],
            files={CONFIG_FILE: self._config(settings), **self.init_files},
            publish=5432,
        )

    @property
    def _all_in_force(self) -> dict[str, str]:
        return {**self._image.settings, **self._in_force}

    def _initdb_options(self) -> list[str]:
        unknown = "--no-data-checksums"  # was the default before 18, and had no option
        if unknown in self.initdb and self.version.major < 18:
            return [option for option in self.initdb if option != unknown]
        return list(self.initdb)

    def _config(self, settings: dict[str, str]) -> bytes:
        complete = {"lc_messages": "C", **self._image.settings, **settings, "listen_addresses": "*", "port": "5432"}
        if collects_log(complete):
            complete |= {"log_directory": LOG_FOLDER, "log_filename": LOG_FILE, "log_rotation_age": "0"}
        lines = [f"include_if_exists = {_quoted(self._pgdata + '/postgresql.conf')}"]
        if self._image.config_file is not None:
            lines = [f"include = {_quoted(self._image.config_file)}"]
        complete = self._image.places | complete
        if self._shared is not None:
            complete.pop("data_directory", None)
        lines += [f"{name} = {_quoted(value)}" for name, value in complete.items()]
        return ("\n".join(lines) + "\n").encode()

    def stop(self, mode: StopMode = "fast", timeout_s: float = 30.0) -> None:
        """See Server.stop."""
        if self._send(STOP_SIGNALS[mode]) and not self._wait_exit(timeout_s):
            raise ServerTimeout(f"could not stop the server within {timeout_s:g} s (mode {mode})")

    def kill_all(self) -> list[int]:
        """See Server.kill_all."""
        if not self._send(signals.SIGKILL):
            return []
        if not self._wait_exit(API_TIMEOUT_S):
            raise ServerTimeout(f"could not kill the container within {API_TIMEOUT_S} s")
        return [POSTMASTER_PID]

    def _send(self, sig: signals.Signals) -> bool:
        """Signal process 1 from outside; False: the container has ended already."""
        if not self.running():
            return False
        try:
            with docker_errors(f"could not send {sig.name} to the container"):
                self.container.kill(sig.name)
        except ServerError:
            if self.running():
                raise
            return False
        return True

    def _wait_exit(self, timeout_s: float) -> bool:
        self.container.wait(timeout_s)
        return not self.running()

    def running(self) -> bool:
        """See Server.running."""
        return self.container.state().get("Status") in ("running", "paused")

    def postmaster_exit(self) -> str | None:
        """See Server.postmaster_exit: Docker's exit code, 128 + n meaning signal n."""
        state = self.container.state()
        if state.get("Status") != "exited":
            return None
        code = int(state["ExitCode"])
        return f"container exit code {code}: {describe_shell_exit(code)}"

    def dispose(self, keep_data_to: Path | None = None) -> None:
        """See Server.dispose. Where it fails the server stays registered, to be tried again at exit."""
        try:
            if keep_data_to is not None and self.container.find() is not None:
                self.kill_all()
                self._keep(keep_data_to)
        finally:
            for container in (self.container, *self._earlier):  # whoever has the volume goes last
                container.remove()
                container.close()
            if self._shared is not None:
                self._shared.remove()
            registry.remove(self)

    def _keep(self, target: Path) -> None:
        try:
            target.mkdir(parents=True)
        except OSError as error:
            raise ServerError(f'could not keep the data directory as "{target}": {error.strerror}') from error
        self.container.copy_out(f"{self._pgdata}/.", target, content=True)

    def _address(self) -> dict[str, str]:
        return {"host": HOST, "port": str(self.container.port), "password": self._password}

    @property
    def version(self) -> Version:
        """The image's PostgreSQL version: from its environment, else from the running server, else by a short run."""
        if self._version is None:
            self._version = _version_of(self.container, ask=self._ask_version if self.running() else None)
        return self._version

    def _ask_version(self) -> str:
        with self.connect() as connection:
            return connection.info.parameter_status("server_version") or ""

    def recover_with(self, choice: ServerChoice) -> None:
        """See Server.recover_with: another container gets the volumes of the one that crashed."""
        image = image_to_recover(choice)
        if self._shared is None and not self._is_in_volume():
            raise UsageProblem(
                f'cannot recover what "{self.source}" left with another image: its data directory is in no volume',
                hint=f"Give its Dockerfile VOLUME {self._pgdata}, as the official image has it; or record it.",
            )
        crashed, other = self.version, EngineContainer(image)
        try:
            version = _version_of(other)
            require_same_major(crashed, version, image)
        except BaseException:
            other.close()
            raise
        self._note_logs()
        self._earlier.append(self.container)
        self.container, self.source, self.machine = other, image, other.machine
        self._version, self._image = version, other.command

    def _is_in_volume(self) -> bool:
        inside = [mount["Destination"] for mount in self.container.existing().attrs["Mounts"]]
        return any(PurePosixPath(self._pgdata).is_relative_to(one) for one in inside)

    def _note_logs(self) -> None:
        """Keep what the container has logged: another one takes its place."""
        self._log_before, self._collected_before = self._logs()

    # Files

    @property
    def pgdata(self) -> str:
        """Where the data directory is inside."""
        return self._pgdata

    def share_data(self) -> None:
        """See Server.share_data. The entry point makes the data directory, at a start that is stopped again.

        Raises:
            ServerError: not as root on one machine.
        """
        assert not self._started
        self.container.refuse_unless_root()
        self._shared = SharedFolder(Path(tempfile.gettempdir()), INSIDE)
        self._pgdata = f"{INSIDE}/data"
        self.data_directory = self._shared.path / "data"
        self.start(timeout_s=INITDB_TIMEOUT_S)
        self.stop("fast")

    def seen(self, path: Path) -> PurePath:
        """See Server.seen."""
        assert self._shared is not None
        return self._shared.seen(path)

    def own(self, path: Path) -> None:
        """See Server.own."""
        assert self.data_directory is not None
        status = self.data_directory.stat()
        os.chown(path, status.st_uid, status.st_gid)

    @contextlib.contextmanager
    def files_at_rest(self, paths: Sequence[str]) -> Iterator[Path]:
        """See Server.files_at_rest: copied out of the container, unless its data directory is shared."""
        if self.data_directory is not None:
            yield self.data_directory
            return
        with owned.temporary_folder(prefix="crashlab-files-") as folder:
            for path in paths:
                self.container.copy_out(f"{self._pgdata}/{path}", (folder / path).parent)
            yield folder

    # Processes

    def processes(self) -> list[Process]:
        """See Server.processes. Costs one command inside the container, tens of milliseconds, if it is far away."""
        if not self.running():
            return []
        cluster_name = self._all_in_force.get("cluster_name", "")
        found: list[Process] = []
        for pid, title in self._seen_from_here() or self._seen_from_inside():
            if pid == POSTMASTER_PID:
                found.insert(0, Process(POSTMASTER_PID, POSTMASTER))
            elif title.startswith("postgres:"):
                found.append(Process(pid, role_of(title, cluster_name)))
        return found

    def titles(self) -> list[str]:
        """Return the command line of each process, whatever it is. Raises ServerError: the container does not run."""
        return [title for _, title in self._seen_from_here() or self._seen_from_inside()]

    def _seen_from_inside(self) -> list[tuple[int, str]]:
        lines = [line.partition(" ") for line in self.container.execute(LIST_PROCESSES).splitlines()]
        return [(int(pid), title) for pid, _, title in lines]

    def _seen_from_here(self) -> list[tuple[int, str]]:
        """Return process 1 and its children if they are processes of this machine that can be looked at, else none."""
        return [(pid, processes.title(one)) for pid, one in self._here().items()]

    def _here(self) -> dict[int, int]:
        """Return the number that each process has here, by the one inside; empty: it runs elsewhere, or is hidden.

        What process 1 was started with says that it is this very container's.
        """
        first = int(self.container.state().get("Pid") or 0)
        if not first or self._password.encode() not in processes.environment(first):
            return {}
        inside = {processes.number_inside(one): one for one in (first, *processes.children(first))}
        return {pid: one for pid, one in inside.items() if pid is not None}

    def signal(self, pid: int, sig: signals.Signals) -> None:
        """See Server.signal."""
        if pid == POSTMASTER_PID:
            if not self._send(sig):
                raise ServerError("could not signal the postmaster: the container has ended")
            return
        script = 'IFS= read -r t <"/proc/$1/cmdline" || :; case $t in postgres:*) kill -"$2" "$1";; *) exit 3;; esac'
        try:
            self.container.execute(script, str(pid), sig.name.removeprefix("SIG"))
        except ServerError as error:
            raise ServerError(
                f"could not signal process {pid}: it is not a process of this server, or it is gone"
            ) from error

    def step_until(self, pid: int, seen: Callable[[], bool], over: Callable[[], bool]) -> bool | None:
        """See Server.step_until: only where the container's processes are this machine's, too, and ours to trace."""
        here = self._here().get(pid)
        return None if here is None else stepping.step_until(here, seen, over)

    def wait_gone(self, pids: Sequence[int], timeout_s: float = 10.0) -> list[int]:
        """See Server.wait_gone."""
        deadline = time.monotonic() + timeout_s
        if POSTMASTER_PID in pids:
            if self._wait_exit(timeout_s):
                return []
            return [POSTMASTER_PID, *self.wait_gone([pid for pid in pids if pid != POSTMASTER_PID], 0.0)]
        if not pids or not self.running():
            return []
        tries = max(0, int((deadline - time.monotonic()) / 0.02))
        try:
            left = self.container.execute(WAIT_GONE, str(tries), *map(str, pids))
        except ServerError:
            # The container ended meanwhile, and the command with it.
            if not self.running():
                return []
            raise
        return [int(word) for word in left.split()]

    def wait_stopped(self, pid: int, timeout_s: float = 10.0) -> bool:
        """See Server.wait_stopped."""
        return self.container.execute(WAIT_STOPPED, str(int(timeout_s / 0.02)), str(pid)).strip() == "T"

    # Log

    def log_position(self) -> int:
        """See Server.log_position: the number of a mark."""
        self._log_marks.append(tuple(len(part) for part in self._logs()))  # type: ignore[arg-type]
        return len(self._log_marks) - 1

    def log_since(self, position: int) -> str:
        """See Server.log_since: the container's log, then the logging collector's file if there is one."""
        parts = zip(self._logs(), self._log_marks[position], strict=True)
        return "".join(part[start:].decode(errors="replace") for part, start in parts)

    def _logs(self) -> tuple[bytes, bytes]:
        if self.container.find() is None:
            return self._log_before, self._collected_before
        collected = self.container.read_file(f"{LOG_FOLDER}/{LOG_FILE}") if collects_log(self._all_in_force) else b""
        return self._log_before + self.container.log(), self._collected_before + collected


def image_to_recover(choice: ServerChoice) -> str:
    """Return the image that is to recover what a container left. Raises UsageProblem: a folder is to."""
    if choice.image is None:
        raise UsageProblem(
            f'cannot recover a container with "{choice.described}": give an image',
            hint="What a container wrote is recovered by another image of the same major version.",
        )
    return choice.image


def version_of_image(image: str) -> Version:
    """Return an image's version, and make nothing that stays.

    Raises:
        ServerError: no Docker engine, or no such image, or it starts no PostgreSQL.
    """
    with contextlib.closing(EngineContainer(image)) as container:
        return _version_of(container)


def _version_of(container: EngineContainer, ask: Callable[[], str] | None = None) -> Version:
    """Return an image's version: from its environment, else from whoever can be asked, else by a short run."""
    known = _VERSIONS.get(container.image_id)
    if known is None:
        text = container.environment.get("PG_VERSION")
        known = Version.parse(text or (ask() if ask is not None else container.probe("postgres", "--version")))
        _VERSIONS[container.image_id] = known
    return known


def describe_shell_exit(code: int) -> str:
    """Say what an exit status as a shell or Docker gives it means: 137 is "killed by signal 9 (SIGKILL)"."""
    return describe_exit(128 - code if 128 < code < 160 else code)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
