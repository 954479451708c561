"""What became of each transaction, as far as its client was told?

Taken from the server's answers: the tag of each command, the state in ReadyForQuery, errors. What a statement is, is
needed only where a tag does not say it (ROLLBACK TO SAVEPOINT is answered as ROLLBACK is), and where no answer came:
then whatever asked for the end of a transaction, or would have ended it, leaves it "unanswered", which means that both
is possible.

Not seen: what a procedure, a DO block or a command such as VACUUM commits on its own. Each is one transaction here,
whose id is unknown.
"""

import re
from typing import Any

from crashlab.observer.account import Asked, Connection, Conversation, Transaction
from crashlab.observer.statements import Statement, changed_setting

NOT_ASKED = "the session was not asked"
_OF_CATALOGS = frozenset({"ALTER", "COMMENT", "CREATE", "DROP", "GRANT", "IMPORT", "REASSIGN", "REVOKE", "SECURITY"})
_MAYBE = re.compile(r"\bif\s+(not\s+)?exists\b", re.IGNORECASE)
ON_ITS_OWN = "a statement of it may have committed on its own"


class _State:
    """One connection so far."""

    def __init__(self) -> None:
        self.open: Transaction | None = None
        self.sets: list[tuple[Asked, bool]] = []  # in the open transaction: by whom, and for it alone
        self.set_by: Asked | None = None
        self.waiting: dict[int, dict[str, Any]] = {}  # step -> facts about it that came before the step itself
        self.loose: set[str] = set()  # kinds of statements in the open transaction outside of BEGIN
        self.closed = False


class Accounts:
    """The transactions of all connections, from the conversation's records in their order."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._states: dict[int, _State] = {}
        self._prepared: dict[str, Transaction] = {}

    def _state(self, connection: Connection) -> _State:
        return self._states.setdefault(connection.number, _State())

    def probe(self, connection: Connection, record: dict[str, Any]) -> None:
        """Take what the session said about its transaction."""
        self._state(connection).waiting[record["step"]] = record

    def answer(self, connection: Connection, step: Asked) -> None:
        """Take a step with its answer."""
        state = self._state(connection)
        if step.is_answered:
            self._facts(state, step)
            self._fold(state, step, answered=True)

    def close(self, connection: Connection) -> None:
        """The connection is at its end: what was asked and not answered may have been done."""
        state = self._state(connection)
        if state.closed:
            return
        state.closed = True
        for step in connection.steps:
            if not step.skipped and not step.is_answered:
                self._facts(state, step)
                self._fold(state, step, answered=False)
        if state.open is not None:
            self._end(state, "unanswered" if state.loose & {"call", "other"} else "open", None)

    def end(self) -> None:
        """The conversation is at its end."""
        for connection in self._conversation.connections.values():
            self.close(connection)

    def _facts(self, state: _State, step: Asked) -> None:
        facts = state.waiting.pop(step.step, None)
        if facts is not None:
            step.xid, step.sync, step.lsn = facts["xid"], facts["sync"], facts["lsn"]
            step.wrote = facts.get("wrote")

    def _fold(self, state: _State, step: Asked, *, answered: bool) -> None:
        if step.message == "Sync":
            if state.open is not None:
                self._ready(state, step, answered)
        elif step.message == "Execute":
            self._execute(state, step, answered)
        elif step.message in ("Query", "FunctionCall"):
            self._query(state, step, answered)
        elif step.failure is not None and answered:  # of Parse or Bind: it ends the transaction as well
            self._fail(state, step)

    def _execute(self, state: _State, step: Asked, answered: bool) -> None:
        if step.failure is not None and answered:
            self._fail(state, step)
        elif step.tags != ["suspended"]:
            self._statement(state, step, step.statements[0], step.tags[0] if step.tags else None, answered)

    def _query(self, state: _State, step: Asked, answered: bool) -> None:
        statements = step.statements or ((Statement("other", ""),) if step.message == "FunctionCall" else ())
        done = len(step.tags) if answered and step.failure is not None else len(statements)
        for place, statement in enumerate(statements[:done]):
            tag = step.tags[place] if place < len(step.tags) else None
            self._statement(state, step, statement, tag, answered)
        if step.failure is not None and answered:
            self._fail(state, step)
        self._ready(state, step, answered)

    def _begin(self, state: _State, step: Asked, *, explicit: bool) -> Transaction:
        if state.open is None:
            state.open = Transaction(step.connection, explicit)
        return state.open

    def _fail(self, state: _State, step: Asked) -> None:
        failed = self._begin(state, step, explicit=False)
        failed.aborted = True
        failed.steps.append(step)
        if any(one.commits for one in step.statements) and failed.explicit and len(step.statements) == 1:
            self._end(state, "rolled back", step)  # COMMIT failed

    def _statement(self, state: _State, step: Asked, asked: Statement, tag: str | None, answered: bool) -> None:
        kind = asked.kind
        if kind in ("commit", "rollback", "prepare transaction"):
            self._finish(state, step, asked, tag, answered)
        elif kind.endswith("prepared"):
            self._finish_prepared(state, step, asked, answered)
        else:
            transaction = self._begin(state, step, explicit=kind == "begin")
            transaction.explicit = transaction.explicit or kind == "begin"
            if not transaction.explicit:
                state.loose.add(kind)
            if not transaction.steps or transaction.steps[-1] is not step:
                transaction.steps.append(step)
            if kind == "rollback to":
                transaction.aborted = False
            if kind in ("quiet", "read", "write", "other") and changed_setting(step.sql, "synchronous_commit"):
                alone = re.match(r"\s*set\s+local\b", step.sql, re.IGNORECASE) is not None
                state.sets.append((step, alone))

    def _finish(self, state: _State, step: Asked, asked: Statement, tag: str | None, answered: bool) -> None:
        explicit = state.open is not None and state.open.explicit
        if state.open is not None:
            state.open.steps.append(step)
            if asked.kind == "rollback" or tag == "ROLLBACK" or (state.open.aborted and tag is None):
                outcome = "rolled back"
            elif not answered:
                outcome = "unanswered"
            else:
                outcome = "prepared" if asked.kind == "prepare transaction" else "committed"
            if asked.kind == "prepare transaction" and outcome != "rolled back":
                state.open.gid = asked.gid
                self._prepared[asked.gid] = state.open
            self._end(state, outcome, step)
        if asked.chain and explicit:
            self._begin(state, step, explicit=True)

    def _finish_prepared(self, state: _State, step: Asked, asked: Statement, answered: bool) -> None:
        prepared = self._prepared.pop(asked.gid, None)
        if prepared is None:
            prepared = Transaction(step.connection, explicit=True, gid=asked.gid, unknown="it was prepared before")
            self._conversation.transactions.append(prepared)
        prepared.steps.append(step)
        prepared.end = step
        if asked.kind == "rollback prepared":
            prepared.outcome = "rolled back" if answered else "unanswered"
        else:
            prepared.outcome = _heard("committed" if answered else "unanswered", step)

    def _ready(self, state: _State, step: Asked, answered: bool) -> None:
        """What has no BEGIN ends here; what has one may turn out to be aborted, or over."""
        transaction = state.open
        if transaction is None:
            return
        if step.failure is not None and answered:
            transaction.aborted = True
        if transaction.explicit:
            if step.state == "I":  # a procedure, or a statement that we have not understood, has ended it
                transaction.unknown = "it ended by other means than COMMIT and ROLLBACK"
                self._end(state, "unanswered", step)
            else:
                transaction.aborted = step.state == "E" or (transaction.aborted and not step.state)
            return
        if transaction.aborted:
            self._end(state, "rolled back", step)
        else:
            self._end(state, "committed" if answered else "unanswered", step)

    def _end(self, state: _State, outcome: str, step: Asked | None) -> None:
        transaction = state.open
        assert transaction is not None
        state.open = None
        transaction.outcome = outcome if step is None else _heard(outcome, step)
        transaction.end = step
        own = [by for by, _ in state.sets]
        if step is not None:
            transaction.xid, transaction.sync, transaction.lsn = step.xid, step.sync, step.lsn
            transaction.wrote = step.wrote
            if step.wrote is False and any(map(_changes_catalogs, transaction.steps)):
                transaction.wrote = True  # catalogs are logged, and most locks of them are gone by then
        if not transaction.sync:
            transaction.unknown = transaction.unknown or (step.unknown if step is not None else "") or NOT_ASKED
        elif step is not None and step.unknown:
            transaction.unknown = step.unknown
        kinds = {one.kind for step in transaction.steps for one in step.statements if step.message != "Parse"}
        if "call" in state.loose or ("other" in state.loose and transaction.xid is None):
            transaction.unknown = transaction.unknown or ON_ITS_OWN
        state.loose.clear()
        transaction.sync_set_by = own[-1] if own else state.set_by
        if outcome not in ("rolled back", "open"):
            state.set_by = next((by for by, alone in reversed(state.sets) if not alone), state.set_by)
        state.sets.clear()
        # One that AND CHAIN has begun, and nobody has used, has no step
        if transaction.steps and (transaction.explicit or kinds - {"quiet", "nothing"}):
            self._conversation.transactions.append(transaction)


def _changes_catalogs(step: Asked) -> bool:
    """Whether a command's tag says that it changed a catalog; where it may have found nothing to do it does not."""
    return not _MAYBE.search(step.sql) and any(tag.split(" ")[0] in _OF_CATALOGS for tag in step.tags)


def _heard(outcome: str, step: Asked) -> str:
    return "unheard" if outcome in ("committed", "prepared") and not step.heard else outcome
