"""How is a server of this machine crashed that somebody else has started, such as that of pytest-postgresql?

It is stopped once and started again with its own command line (postmaster.opts), by this process: whoever started it
is its parent, and only a parent sees how a process ended. Files, port and sockets stay; pg_ctl stops it as before.

Assumes: connections to it may be lost once, at the beginning.
Choices: its messages go to a file of ours, in English, for they prove the recovery.
"""

import os
import shlex
import signal as signals
from pathlib import Path
from typing import Any

from crashlab.errors import ServerError, UsageProblem
from crashlab.server import owned, processes, registry
from crashlab.server.base import CLIENT_DEFAULTS, DATABASE, ServerSpec
from crashlab.server.builds import find_build
from crashlab.server.local import LocalServer
from crashlab.server.privileges import ServerUser

HEARD = {"lc_messages": "C", "log_destination": "stderr", "logging_collector": "off"}
PORT_LINE, SOCKETS_LINE, ADDRESS_LINE = 3, 4, 5  # of postmaster.pid, from 0 (PostgreSQL pidfile.h)
_AS_PG_CTL = "It is that of a server that was started by pg_ctl or by itself, on this machine."


class GivenProcess(LocalServer):
    """A server whose data directory is somebody else's."""

    is_given = True

    def __init__(self, given: Any) -> None:
        """Take a server that runs, and start it again.

        Args:
            given: its data directory; or what has `datadir`, and perhaps `user` and `password`, as the fixture
                `postgresql_proc` of pytest-postgresql.

        Raises:
            UsageProblem: none runs there.
            ServerError: it cannot be started again.
        """
        data = Path(given if isinstance(given, str | os.PathLike) else given.datadir).resolve()
        self._superuser = str(getattr(given, "user", None) or "postgres")
        self._password = getattr(given, "password", None) or ""
        try:
            self._lines = (data / "postmaster.pid").read_text().splitlines()
            self._words = shlex.split((data / "postmaster.opts").read_text())
            status = data.stat()
        except OSError as error:
            raise UsageProblem(
                f'cannot use the data directory "{data}": no server runs there ({error.strerror})', detail=_AS_PG_CTL
            ) from error
        if len(self._lines) <= ADDRESS_LINE or not self._words:
            raise UsageProblem(f'cannot use the data directory "{data}": its server has not started yet')
        build = find_build(Path(self._words[0]).parent)
        assert build is not None
        build.version.refuse_if_too_old(str(build.bindir))
        super().__init__(ServerSpec(kind="local"), build, data_directory=data)
        try:
            if os.geteuid() == 0:
                self._user = ServerUser(status.st_uid, status.st_gid, switched=True)
                self._user.own(self._log)
            self._refuse_strangers()
            self._end_theirs(int(self._lines[0]))
            self.start()
        except BaseException:
            self._let_go()
            raise

    def _refuse_strangers(self) -> None:
        """Before anything is stopped: raise UsageProblem if we could not get in afterwards."""
        import psycopg

        try:
            with self.connect() as connection:
                row = connection.execute("SHOW is_superuser").fetchone()
        except psycopg.OperationalError as error:
            raise UsageProblem(
                f'cannot use the server in "{self.data_directory}": {str(error).strip()}',
                hint="Hand over what has datadir, user and password of a superuser.",
            ) from error
        if row != ("on",):
            raise UsageProblem(f'cannot use the server in "{self.data_directory}": {self._superuser} is no superuser')

    def _end_theirs(self, pid: int) -> None:
        processes.send([pid], signals.SIGINT)
        if processes.wait_ended([pid], 60.0):
            raise ServerError("could not stop the server within 60 s (mode fast), to start it again as our own")
        processes.reap([pid])

    def _command(self, settings: dict[str, str]) -> list[str]:
        words = list(self._words)
        if "-D" in words:
            words[words.index("-D") + 1] = str(self.data_directory)
        return [*words, *(word for name, value in HEARD.items() for word in ("-c", f"{name}={value}"))]

    def conninfo(self) -> str:
        """See Server.conninfo."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo("", dbname=DATABASE, user=self._superuser, **CLIENT_DEFAULTS, **self._address())

    def _address(self) -> dict[str, str]:
        sockets, addresses = self._lines[SOCKETS_LINE].strip(), self._lines[ADDRESS_LINE].strip()
        host = sockets or ("127.0.0.1" if addresses in ("", "*", "0.0.0.0") else addresses)
        password = {"password": self._password} if self._password else {}
        return {"host": host, "port": self._lines[PORT_LINE].strip(), **password}

    def dispose(self, keep_data_to: Path | None = None) -> None:
        """Leave it as it was found: running, with its files."""
        try:
            if not self.running():
                self.start(timeout_s=60.0)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        # The log stays open in the server, and goes with it
        for folder in (self._home, self._sockets):
            if folder is not None:
                owned.remove_folder(folder)
        registry.remove(self)
