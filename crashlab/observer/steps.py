"""What has a client asked that is not answered yet, and in which state will the session be once it is?

The server says the state of the transaction only with ReadyForQuery. In between, in a pipeline above all, it has to be
foreseen from what was sent; whatever the server says then is right.
"""

import re
from dataclasses import dataclass, field

from crashlab.observer.moment import Phase
from crashlab.observer.probe import VERSION_MIN, Facts, Probe
from crashlab.observer.statements import Statement

NAMES = {
    "Q": "Query",
    "P": "Parse",
    "B": "Bind",
    "D": "Describe",
    "E": "Execute",
    "C": "Close",
    "S": "Sync",
    "F": "FunctionCall",
    "c": "CopyDone",
    "f": "CopyFail",
}
"""Of the client's messages that are answered."""
WORKS = ("read", "write", "call", "other")
"""Kinds of statements that may leave something to commit."""
READY = ("login", "Q", "F", "S")
"""Whose answer ends with ReadyForQuery."""


@dataclass(slots=True)
class Step:
    """One message of a client that is answered, and what came back so far."""

    number: int  # on its connection
    kind: str  # its type's letter, or "login"
    body: bytes = b""
    statements: tuple[Statement, ...] = ()
    place: int = 0  # of the connection, in order of appearance
    message_number: int = 0
    statement_number: int = 0
    commit_number: int = 0
    may_commit: bool = False
    asks: str = ""  # whether a probe goes "ahead" of it or is "appended" to it
    unknown: str = ""  # why its transaction id cannot be learned
    probe: Probe | None = None
    facts: Facts | None = None
    phase: Phase | None = None  # in which to stop
    tags: list[str] = field(default_factory=list)
    failure: tuple[str, str, str] | None = None  # severity, SQLSTATE, message
    again: bool = False  # its message goes once more, without the addition
    riders: list["Step"] = field(default_factory=list)  # CopyDone of this COPY: answered with it

    @property
    def ends_ready(self) -> bool:
        """Its answer ends with ReadyForQuery."""
        return self.kind in READY

    @property
    def waits_for_rows(self) -> bool:
        """It copies from the client, and the end of the rows has not been sent."""
        return (self.kind == "Q" or (self.kind == "E" and not self.riders)) and any(
            one.copies_in for one in self.statements
        )

    @property
    def counts(self) -> bool:
        """It is a commit, as far as can be known when it is sent."""
        if not self.may_commit:
            return False
        if self.probe is None or not self.probe.done:
            return self.asks != "ahead" and (self.kind != "Q" or any(s.kind != "read" for s in self.statements))
        return self.probe.facts is not None and self.probe.facts.xid is not None


@dataclass
class Session:
    """What is foreseen about a session, and the names that its client has given."""

    state: str = "I"  # as in ReadyForQuery, once all that was sent is done
    implicit: list[Statement] = field(default_factory=list)  # executed since, and committed by the next Sync
    since_ready: list[Statement] = field(default_factory=list)  # sent behind the last message that ends ready
    open_segment: bool = False  # messages of the extended protocol are waiting for their Sync
    copies: bool = False  # COPY FROM STDIN was executed, and CopyDone not sent
    prepared: dict[bytes, Statement] = field(default_factory=dict)
    portals: dict[bytes, Statement] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)  # as the server reported them
    can_ask: bool = False  # its version knows what a probe asks

    def report(self, name: str, value: str) -> None:
        """Take a ParameterStatus."""
        self.parameters[name] = value
        if name == "server_version":
            digits = re.match(r"\d*", value)
            self.can_ask = digits is not None and int(digits[0] or 0) >= VERSION_MIN

    def apply(self, statement: Statement, *, extended: bool) -> None:
        """Foresee what a statement does, unless it fails."""
        kind, before = statement.kind, self.state
        if kind == "begin":
            self.state = "T" if before == "I" else before
            self.implicit.clear()
        elif kind in ("commit", "rollback", "prepare transaction"):
            self.state = "T" if statement.chain and before != "I" else "I"
            self.implicit.clear()
        elif kind == "rollback to":
            self.state = "T" if before == "E" else before
        elif extended and before == "I" and (kind == "quiet" or kind in WORKS):
            self.implicit.append(statement)

    def ready(self, state: str, *, last: bool) -> None:
        """Take what the server says; `last`: nothing sent later ends ready."""
        if last:
            self.state = state
            self.copies = False
            self.implicit.clear()
            for statement in self.since_ready:
                self.apply(statement, extended=True)
