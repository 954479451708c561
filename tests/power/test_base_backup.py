"""Does a base backup bring back a transaction that was prepared while it was made?

The lost PREPARE TRANSACTION of the track record needs neither a power cut nor crashlab's disk: a backup by the low
level API, which the manual describes, is enough. Between its checkpoint and the next one a transaction is prepared
whose xid is above the first checkpoint's next xid, and the second one moves it to a file in pg_twophase. From 17.0 on
recovery takes that file for one of the future, removes another name, and then passes over the PREPARE in the log.
The releases come from the folder that CRASHLAB_TEST_BUILDS names, as in test_known_bugs.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crashlab.lessons.demos.prepared import back_up
from crashlab.server import Server, ServerSpec, create_server
from tests.power.test_known_bugs import build

pytestmark = pytest.mark.server

GID = "order 7"
SETTINGS = {"max_prepared_transactions": "5", "autovacuum": "off", "checkpoint_timeout": "1h"}


@contextmanager
def server(bindir: Path) -> Iterator[Server]:
    """A server of an exact release that takes prepared transactions."""
    with create_server(ServerSpec(kind="local", pg_bindir=bindir, settings=SETTINGS)) as one:
        yield one


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
