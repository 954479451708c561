"""Is it seen when a logical slot skips a transaction, and only then?"""

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from crashlab.server import Server, ServerSpec, create_server
from crashlab.workload.kinds.decoded import SKIPPED, Decoded

pytestmark = pytest.mark.server

(CHORE,) = Decoded.upkeep
NOTE, MOVE_ON = CHORE.statements[1:3]


@pytest.fixture
def publisher() -> Iterator[Server]:
    """A server with the kind's tables and its slot, older than which one transaction is."""
    with create_server(ServerSpec(kind="local", settings={"wal_level": "logical"})) as server:
        server.start()
        with connected(server) as connection:
            connection.execute("CREATE SCHEMA crashlab")
            connection.execute(Decoded().setup_sql)
            write(connection, 0)
            for statement in CHORE.first:
                connection.execute(statement)
        yield server


@contextlib.contextmanager
def connected(server: Server) -> Iterator["psycopg.Connection[Any]"]:
    """A session that is closed afterwards."""
    with contextlib.closing(server.connect(autocommit=True)) as connection:
        yield connection


def write(connection: "psycopg.Connection[Any]", slot: int) -> None:
    """One transaction, half of it in a subtransaction, whose rows bear an id of their own."""
    with connection.transaction():
        connection.execute("INSERT INTO crashlab.decoded SELECT %s, n, 'v' FROM generate_series(1, 3) n", (slot,))
        with connection.transaction():
            connection.execute("UPDATE crashlab.decoded SET v = 'w', xid = DEFAULT WHERE slot = %s AND n = 1", (slot,))


def crash(server: Server) -> tuple[str, int]:
    """Kill everything; return how many transactions are skipped then, and how many are still to be handed out."""
    server.kill_all()
    server.start()
    with connected(server) as connection:
        row = connection.execute(f"SELECT {SKIPPED}").fetchone()
        connection.execute("TRUNCATE crashlab.decoded_handed_out")
        connection.execute(NOTE)
        left = connection.execute("SELECT count(*) FROM crashlab.decoded_handed_out").fetchone()
    assert row is not None
    assert left is not None
    return row[0], left[0]


def test_what_was_handed_out_and_what_will_be_is_all(publisher: Server) -> None:
    """The slot moved on for two of three transactions, and is where it was then, or before."""
    with connected(publisher) as connection:
        for slot in (1, 2):
            write(connection, slot)
        connection.execute(NOTE)
        connection.execute(MOVE_ON)
        connection.execute("CHECKPOINT")
        write(connection, 3)
    assert crash(publisher) == ("0", 1)


@pytest.mark.parametrize(("persisted", "skipped"), [(True, ("2", 1)), (False, ("0", 3))])
def test_what_was_not_handed_out_is_skipped_where_the_slot_kept_its_place(
    publisher: Server, persisted: bool, skipped: tuple[str, int]
) -> None:
    """Nobody was told what it passed by. A crash before the next checkpoint takes it back, a later one does not."""
    with connected(publisher) as connection:
        for slot in (1, 2):
            write(connection, slot)
        connection.execute("SELECT pg_replication_slot_advance('crashlab', pg_current_wal_lsn())")
        if persisted:
            connection.execute("CHECKPOINT")
        write(connection, 3)
    assert crash(publisher) == skipped
