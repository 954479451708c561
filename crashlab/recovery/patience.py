"""What if the server never answers? Damage can send a backend round in a circle that no timeout interrupts.

A GIN index whose first page is empty does that, for one (measured, 18.6). So a second session looks at the first one,
once a statement has taken longer than the server's own statement_timeout allows, and cuts its connection off.

Choices: a backend that waits for nothing, not for the disk and not for a lock, and that its timeout does not reach, is
    in a circle: that is as good as dead. Of one that waits for something, nothing is said but that it did not answer.

Source: PostgreSQL manual, pg_stat_activity (state, query_start, wait_event).
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import psycopg

GRACE_SHARE = 0.1
"""Of the statement_timeout, on top of it."""
WAITING_FACTOR = 5
"""A backend that waits for something gets so much more time."""
LOOKS_EVERY_S = 1.0

_LOOK = """
SELECT query_start::text, coalesce(wait_event_type || ' ' || wait_event, ''),
       extract(epoch FROM clock_timestamp() - query_start)::float8
FROM pg_stat_activity WHERE pid = %s AND state = 'active'
"""


class Patience:
    """Watches over one session while it reads. Use it as a context manager, inside the connection's own."""

    def __init__(
        self, connect: "Callable[[], psycopg.Connection[Any]]", watched: "psycopg.Connection[Any]", timeout_ms: int
    ) -> None:
        """Watch nobody yet.

        Args:
            connect: opens another autocommit connection to the same server.
            timeout_ms: the statement_timeout of the session that is watched.
        """
        self._connect = connect
        self._pid = watched.info.backend_pid
        self._fd = watched.fileno()
        self._limit_s = timeout_ms / 1000 * (1 + GRACE_SHARE)
        self._lost: psycopg.OperationalError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Stop watching, and say why the connection was cut off, if it was.

        Raises:
            psycopg.errors.QueryCanceled: the server did not answer, which says nothing about the data.
            psycopg.OperationalError: the session is as good as dead.
        """
        self._over.set()
        self._thread.join()
        if self._lost is not None:
            first = str(error).strip().splitlines()[0] if str(error) else "the session"
            raise type(self._lost)(f"{first}; crashlab had cut the connection, since {self._lost}") from error

    def _watch(self) -> None:
        wait_s = self._limit_s
        before = ""  # when the statement began that was found in a circle
        while not self._over.wait(wait_s):
            wait_s = LOOKS_EVERY_S
            found = None
            with contextlib.suppress(psycopg.Error):  # tried again
                found = self._look()
            began, waits_for, seconds = found or ("", "", 0.0)
            if seconds < self._limit_s or (waits_for and seconds < WAITING_FACTOR * self._limit_s):
                before = ""
            elif waits_for:
                says = f"a statement that waits for {waits_for} has not ended for {seconds:.0f} s"
                self._cut(psycopg.errors.QueryCanceled(says))
                return
            elif began == before:
                says = f"a statement runs for {seconds:.0f} s, waits for nothing, and does not heed its timeout"
                self._cut(psycopg.OperationalError(says))
                return
            else:
                before = began

    def _look(self) -> tuple[str, str, float] | None:
        with contextlib.closing(self._connect()) as connection:
            connection.execute("SET statement_timeout = '10s'")
            return connection.execute(_LOOK, (self._pid,)).fetchone()

    def _cut(self, why: psycopg.OperationalError) -> None:
        self._lost = why
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as line:
            line.shutdown(socket.SHUT_RDWR)
