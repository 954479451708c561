"""What is broken already, although nothing has crashed yet?

The checks of tables and indexes that follow a crash, on the running server: what they find is no crash's doing.

Assumes nothing of other sessions: they may write meanwhile. amcheck can live with that. Reading an index and its table
    takes one snapshot for both; an error there ends it all, and nothing is said of the indexes that come after.
Does not check: the system catalogs, which were made with the server; other databases; pages and rows as such.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import psycopg

from crashlab.model import Broken, Recovery
from crashlab.recovery import contents
from crashlab.recovery.observe import ConnectTo, observe
from crashlab.recovery.session import Facts, Reading
from crashlab.server.base import DATABASE
from crashlab.workload.relations import TEXT_SETTINGS, Relation

TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 500
"""For a statement, and for a lock in it: what takes longer is not looked at."""

_AMCHECK = ("amcheck_index", "amcheck_heap", "amcheck_gin")
_CATALOGS = "SELECT pg_relation_filepath(oid) FROM pg_class WHERE oid < 16384 AND relkind IN ('r', 'i', 't', 'm')"


def look_before(connect: ConnectTo, tables: Sequence[Relation]) -> Broken:
    """Return what is wrong with the user's tables and indexes before the fault.

    Args:
        connect: as for `observe`.
        tables: whose indexes are read.

    Raises:
        psycopg.Error: no session could be had.
    """
    reading = Reading(relations=list(tables), invariants=[], xids=[], statement_timeout_ms=TIMEOUT_MS)
    facts = Facts()

    def connect_briefly(database: str) -> "psycopg.Connection[Any]":
        connection = connect(database)
        connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        return connection

    with contextlib.closing(connect_briefly(DATABASE)) as connection:
        catalogs = [file for (file,) in connection.execute(_CATALOGS) if file is not None]
        settings = {"role": "none", "statement_timeout": str(TIMEOUT_MS), **TEXT_SETTINGS}
        connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()))
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        with contextlib.suppress(psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
            contents.index_read(
                connection, reading, facts
            )  # a table that an open transaction has to itself is not read
    running = Recovery(started=True, ran=True, seconds=0.0)
    found = observe(connect_briefly, reading, running, unchanged=catalogs, only=_AMCHECK)
    return Broken(complaints=found.complaints, indexes=[one for one in facts.indexes if not one.agrees])
