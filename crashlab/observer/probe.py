"""How does the observer ask a session for its transaction, unseen by the client?

In front of a client's COMMIT it sends a statement of its own, under a name of its own: the client's unnamed statement
and portal stay as they are. It is parsed anew and closed each time (DISCARD ALL, or a pooler, would remove it, and an
error in the client's transaction would abort that). Behind a Query of the simple protocol that commits on its own it
is put into the same message, and its answer is cut out.
"""

from dataclasses import dataclass

from crashlab.observer.messages import first_row, message

NAME = b"crashlab observer"
COLUMN = b"crashlab_observer"
VERSION_MIN = 13  # pg_current_xact_id_if_assigned
_WROTE = (
    b"EXISTS (SELECT FROM pg_catalog.pg_lock_status() l"
    b" WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
    b" AND l.mode OPERATOR(pg_catalog.<>) ALL ('{AccessShareLock,RowShareLock}')"
    b" AND CASE WHEN l.relation OPERATOR(pg_catalog.<) 16384 THEN true"  # a catalog: FirstNormalObjectId
    b" ELSE pg_catalog.pg_relation_is_publishable(l.relation)"  # a logged table, or from 19 on a sequence
    b" AND pg_catalog.pg_relation_is_updatable(l.relation, false) OPERATOR(pg_catalog.<>) 0 END)"  # no sequence
)
"""Whether it has locked a logged relation as whoever writes does. A commit that has an id and logged nothing is not
flushed, whatever synchronous_commit says (postgres-contract.md 2.3). Without a join: to plan one takes longer than the
rest. What changes a catalog mostly keeps no lock of it, and is known by its tag."""
SQL = (
    b"SELECT pg_catalog.pg_current_xact_id_if_assigned() AS crashlab_observer,"
    b" pg_catalog.current_setting('synchronous_commit'), CASE WHEN pg_catalog.pg_is_in_recovery()"
    b" THEN NULL ELSE pg_catalog.pg_current_wal_insert_lsn() END,"
    b" CASE WHEN pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL THEN " + _WROTE + b" END"
)
APPENDED = b"\n; " + SQL  # on a line of its own: the client's may end with a comment

_ASK = (
    message(b"P", NAME + b"\0" + SQL + b"\0" + bytes(2))
    + message(b"B", NAME + b"\0" + NAME + b"\0" + bytes(6))
    + message(b"E", NAME + b"\0" + bytes(4))
    + message(b"C", b"P" + NAME + b"\0")
    + message(b"C", b"S" + NAME + b"\0")
)
ASK_AND_SYNC = _ASK + message(b"S")  # its answer is on its way before the client's message is even read
ASK_AND_FLUSH = _ASK + message(b"H")  # within a pipeline, where a Sync would end the client's transaction
CLOSED = 2


@dataclass(slots=True)
class Facts:
    """What a session says about itself."""

    xid: int | None
    sync: str  # synchronous_commit
    lsn: str | None  # None: in recovery
    wrote: bool | None = None  # to what is logged; None: there is no id, or nobody asked

    @classmethod
    def read(cls, row: bytes) -> "Facts":
        """Read the body of the DataRow that answers SQL."""
        xid, sync, lsn, *more = first_row(row)
        wrote = more[0] == b"t" if more and more[0] else None
        return cls(int(xid) if xid else None, (sync or b"").decode(), lsn.decode() if lsn else None, wrote)


@dataclass(slots=True)
class Probe:
    """One question, from when it is sent until its answer is complete."""

    step: int  # of the client, before which it is asked
    synced: bool
    facts: Facts | None = None
    closed: int = 0
    done: bool = False

    def take(self, kind: bytes, body: bytes) -> bool:
        """Take one message of the answer that is no error. True: it was the last."""
        if kind == b"D":
            self.facts = Facts.read(body)
        self.closed += kind == b"3"
        self.done = kind == b"Z" if self.synced else self.closed == CLOSED
        return self.done
