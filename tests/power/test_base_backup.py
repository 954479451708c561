"""Does a base backup bring back a transaction that was prepared while it was made?

The lost PREPARE TRANSACTION of the track record needs neither a power cut nor crashlab's disk: a backup by the low
level API, which the manual describes, is enough. Between its checkpoint and the next one a transaction is prepared
whose xid is above the first checkpoint's next xid, and the second one moves it to a file in pg_twophase. From 17.0 on
recovery takes that file for one of the future, removes another name, and then passes over the PREPARE in the log.
The releases come from the folder that CRASHLAB_TEST_BUILDS names, as in test_known_bugs.py.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crashlab.server import Server, ServerSpec, create_server
from tests.power.test_known_bugs import build

pytestmark = pytest.mark.server

GID = "order 7"
SETTINGS = {"max_prepared_transactions": "5", "autovacuum": "off", "checkpoint_timeout": "1h"}
NOT_IN_A_BACKUP = shutil.ignore_patterns("postmaster.pid", "postmaster.opts")


@contextmanager
def server(bindir: Path) -> Iterator[Server]:
    """A server of an exact release that takes prepared transactions."""
    with create_server(ServerSpec(kind="local", pg_bindir=bindir, settings=SETTINGS)) as one:
        yield one


def back_up(original: Server, copy: Path, xids_between: int) -> None:
    """Make a base backup, in the middle of which a transaction is prepared and a checkpoint comes."""
    assert original.data_directory is not None
    with original.connect(autocommit=True) as backup, original.connect(autocommit=True) as session:
        session.execute("CREATE TABLE orders (id integer PRIMARY KEY, state text)")
        session.execute("INSERT INTO orders VALUES (7, 'new')")
        backup.execute("SELECT pg_backup_start('copy', fast => true)")
        for _ in range(xids_between):
            session.execute("SELECT pg_current_xact_id()")
        session.execute("BEGIN")
        session.execute("UPDATE orders SET state = 'paid' WHERE id = 7")
        session.execute(f"PREPARE TRANSACTION '{GID}'")
        session.execute("INSERT INTO orders VALUES (8, 'new')")
        session.execute("CHECKPOINT")
        shutil.rmtree(copy)
        shutil.copytree(original.data_directory, copy, symlinks=True, ignore=NOT_IN_A_BACKUP)
        row = backup.execute("SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)").fetchone()
        assert row is not None
        (copy / "backup_label").write_text(row[0])
        shutil.copytree(original.data_directory / "pg_wal", copy / "pg_wal", dirs_exist_ok=True)


def prepared(restored: Server) -> list[str]:
    """Start a server, say what is prepared there, and stop it."""
    restored.start()
    with restored.connect(autocommit=True) as connection:
        found = [gid for (gid,) in connection.execute("SELECT gid FROM pg_prepared_xacts")]
    restored.stop()
    return found


@pytest.mark.parametrize(
    ("release", "xids_between", "first_start"),
    [("17.10", 2, []), ("17.10", 0, [GID]), ("16.14", 2, [GID])],
)
def test_a_prepared_transaction_is_in_the_backup(release, xids_between, first_start):
    """17.10 does not have it at the first start, and has it at the second; where the xid is the next one, it is there.

    16.14 is the innocent release: the names of such files hold no epoch before 17.
    """
    bindir = build(release)
    with server(bindir) as original, server(bindir) as restored:
        original.start()
        assert restored.data_directory is not None
        back_up(original, restored.data_directory, xids_between)
        original.kill_all()
        for path in (restored.data_directory, *restored.data_directory.rglob("*")):
            restored.own(path)
        assert prepared(restored) == first_start
        assert prepared(restored) == [GID]
