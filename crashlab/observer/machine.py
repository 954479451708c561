"""What happens on one connection, byte for byte, without any input or output of its own?

`from_client` and `from_server` take bytes as they come; what is to be sent lies in `to_server` and `to_client`
afterwards, and what was learned in `events`, which are to be written down first. However the bytes were cut up, the
result is the same.

Where the moment comes that the gate waits for, the gate stops, for all connections: whatever arrives is kept, and
nothing is passed on. That is the "before" of one message, or behind its answer, which is kept back if it is to be
unheard.

Not looked into: replication connections, and what follows a request to cancel. Requests for SSL and GSS encryption are
declined, as by a server that was built without.
"""

import struct
from collections import deque
from typing import Any

from crashlab.observer import answers, probe
from crashlab.observer.messages import (
    CANCEL_REQUEST,
    GSS_REQUEST,
    SSL_REQUEST,
    STARTUP_BYTES_MAX,
    c_strings,
    message,
    read_startup,
)
from crashlab.observer.moment import Gate, Unit
from crashlab.observer.probe import Probe
from crashlab.observer.statements import UNSAFE_ENCODINGS, Statement, statements_of
from crashlab.observer.steps import NAMES, WORKS, Session, Step

NO_REPLICATION = ("", "false", "off", "no", "0")
SQL_CHARACTERS_MAX = 2000
"""Of a message that goes into the conversation."""


class Machine:
    """One connection. A connection that only declined encryption or asks to cancel has no number."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.number = 0
        self.to_client = bytearray()
        self.to_server = bytearray()
        self.events: list[dict[str, Any]] = []
        self.wants_server = False  # what it sends needs a connection to the server
        self.ends = False  # the client is to be sent away
        self.session = Session()
        self.pending: deque[Step | Probe] = deque()  # sent and not answered
        self.skipping = False  # the server ignores everything up to the next Sync
        self.copying = False  # it waits for rows
        self.unheard = bytearray()  # an answer that is kept back
        self._starting = True
        self.blind = False
        self._client = bytearray()
        self._inbox: deque[tuple[str, bytes]] = deque()  # of the client, not passed on
        self._front: Step | None = None  # what the first of them asks
        self._looked = False
        self._hold: Step | Probe | None = None  # until it is answered, nothing of the client is passed on
        self._steps = 0
        self._answers = answers.Answers(self)

    # What comes in

    def from_client(self, data: bytes) -> None:
        """Take bytes of the client."""
        self._client += data
        if not self.gate.stopped:
            self._read_client()

    def from_server(self, data: bytes) -> None:
        """Take bytes of the server."""
        self._answers.buffer += data
        if not self.gate.stopped:
            self._read_server()

    def go(self) -> None:
        """Go on after the gate stopped and was opened again."""
        self.to_client += self.unheard
        self.unheard.clear()
        self._read_server()
        if not self.gate.stopped:
            self._read_client()

    def event(self, kind: str, **facts: object) -> None:
        """Note something for the conversation."""
        self.events.append({"kind": kind, "connection": self.number, **facts})

    # The client's side

    def _read_server(self) -> None:
        if self.blind:
            self.to_client += self._answers.buffer
            self._answers.buffer.clear()
            return
        self._answers.read()
        self._pump()

    def _read_client(self) -> None:
        while self._starting and not self.ends:
            if not self._read_startup():
                return
        if self.blind:
            self.to_server += self._client
            self._client.clear()
            return
        buffer, at = self._client, 0
        while len(buffer) - at >= 5:
            end = at + 1 + int.from_bytes(buffer[at + 1 : at + 5], "big")
            if end > len(buffer):
                break
            self._inbox.append((chr(buffer[at]), bytes(buffer[at + 5 : end])))
            at = max(end, at + 5)
        del buffer[:at]
        self._pump()

    def _read_startup(self) -> bool:
        """Read the next message without a type. False: it is not complete."""
        buffer = self._client
        if len(buffer) < 8:
            return False
        length, code = struct.unpack_from("!II", buffer)
        if not 8 <= length <= STARTUP_BYTES_MAX:  # as one that speaks TLS at once
            self.ends = True
            return False
        if len(buffer) < length:
            return False
        packet = bytes(buffer[:length])
        del buffer[:length]
        if code in (SSL_REQUEST, GSS_REQUEST):
            self.to_client += b"N"
            return True
        self._starting, self.wants_server = False, True
        self.to_server += packet
        if code == CANCEL_REQUEST:
            self.blind = True
            self.event("cancel", process=int.from_bytes(packet[8:12], "big"))
            return True
        self._open(code, packet[8:])
        return True

    def _open(self, code: int, body: bytes) -> None:
        parameters = read_startup(body)
        self.number = self.gate.next_connection()
        self.blind = code >> 16 != 3 or parameters.get("replication", "").lower() not in NO_REPLICATION
        self.event("open", protocol=f"{code >> 16}.{code & 0xFFFF}", parameters=parameters, blind=self.blind)
        self.pending.append(Step(0, "login"))

    def _pump(self) -> None:
        """Pass on what the client has sent, as far as that may be."""
        while self._inbox and not self.gate.stopped and (self._hold is None or self.copying or not self._held()):
            if not self._looked:
                self._front, self._looked = self._look(*self._inbox[0]), True
            step = self._front
            if step is not None and not self._may_go(step):
                return
            kind, body = self._inbox.popleft()
            self._front, self._looked = None, False
            self._send(kind, body, step)

    def _held(self) -> bool:
        hold = self._hold
        if hold is not None and (hold.done if isinstance(hold, Probe) else hold not in self.pending):
            self._hold = None
        return self._hold is not None

    def _look(self, kind: str, body: bytes) -> Step | None:
        """Say what a message asks; None: nothing, such as a row of COPY, or a password."""
        if kind not in NAMES:
            return None
        self._steps += 1
        step = Step(self._steps, kind, body)
        if kind in "BDC":  # most messages; they say nothing about a commit
            step.place, step.message_number = self._count(step, "message")
            return step
        if kind == "Q":
            step.statements = self._read_sql(body[:-1])
            self._look_at_query(step)
        elif kind == "E":
            portal = c_strings(body, 1)[0]
            step.statements = (self.session.portals.get(portal, Statement("other", "")),)
        elif kind == "P":
            _, sql = c_strings(body, 2)
            step.statements = self._read_sql(sql)
        elif kind == "F":
            step.may_commit, step.unknown = self.session.state == "I", "a function call has no text to ask with"
        if not self.skipping:
            self._look_for_commit(step)
        step.place, step.message_number = self._count(step, "message")
        if kind in "QEF":
            _, step.statement_number = self._count(step, "statement")
        return step

    def _count(self, step: Step, unit: Unit) -> tuple[int, int]:
        place, number = self.gate.count(self.number, unit)
        if self.gate.armed is not None:
            step.phase = step.phase or self.gate.phase(self.number, unit, number)
        return place, number

    def count_commit(self, step: Step) -> None:
        """Number a step that turned out to be a commit."""
        if step.counts and not step.commit_number:
            _, step.commit_number = self._count(step, "commit")

    def _read_sql(self, sql: bytes) -> tuple[Statement, ...]:
        standard = self.session.parameters.get("standard_conforming_strings", "on") == "on"
        return statements_of(sql.decode("latin-1"), standard_strings=standard)

    def _look_at_query(self, step: Step) -> None:
        """Decide about a message of the simple protocol."""
        state, statements = self.session.state, step.statements
        commits = any(one.commits for one in statements)
        if state == "T" and commits:
            step.may_commit = True
            step.asks = "ahead" if self.session.can_ask else ""
            if len(statements) > 1:
                step.unknown = "COMMIT is one of several statements of a message"
        elif state == "I" and statements:
            control = [one for one in statements if one.kind not in ("quiet", *WORKS)]
            writes = [one for one in statements if one.kind in WORKS]
            lone = len(statements) == 1 and control and not statements[0].kind.endswith("prepared")
            step.may_commit = bool(writes) or (bool(control) and not lone)
            if statements[0].kind == "rollback prepared" and len(statements) == 1:
                step.may_commit = False
            if not step.may_commit:
                return
            if control:
                step.unknown = "the transaction begins and ends in one message"
            elif not all(one.company for one in statements):
                step.unknown = "the statement may not share its message with another one"
            elif self.session.can_ask and not self._odd_encoding():
                step.asks = "appended"

    def _odd_encoding(self) -> bool:
        return self.session.parameters.get("client_encoding", "UTF8").upper() in UNSAFE_ENCODINGS

    def _look_for_commit(self, step: Step) -> None:
        """Decide about a message of the extended protocol."""
        session = self.session
        ask = "ahead" if self.session.can_ask and not session.copies else ""
        if step.kind == "E":
            asked = step.statements[0].kind
            if asked in ("commit", "prepare transaction") and (session.state == "T" or session.implicit):
                # Behind what has committed on its own, our statement would be the first of a transaction.
                alone = session.state == "I" and session.implicit[-1].kind in ("call", "other")
                step.may_commit, step.asks = True, "" if alone else ask
            elif asked in ("commit prepared", "call", "other"):  # a procedure may commit, and so does VACUUM
                step.may_commit = session.state == "I"
        elif step.kind == "S" and session.state == "I" and session.implicit and not session.copies:
            step.may_commit = any(one.kind in WORKS for one in session.implicit)
            step.asks = ask if step.may_commit else ""

    def _may_go(self, step: Step) -> bool:
        """Say whether a message may be passed on now; ask the server in front of it what is to be known."""
        if step.probe is None and step.kind == "E":  # what was foreseen when this was looked at may have come otherwise
            step.asks, step.may_commit = "", False
            if not self.skipping:
                self._look_for_commit(step)
        if step.asks == "ahead" and step.probe is None and not self.skipping:
            # Within what waits for its Sync, a Sync of our own would end what the client has not ended.
            extended = step.kind != "Q" or self.session.open_segment
            if extended and step.kind != "S" and any(one.ends_ready for one in self.pending if isinstance(one, Step)):
                # Should the transaction have failed, our own statement would fail too, and the server would
                # then ignore the client's ROLLBACK.
                return False
            step.probe = Probe(step.number, synced=not extended)
            self.to_server += probe.ASK_AND_FLUSH if extended else probe.ASK_AND_SYNC
            self.pending.append(step.probe)
            self._answers.asking[step.number] = step
            if self.gate.watches_commits():
                self._hold = step.probe
                return False
        if self.gate.watches_commits():
            self.count_commit(step)
        if step.phase == "before":
            step.phase = None
            self.reach(step, "before")
            return False
        return True

    def reach(self, step: Step, phase: str) -> None:
        """Stop here."""
        self.gate.stop()
        self.event("reached", phase=phase, **self._facts(step))

    def _facts(self, step: Step) -> dict[str, object]:
        return {
            "step": step.number,
            "message": NAMES[step.kind],
            "sql": self._text(step),
            "statements": [[one.kind, one.gid, one.chain] for one in step.statements],
            "epoch": self.gate.epoch,
            "at": [step.place, step.message_number, step.statement_number],
            "may_commit": step.may_commit,
            "unknown": step.unknown if not step.asks or len(step.statements) > 1 else "",
        }

    def _send(self, kind: str, body: bytes, step: Step | None) -> None:
        raw = message(kind.encode("latin-1"), body)
        if step is None:
            self.to_server += raw
            if kind == "X":
                self.event("leaves")
            return
        if step.asks == "appended":
            raw = message(b"Q", body[:-1] + probe.APPENDED + b"\0")
        self.to_server += raw
        self.event("asked", **self._facts(step))
        if self.skipping and kind != "S":
            self.event("skipped", step=step.number)
            return
        self._expect(kind, body, step)
        if step.phase is not None:
            if kind not in "QSFcf":
                self.to_server += message(b"H")  # else the server keeps the answer to itself
            self._hold = step
        elif step.asks == "appended":
            self._hold = step  # it may have to go again

    def _text(self, step: Step) -> str:
        if step.kind == "Q":
            sql = step.body[:-1]
        elif step.kind == "P":
            sql = c_strings(step.body, 2)[1]
        elif step.kind == "E":
            sql = step.statements[0].text.encode("latin-1")
        else:
            return ""
        return sql[: 4 * SQL_CHARACTERS_MAX].decode(errors="replace")[:SQL_CHARACTERS_MAX]

    def _expect(self, kind: str, body: bytes, step: Step) -> None:
        """Note what the message will change, and that an answer will come."""
        session = self.session
        if kind in "cf":
            session.copies = self.copying = False
            for one in self.pending:
                if isinstance(one, Step) and one.waits_for_rows:
                    one.riders.append(step)
                    one.phase = one.phase or step.phase
                    if one.phase is not None:
                        self.to_server += message(b"H")
                    break
            return
        if kind == "S" and self.copying:
            self.event("skipped", step=step.number)
            return  # ignored by the server
        self.pending.append(step)
        session.open_segment = kind not in "QSF"
        if kind == "P":
            name = c_strings(body, 1)[0]
            session.prepared[name] = step.statements[0] if step.statements else Statement("nothing", "")
        elif kind == "B":
            portal, name = c_strings(body, 2)
            session.portals[portal] = session.prepared.get(name, Statement("other", ""))
        elif kind == "C":
            names = session.prepared if body[:1] == b"S" else session.portals
            names.pop(body[1:-1], None)
        elif kind == "E":
            session.copies = session.copies or step.statements[0].copies_in
            session.since_ready.append(step.statements[0])
            session.apply(step.statements[0], extended=True)
        elif kind in "QSF":
            self.skipping = self.skipping and kind != "S"
            if kind != "S" or not session.copies:  # else another Sync will follow the rows
                session.implicit.clear()
                session.since_ready.clear()
            for statement in step.statements:
                session.apply(statement, extended=False)
        if kind == "Q":
            session.prepared.pop(b"", None)
            session.portals.pop(b"", None)
