"""Is it known after a recovery what it replayed, although nobody read the WAL before?"""

import pytest

from crashlab.model import RecordCount
from crashlab.recovery.replayed import read_replayed
from crashlab.recovery.wal import read_wal
from crashlab.server.local import LocalServer

pytestmark = pytest.mark.server


def replayed_twice(server: LocalServer) -> tuple[list[RecordCount], list[RecordCount] | None]:
    """Kill a server that has written something, let it recover; return what was read before, and after."""
    with server.connect(autocommit=True) as session:
        session.execute("CREATE TABLE t (a int PRIMARY KEY)")
        session.execute("INSERT INTO t SELECT generate_series(1, 3000)")
    position = server.log_position()
    server.kill_all()
    assert server.data_directory is not None
    facts = read_wal(server.data_directory)
    assert facts is not None
    server.start()
    with server.connect(autocommit=True) as session:
        session.execute("INSERT INTO t SELECT generate_series(10001, 11000)")  # is not of the recovery any more
        return facts.kinds, read_replayed(session, server.log_since(position))


def test_what_was_replayed_can_be_read_afterwards(local_server: LocalServer) -> None:
    """As many records of each type as a reading of the crashed directory finds, and none that came later."""
    before, after = replayed_twice(local_server)
    assert after == before
    assert {kind.name for kind in before} > {"Btree/NEWROOT", "Heap/INSERT+INIT"}


def test_what_the_recovery_removed_is_not_made_up(local_server: LocalServer) -> None:
    """A file of the WAL that is gone leaves the answer open."""
    replayed_twice(local_server)
    with local_server.connect(autocommit=True) as session:
        log = local_server.log_since(0)
        assert read_replayed(session, log)
        session.execute("SELECT pg_switch_wal()")
        session.execute("CHECKPOINT")
        session.execute("SELECT pg_switch_wal()")
        session.execute("CHECKPOINT")
        assert read_replayed(session, log) is None
