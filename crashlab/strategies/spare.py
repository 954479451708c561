"""How does each example get a server of its own without waiting for one?

One server process tree at a time, one data directory, one address. The tables are made once; what the directory held
then is kept beside it, and each example begins by making the directory equal to that again.

Choices:
    walwriter stands still while an example runs. Otherwise the moment of its next turn would decide whether an
    asynchronous commit is lost, and an example that failed once would pass the next time. It is stopped while it waits
    for its next turn, so that it holds no lock; a synchronous commit flushes by itself.
    fsync is off: what was written survives the death of processes without it.

Source: postgres-contract.md 1.2 (what a kill takes), 1.4 (walwriter), section 8 (a fast start).
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from crashlab.errors import ServerTimeout
from crashlab.fault.kinds.stop import stop_between_turns
from crashlab.server import Restartable, Server, ServerSpec, create_server
from crashlab.server.owned import make_folder, remove_folder
from crashlab.server.registry import Disposable, add, remove
from crashlab.server.spares import make_equal
from crashlab.server.template import copy_template

if TYPE_CHECKING:
    import psycopg

SETTINGS = {
    "autovacuum": "off",  # it takes transaction ids, and flushes at moments of its own
    "checkpoint_timeout": "1d",
    "fsync": "off",
    "max_parallel_workers_per_gather": "0",
    "shared_buffers": "16MB",
    "wal_writer_delay": "10s",
}
"""What an example's server has, unless it is given something else."""
INITDB = ("--wal-segsize=1",)  # each example gets its log copied anew
SETTINGS_OF = {18: {"io_method": "sync"}}
"""More of them, from a major version on."""
STOP_TIMEOUT_S = 10.0
POLL_S = 0.001


def url_of(server: Restartable) -> str:
    """Return a postgresql:// URL of a server's superuser, for any driver."""
    from psycopg.conninfo import conninfo_to_dict

    known = conninfo_to_dict(server.conninfo())
    user, password = quote(str(known["user"])), known.get("password")
    address = urlencode({"host": known["host"], "port": known["port"]})
    return f"postgresql://{user}{f':{quote(str(password))}' if password else ''}@/{known['dbname']}?{address}"


class SpareServer(Disposable):
    """A local server that is made fresh again for each example, and started again after each crash."""

    def __init__(self, spec: ServerSpec, prepare: Callable[[str], None], *, walwriter: bool = False) -> None:
        """Make a server and have it prepared, once.

        Args:
            spec: its settings are laid over those of SETTINGS.
            prepare: makes the tables; gets the server's URL. It may leave sessions behind.
            walwriter: whether it goes on while examples run.

        Raises:
            ServerError: there is no local build, or it cannot be started with these settings.
        """
        self._walwriter = walwriter
        self._folder: Path | None = None
        self._server: Server | None = None
        add(self)
        try:
            self._server = create_server(dataclasses.replace(spec, initdb=(*INITDB, *spec.initdb)))
            major = self.server.version.major
            ours = SETTINGS | {k: v for first, some in SETTINGS_OF.items() if major >= first for k, v in some.items()}
            self.server.settings = ours | self.server.settings
            self.server.start()
            prepare(self.url)
            self.server.stop("fast")
            assert self.server.data_directory is not None
            self._folder = make_folder(self.server.data_directory.parent.parent, "crashlab-prepared-")
            copy_template(self.server.data_directory, self._prepared)
        except BaseException:
            self.dispose()
            raise

    @property
    def _prepared(self) -> Path:
        assert self._folder is not None
        return self._folder / "data"

    @property
    def server(self) -> Server:
        """The one that all examples share."""
        assert self._server is not None
        return self._server

    @property
    def url(self) -> str:
        """A postgresql:// URL of the superuser; the same for all examples, and after each crash."""
        return url_of(self.server)

    def connect(self) -> "psycopg.Connection[Any]":
        """Open a session of the harness."""
        return self.server.connect(autocommit=True)

    def fresh(self) -> None:
        """Begin an example: whatever runs is killed, and the server starts with what was prepared."""
        self.kill()
        assert self.server.data_directory is not None
        make_equal(self._prepared, self.server.data_directory)
        self._start()

    def kill(self) -> None:
        """SIGKILL for every process at one moment; nothing if none runs."""
        self.server.kill_all()

    def recover(self) -> None:
        """Start again on what the crash has left. Raises ServerError: it does not come back."""
        self._start()

    def _start(self) -> None:
        self.server.start()
        if not self._walwriter:
            self._stop_walwriter()

    def _stop_walwriter(self) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            pid = next((one.pid for one in self.server.processes() if one.role == "walwriter"), None)
            if pid is not None and stop_between_turns(self.server, pid):
                return
            time.sleep(POLL_S)
        raise ServerTimeout(f"could not stop walwriter between two of its turns within {STOP_TIMEOUT_S:g} s")

    def dispose(self, keep_data_to: Path | None = None) -> None:
        """Remove the server and what was prepared; idempotent."""
        try:
            if self._server is not None:
                self._server.dispose(keep_data_to)
        finally:
            if self._folder is not None:
                remove_folder(self._folder)
            remove(self)
