"""What can be done with a PostgreSQL server, wherever it runs?

One interface for two kinds: `local` (a build on this machine) and `container`. Every wait has a timeout, every server
removes what it made: `dispose` is idempotent, and `registry.dispose_all` calls it for whatever is left at exit.

The driver is imported with the first connection: who only wants to know which servers there are does not need it.

A started server may be killed and started again on the same data directory as often as wanted: that is the point.
"""

import contextlib
import re
import signal as signals
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, Self

from crashlab.errors import ServerError, ServerTimeout, SessionRefused, UsageProblem
from crashlab.server import registry
from crashlab.server.settings import MANAGED_SETTINGS, read_settings, require_in_force

if TYPE_CHECKING:
    import psycopg

DATABASE = "postgres"
"""The one that every cluster has."""
UNKNOWN_SETTING = re.compile(r'unrecognized configuration parameter "([^"]+)"')
EARLY_CONNECTION = re.compile(r"FATAL:  the database system is (starting|shutting|not yet|in recovery)")
TEMPORARY_REFUSALS = ("the database system is", "too many clients", "remaining connection slots")
STOP_SIGNALS = {"smart": signals.SIGTERM, "fast": signals.SIGINT, "immediate": signals.SIGQUIT}
StopMode = Literal["smart", "fast", "immediate"]
OLDEST_MAJOR = 14
"""Before it there is no verify_heapam, without which a heap cannot be checked, and settings that a look needs."""
STATUS_LINE = 8  # of postmaster.pid: "starting", "ready", ... (PostgreSQL pidfile.h)

# Whatever PG* variables the user's shell holds (PGOPTIONS above all) must not reach the sessions under test.
CLIENT_DEFAULTS = {
    "application_name": "crashlab",
    "client_encoding": "UTF8",
    "connect_timeout": "10",
    "gssencmode": "disable",
    "hostaddr": "",  # PGHOSTADDR would lead a session to another server
    "options": "",
    "sslmode": "disable",
    "target_session_attrs": "any",
}


@dataclass(frozen=True)
class ServerChoice:
    """Where PostgreSQL is to run."""

    kind: str = "auto"  # or one of kinds.SERVER_KINDS
    image: str | None = None  # container only
    pg_bindir: Path | None = None  # local only

    @property
    def described(self) -> str:
        """In one word or path."""
        return str(self.image or self.pg_bindir or self.kind)


@dataclass(frozen=True)
class ServerSpec(ServerChoice):
    """Which server is wanted."""

    initdb: tuple[str, ...] = ()  # options of initdb, one a word: "--data-checksums", "--wal-segsize=1"
    settings: dict[str, str] = field(default_factory=dict)  # as in postgresql.conf, without quotes
    setup: str = ""  # SQL that a local server's data directory has seen already, if it can be run (`find_template`)


@dataclass(frozen=True)
class Process:
    """One process of a server; `role` is a word of postgres-contract.md section 3; "postmaster" for the first one."""

    pid: int  # as seen where the server runs: inside the container for a container
    role: str


@dataclass(frozen=True)
class Version:
    """A PostgreSQL version: "18.6", 180006, 18. A beta or development version counts as minor 0."""

    text: str
    num: int
    major: int

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `postgres --version` or `SHOW server_version` prints. Raises ServerError."""
        match = re.search(r"\b(\d+)(?:\.(\d+)|((?:beta|rc|devel|alpha)\d*))", text)
        if match is None:
            raise ServerError(f'could not read a PostgreSQL version from "{text.strip()}"')
        major, minor = int(match[1]), int(match[2] or 0)
        return cls(match[0], major * 10000 + minor, major)

    @property
    def too_old(self) -> bool:
        """Whether crashlab cannot check what this version recovers."""
        return self.major < OLDEST_MAJOR

    def refuse_if_too_old(self, source: str) -> None:
        """Raise ServerError if it is."""
        if self.too_old:
            raise ServerError(
                f'cannot test PostgreSQL {self.text} in "{source}": it is older than {OLDEST_MAJOR}',
                detail="Its amcheck has no check of tables, so every trial would be inconclusive.",
                hint=f"Choose a server of PostgreSQL {OLDEST_MAJOR} or newer: --pg-bindir DIR or --image IMAGE.",
            )


class Restartable(registry.Disposable):
    """A PostgreSQL server that can be started, killed and started again, whoever makes its data directory.

    Use it as a context manager: leaving disposes of it.
    """

    kind: str
    source: str  # bin directory or image
    data_directory: Path | None = None  # the live data directory, where it can be read from here
    machine = ""  # architecture of its processes; empty: this machine's
    ready_poll_s = 0.005
    is_given = False  # somebody else's, with settings and files of his own
    life_poll_s = 0.0  # between two questions whether it is still alive, where that costs something
    keep_session = False  # whether the session that found it ready is the first that `connect` returns

    @property
    @abstractmethod
    def version(self) -> Version:
        """PostgreSQL's version, known before the first start."""

    def __init__(self, spec: ServerSpec) -> None:
        managed = sorted(MANAGED_SETTINGS & {name.lower() for name in spec.settings})
        if managed:
            raise UsageProblem(
                f'cannot set "{managed[0]}"', detail="crashlab chooses it, so that it can reach the server."
            )
        self.initdb = spec.initdb
        self.settings = {name.lower(): value for name, value in spec.settings.items()}
        self.environment: dict[str, str] = {}  # more variables for the server's processes, from the next start on
        self._in_force = self.settings
        self._started = False
        self._kept: psycopg.Connection | None = None
        registry.add(self)

    @property
    def stop_signal(self) -> signals.Signals:
        """What whoever runs it sends to end it: a fast shutdown, unless an image says else."""
        return signals.SIGINT

    # Life cycle

    def start(self, *, timeout_s: float = 30.0, overrides: dict[str, str] | None = None) -> None:
        """Start, or start again on the same data directory after a stop or a crash, and wait until ready.

        Args:
            overrides: settings of this start only, over those of the profile.

        Raises:
            ServerError: it ended instead; the detail holds its last FATAL and PANIC lines.
            ServerTimeout: it was not ready in time, or processes of an earlier start did not go away in time.
                What hangs has been killed.
        """
        deadline = time.monotonic() + timeout_s
        if self.running():
            raise ServerError("could not start the server: it is running")
        self._kept = None
        self._in_force = {**self.settings, **(overrides or {})}
        position = self.log_position() if self._started else 0
        self._started = True
        try:
            self._launch(self._in_force, deadline)
            self._wait_ready(deadline, timeout_s, position)
        except BaseException:
            self.kill_all()
            raise

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until a connection is accepted, also after the postmaster's own crash-restart.

        The first accepted connection ends the wait: wait until the crash was noticed (`wait_gone`) before.
        A server that takes the connection and then says nothing is noticed up to 2 s late.

        Raises:
            ServerError: the server ended.
            ServerTimeout: not in time; nothing is killed.
            SessionRefused: it runs, and lets nobody in for a reason that will stay.
        """
        self._wait_ready(time.monotonic() + timeout_s, timeout_s, self.log_position())

    def _wait_ready(self, deadline: float, timeout_s: float, log_position: int) -> None:
        from psycopg import OperationalError

        refusal = "it never said that it was ready"
        look_s = time.monotonic() + self.life_poll_s
        while True:
            left_s = deadline - time.monotonic()
            try:
                if self._may_be_ready() or left_s <= 0:
                    # libpq's own minimum is 2 s.
                    session = self.connect(connect_timeout=max(2, int(left_s) + 1), autocommit=True)
                    if self.keep_session:
                        self._kept = session
                    else:
                        session.close()
                    return
            except OperationalError as error:
                refusal = str(error).strip()
                if "FATAL:" in refusal and not any(reason in refusal for reason in TEMPORARY_REFUSALS):
                    raise SessionRefused("could not open a session: the server refuses it", detail=refusal) from error
            if time.monotonic() < min(look_s, deadline):
                time.sleep(self.ready_poll_s)
                continue
            look_s = time.monotonic() + self.life_poll_s
            if not self.running():
                said = last_words(self.log_since(log_position))
                raise ServerError(
                    "could not start the server: it ended before it was ready",
                    detail=f"{self.postmaster_exit()}\n{said}",
                    hint=_meant(said),
                )
            if time.monotonic() >= deadline:
                late = ServerTimeout(
                    f"could not reach the server within {timeout_s:g} s",
                    detail=f"{refusal}\n{last_words(self.log_since(log_position))}",
                )
                late.hangs = self.what_hangs()
                raise late
            time.sleep(self.ready_poll_s)

    def what_hangs(self) -> str | None:
        """Say what the startup process does if it stands still; None: it works, is gone, or cannot be looked at."""
        return None

    def _may_be_ready(self) -> bool:
        """Say whether it is worth while to connect, which costs the server a process: by the line of postmaster.pid."""
        if self.data_directory is None:
            return True
        try:
            with (self.data_directory / "postmaster.pid").open("rb", buffering=0) as file:
                lines = file.read(4096).split(b"\n")
        except OSError:
            return False
        return len(lines) >= STATUS_LINE and lines[STATUS_LINE - 1].strip() not in (b"", b"starting")

    @abstractmethod
    def _launch(self, settings: dict[str, str], deadline: float) -> None:
        """Start the server's processes with these settings; do not wait until it is ready."""

    @abstractmethod
    def stop(self, mode: StopMode = "fast", timeout_s: float = 30.0) -> None:
        """Shut down as `pg_ctl stop -m MODE` does, and wait for the end.

        `immediate` is a crash for the data: no checkpoint, recovery at the next start.

        Raises:
            ServerTimeout: it did not end in time; nothing is killed.
        """

    @abstractmethod
    def kill_all(self) -> list[int]:
        """SIGKILL every process at one moment, wait until all are gone and reaped; return their process ids.

        The postmaster is frozen first, so that no process is born meanwhile. A container is killed whole: [1].
        """

    @abstractmethod
    def dispose(self, keep_data_to: Path | None = None) -> None:
        """Kill what is left and remove everything: processes, container, files, sockets, shared memory.

        Idempotent; what is gone already is no error.

        Args:
            keep_data_to: a path that does not exist yet; the data directory is moved there before.

        Raises:
            ServerError: the data directory could not be kept. Everything is removed all the same.
        """

    # Files

    def seen(self, path: Path) -> PurePath:
        """Return the path by which the server knows the data directory, or something beside or in it."""
        return path

    @abstractmethod
    def own(self, path: Path) -> None:
        """Give a file or folder to the server's user."""

    # Sessions

    @abstractmethod
    def _address(self) -> dict[str, str]:
        """Give host, port and password."""

    def conninfo(self) -> str:
        """Return a libpq connection string of the superuser, free of the environment's PG* variables."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo("", dbname=DATABASE, user="postgres", **CLIENT_DEFAULTS, **self._address())

    def connect(self, **kwargs: Any) -> "psycopg.Connection":
        """Connect as the superuser; keyword arguments are those of psycopg.connect."""
        import psycopg

        kept, self._kept = self._kept, None
        if kept is not None and kwargs == {"autocommit": True, "dbname": DATABASE}:
            return kept
        if kept is not None:
            kept.close()
        return psycopg.connect(self.conninfo(), **kwargs)

    def read_settings(self) -> dict[str, str]:
        """Read the settings in force, as SHOW prints them: all that are not default, and all that matter.

        Raises:
            ServerError: a requested setting is not in force; names the setting, wanted and found.
        """
        # Where one was asked for, that very one is in force and has to be read
        timeout = {} if "statement_timeout" in self._in_force else {"options": "-c statement_timeout=10s"}
        with self.connect(autocommit=True, **timeout) as connection:
            found = read_settings(connection, self._in_force)
        require_in_force(self._in_force, found)
        return {name: setting.shown for name, setting in found.items()}

    @abstractmethod
    def running(self) -> bool:
        """Say whether the postmaster is alive, ready or not."""

    @abstractmethod
    def postmaster_exit(self) -> str | None:
        """Say how the last postmaster ended, as wait() saw it; None while it runs and before the first start."""

    # Log

    @abstractmethod
    def log_position(self) -> int:
        """Return the end of the server's log for `log_since`; 0 is always its beginning."""

    @abstractmethod
    def log_since(self, position: int) -> str:
        """Return what the server has logged since a position; works before the start and after death."""


def require_same_major(crashed: Version, other: Version, source: str) -> None:
    """Raise UsageProblem: a server of this release cannot recover what one of that release left."""
    if crashed.major != other.major:
        raise UsageProblem(
            f"cannot recover PostgreSQL {crashed.text} with {other.text}",
            detail=f'"{source}" is another major version, whose files and log have another format.',
            hint=f"Give a release of PostgreSQL {crashed.major}.",
        )


class Server(Restartable):
    """A disposable PostgreSQL server with its own data directory, whose files and single processes can be got at."""

    # Files

    def share_data(self) -> None:
        """Before the first start: see to it that the data directory exists and is `data_directory`.

        Raises:
            ServerError: it cannot be read from here.
        """

    @contextlib.contextmanager
    def files_at_rest(self, paths: Sequence[str]) -> Iterator[Path]:
        """Give a folder with these files and folders of the data directory, while no server runs on it.

        Raises:
            ServerError: they cannot be had.
        """
        assert self.data_directory is not None
        yield self.data_directory

    def untouched(self) -> frozenset[str]:
        """Return the relations of which nothing was written since initdb, where that is known.

        Named as pg_relation_filepath() does.
        """
        return frozenset()

    @property
    def tablespaces(self) -> Path:
        """A folder beside the data directory for tablespaces; not made yet."""
        assert self.data_directory is not None
        return self.data_directory.parent / "tablespaces"

    def recover_with(self, choice: ServerChoice) -> None:
        """Let another release of the same major version start on this data directory from now on.

        Raises:
            UsageProblem: it is another major version, or this kind of server cannot.
            ServerError: there is no such release.
        """
        raise UsageProblem(
            f"cannot recover a live {self.kind} server with another one",
            hint="A local server or a container of crashlab's own can be recovered so.",
        )

    # Processes

    @abstractmethod
    def processes(self) -> list[Process]:
        """List the processes that are alive, the postmaster first if it is among them."""

    @abstractmethod
    def signal(self, pid: int, sig: signals.Signals) -> None:
        """Send a signal to one process of this server. Raises ServerError: it is gone, or not of this server."""

    def step_until(self, pid: int, seen: Callable[[], bool], over: Callable[[], bool]) -> bool | None:
        """Let one process go on from system call to system call, until something is seen; leave it stopped there.

        Returns:
            Whether it was seen; None: a process of this server cannot be stepped, and goes on.
        """
        return None

    @abstractmethod
    def wait_gone(self, pids: Sequence[int], timeout_s: float = 10.0) -> list[int]:
        """Wait until these processes have ended (and reap them where that is ours to do); return those that did not."""

    @abstractmethod
    def wait_stopped(self, pid: int, timeout_s: float = 10.0) -> bool:
        """Wait until a process that was sent SIGSTOP stands still; say whether it does."""


def last_words(log: str, lines_max: int = 5) -> str:
    """Pick the last FATAL and PANIC lines of a log, with what belongs to each; without any, its last lines."""
    # The refusals of early connections are our own doing.
    lines = [line for line in log.rstrip().splitlines() if not EARLY_CONNECTION.search(line)]
    fatal = [index for index, line in enumerate(lines) if re.search(r"\b(FATAL|PANIC):", line)]
    if not fatal:
        return "\n".join(lines[-lines_max:])
    kept: list[str] = []
    for index in fatal[-lines_max:]:
        # Of a configuration file the server names the mistakes first.
        kept += lines[max(0, index - 3) : index] if "contains errors" in lines[index] else []
        kept.append(lines[index])
        for line in lines[index + 1 : index + 4]:
            if not re.search(r"\b(DETAIL|HINT|CONTEXT):", line):
                break
            kept.append(line)
    return "\n".join(kept)


def _meant(log: str) -> str | None:
    """Return what a setting that the server does not know may have been meant to be."""
    from crashlab.server.settingstable import HARDLY, meant  # its table is read only where something went wrong

    unknown = UNKNOWN_SETTING.search(log)
    return (meant(unknown[1], HARDLY) if unknown else "") or None


def describe_exit(status: int) -> str:
    """Say what an exit status as subprocess gives it means: -9 is "killed by signal 9 (SIGKILL)"."""
    if status >= 0:
        return f"exited with status {status}"
    return f"killed by signal {-status} ({signals.Signals(-status).name})"
