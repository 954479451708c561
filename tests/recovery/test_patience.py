"""Is a session given up whose backend does not answer, and no other?"""

import contextlib
import signal
import threading
import time
from typing import Any

import psycopg
import pytest

from crashlab.recovery.patience import Patience
from crashlab.server import Server

pytestmark = pytest.mark.server

TIMEOUT_MS = 400
BUSY = "SELECT count(*) FROM (SELECT generate_series(1, 1000000000)) AS numbers"
"""Works without a wait whenever it is frozen. In FROM itself, the function would write its rows to a temporary file."""


def freeze_at_work(server: Server, pid: int) -> None:
    """Stop a backend once it is at its statement, so that no timeout reaches it."""
    deadline = time.monotonic() + 20
    with contextlib.closing(server.connect(autocommit=True)) as connection:
        asleep = "SELECT state = 'active' AND (query NOT LIKE '%%pg_sleep%%' OR wait_event = 'PgSleep')"
        query = f"{asleep} FROM pg_stat_activity WHERE pid = %s AND query NOT LIKE 'SET%%'"
        while connection.execute(query, [pid]).fetchone() != (True,) and time.monotonic() < deadline:
            time.sleep(0.002)
    server.signal(pid, signal.SIGSTOP)


def run(server: Server, statement: str, *, frozen: bool) -> None:
    """Run a statement that is watched; freeze its backend in the middle."""

    def connect() -> "psycopg.Connection[Any]":
        return server.connect(autocommit=True)

    with contextlib.closing(connect()) as connection, Patience(connect, connection, TIMEOUT_MS):
        connection.execute(f"SET statement_timeout = {0 if frozen else TIMEOUT_MS}")
        freezer = threading.Thread(target=freeze_at_work, args=(server, connection.info.backend_pid))
        if frozen:
            freezer.start()
        connection.execute(statement)


def test_a_backend_that_heeds_no_timeout_is_given_up(local_server: Server) -> None:
    """It neither works nor waits: its session is as good as dead, and that is said."""
    with pytest.raises(psycopg.OperationalError, match="does not heed its timeout") as caught:
        run(local_server, BUSY, frozen=True)
    assert not isinstance(caught.value, psycopg.errors.QueryCanceled)


def test_a_backend_that_waits_is_given_up_without_blame(local_server: Server) -> None:
    """Of one that waits for something nobody knows why it does not answer."""
    with pytest.raises(psycopg.errors.QueryCanceled, match="waits for Timeout PgSleep"):
        run(local_server, "SELECT pg_sleep(60)", frozen=True)


def test_the_servers_own_timeout_comes_first(local_server: Server) -> None:
    """The innocent twin: a slow statement is canceled by the server, and a quick one not at all."""
    with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
        run(local_server, BUSY, frozen=False)
    run(local_server, "SELECT 1", frozen=False)
