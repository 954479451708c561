"""Does a connection come out the same however its bytes were cut up, and is our own question unseen?

The server here is a script: answers as PostgreSQL gives them, message by message.
"""

import itertools
import struct
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from crashlab.observer import probe
from crashlab.observer.machine import Machine
from crashlab.observer.messages import message
from crashlab.observer.moment import Gate, Moment
from tests.observer import wire

LOGIN = b"".join(
    [
        message(b"R", bytes(4)),
        message(b"S", b"server_version\x0018.6\0"),
        message(b"S", b"client_encoding\x00UTF8\0"),
        message(b"K", struct.pack("!II", 77, 5)),
        message(b"Z", b"I"),
    ]
)
SSL, GSS = (struct.pack("!II", 8, code) for code in (80877103, 80877104))
HELLO = wire.startup("u", "d", {})


def row(*values: str | None) -> bytes:
    cells = [struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v.encode() for v in values]
    return message(b"D", struct.pack("!H", len(values)) + b"".join(cells))


def tag(text: str) -> bytes:
    return message(b"C", text.encode() + b"\0")


def ready(state: str) -> bytes:
    return message(b"Z", state.encode())


def error(code: str, text: str = "no", severity: str = "ERROR", position: int = 0) -> bytes:
    fields = f"S{severity}\0V{severity}\0C{code}\0M{text}\0" + (f"P{position}\0" if position else "")
    return message(b"E", fields.encode() + b"\0")


FACTS = row("789", "on", "0/1")
ASKED = message(b"1") + message(b"2") + FACTS + tag("SELECT 1") + message(b"3") * 2
OURS = message(b"T", b"\0\3" + probe.COLUMN + b"\0") + FACTS + tag("SELECT 1")


def logged_in(gate: Gate | None = None) -> Machine:
    machine = Machine(gate or Gate())
    machine.from_client(HELLO)
    machine.from_server(LOGIN)
    for out in (machine.to_client, machine.to_server, machine.events):
        out.clear()
    return machine


def said(machine: Machine, data: bytes) -> bytes:
    """What goes to the server when the client says something."""
    machine.to_server.clear()
    machine.from_client(data)
    return bytes(machine.to_server)


def heard(machine: Machine, data: bytes) -> bytes:
    """What the client hears when the server says something."""
    machine.to_client.clear()
    machine.from_server(data)
    return bytes(machine.to_client)


def facts_of(machine: Machine) -> list[object]:
    return [event["xid"] for event in machine.events if event["kind"] == "probed"]


def test_encryption_is_declined_and_the_rest_passed_through():
    """SSLRequest and GSSENCRequest are answered 'N'; login, passwords included, is passed on untouched."""
    machine = Machine(Gate())
    machine.from_client(SSL + GSS)
    assert bytes(machine.to_client) == b"NN"
    assert not machine.wants_server
    assert said(machine, HELLO) == HELLO
    assert machine.wants_server
    sasl = message(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0")
    assert heard(machine, sasl) == sasl
    password = message(b"p", b"SCRAM-SHA-256\0")
    assert said(machine, password) == password
    assert heard(machine, LOGIN) == LOGIN
    assert [event["kind"] for event in machine.events] == ["open", "process", "login"]


def test_newer_protocol_and_longer_keys():
    """Protocol 3.2 is passed on as it is: NegotiateProtocolVersion, and a key of any length."""
    machine = Machine(Gate())
    hello = wire.startup("u", "d", {}, wire.PROTOCOL_3_2)
    assert said(machine, hello) == hello
    answer = message(b"v", struct.pack("!II", 0, 0)) + message(b"K", struct.pack("!I", 77) + bytes(60)) + ready("I")
    assert heard(machine, answer) == answer
    assert machine.events[0]["protocol"] == "3.2"
    canceller = Machine(Gate())
    cancel = struct.pack("!III", 12 + 60, 80877102, 77) + bytes(60)
    assert said(canceller, cancel) == cancel
    assert canceller.events[0] == {"kind": "cancel", "connection": 0, "process": 77}
    assert canceller.number == 0


def test_a_replication_connection_is_not_looked_into():
    """Whatever is said on it goes through, both ways."""
    machine = Machine(Gate())
    machine.from_client(wire.startup("u", "d", {"replication": "database"}))
    assert heard(machine, b"anything at all") == b"anything at all"
    assert said(machine, b"COMMIT") == b"COMMIT"


def test_simple_commit_is_asked_in_front_of():
    """BEGIN goes as it is; in front of COMMIT goes our own question, and its answer does not reach the client."""
    machine = logged_in()
    assert said(machine, wire.query("BEGIN")) == wire.query("BEGIN")
    assert heard(machine, tag("BEGIN") + ready("T")) == tag("BEGIN") + ready("T")
    assert said(machine, wire.query("COMMIT")) == probe.ASK_AND_SYNC + wire.query("COMMIT")
    assert heard(machine, ASKED + ready("T")) == b""
    assert heard(machine, tag("COMMIT") + ready("I")) == tag("COMMIT") + ready("I")
    assert facts_of(machine) == [789]


def test_a_failed_transaction_is_not_asked():
    """Our statement would be an error there."""
    machine = logged_in()
    said(machine, wire.query("BEGIN"))
    heard(machine, tag("BEGIN") + ready("T"))
    said(machine, wire.query("SELECT 1/0"))
    heard(machine, error("22012") + ready("E"))
    assert said(machine, wire.query("COMMIT")) == wire.query("COMMIT")
    heard(machine, tag("ROLLBACK") + ready("I"))


def test_implicit_commit_of_the_simple_protocol():
    """Our question is in the same message, and the client hears of its own statement only, and of that in time."""
    machine = logged_in()
    sql = "INSERT INTO t VALUES (1) -- why"
    assert said(machine, wire.query(sql)) == message(b"Q", sql.encode() + probe.APPENDED + b"\0")
    assert heard(machine, tag("INSERT 0 1")) == b""  # it has not committed yet
    assert heard(machine, OURS + ready("I")) == tag("INSERT 0 1") + ready("I")
    assert facts_of(machine) == [789]
    said(machine, wire.query("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)"))
    assert heard(machine, tag("INSERT 0 1")) == tag("INSERT 0 1")  # natively it comes before the commit, too
    assert heard(machine, tag("INSERT 0 1") + OURS + ready("I")) == tag("INSERT 0 1") + ready("I")
    said(machine, wire.query(sql))
    failed = error("23505") + ready("I")
    assert heard(machine, tag("INSERT 0 1") + OURS + failed) == failed  # a deferred constraint


def test_an_error_that_our_addition_caused_is_not_the_clients():
    """A statement without its end goes once more, alone, so that the message is the client's own."""
    machine = logged_in()
    sql = "SELECT (1"
    machine.to_server.clear()
    machine.from_client(wire.query(sql))
    machine.to_server.clear()
    assert heard(machine, error("42601", 'syntax error at or near ";"', position=len(sql) + 2) + ready("I")) == b""
    assert bytes(machine.to_server) == wire.query(sql)
    own = error("42601", "syntax error at end of input", position=len(sql) + 1) + ready("I")
    assert heard(machine, own) == own


def test_implicit_commit_of_a_pipeline():
    """In front of the Sync goes our question, with a Flush: a Sync of our own would end the client's transaction."""
    machine = logged_in()
    insert = wire.whole("INSERT INTO t VALUES (1)")
    assert said(machine, insert + wire.SYNC) == insert + probe.ASK_AND_FLUSH + wire.SYNC
    answer = message(b"1") + message(b"2") + message(b"n") + tag("INSERT 0 1")
    assert heard(machine, answer + ASKED + ready("I")) == answer + ready("I")
    assert facts_of(machine) == [789]
    for quiet in (wire.parse("SELECT 1") + wire.SYNC, wire.whole("") + wire.whole("COMMIT") + wire.SYNC):
        assert said(machine, quiet) == quiet  # nothing was executed


def test_a_query_behind_messages_that_wait_for_a_sync():
    """As asyncpg does, which prepares with a Flush: nothing of ours ends what the client has not ended."""
    machine = logged_in()
    said(machine, wire.parse("SELECT 1") + wire.FLUSH)
    assert said(machine, wire.query("COPY t FROM STDIN")).endswith(probe.APPENDED + b"\0")
    machine = logged_in()
    said(machine, wire.query("BEGIN"))
    heard(machine, tag("BEGIN") + ready("T"))
    said(machine, wire.parse("SELECT 1") + wire.FLUSH)
    assert said(machine, wire.query("COMMIT")) == probe.ASK_AND_FLUSH + wire.query("COMMIT")


def test_an_error_in_a_pipeline_skips_our_question_too():
    """What the server ignores gets no answer, ours neither; the next Sync sets everything right again."""
    machine = logged_in()
    said(machine, wire.whole("INSERT INTO t VALUES (1)") + wire.whole("INSERT INTO t VALUES (2)") + wire.SYNC)
    failed = message(b"1") + message(b"2") + message(b"n") + error("23505") + ready("I")
    assert heard(machine, failed) == failed
    assert facts_of(machine) == []
    assert not machine.pending
    commit = wire.whole("SELECT 2") + wire.SYNC
    assert said(machine, commit) == wire.whole("SELECT 2") + probe.ASK_AND_FLUSH + wire.SYNC


def test_commit_waits_for_the_state_of_a_transaction_that_may_have_failed():
    """Were it asked in a failed transaction, the server would ignore the client's COMMIT, which is to roll back."""
    machine = logged_in()
    begin = wire.whole("BEGIN") + wire.SYNC + wire.whole("SELECT 1/0") + wire.SYNC
    commit = wire.parse("COMMIT") + wire.bind() + wire.execute() + wire.SYNC
    assert said(machine, begin + commit) == begin + wire.parse("COMMIT") + wire.bind()
    machine.to_server.clear()
    answer = message(b"1") + message(b"2") + message(b"n") + tag("BEGIN") + ready("T")
    assert heard(machine, answer + message(b"1") + error("22012") + ready("E"))
    assert bytes(machine.to_server) == wire.execute() + wire.SYNC


def test_what_waits_is_not_asked_if_the_server_ignores_it_by_then():
    """Our question would get no answer, and all behind it would wait for one."""
    machine = logged_in()
    begin = wire.whole("BEGIN") + wire.SYNC + wire.parse("SELEC") + wire.FLUSH
    assert said(machine, begin + wire.query("COMMIT") + wire.SYNC) == begin
    machine.to_server.clear()
    begun = message(b"1") + message(b"2") + message(b"n") + tag("BEGIN") + ready("T")
    heard(machine, begun + error("42601"))
    assert bytes(machine.to_server) == wire.query("COMMIT") + wire.SYNC
    assert heard(machine, ready("E")) == ready("E")
    assert not machine.pending


def test_the_sync_that_copy_ignores():
    """libpq sends one with the statement: once the server copies, only that behind the rows is answered."""
    machine = logged_in()
    copy = wire.whole("COPY t FROM STDIN") + wire.SYNC
    assert said(machine, copy) == copy
    begun = message(b"1") + message(b"2") + message(b"n") + message(b"G", b"\0\0\0")
    assert heard(machine, begun) == begun
    rows = wire.copy_data("1\n") + wire.COPY_DONE
    assert said(machine, rows + wire.SYNC) == rows + probe.ASK_AND_FLUSH + wire.SYNC
    assert heard(machine, tag("COPY 1") + ASKED + ready("I")) == tag("COPY 1") + ready("I")
    assert not machine.pending


def test_unheard_keeps_back_the_answer_and_before_the_question():
    """And `go` gives back both."""
    commit = tag("COMMIT") + ready("I")
    for phase in ("before", "unheard", "answered"):
        gate = Gate()
        machine = logged_in(gate)
        gate.arm(Moment.parse(f"1:commit:1:{phase}"))
        said(machine, wire.query("BEGIN"))
        heard(machine, tag("BEGIN") + ready("T"))
        assert said(machine, wire.query("COMMIT")) == probe.ASK_AND_SYNC
        machine.to_server.clear()
        assert heard(machine, ASKED + ready("T")) == b""
        assert bytes(machine.to_server) == (b"" if phase == "before" else wire.query("COMMIT"))
        assert gate.stopped == (phase == "before")
        if phase != "before":
            assert heard(machine, commit) == (commit if phase == "answered" else b"")
        assert gate.stopped
        assert said(machine, wire.query("SELECT 1")) == b""
        gate.stopped = False
        machine.to_client.clear()
        machine.go()
        if phase == "before":
            assert bytes(machine.to_server).startswith(wire.query("COMMIT"))
        else:
            assert bytes(machine.to_client) == (b"" if phase == "answered" else commit)
            assert bytes(machine.to_server) == message(b"Q", b"SELECT 1" + probe.APPENDED + b"\0")


def test_a_fatal_error_instead_of_our_answer_is_the_clients():
    """A server that is being shut down may say so at any time."""
    machine = logged_in()
    said(machine, wire.query("BEGIN"))
    heard(machine, tag("BEGIN") + ready("T"))
    said(machine, wire.query("COMMIT"))
    last = error("57P01", severity="FATAL")
    assert heard(machine, last) == last


# However it is cut up

TALK: list[tuple[str, bytes]] = [
    ("client", SSL + HELLO),
    ("server", LOGIN),
    ("client", wire.query("INSERT INTO t VALUES (1)")),
    ("server", tag("INSERT 0 1") + OURS + ready("I")),
    ("client", wire.whole("BEGIN") + wire.whole("SELECT v FROM t") + wire.whole("COMMIT") + wire.SYNC),
    ("server", message(b"1") + message(b"2") + message(b"n") + tag("BEGIN")),
    ("server", message(b"1") + message(b"2") + message(b"T", b"\0\1v\0") + row("1") * 3 + tag("SELECT 3")),
    ("server", message(b"1") + message(b"2") + message(b"n") + ASKED),
    ("server", tag("COMMIT") + ready("I")),
    ("client", wire.query("COPY t FROM STDIN")),
    ("server", message(b"G", b"\0\0\0")),
    ("client", wire.copy_data("2\n") + wire.copy_data("3\n") + wire.COPY_DONE),
    ("server", message(b"N", b"\0") + tag("COPY 2") + OURS + ready("I")),
    ("client", wire.query("SELECT (1")),
    ("server", error("42601", 'near ";"', position=11) + ready("I")),
    ("server", error("42601", "at end of input", position=10) + ready("I")),
    ("client", wire.TERMINATE),
]


def play(cut: Callable[[bytes], list[bytes]], moment: str | None) -> tuple[bytes, bytes, list[dict[str, object]]]:
    gate = Gate()
    gate.arm(None if moment is None else Moment.parse(moment))
    machine = Machine(gate)
    for who, data in TALK:
        for piece in cut(data):
            (machine.from_client if who == "client" else machine.from_server)(piece)
        if gate.stopped:
            gate.stopped = False
            machine.go()
    return bytes(machine.to_client), bytes(machine.to_server), machine.events


@given(
    st.randoms(use_true_random=False),
    st.none()
    | st.builds("1:{}:{}:{}".format, st.sampled_from(["message", "commit"]), st.integers(1, 9), st.just("unheard")),
)
def test_pieces_make_no_difference(random, moment):
    """Bytes and events are those of whole pieces, wherever the pieces end, with a moment in it and without."""

    def cut(data: bytes) -> list[bytes]:
        ends = sorted({random.randrange(len(data) + 1) for _ in range(random.randrange(12))} | {0, len(data)})
        return [data[begin:end] for begin, end in itertools.pairwise(ends)]

    assert play(cut, moment) == play(lambda data: [data], moment)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([data for _, data in TALK]), max_size=12))
def test_no_bytes_upset_it(pieces):
    """A client that talks nonsense is passed on or waited for, and never an exception."""
    machine = Machine(Gate())
    machine.from_client(HELLO)
    for place, piece in enumerate(pieces):
        machine.from_client(piece) if place % 2 else machine.from_server(LOGIN)
