"""How does the conversation of an unchanged application become a ledger, like that of any other client?

Each transaction that may have written becomes begin, intent and answer, in the order in which the observer saw them;
so all that the oracle knows of order, loss and time holds here, too.

Choices: a transaction begins with its first statement that may write, so that one that only reads, and a session that
    is idle between two of them, is nobody. An answer that was kept from its client was not heard: indeterminate.
    Of a transaction whose id is unknown nothing is promised, nor of one that wrote nothing that is logged: PostgreSQL
    flushes its commit for nobody. Both stand there without an id.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from crashlab.ledger import Ack, Indeterminate, Intent, LedgerWriter, Prepared, Refused
from crashlab.model import ToldKey
from crashlab.observer import Conversation
from crashlab.observer.account import Asked, Connection, Transaction

_WRITES = ("write", "other")
_SETTING = "synchronous_commit"
_WORK = (*_WRITES, "call")
_VALUE = re.compile(r"'(?:[^']|'')*'|\b\d[\w.]*")
_FAILED = "its COMMIT was answered ROLLBACK, because a statement before it had failed"


@dataclass
class Written:
    """What the ledger says about whom."""

    transactions: dict[int, Transaction] = field(default_factory=dict)  # by number in the ledger
    times: list[int] = field(default_factory=list)  # of its lines from the second on
    acked: list[int] = field(default_factory=list)  # when each answer arrived
    changes: list[int] = field(default_factory=list)  # ... of those that changed something, as far as that is known
    unseen: list[int] = field(default_factory=list)  # ... and of those of whose transactions nobody learned the id
    refused: list[int] = field(default_factory=list)  # when each refusal did
    connections: dict[int, Connection] = field(default_factory=dict)

    def line_at(self, at_ns: int) -> int:
        """Return how many lines there were at a time."""
        return 1 + bisect_right(self.times, at_ns)

    def placed(self, key: ToldKey) -> ToldKey:
        """Say of a key that was told where in the ledger that was."""
        since = self.line_at(key.since_ns) if key.since_ns else 0
        return msgspec.structs.replace(key, line=self.line_at(key.at_ns), since_line=since)

    def changes_wanted(self, at_ns: int) -> int:
        """Return how many have to be there in all, so that a block that began then put something at stake.

        One that was refused is something to look at, too, and so is one that only the test's own query can look for.
        """
        if self.unseen_since(at_ns):
            return 0
        tried = any(answered > at_ns for answered in self.refused)
        return 1 if tried else 1 + sum(answered <= at_ns for answered in self.changes)

    def unseen_since(self, at_ns: int) -> int:
        """Return of how many commits that were answered since a block began nobody knows the transaction."""
        return sum(answered > at_ns for answered in self.unseen)

    def set_by(self) -> dict[str, str]:
        """Say of each transaction which statement had set synchronous_commit, or what its client connected with."""
        said = {tx: _quoted(one.sync_set_by) for tx, one in self.transactions.items() if one.sync_set_by}
        for tx, one in self.transactions.items():
            if tx not in said and (asked := _asked_as_it_connected(self.connections.get(one.connection))):
                said[tx] = asked
        return {str(tx): by for tx, by in said.items()}

    def repeats(self, conversation: Conversation) -> dict[str, str]:
        """Say of each transaction whose answer its client never had who asked for the same later."""
        found = {}
        for tx, one in self.transactions.items():
            if one.outcome in ("unheard", "unanswered") and one.end is not None and (asked := _work_of(one)):
                later = [
                    other
                    for other in conversation.transactions
                    if other.steps
                    and other.outcome in ("committed", "unheard")
                    and other.steps[0].number > one.end.number
                    and _without_values(_work_of(other)) == _without_values(asked)
                ]
                exactly = (other for other in later if _work_of(other) == asked)
                if (again := next(exactly, next(iter(later), None))) is not None:
                    found[str(tx)] = f"{again.name} on connection {again.connection}"
        return found

    def reasons(self) -> dict[str, str]:
        """Say of each transaction that was refused why."""
        return {str(tx): _reason(one) for tx, one in self.transactions.items() if one.outcome == "rolled back"}


@dataclass(frozen=True)
class _Event:
    number: int  # of the conversation's record
    at_ns: int
    transaction: Transaction
    what: str  # begin, commit, prepare, commit prepared, rollback prepared; prepared, ack, refused, unheard
    io: int = 0  # length of the server's I/O log, if it was recorded


def write_ledger(
    path: Path, seed: int, conversation: Conversation, *, until: int, since: int, there: Callable[[Transaction], bool]
) -> Written:
    """Write the ledger of what happened up to a record of the conversation.

    Args:
        until: the record of this crash.
        since: that of the crash before it, or 0; what came before is in no I/O log that goes on until now.
        there: whether a transaction that ended before that one has survived it; the others are no concern of this one.
    """
    events = [
        event
        for transaction in [*conversation.transactions, *_held_back(conversation)]
        if _ended(transaction) > since or there(transaction)
        for event in _events(transaction)
        if event.number < until
    ]
    unseen = [one.end for one in conversation.transactions if _is_unseen(one) and one.end is not None]
    written, numbers = Written(connections=conversation.connections), dict[int, int]()
    written.unseen += [step.answered_ns or step.at_ns for step in unseen if since < (step.answered or 0) < until]
    ledger = LedgerWriter(path, seed=seed)
    for event in sorted(events, key=lambda one: one.number):
        one = event.transaction
        io = event.io if event.number > since else 0
        if event.what == "begin":
            numbers[id(one)] = ledger.begin(one.connection, event.at_ns, io)
            written.transactions[numbers[id(one)]] = one
        else:
            _record(ledger, event, numbers[id(one)], io)
        written.times.append(event.at_ns)
        if event.what == "ack":
            written.acked.append(event.at_ns)
            written.changes += [event.at_ns] if _promised(one) and one.outcome == "committed" else []
        elif event.what == "refused":
            written.refused.append(event.at_ns)
    ledger.close()
    return written


def _held_back(conversation: Conversation) -> Iterator[Transaction]:
    """Yield the statements that would have been a transaction of their own, and that the server never saw."""
    for number, step, phase in conversation.reached:
        inside = any(
            one.connection == step.connection and one.outcome == "open" and one.steps[-1].number < number
            for one in conversation.transactions
            if one.steps
        )
        if phase == "before" and not inside:
            yield Transaction(step.connection, explicit=False, steps=[step])


def _record(ledger: LedgerWriter, event: _Event, tx: int, io: int) -> None:
    one, client, at_ns, what = event.transaction, event.transaction.connection, event.at_ns, event.what
    if what == "prepared":
        ledger.record(Prepared(tx=tx, client=client, at_ns=at_ns, io=io))
    elif what == "ack":
        ledger.record(Ack(tx=tx, client=client, at_ns=at_ns, io=io))
    elif what == "refused":
        ledger.record(Refused(tx=tx, client=client, at_ns=at_ns, reason=_reason(one), io=io))
    elif what == "unheard":
        reason = "the answer never reached its client"
        ledger.record(Indeterminate(tx=tx, client=client, at_ns=at_ns, reason=reason, io=io))
    else:
        ledger.record(
            Intent(
                tx=tx,
                client=client,
                at_ns=at_ns,
                action=what,  # type: ignore[arg-type]
                sync=one.sync or "on",
                xid=(one.xid or 0) if what != "commit" or _promised(one) else 0,
                gid=one.gid,
                insert_lsn=_lsn(one.lsn),
                io=io,
            )
        )


def _is_unseen(one: Transaction) -> bool:
    """Whether its commit was answered and may have changed something, and nobody knows its id."""
    kinds = {statement.kind for step in one.steps for statement in step.statements}
    return bool(one.unknown) and one.outcome == "committed" and not kinds.isdisjoint(("write", "call"))


def _promised(one: Transaction) -> bool:
    """Whether anything is promised for its commit. Source: postgres-contract.md 2.3."""
    return bool(one.xid) and (one.wrote is not False or bool(one.gid))


def _ended(transaction: Transaction) -> int:
    return max(step.answered or step.number for step in transaction.steps)


def _events(one: Transaction) -> Iterator[_Event]:
    writing = next((step for step in one.steps if any(s.kind in _WRITES for s in step.statements)), None)
    if not one.steps or (writing is None and one.xid is None):
        return
    first = writing or one.steps[0]
    yield _Event(first.number, first.at_ns, one, "begin", first.io)
    prepare = next((step for step in one.steps if _asks(step, "prepare transaction")), None) if one.gid else None
    end = one.end
    if prepare is not None:
        yield _Event(prepare.number, prepare.at_ns, one, "prepare", prepare.io_then)
        if prepare is not end or one.outcome == "prepared":
            yield _answer(prepare, one, "prepared")
    if end is None or end is prepare:
        return
    if one.outcome == "rolled back" and not _asks(end, "rollback prepared"):
        yield _answer(end, one, "refused")
        return
    action = next((kind for kind in ("commit prepared", "rollback prepared") if _asks(end, kind)), "commit")
    yield _Event(end.number, end.at_ns, one, action, end.io_then)
    yield _answer(end, one, "ack" if one.outcome in ("committed", "rolled back") else "unheard")


def _work_of(one: Transaction) -> list[str]:
    """What a transaction asked for that may write, in one form for both protocols."""
    asked = [step for step in one.steps if step.message != "Parse" and any(s.kind in _WORK for s in step.statements)]
    return [" ".join(step.sql.split()) for step in asked]


def _without_values(work: list[str]) -> list[str]:
    return [_VALUE.sub("?", sql) for sql in work]


def _asks(step: Asked, kind: str) -> bool:
    return any(statement.kind == kind for statement in step.statements)


def _answer(step: Asked, one: Transaction, what: str) -> _Event:
    at_ns, io = step.answered_ns or step.at_ns, max(step.answered_io, step.io_then)
    return _Event(step.answered or step.number, at_ns, one, what, io)


def _lsn(text: str | None) -> int:
    high, _, low = (text or "0/0").partition("/")
    return int(high, 16) << 32 | int(low, 16)


def _asked_as_it_connected(connection: Connection | None) -> str:
    """Return the parameter of the start-up message that set synchronous_commit, if one did."""
    parameters = {} if connection is None else connection.parameters
    for name, value in parameters.items():
        if name == _SETTING or (name == "options" and _SETTING in value):
            return f"as it connected, with {name} = {value!r}"
    return ""


def _quoted(step: Asked) -> str:
    return f"{' '.join(step.sql.split())!r}"


def _reason(one: Transaction) -> str:
    failed = next((step for step in one.steps if step.failure is not None), None)
    if one.end is not None and one.end.failure is not None:
        return f"its COMMIT failed: {one.end.failure[2]} (SQLSTATE {one.end.failure[1]})"
    if failed is not None and failed.failure is not None:
        asked = _FAILED if one.end is not None and _asks(one.end, "commit") else "it was rolled back after an error"
        return f"{asked}: {failed.failure[2]} (SQLSTATE {failed.failure[1]})"
    return "it was rolled back"
