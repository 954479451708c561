"""How does a test stand between an application and its server, and say at which moment the server dies?

    with Observer(upstream, conversation, folder=folder) as observer:
        observer.arm(Moment(1, "commit", 3, "unheard"))
        ...                                       # the application connects to observer.url(...)
        if observer.wait_reached(10):             # nothing moves on any connection until cut() or go()
            ...                                   # kill the server
            observer.cut()                        # its clients see it
            ...                                   # start it again
            observer.resume(upstream)

The observer is a process of its own, started and never forked. It ends with this one, however this one ends. Its
working directory is a folder on this process's list, so that `crashlab clean` finds it if both were stopped.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import crashlab
from crashlab.errors import ServerError, ServerTimeout
from crashlab.observer.moment import Moment
from crashlab.server import owned, registry

SOCKET_ROOT = Path("/tmp")  # a socket's path must stay below 108 bytes
START_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 20.0
END_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Upstream:
    """Where the server is: a host name or the folder of its Unix socket, and the port."""

    host: str
    port: int


@dataclass(frozen=True)
class Address:
    """Where the observer is, for its whole life."""

    host: str
    port: int
    sockets: Path  # folder of the Unix socket, of the same port


@dataclass(frozen=True)
class Reached:
    """The armed moment has come."""

    moment: Moment
    connection: int  # over the observer's whole life, as in the conversation
    step: int  # on that connection


class Observer(registry.Disposable):
    """A proxy between any client and a server. All methods may be called from any thread."""

    def __init__(self, upstream: Upstream, conversation: Path, *, folder: Path) -> None:
        """Start it, and return when it lets clients in.

        Args:
            conversation: is appended to, or made.
            folder: for the observer's own messages, in `observer.log`.

        Raises:
            ServerError: it could not be started.
        """
        self._changed = threading.Condition()
        self._asking = threading.Lock()
        self._ids = 0
        self._done: set[int] = set()
        self._port = 0
        self._armed: Moment | None = None
        self._epoch = 0  # how often it was armed, as it says itself
        self._reached: Reached | None = None
        self._gone = False
        self._process: subprocess.Popen[bytes] | None = None
        self._control, theirs = socket.socketpair()
        self._sockets: Path | None = None
        self._log = folder / "observer.log"
        registry.add(self)
        try:
            with theirs:
                self._sockets = owned.make_folder(SOCKET_ROOT)
                self._process = self._start(theirs, upstream, conversation.resolve())
            threading.Thread(target=self._listen, name="observer", daemon=True).start()
            self._wait(lambda: self._port > 0, START_TIMEOUT_S, "start")
        except BaseException:
            self.close()
            raise
        self.address = Address("127.0.0.1", self._port, self._sockets)

    def _start(self, theirs: socket.socket, upstream: Upstream, conversation: Path) -> subprocess.Popen[bytes]:
        assert self._sockets is not None
        words = [theirs.fileno(), os.getpid(), upstream.host, upstream.port, conversation, self._sockets]
        ours = str(Path(crashlab.__file__).parent.parent)
        path = os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            with self._log.open("ab") as log:
                return subprocess.Popen(
                    [sys.executable, "-m", "crashlab.observer", *map(str, words)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._sockets,
                    env={**os.environ, "PYTHONPATH": path},
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for the parent
                )
        except OSError as error:
            raise ServerError(f"could not start the observer: {error.strerror}") from error

    # What is asked of it

    def url(self, user: str, dbname: str, password: str | None = None) -> str:
        """Return a connection URL of the server as seen through the observer, by TCP: every driver takes that."""
        who = quote(user, safe="") + ("" if password is None else f":{quote(password, safe='')}")
        return f"postgresql://{who}@{self.address.host}:{self.address.port}/{quote(dbname, safe='')}"

    def arm(self, moment: Moment | None) -> None:
        """Stop at a moment, counted from now; None: never, and count from now."""
        with self._changed:
            self._armed, self._reached = moment, None
        self._ask("arm", moment=None if moment is None else str(moment))

    def wait_reached(self, timeout_s: float) -> Reached | None:
        """Wait until the armed moment has come; then nothing moves until `cut` or `go`. None: it has not, in time.

        Raises:
            ServerError: the observer has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._reached is not None or self._gone, timeout_s)
            if self._reached is None and self._gone:
                raise self._ended("wait for a moment")
            return self._reached

    def settle(self) -> None:
        """Return when a moment that came before this call is known: a client may have its answer a little earlier."""
        self._ask("settle")

    def take_along(self, leader: int) -> None:
        """Kill a process group when this process is gone, however it went: so nothing of a test is left running."""
        self._ask("take_along", leader=leader)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._gone

    def go(self) -> None:
        """Let everything go on after the moment."""
        self._ask("go")

    def cut(self) -> None:
        """The server is dead: end every client's connection, and let nobody in (57P03)."""
        self._ask("cut")

    def resume(self, upstream: Upstream) -> None:
        """The server is back, here: let clients in."""
        self._ask("resume", host=upstream.host, port=upstream.port)

    def follow(self, file: Path | None, offset: int = 0) -> None:
        """From now on note with each record the little-endian u64 at a place of a file: where a server's I/O log is."""
        self._ask("follow", file=None if file is None else str(file.resolve()), offset=offset)

    def begin(self, upstream: Upstream, conversation: Path) -> None:
        """Begin anew, with another conversation, for another test: much cheaper than another observer."""
        with self._changed:
            self._armed = self._reached = None
        self._ask("begin", host=upstream.host, port=upstream.port, conversation=str(conversation.resolve()))

    def close(self) -> None:
        """End it, and remove what it made; idempotent."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        if self._process is not None:
            try:
                self._process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._control.close()
        if self._sockets is not None:
            owned.remove_folder(self._sockets)
        registry.remove(self)

    def dispose(self, keep_data_to: Path | None = None) -> None:
        """See Disposable."""
        self.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    # How

    def _ask(self, what: str, **more: Any) -> None:
        with self._asking:
            self._ids += 1
            number = self._ids
            line = json.dumps({"id": number, "do": what, **more}).encode() + b"\n"
            try:
                self._control.sendall(line)
            except OSError:
                raise self._ended(what) from None
        self._wait(lambda: number in self._done, ANSWER_TIMEOUT_S, what)

    def _wait(self, happened: Any, timeout_s: float, what: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: happened() or self._gone, timeout_s)
            if happened():
                return
            if self._gone:
                raise self._ended(what)
        raise ServerTimeout(f'the observer did not answer "{what}" within {timeout_s:g} s')

    def _ended(self, what: str) -> ServerError:
        deadline = time.monotonic() + 1.0
        status = None
        while self._process is not None and status is None and time.monotonic() < deadline:
            status = self._process.poll()
        words = self._log.read_text(errors="replace")[-2000:].strip() if self._log.exists() else ""
        return ServerError(f'the observer has ended (status {status}), asked to "{what}"', detail=words or None)

    def _listen(self) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while data := self._control.recv(65536):
                *lines, rest = (rest + data).split(b"\n")
                with self._changed:
                    for line in lines:
                        self._take(json.loads(line))
                    self._changed.notify_all()
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _take(self, said: dict[str, Any]) -> None:
        if "port" in said:
            self._port = said["port"]
        elif "done" in said:
            self._done.add(said["done"])
            self._epoch = said["epoch"]
        elif self._armed is not None and said["reached"]["epoch"] == self._epoch:  # and not of an earlier one
            event = said["reached"]
            self._reached = Reached(self._armed, event["connection"], event["step"])
