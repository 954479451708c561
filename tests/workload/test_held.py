"""Is a prepared transaction seen that came back without its locks, and only such a one?"""

import contextlib

import pytest

from crashlab.server import ServerSpec, create_server
from crashlab.workload.kinds.held import Held

pytestmark = pytest.mark.server


def test_locks_are_there_before_a_crash_and_after_it_and_missing_ones_are_counted() -> None:
    """Two that wrote are innocent; one that locked nothing looks as one does that has lost its locks."""
    (query,) = (one.sql for one in Held().invariants() if "no lock" in one.name)
    counts: list[object] = []
    with create_server(ServerSpec(kind="local", settings={"max_prepared_transactions": "5"})) as server:
        server.start()
        for prepared in ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)", "SELECT pg_current_xact_id()"):
            with contextlib.closing(server.connect(autocommit=True)) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS t (n integer)")
                connection.execute(f"BEGIN; {prepared}; PREPARE TRANSACTION '{len(counts)}'")
                counts.append(connection.execute(query).fetchone())
            server.kill_all()
            server.start()
            with contextlib.closing(server.connect(autocommit=True)) as connection:
                counts.append(connection.execute(query).fetchone())
    assert counts == [("0",)] * 4 + [("1",)] * 2
