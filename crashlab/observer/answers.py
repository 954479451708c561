"""What does the server answer to what was asked, and what of it is the client's?

Answers come in the order of the messages. An error in the extended protocol answers all of them up to the next Sync:
the server ignores these. Rows are passed on in one piece, unread.

Source: the manual's "Message Flow"; PostgreSQL 18 postgres.c, PostgresMain and SocketBackend.
"""

from typing import TYPE_CHECKING

from crashlab.observer import probe
from crashlab.observer.messages import Failure, message, read_failure
from crashlab.observer.probe import Facts, Probe
from crashlab.observer.steps import Step

if TYPE_CHECKING:
    from crashlab.observer.machine import Machine

OURS = b"123DCZ"  # of what answers a probe, all but errors
ROWS = (ord("D"), ord("d"))
COPY_IN = ord("G")
ENDS = {"P": "1", "B": "2", "C": "3", "D": "Tn", "E": "CIs"}
"""Message of the extended protocol -> what ends its answer."""
SYNTAX_ERROR = "42601"


class Answers:
    """The server's half of a connection."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.buffer = bytearray()
        self.asking: dict[int, Step] = {}  # step number -> the step in front of which a probe was sent
        self._late = b""  # CommandComplete of a statement that has our addition behind it
        self._cutting = False  # what comes is the answer to the addition

    def read(self) -> None:
        """Read all whole messages, until the gate stops."""
        buffer, at, run = self.buffer, 0, 0
        gate, pending = self.machine.gate, self.machine.pending
        while len(buffer) - at >= 5 and not gate.stopped and not self.machine.blind:
            end = at + 1 + int.from_bytes(buffer[at + 1 : at + 5], "big")
            if end > len(buffer):
                break
            head = pending[0] if pending else None
            if isinstance(head, Probe):
                if buffer[at] in OURS:
                    self.machine.to_client += buffer[run:at]
                    self._take_probe(head, bytes(buffer[at : at + 1]), bytes(buffer[at + 5 : end]))
                    at = run = end
                    continue
            elif buffer[at] in ROWS and not self._cutting:
                at = end
                continue
            out = self._out()
            out += buffer[run:at]
            if buffer[at] == COPY_IN:  # no answer yet: the client is to send rows
                out = self.machine.to_client
            body = bytes(buffer[at + 5 : end])
            if self._take(chr(buffer[at]), body, out):
                out += buffer[at:end]
            at = run = end
        if at > run:
            self._out().extend(buffer[run:at])
        if self.machine.blind:
            self._out().extend(buffer[at:])
            at = len(buffer)
        del buffer[:at]

    def _out(self) -> bytearray:
        head = self.machine.pending[0] if self.machine.pending else None
        kept_back = isinstance(head, Step) and head.phase == "unheard"
        return self.machine.unheard if kept_back else self.machine.to_client

    def _take(self, kind: str, body: bytes, out: bytearray) -> bool:
        """Take one message. True: it is the client's."""
        machine = self.machine
        if kind in "NAS":
            if kind == "S":
                name, value, _ = body.split(b"\0", 2)
                machine.session.report(name.decode(errors="replace"), value.decode(errors="replace"))
            return True
        head = machine.pending[0] if machine.pending else None
        if isinstance(head, Probe):
            return self._fail_probe(head, body)
        if kind == "E":
            return self._fail(head, body)
        if kind == "Z":
            return self._ready(body[:1].decode(), out)
        if head is None or head.kind == "login":
            if kind == "K":
                machine.event("process", process=int.from_bytes(body[:4], "big"))
            return True
        if self._cutting or self._late:
            return self._cut(head, kind, body, out)
        return self._progress(head, kind, body)

    def _progress(self, head: Step, kind: str, body: bytes) -> bool:
        machine = self.machine
        if kind == "G":
            self._copy_begins(head)
        elif kind == "W":
            machine.blind = True
            machine.event("blind")
        elif head.kind == "Q":
            if kind == "T" and head.asks == "appended" and _is_ours(body):  # a message of rules alone, or comments
                self._cutting = True
                return False
            if kind in "CI":
                head.tags.append(body[:-1].decode(errors="replace") if kind == "C" else "")
                if kind == "C" and head.asks == "appended" and len(head.tags) >= len(head.statements):
                    self._late = message(b"C", body)
                    return False
        elif kind in ENDS.get(head.kind, ""):
            if kind == "C":
                head.tags.append(body[:-1].decode(errors="replace"))
                machine.copying = False
            elif kind in "sI" and head.kind == "E":
                head.tags.append("suspended" if kind == "s" else "")
            self._finish(head, "")
        return True

    def _cut(self, head: Step, kind: str, body: bytes, out: bytearray) -> bool:
        """Cut the answer to our addition out."""
        if not self._cutting:
            if kind == "T" and _is_ours(body):
                self._cutting = True
                return False
            out += self._late
            self._late = b""
            return self._progress(head, kind, body)
        if kind == "D":
            head.facts = Facts.read(body)
        elif kind == "C":
            self._cutting = False
        return False

    def _fail_probe(self, asked: Probe, body: bytes) -> bool:
        failure = read_failure(body)
        if failure.ends_connection:
            return True
        self.machine.event("unasked", step=asked.step, failure=list(failure[:3]))
        if not asked.synced:
            self._end_probe(asked)
            self._skip()
        return False

    def _take_probe(self, asked: Probe, kind: bytes, body: bytes) -> None:
        if asked.take(kind, body):
            if kind == b"Z":
                self.machine.session.ready(body[:1].decode(), last=not self._later_ready(1))
            self._end_probe(asked)

    def _end_probe(self, asked: Probe) -> None:
        machine = self.machine
        asked.done = True
        machine.pending.popleft()
        step = self.asking.pop(asked.step)
        step.facts = asked.facts
        self._note_facts(step)
        machine.count_commit(step)

    def _note_facts(self, step: Step) -> None:
        if step.facts is not None:
            facts = step.facts
            said = {"xid": facts.xid, "sync": facts.sync, "lsn": facts.lsn, "wrote": facts.wrote}
            self.machine.event("probed", step=step.number, **said)

    def _fail(self, head: Step | None, body: bytes) -> bool:
        machine = self.machine
        failure = read_failure(body)
        if head is None:
            machine.event("ended", failure=list(failure[:3]))
            return True
        if head.asks == "appended" and self._is_about_ours(head, failure):
            head.again = True
            return False
        head.failure = failure[:3]
        if self._late:
            head.tags.pop()  # without our addition, the server would have said the error alone
        self._late, self._cutting, machine.copying = b"", False, False
        if failure.ends_connection:
            self._finish(head, "")
        elif not head.ends_ready:
            self._finish(head, "")
            self._skip()
        return True

    def _is_about_ours(self, head: Step, failure: Failure) -> bool:
        """Say whether a syntax error comes from, or names, our addition; nothing was executed then."""
        if failure.code != SYNTAX_ERROR or head.tags:
            return False
        sql = head.body[:-1]
        utf8 = self.machine.session.parameters.get("client_encoding", "UTF8").upper() == "UTF8"
        characters = len(sql.decode(errors="replace")) if utf8 else len(sql)
        return failure.position > characters or probe.COLUMN.decode() in failure.message

    def _skip(self) -> None:
        """The server ignores what comes up to the next Sync."""
        machine = self.machine
        while machine.pending:
            one = machine.pending[0]
            if isinstance(one, Probe):
                if one.synced:
                    return
                self._end_probe(one)
                continue
            if one.ends_ready and one.kind == "S":
                return
            machine.pending.popleft()
            machine.event("skipped", step=one.number)
        machine.skipping = True

    def _copy_begins(self, head: Step) -> None:
        """While it reads rows, the server ignores a Sync: those that are on their way get no answer."""
        machine = self.machine
        rows_end = head.riders[0].number if head.riders and head.kind == "E" else None
        machine.copying = rows_end is None
        for one in list(machine.pending)[1:]:
            if isinstance(one, Step) and one.kind == "S" and (rows_end is None or one.number < rows_end):
                machine.pending.remove(one)
                machine.event("skipped", step=one.number)

    def _ready(self, state: str, out: bytearray) -> bool:
        machine = self.machine
        head = machine.pending[0] if machine.pending else None
        if isinstance(head, Step) and head.again:
            head.again, head.asks = False, ""
            machine.to_server += message(b"Q", head.body)
            return False
        out += self._late
        self._late = b""
        while isinstance(head, Step) and not head.ends_ready:  # a Sync that COPY ignored only in part
            machine.pending.popleft()
            machine.event("skipped", step=head.number)
            head = machine.pending[0] if machine.pending else None
        machine.copying = False
        if isinstance(head, Step):
            if head.asks == "appended":
                self._note_facts(head)
            self._finish(head, state)
        machine.session.ready(state, last=not self._later_ready(0))
        return True

    def _later_ready(self, begin: int) -> bool:
        later = list(self.machine.pending)[begin:]
        return any(one.synced if isinstance(one, Probe) else one.ends_ready for one in later)

    def _finish(self, head: Step, state: str) -> None:
        """A step has its whole answer."""
        machine = self.machine
        machine.pending.popleft()
        if head.kind == "login":
            machine.event("login", failure=head.failure)
            return
        machine.count_commit(head)
        heard = head.phase != "unheard"
        for step in (*head.riders, head):
            machine.event(
                "answered",
                step=step.number,
                tags=head.tags,
                failure=head.failure,
                state=state,
                commit=step.commit_number,
                heard=heard,
            )
        if head.phase is not None:
            machine.reach(head, head.phase)
            head.phase = None


def _is_ours(description: bytes) -> bool:
    return description[2 : 3 + len(probe.COLUMN)] == probe.COLUMN + b"\0"
