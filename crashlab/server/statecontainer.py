"""How are many crash states recovered by one container?

A container costs half a second, a command in one a tenth, so one container stays for all states. Its process 1 is a
shell that runs what this machine writes into a file, told so through a named pipe, and answers through another one.
The states lie in a folder of this machine that is mounted in the container, and so do the server's socket and log.

The shell runs as the server's user, which PostgreSQL asks for. Its `kill -1` means every process of the container but
itself: one call of the kernel ends a server with all its children.
"""

import os
import select
import shlex
import signal as signals
import time
from pathlib import Path, PurePath

from crashlab.errors import ServerError, ServerTimeout
from crashlab.server import registry
from crashlab.server.base import STOP_SIGNALS, Restartable, ServerSpec, StopMode, Version
from crashlab.server.container import INSIDE, POSTMASTER_PID, describe_shell_exit
from crashlab.server.engine import docker_errors
from crashlab.server.enginecontainer import EngineContainer
from crashlab.server.local import PORT, SOCKET_ROOT
from crashlab.server.privileges import ServerUser
from crashlab.server.sharedfolder import SharedFolder

SOCKETS = "/crashlab-sockets"
ANSWER_TIMEOUT_S = 30.0
POLL_S = 0.001

# The folder is closed to the shell until the pipes are its own.
SHELL = f"""
until [ -p {INSIDE}/orders ]; do sleep 0.02; done
exec 3<>{INSIDE}/orders 4<>{INSIDE}/answers
while read -r number <&3; do . {INSIDE}/order; echo "$number" >&4; done
"""
TAKE_OVER = f"chown postgres:postgres {INSIDE}/* {SOCKETS} && chown postgres:postgres {INSIDE}"
# A zombie can be signalled too, so at the end nothing is left; while it waits for `sleep` the shell reaps.
KILL_ALL = "kill -s KILL -- -1; while kill -s 0 -- -1; do sleep 0.005; done 2>/dev/null"


class StateContainer(Restartable):
    """A container for crash states that lie in `home`, one after the other; set `data_directory` before the start.

    Process 1 stands for the postmaster here too, whatever its number.
    """

    kind = "container"
    ready_poll_s = POLL_S

    def __init__(self, spec: ServerSpec, image: str, work: Path) -> None:
        """Start a container of the image, without a server, that shares a new folder below `work`.

        Raises:
            ServerError: no Docker engine or no such image, or not as root on one machine.
        """
        super().__init__(spec)
        self.source = image
        self._pipes: list[int] = []
        self._folders: list[SharedFolder] = []
        self._version: Version | None = None
        self._number = 0
        self._up = False
        try:
            self.container = EngineContainer(image)
        except BaseException:
            registry.remove(self)  # nothing was made
            raise
        try:
            self.container.refuse_unless_root()
            self._shared = self._share(work, INSIDE)
            self._sockets = self._share(SOCKET_ROOT, SOCKETS)
            self.home = self._shared.path
            self._log, self._exit = self.home / "server.log", self.home / "exit"
            self._hba, self._script = self.home / "hba.conf", self.home / "order"
            for file in (self._log, self._hba, self._script):
                file.touch()
                file.chmod(0o644)
            self._hba.write_text("local all all trust\n")
            self.owner = self._start_container()
        except BaseException:
            self.dispose()
            raise

    def _share(self, parent: Path, inside: str) -> SharedFolder:
        folder = SharedFolder(parent, inside)
        self._folders.append(folder)
        return folder

    def _start_container(self) -> ServerUser:
        """Start it, make the pipes; return the image's user as this machine sees it."""
        for name in ("orders", "answers"):
            os.mkfifo(self.home / name, 0o600)
            self._pipes.append(os.open(self.home / name, os.O_RDWR | os.O_CLOEXEC))
        self.home.chmod(0o700)
        with docker_errors(f'could not start a container of "{self.source}"'):
            self.container.create(
                folders=self._folders, entrypoint=["sh", "-c", SHELL], user="postgres", network_mode="none"
            )
        try:
            self.container.execute(TAKE_OVER, user="root")
        except ServerError as error:
            raise ServerError(
                f'could not share a folder with a container of "{self.source}"', detail=error.detail
            ) from error
        self._order(":")
        status = self.home.stat()
        return ServerUser(status.st_uid, status.st_gid, switched=True)

    def _order(self, script: str) -> None:
        """Let the shell run a script, and wait until it has.

        Raises:
            ServerTimeout: it did not answer.
        """
        orders, answers = self._pipes
        self._number += 1
        self._script.write_text(script + "\n")
        os.write(orders, f"{self._number}\n".encode())
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        answer = b""
        while not answer.endswith(f"{self._number}\n".encode()):
            if not select.select([answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ServerTimeout(f"could not reach the shell in the container within {ANSWER_TIMEOUT_S:g} s")
            answer += os.read(answers, 1000)

    # Life cycle

    def _launch(self, settings: dict[str, str], deadline: float) -> None:
        assert self.data_directory is not None
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)
        self._exit.unlink(missing_ok=True)
        own = self.container.command
        complete = own.settings | ({"config_file": own.config_file} if own.config_file is not None else {})
        complete |= settings | {
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": SOCKETS,
            "hba_file": str(self.seen(self._hba)),
        }
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        words = ["env", *variables, "postgres", "-D", str(self.seen(self.data_directory))]
        words += [word for name, value in complete.items() for word in ("-c", f"{name}={value}")]
        log, end = self.seen(self._log), self.seen(self._exit)
        self._order(f"( {shlex.join(words)} >>{log} 2>&1 3<&- 4<&-; echo $? >{end} ) &")
        self._up = True

    def kill_all(self) -> list[int]:
        """See Server.kill_all. Whatever else runs in the container is killed with it."""
        if self.container.find() is None:
            return []
        was_running = self.running()
        self._order(KILL_ALL)
        if was_running:
            self._exit.write_text(f"{128 + signals.SIGKILL}\n")
        return [POSTMASTER_PID] if was_running else []

    def stop(self, mode: StopMode = "fast", timeout_s: float = 30.0) -> None:
        """See Server.stop."""
        if not self.running():
            return
        assert self.data_directory is not None
        pid = (self.data_directory / "postmaster.pid").read_text().split("\n", 1)[0]
        self._order(f"kill -{STOP_SIGNALS[mode].value} {int(pid)}")
        deadline = time.monotonic() + timeout_s
        while self.running() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if self.running():
            raise ServerTimeout(f"could not stop the server within {timeout_s:g} s (mode {mode})")

    def running(self) -> bool:
        """See Server.running."""
        return self._up and not self._exit_code()

    def postmaster_exit(self) -> str | None:
        """See Server.postmaster_exit."""
        code = self._exit_code() if self._up else ""
        return describe_shell_exit(int(code)) if code else None

    def _exit_code(self) -> str:
        try:
            return self._exit.read_text().strip()
        except FileNotFoundError:
            return ""

    def dispose(self, keep_data_to: Path | None = None) -> None:
        """See Server.dispose. No data is kept: whoever made a state can make it again."""
        try:
            self.container.remove()
            self.container.close()
        finally:
            while self._pipes:
                os.close(self._pipes.pop())
            for folder in self._folders:
                folder.remove()
        registry.remove(self)

    @property
    def version(self) -> Version:
        """See Server.version."""
        if self._version is None:
            text = self.container.environment.get("PG_VERSION") or self.container.execute("postgres --version")
            self._version = Version.parse(text)
        return self._version

    def seen(self, path: Path) -> PurePath:
        """See Server.seen."""
        return self._shared.seen(path)

    def own(self, path: Path) -> None:
        """See Server.own."""
        os.chown(path, self.owner.uid, self.owner.gid)

    def _address(self) -> dict[str, str]:
        return {"host": str(self._sockets.path), "port": PORT}

    # Log

    def log_position(self) -> int:
        """See Server.log_position: a byte offset."""
        return self._log.stat().st_size

    def log_since(self, position: int) -> str:
        """See Server.log_since."""
        with self._log.open("rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace")
