"""Is what the clients were told read back as it was written, and is damage told?"""

import copy
import itertools
import os
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashlab.errors import LedgerError
from crashlab.history import History, State, fold, read_ledger
from crashlab.ledger import SCHEMA, Ack, Begin, Header, Indeterminate, Intent, LedgerWriter, Prepared, Refused, Write
from crashlab.ledgercursor import LedgerCursor
from tests.examples import examples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBER = st.integers(0, 2**63 - 1)
WRITES = st.lists(
    st.builds(Write, TEXT, TEXT, st.integers(0, 2**40), st.none() | TEXT, st.sampled_from(["put", "append"])),
    max_size=3,
).map(tuple)
DETAILS = st.fixed_dictionaries(
    {
        "sync": st.sampled_from(["on", "off", "local", "remote_apply"]),
        "forced": st.booleans(),
        "xid": NUMBER,
        "writes": WRITES,
        "discarded": WRITES,
        "ticket": NUMBER,
        "insert_lsn": NUMBER,
        "write_lsn": NUMBER,
        "flush_lsn": NUMBER,
    }
)
NEXT = {
    State.UNSENT: ["commit", "prepare", "refused", "indeterminate", "stop"],
    State.INDETERMINATE: ["ack", "refused", "indeterminate", "stop"],
    State.PREPARING: ["prepared", "refused", "stop"],
    State.PREPARED: ["commit prepared", "rollback prepared", "stop"],
    State.COMMITTING_PREPARED: ["ack", "indeterminate", "stop"],
    State.ROLLING_BACK_PREPARED: ["ack", "stop"],
}
AFTER = {
    "commit": State.INDETERMINATE,
    "prepare": State.PREPARING,
    "commit prepared": State.COMMITTING_PREPARED,
    "rollback prepared": State.ROLLING_BACK_PREPARED,
    "prepared": State.PREPARED,
    "refused": State.REFUSED,
}


class Told:
    """What one transaction's history must read back as."""

    def __init__(self, client: int) -> None:
        self.client = client
        self.state = State.UNSENT
        self.intent: Intent | None = None
        self.intent_position = self.end_position = self.end_ns = 0


def write_one(data, writer: LedgerWriter, tx: int, told: Told) -> bool:
    """Write one more legal event of a transaction; False when there is none."""
    moves = NEXT.get(told.state, ["stop"])
    move = data.draw(st.sampled_from(moves))
    who: Any = {"tx": tx, "client": told.client, "at_ns": data.draw(NUMBER)}
    if move == "stop":
        return False
    if move in ("commit", "prepare", "commit prepared", "rollback prepared"):
        first = told.intent is None
        intent = Intent(
            **who, action=move, gid=f"g{tx}" if move != "commit" else "", **(data.draw(DETAILS) if first else {})
        )
        told.intent = told.intent or intent
        told.intent_position = writer.record(intent)
        told.state = AFTER[move]
        return True
    events: dict[str, Callable[[], Ack | Prepared | Refused | Indeterminate]] = {
        "ack": lambda: Ack(**who),
        "prepared": lambda: Prepared(**who),
        "refused": lambda: Refused(**who, reason="no", sqlstate="40001"),
        "indeterminate": lambda: Indeterminate(**who, reason="cut"),
    }
    position = writer.record(events[move]())
    told.end_ns = who["at_ns"]
    if move == "ack":
        told.state = State.REFUSED if told.state is State.ROLLING_BACK_PREPARED else State.ACKED
    else:
        told.state = AFTER.get(move, told.state)
    if told.state in (State.ACKED, State.REFUSED):
        told.end_position = position
    return move != "indeterminate"


def write_some(data, writer: LedgerWriter) -> dict[int, Told]:
    """Write interleaved transactions of several clients, in every state they can stop in."""
    told: dict[int, Told] = {}
    going: list[int] = []
    for _ in range(data.draw(st.integers(0, 30))):
        if not going or data.draw(st.booleans()):
            client = data.draw(st.integers(0, 5))
            tx = writer.begin(client)
            told[tx] = Told(client)
            going.append(tx)
        else:
            tx = data.draw(st.sampled_from(going))
            if not write_one(data, writer, tx, told[tx]):
                going.remove(tx)
    return told


@given(st.data())
@settings(max_examples=examples(50), deadline=None)
def test_any_legal_sequence_reads_back(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    writer = LedgerWriter(path, seed=7)
    told = write_some(data, writer)
    writer.close()
    history = read_ledger(path)
    assert (history.seed, history.lines, history.truncated) == (7, writer.lines, None)
    assert list(history.transactions) == list(told)
    for tx, expected in told.items():
        read = history.transactions[tx]
        assert (read.tx, read.client, read.state) == (tx, expected.client, expected.state)
        assert (read.intent_position, read.end_position) == (expected.intent_position, expected.end_position)
        assert read.end_ns == expected.end_ns
        assert (read.intent_position == 0) == (expected.intent is None)
        if expected.intent is not None:
            for name in ("sync", "xid", "writes", "ticket", "gid", "insert_lsn", "discarded"):
                assert getattr(read, name) == getattr(expected.intent, name), name
            assert read.wrote == bool(expected.intent.writes or expected.intent.xid)
            flushed = expected.intent.sync != "off" or expected.intent.forced or expected.intent.action == "prepare"
            assert read.flushed_before_ack == flushed
    intents = [one.intent for one in told.values() if one.intent is not None]
    assert history.write_lsn == max((intent.write_lsn for intent in intents), default=0)
    assert history.flush_lsn == max((intent.flush_lsn for intent in intents), default=0)


def columns_or_error(read: Callable[[], History]) -> dict[str, Any] | str:
    try:
        return copy.deepcopy(vars(read()))
    except LedgerError as error:
        return error.primary


@given(st.data())
@settings(max_examples=examples(50), deadline=None)
def test_a_cursor_reads_what_a_whole_reading_does(tmp_path_factory, data):
    """From any crash point to any other, with lines that are late in the file, and with a last line cut short."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    lines = itertools.count()
    late = data.draw(st.sampled_from([0, 2, 20]))
    writer = LedgerWriter(path, seed=7, io_position=lambda: 3 * next(lines) + data.draw(st.integers(0, 3 * late)))
    write_some(data, writer)
    writer.close()
    if data.draw(st.booleans()):
        make_old(path)
    if data.draw(st.booleans()):
        os.truncate(path, path.stat().st_size - data.draw(st.integers(0, 20)))
    cursor = LedgerCursor(path)
    given_out = []
    for until_io in data.draw(st.lists(st.integers(0, 3 * next(lines) + 9), min_size=1, max_size=6)):
        expected = columns_or_error(partial(read_ledger, path, until_io=until_io))
        assert columns_or_error(partial(cursor.history, until_io)) == expected
        if not isinstance(expected, str):
            given_out.append((cursor.history(until_io), expected))
    for history, expected in given_out:
        assert vars(history) == expected, "a history that was given out has changed"


def test_a_history_that_was_given_out_does_not_grow(tmp_path):
    """The steps of one two-phase transaction, met at three crash points in a row."""
    path = tmp_path / "ledger.jsonl"
    lines = itertools.count()
    writer = LedgerWriter(path, seed=7, io_position=lambda: next(lines))
    tx = writer.begin(0)
    writer.record(Intent(tx, 0, 1, action="prepare", xid=700, gid="g"))
    writer.record(Prepared(tx, 0, 2))
    writer.record(Intent(tx, 0, 3, action="commit prepared", gid="g"))
    writer.close()
    cursor = LedgerCursor(path)
    for steps, until_io in ((1, 1), (2, 2), (3, 3)):
        assert len(cursor.history(until_io).two_phase[tx]) == steps
    first = cursor.history(1)
    cursor.history(3)
    assert len(first.two_phase[tx]) == 1


@pytest.mark.parametrize("content", [None, b"", b"{}\n", b'{"event":"begin","tx":1,"client":0,"at_ns":1}\n'])
def test_a_cursor_names_the_damage_as_a_whole_reading_does(tmp_path, content):
    path = tmp_path / "ledger.jsonl"
    if content is not None:
        path.write_bytes(content)
    expected = columns_or_error(lambda: read_ledger(path, until_io=5))
    assert isinstance(expected, str)
    assert columns_or_error(lambda: LedgerCursor(path).history(5)) == expected


def make_old(path: Path) -> list[bytes]:
    """Make a ledger one of schema 1, which had no end mark; return its lines."""
    header, *lines, _ = path.read_bytes().splitlines(keepends=True)
    lines = [header.replace(b'"schema":2', b'"schema":1'), *lines]
    path.write_bytes(b"".join(lines))
    return lines


def small_ledger(path: Path) -> list[bytes]:
    """Write a few transactions; return the lines."""
    writer = LedgerWriter(path, seed=3)
    for number in range(3):
        tx = writer.begin(number)
        writer.record(Intent(tx, number, 5, xid=700 + tx, writes=(Write("t", "ключ", 1, 'a\n"b"'),)))
        writer.record(Ack(tx, number, 9))
    writer.close()
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("until_io", [None, 5])
def test_a_ledger_that_has_lost_its_end_is_damaged(tmp_path, until_io):
    """Wherever it stops, between two lines, too; whole, or without its last newline, it is read."""
    path = tmp_path / "ledger.jsonl"
    whole = b"".join(small_ledger(path))
    for size in range(len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(
            LedgerError, match=r"damaged ledger: (its end is|line 11 is no whole end|the header line is)"
        ):
            read_ledger(path, until_io=until_io)
    for size in (len(whole) - 1, len(whole)):
        path.write_bytes(whole[:size])
        assert (history := read_ledger(path, until_io=until_io)).lines == 10
        assert (history.count, history.truncated) == (3, None)


def test_an_old_ledger_may_end_anywhere(tmp_path):
    """A killed writer of schema 1 leaves any number of the last line's bytes; everything above counts."""
    path = tmp_path / "ledger.jsonl"
    small_ledger(path)
    *head, last = make_old(path)
    for size in range(len(last)):
        path.write_bytes(b"".join(head) + last[:size])
        history = read_ledger(path)
        whole = size == len(last) - 1  # only the newline is missing
        assert history.truncated == (None if size == 0 or whole else last[:size].decode(errors="replace"))
        assert history.transactions[3].state is (State.ACKED if whole else State.INDETERMINATE)
        assert history.lines == len(head) + whole


def test_lines_gone_from_the_middle_or_added_are_damage(tmp_path):
    """What stands above the mark must be what was there when it was written, and nothing may follow it."""
    path = tmp_path / "ledger.jsonl"
    lines = small_ledger(path)
    for changed in ([*lines[:4], *lines[7:]], [*lines[:-1], *lines[4:7], lines[-1]], [*lines, lines[-1]]):
        path.write_bytes(b"".join(changed))
        with pytest.raises(LedgerError, match="damaged ledger"):
            read_ledger(path)


def test_a_flipped_byte_is_named(tmp_path):
    """Any bit of any byte: an error, which names the line if one is not what a line can be."""
    path = tmp_path / "ledger.jsonl"
    whole = b"".join(small_ledger(path))
    for offset in range(len(whole) - 1):
        for bit in (0, 5, 7):
            path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1 << bit]) + whole[offset + 1 :])
            with pytest.raises(LedgerError, match="damaged ledger"):
                read_ledger(path)


def test_a_write_that_failed_leaves_no_mark(tmp_path, monkeypatch):
    """What was written in part, as on a full disk, must not look whole."""
    path = tmp_path / "ledger.jsonl"
    writer = LedgerWriter(path, seed=1)
    with monkeypatch.context() as full:
        full.setattr("crashlab.ledger.os.write", lambda fd, line: len(line) // 2)
        with pytest.raises(LedgerError, match=r"wrote \d+ of \d+ bytes"):
            writer.begin(1)
    writer.close()
    with pytest.raises(LedgerError, match="its end is missing"):
        read_ledger(path)


def test_threads_share_a_writer(tmp_path):
    """Every line is whole, every number is given once, each client's own order is kept."""
    path = tmp_path / "ledger.jsonl"
    writer = LedgerWriter(path, seed=1)

    def work(client: int) -> None:
        for _ in range(200):
            tx = writer.begin(client)
            writer.record(Intent(tx, client, 0, xid=tx))
            writer.record(Ack(tx, client, 0))

    threads = [threading.Thread(target=work, args=(client,)) for client in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    writer.close()
    history = read_ledger(path)
    assert len(history.transactions) == writer.acked == 800
    assert all(transaction.state is State.ACKED for transaction in history.transactions.values())
    for client in range(4):
        own = [t for t in history.transactions.values() if t.client == client]
        assert all(a.end_position < b.intent_position for a, b in pairwise(own))


WHO: Any = {"tx": 1, "client": 1, "at_ns": 0}
HEADER, BEGIN, INTENT, ACK = Header(SCHEMA, 1), Begin(**WHO), Intent(**WHO), Ack(**WHO)


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([BEGIN], "header line is missing"),
        ([HEADER, HEADER], "second header"),
        ([Header(SCHEMA + 1, 1)], f"schema {SCHEMA + 1}"),
        ([Header(0, 1)], "schema 0"),
        ([HEADER, BEGIN, BEGIN], "begins after transaction 1"),
        ([HEADER, Begin(2, 1, 0)], "begins after transaction 0"),
        ([HEADER, INTENT], "has no begin"),
        ([HEADER, BEGIN, Ack(-1, 1, 0)], "has no begin"),
        ([HEADER, BEGIN, ACK], "is unsent and cannot become ack"),
        ([HEADER, BEGIN, Intent(1, 2, 0)], "belongs to client 1, not 2"),
        ([HEADER, BEGIN, INTENT, INTENT], 'cannot come to "commit"'),
        ([HEADER, BEGIN, Intent(**WHO, action="commit prepared")], 'cannot come to "commit prepared"'),
        ([HEADER, BEGIN, INTENT, ACK, ACK], "is acked and cannot become ack"),
        ([HEADER, BEGIN, INTENT, ACK, Refused(**WHO, reason="")], "is acked and cannot become refused"),
        ([HEADER, BEGIN, INTENT, Prepared(**WHO)], "cannot become prepared"),
        ([HEADER, BEGIN, Intent(**WHO, xid=2**63)], "64 bits"),
    ],
)
def test_impossible_events_are_refused(events, reason):
    """With the line and what is impossible about it."""
    with pytest.raises(LedgerError, match=f":{len(events)}: damaged ledger: .*{reason}"):
        fold(events)


@pytest.mark.parametrize(
    ("damage", "line", "reason"),
    [(b"\n", 5, "the line is empty|malformed|truncated"), (b"{}\n", 5, "event"), (b"\xff\xfe\n", 5, "")],
)
def test_a_foreign_line_is_named(tmp_path, damage, line, reason):
    """Blank, of no event, or no text at all."""
    path = tmp_path / "ledger.jsonl"
    lines = small_ledger(path)
    path.write_bytes(b"".join([*lines[: line - 1], damage, *lines[line - 1 :]]))
    with pytest.raises(LedgerError, match=f":{line}: damaged ledger: .*({reason})"):
        read_ledger(path)


def test_files_that_are_no_ledger(tmp_path):
    """Missing, empty, already there, closed: each says so."""
    path = tmp_path / "ledger.jsonl"
    with pytest.raises(LedgerError, match=r"could not read ledger .*No such file"):
        read_ledger(path)
    path.touch()
    with pytest.raises(LedgerError, match="header line is missing"):
        read_ledger(path)
    with pytest.raises(LedgerError, match=r"could not create ledger .*File exists"):
        LedgerWriter(path, seed=1)
    writer = LedgerWriter(tmp_path / "other", seed=1)
    writer.close()
    writer.close()
    with pytest.raises(LedgerError, match="it is closed"):
        writer.begin(1)
