"""How does a transaction end so that the ledger tells what its client was told? One protocol for every client.

The intent is noted before the deciding statement is sent, the answer after it arrived. An answer other than the
statement's own tag, such as ROLLBACK, is a refusal.

Choices:
    An error that answers COMMIT or PREPARE TRANSACTION on a connection that lives on is a refusal, whatever it says: a
    deferred constraint, a serialization failure, a cancelled trigger. PostgreSQL raises none of them once the record
    that decides is written: from there on every error is a PANIC, and aborting a committed transaction is one, too.
    A FATAL message, a lost connection, or an error of the driver's own is indeterminate: the record may be there.
    An error that answers COMMIT PREPARED or ROLLBACK PREPARED leaves the prepared transaction as it was, or not:
    indeterminate.

Source: postgres-contract.md 7.1; PostgreSQL's src/backend/access/transam/xact.c (CommitTransaction,
RecordTransactionCommit, RecordTransactionAbort: "cannot abort transaction %u, it was already committed").
"""

import time
from typing import Any

import psycopg

from crashlab.ledger import Ack, Indeterminate, Intent, LedgerWriter, Prepared, Refused

_TAGS = {
    "commit": "COMMIT",
    "prepare": "PREPARE TRANSACTION",
    "commit prepared": "COMMIT PREPARED",
    "rollback prepared": "ROLLBACK PREPARED",
}
_MAY_BE_REFUSED = ("commit", "prepare")


def decide(connection: psycopg.Connection[Any], ledger: LedgerWriter, intent: Intent) -> bool:
    """Note an intent, send its statement, note the answer; return whether it was done.

    Raises:
        psycopg.Error: the statement failed; what that means for the transaction has been noted.
    """
    ledger.record(intent)
    tag = _TAGS[intent.action]
    try:
        answer = connection.execute(f"{tag} '{intent.gid}'" if intent.gid else tag).statusmessage or ""
    except psycopg.Error as error:
        if refused(connection, error) and intent.action in _MAY_BE_REFUSED:
            _note_refused(ledger, intent, first_line(error), error.sqlstate)
        else:
            now = time.monotonic_ns()
            ledger.record(Indeterminate(tx=intent.tx, client=intent.client, at_ns=now, reason=first_line(error)))
        raise
    if answer != tag and intent.action in _MAY_BE_REFUSED:
        _note_refused(ledger, intent, f"{tag} was answered {answer}", None)
        return False
    now = time.monotonic_ns()
    if intent.action == "prepare":
        ledger.record(Prepared(tx=intent.tx, client=intent.client, at_ns=now))
    else:
        ledger.record(Ack(tx=intent.tx, client=intent.client, at_ns=now, tag=answer))
    return True


def refused(connection: psycopg.Connection[Any], error: psycopg.Error) -> bool:
    """Say whether an error is the living server's own answer."""
    return error.diag.severity_nonlocalized == "ERROR" and not lost(connection, error)


def lost(connection: psycopg.Connection[Any], error: psycopg.Error) -> bool:
    """Say whether the connection is gone, or about to go."""
    # A FATAL message (57P01, 57P02) can arrive before libpq notices the end of the connection
    farewell = (error.sqlstate or "").startswith(("57P", "08"))
    return farewell or connection.broken or connection.closed


def first_line(error: psycopg.Error) -> str:
    """Return what an error says, without detail and hint."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _note_refused(ledger: LedgerWriter, intent: Intent, reason: str, sqlstate: str | None) -> None:
    now = time.monotonic_ns()
    ledger.record(Refused(tx=intent.tx, client=intent.client, at_ns=now, reason=reason, sqlstate=sqlstate))
